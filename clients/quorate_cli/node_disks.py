"""Formats the disks of new nodes for their first start."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext

from quorate_quorum.configs import CONFIGS
from quorate_quorum.disk import Disk
from quorate_quorum.log.identity import FILE_NAME, Identity, read_identity, write_identity
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.raft.driver.bootstrap import format_voter
from quorate_quorum.raft.machine.voters import Voter

FIRST_GENERATION = 1


def seeded_configs() -> dict[str, str]:
    """Return the cluster's defaults for topics, which formatting writes."""
    return {name: spec.shown(spec.default) for name, spec in CONFIGS.items() if spec.is_of_topics}


async def format_voters(
    cluster_id: str,
    voters: Sequence[tuple[int, str, str]],
    *,
    disk_of: Callable[[int], Disk] | None = None,
    chance: random.Random | None = None,
) -> None:
    """Format all initial voters of a new cluster, given as (id, endpoint, log directory)."""
    chance = chance or random.SystemRandom()
    members = [Voter(node_id, chance.randbytes(16), endpoint) for node_id, endpoint, _ in voters]
    for member, (_, _, directory) in zip(members, voters, strict=True):
        with _used(disk_of and disk_of(member.id)) as disk:
            identity = Identity(cluster_id, member.id, member.directory_id, FIRST_GENERATION)
            await disk.make_directory(directory)
            await format_voter(disk, directory, identity, members, seeded_configs())


async def format_broker(
    cluster_id: str,
    node_id: int,
    directories: Sequence[str],
    *,
    disk: Disk | None = None,
    chance: random.Random | None = None,
) -> None:
    """Format the log directories of a broker.

    Directories that are already formatted for this broker do not change.
    """
    chance = chance or random.SystemRandom()
    with _used(disk) as used:
        for directory in directories:
            if await used.exists(f"{directory}/{FILE_NAME}"):
                await read_identity(used, directory, cluster_id=cluster_id, node_id=node_id)
                continue
            identity = Identity(cluster_id, node_id, chance.randbytes(16), 0)
            await write_identity(used, directory, identity)


def _used(disk: Disk | None) -> AbstractContextManager[Disk]:
    """Return a context with `disk`; None: with the real disk, which is closed at its end."""
    return closing(RealDisk()) if disk is None else nullcontext(disk)
