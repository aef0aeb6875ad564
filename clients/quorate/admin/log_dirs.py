"""Asks every broker for its log directories, because only a broker knows its own disks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quorate.admin import descriptions
from quorate.aio.clock import Deadline
from quorate.cluster.cluster import Cluster
from quorate.errors import NetworkError, WrongClusterError, raise_if_error
from quorate.model import LogDirDescription
from quorate.net.methods import DESCRIBE_LOG_DIRS
from quorate.v1.admin_pb2 import DescribeLogDirsRequest


async def describe(
    cluster: Cluster, topics: Sequence[str], deadline: Deadline
) -> list[LogDirDescription]:
    """Return the directories of all brokers that are not fenced.

    For a broker that does not answer there is one directory, whose `failure` says why.
    """
    await cluster.refresh(timeout_ms=max(1, deadline.left_ms))
    asked = (_of(cluster, one, at, topics, deadline) for one, at in sorted(cluster.brokers.items()))
    return [one for found in await asyncio.gather(*asked) for one in found]


async def _of(
    cluster: Cluster, broker_id: int, endpoint: str, topics: Sequence[str], deadline: Deadline
) -> list[LogDirDescription]:
    request = DescribeLogDirsRequest(topics=topics)
    try:
        answer = await cluster.connection(endpoint, "control").unary(
            DESCRIBE_LOG_DIRS, request, timeout_ms=max(1, deadline.left_ms * 9 // 10)
        )
    except (NetworkError, WrongClusterError) as error:
        return [LogDirDescription(broker_id, "", "", f"no answer: {error}", -1, ())]
    raise_if_error(answer.error)
    return descriptions.log_dirs(broker_id, answer)
