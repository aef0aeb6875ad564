"""Finds the newest quorum_generation among the answers of servers.

After a recovery, the lost voters may come back as a majority, and elect a leader of a history that
is over. So only the servers of the newest generation count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from quorate.errors import QuorateError, raise_if_error
from quorate.net.network import Network
from quorate_quorum.log.identity import GENERATION_MAX
from quorate_quorum.methods import DESCRIBE_NODE
from quorate_quorum.node.config import ConfigError
from quorate_quorum.v1.raft_pb2 import DescribeNodeRequest, DescribeNodeResponse

log = structlog.get_logger(__name__)

ASK_TIMEOUT_MS = 1000


async def ask_generation(network: Network, servers: Sequence[str], cluster_id: str) -> int:
    """Return the newest generation that a server names; 0 if none of its servers has a leader.

    The history of an older generation is over, even if its voters have elected a leader.
    ConfigError if a server belongs to another cluster.
    """
    newest, is_led = 0, False
    answers = await asyncio.gather(*(ask(network, server) for server in servers))
    for server, answer in zip(servers, answers, strict=True):
        if answer is None or answer.quorum_generation > GENERATION_MAX:
            continue
        if answer.cluster_id != cluster_id:
            raise ConfigError(
                f"{server} is of cluster {answer.cluster_id[:100]!r}, and this disk is for "
                f"cluster {cluster_id!r}: set quorum.bootstrap.servers right, or format the "
                "disk with the right --cluster-id"
            )
        if answer.quorum_generation > newest:
            newest, is_led = answer.quorum_generation, False
        if answer.quorum_generation == newest:
            is_led = is_led or _hears_leader(answer)
    return newest if is_led else 0


async def ask(network: Network, server: str) -> DescribeNodeResponse | None:
    """Return a node's description of itself; None if it does not answer in time."""
    connection = network.connect(server, purpose="control")
    try:
        answer = await connection.unary(
            DESCRIBE_NODE, DescribeNodeRequest(), timeout_ms=ASK_TIMEOUT_MS
        )
        raise_if_error(answer.error)
    except QuorateError as error:
        log.debug("a bootstrap server does not answer", server=server, error=str(error))
        return None
    finally:
        await connection.close()
    return answer


def _hears_leader(answer: DescribeNodeResponse) -> bool:
    has_directory = len(answer.leader_directory_id) == 16
    return answer.leader_id >= 0 and has_directory and bool(answer.leader_endpoint)
