"""Finds the quorum for a new disk (`storage format --new-voter`).

A new disk has a cluster id and a directory id, but no generation. Its node takes over the present
generation from a voter that follows a leader. A voter of another cluster is refused before
anything is fetched from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from quorate.net.network import Network
from quorate_quorum.disk import Disk
from quorate_quorum.generations import ask, ask_generation
from quorate_quorum.log.identity import Identity, write_identity
from quorate_quorum.node.config import ConfigError, QuorumConfig

log = structlog.get_logger(__name__)

#: The interval at which servers are asked, until one of them follows a leader.
ASK_AGAIN_MS = 500


def check_servers(config: QuorumConfig) -> None:
    """Raise ConfigError if quorum.bootstrap.servers is empty."""
    if not config.quorum_bootstrap_servers:
        raise ConfigError(
            f"node {config.node_id} is a new voter and knows no other: set "
            "quorum.bootstrap.servers to the endpoints of voters that run, as host:port"
        )


async def join(network: Network, disk: Disk, config: QuorumConfig, identity: Identity) -> Identity:
    """Wait for a voter that follows a leader, and write its generation into the identity, durably.

    Return that identity. ConfigError if there are no bootstrap servers, or if one of them belongs
    to another cluster.
    """
    check_servers(config)
    others = [one for one in config.quorum_bootstrap_servers if one != config.advertised]
    while not (generation := await ask_generation(network, others, identity.cluster_id)):
        log.warning(
            "a new voter waits for one that hears a leader",
            node=config.node_id,
            asked=others,
            repeats=True,
        )
        await asyncio.sleep(ASK_AGAIN_MS / 1000)
    joined = replace(identity, quorum_generation=generation)
    await write_identity(disk, config.log_dirs[0], joined)
    log.info("a new voter has found its quorum", node=config.node_id, generation=generation)
    return joined


async def check_one_recovery(
    network: Network, servers: Sequence[str], identity: Identity, bootstrap_hash: bytes
) -> None:
    """Raise ConfigError if a server has this node's generation but another bootstrap hash.

    That happens when two voters were recovered, each while the other did not run: their logs have
    nothing in common. A broker knows a log only by its generation. So a broker would follow both
    logs, and remove each of its replicas that either log does not place on it.
    """
    answers = await asyncio.gather(*(ask(network, server) for server in servers))
    for server, answer in zip(servers, answers, strict=True):
        if answer is None or not (answer.bootstrap_hash and bootstrap_hash):
            continue
        told = (answer.cluster_id, answer.quorum_generation)
        if told != (identity.cluster_id, identity.quorum_generation):
            continue
        if answer.bootstrap_hash != bootstrap_hash:
            raise ConfigError(
                f"node {answer.node_id} at {server} began quorum_generation {told[1]} too, by a"
                " recovery of its own: one history only can go on. Stop one of the two, give it an"
                " empty disk formatted with --new-voter, and add it to the other"
            )
