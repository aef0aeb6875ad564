"""`quorate storage format`: makes a node's disk ready.

Formatting is a command of its own and never happens at a start. Otherwise a majority of empty disks
could elect a leader.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from quorate.cluster.brokers import default_network
from quorate.errors import NetworkError
from quorate_cli.node_disks import FIRST_GENERATION, seeded_configs
from quorate_cli.output import SAID_NO, fail, os_reason, usage_error
from quorate_quorum.generations import ask_generation
from quorate_quorum.log.identity import (
    CLUSTER_ID,
    FILE_NAME,
    Identity,
    is_of_voter,
    read_identity,
    write_identity,
)
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.methods import DESCRIBE_NODE
from quorate_quorum.node.config import BrokerConfig, ConfigError, NodeConfig, QuorumConfig
from quorate_quorum.node.config_sources import load
from quorate_quorum.raft.driver import joining
from quorate_quorum.raft.driver.bootstrap import format_new_voter, format_voter
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.v1.raft_pb2 import DescribeNodeRequest

ASK_TIMEOUT_MS = 1000
VOTER = re.compile(
    r"(?P<id>[0-9]{1,9})@(?P<endpoint>[^@\s]+:[0-9]{1,5}):(?P<directory>[0-9a-f]{32})"
)


def format_storage(
    config: Annotated[Path, typer.Option(help="The node's configuration.")],
    cluster_id: Annotated[str, typer.Option(help="An id; see `quorate storage random-id`.")],
    initial_voters: Annotated[
        str,
        typer.Option(
            metavar="ID@HOST:PORT:DIRECTORY_ID,...",
            help="All voters of a new cluster; the same list on each of them.",
        ),
    ] = "",
    standalone: Annotated[
        bool, typer.Option("--standalone", help="This is the only voter of a new cluster.")
    ] = False,
    new_voter: Annotated[
        bool, typer.Option("--new-voter", help="This voter will be added to a running cluster.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--ignore-formatted", help="Keep directories that are formatted for this node already."
        ),
    ] = False,
) -> None:
    """Format the log directories of one node: a voter, or with --cluster-id alone a broker."""
    if sum((bool(initial_voters), standalone, new_voter)) > 1:
        usage_error("--initial-voters, --standalone and --new-voter exclude each other")
    if not CLUSTER_ID.fullmatch(cluster_id):
        usage_error(
            f"--cluster-id must be 1 to 64 of the characters a-z A-Z 0-9 _ -, not {cluster_id!r}"
        )
    try:
        if new_voter:
            joins = load(QuorumConfig, str(config), os.environ)
            asyncio.run(_format_new_voter(joins, cluster_id, force=force))
            return
        kind = QuorumConfig if initial_voters or standalone else BrokerConfig
        node: NodeConfig = load(kind, str(config), os.environ)
        voters = _voters(node, initial_voters, standalone=standalone)
        asyncio.run(_format(node, cluster_id, voters, force=force))
    except ConfigError as error:
        fail(str(error), SAID_NO)
    except OSError as error:
        fail(os_reason(error), SAID_NO)


def _voters(node: NodeConfig, text: str, *, standalone: bool) -> list[Voter]:
    if standalone:
        return [Voter(node.node_id, random.SystemRandom().randbytes(16), node.advertised)]
    voters = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        match = VOTER.fullmatch(one)
        if match is None:
            usage_error(
                "--initial-voters takes ID@HOST:PORT:DIRECTORY_ID with 32 hex digits at the end "
                f"(see `quorate storage random-id`), not {one!r}"
            )
        voters.append(Voter(int(match["id"]), bytes.fromhex(match["directory"]), match["endpoint"]))
    if text and node.node_id not in [voter.id for voter in voters]:
        usage_error(
            f"node.id is {node.node_id}, and --initial-voters names "
            f"{', '.join(str(voter.id) for voter in voters)}"
        )
    return voters


async def _format_new_voter(node: QuorumConfig, cluster_id: str, *, force: bool) -> None:
    """Format a disk for an observer, and print the command that makes it a voter.

    When the node starts, it asks its quorum.bootstrap.servers for the present voters.
    """
    joining.check_servers(node)
    network = default_network()
    try:
        await ask_generation(network, node.quorum_bootstrap_servers, cluster_id)
    finally:
        await network.close()
    await _format(node, cluster_id, [], force=force)
    with closing(RealDisk()) as disk:
        mine = await read_identity(disk, node.log_dirs[0])
    sys.stdout.write(
        "start it; once it has caught up it may be added:\n"
        f"  quorate quorum add-voter {node.node_id}@{node.advertised}:{mine.directory_id.hex()}\n"
    )


async def _format(node: NodeConfig, cluster_id: str, voters: list[Voter], *, force: bool) -> None:
    directories = node.log_dirs[:1] if isinstance(node, QuorumConfig) else node.log_dirs
    with closing(RealDisk()) as disk:
        fresh = [one for one in directories if not await disk.exists(f"{one}/{FILE_NAME}")]
        for one in directories:
            # read_identity raises WrongIdentityError for a directory of another node or cluster
            if one not in fresh:
                await read_identity(disk, one, cluster_id=cluster_id, node_id=node.node_id)
            else:
                await _check_place(disk, one)
        if not fresh and not force:
            raise ConfigError(
                f"{', '.join(directories)}: formatted already, for this node and cluster; "
                "nothing was changed (--ignore-formatted makes that no error)"
            )
        for one in fresh:
            await _format_one(disk, one, node, cluster_id, voters)
        for one in directories:
            found = await read_identity(disk, one)
            kind = "voter" if await is_of_voter(disk, one) else "broker"
            sys.stdout.write(
                f"{one}: {kind} {found.node_id} of cluster {found.cluster_id}, "
                f"directory {found.directory_id.hex()}\n"
            )


async def _check_place(disk: RealDisk, directory: str) -> None:
    """Raise ConfigError if a directory cannot be formatted, before any of several is."""
    path = Path(os.path.realpath(directory))
    for above in path.parents:
        if await disk.exists(f"{above}/{FILE_NAME}"):
            owner = await read_identity(disk, str(above))
            raise ConfigError(
                f"{directory} is inside {above}, a log directory of node {owner.node_id} of cluster"
                f" {owner.cluster_id}: choose a place outside it; nothing was changed"
            )
    found = next(one for one in (path, *path.parents) if os.path.lexists(one))
    if not found.is_dir():
        raise ConfigError(
            f"{directory} cannot be a log directory: {found} is a file. Name a directory, or a path"
            " where one can be made; nothing was changed"
        )
    if not os.access(found, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{directory} cannot be a log directory: this process may not write to {found};"
            " nothing was changed"
        )


async def _format_one(
    disk: RealDisk, directory: str, node: NodeConfig, cluster_id: str, voters: list[Voter]
) -> None:
    if not voters:
        directory_id = random.SystemRandom().randbytes(16)
        identity = Identity(cluster_id, node.node_id, directory_id, 0)
        if isinstance(node, QuorumConfig):
            await format_new_voter(disk, directory, identity)
        else:
            await write_identity(disk, directory, identity)
        return
    await _refuse_if_running(node.node_id, voters)
    mine = next(voter for voter in voters if voter.id == node.node_id)
    identity = Identity(cluster_id, mine.id, mine.directory_id, FIRST_GENERATION)
    await disk.make_directory(directory)
    await format_voter(disk, directory, identity, voters, seeded_configs())


async def _refuse_if_running(node_id: int, voters: list[Voter]) -> None:
    """Refuse if another voter's log has records: then this id must not start again from nothing."""
    network = default_network()
    try:
        for voter in voters:
            if voter.id == node_id:
                continue
            connection = network.connect(voter.endpoint, purpose="control")
            try:
                answer = await connection.unary(
                    DESCRIBE_NODE, DescribeNodeRequest(), timeout_ms=ASK_TIMEOUT_MS
                )
            except NetworkError:
                continue
            finally:
                await connection.close()
            if answer.past_bootstrap:
                raise ConfigError(
                    f"voter {voter.id} at {voter.endpoint} has a metadata log of "
                    f"{answer.log_end_offset} records already: this disk would be a new voter. "
                    "Format it with --new-voter, then add it with `quorate quorum add-voter`"
                )
    finally:
        await network.close()
