"""Describes topics, and gives them more partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quorate.admin import descriptions
from quorate.admin.controller_calls import TRY_AGAIN_S, ask, wait_until_known
from quorate.aio.clock import Deadline
from quorate.cluster.cluster import Cluster
from quorate.errors import OutcomeUnknownError, raise_if_error
from quorate.model import TopicDescription
from quorate.net.methods import CREATE_PARTITIONS, DESCRIBE_TOPICS
from quorate.v1.admin_pb2 import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    DescribeTopicsRequest,
)


async def described(
    cluster: Cluster, names: Sequence[str], deadline: Deadline
) -> dict[str, TopicDescription]:
    """Return these topics; without names, all topics. Raises the error of the first missing one."""
    cluster.owner.check_alive()
    response = await ask(
        cluster,
        DESCRIBE_TOPICS,
        DescribeTopicsRequest(topics=names),
        deadline,
        safe_to_repeat=True,
    )
    found = {}
    for one in response.topics:
        raise_if_error(one.topic.error)
        found[one.topic.name] = descriptions.topic(one)
    return found


async def grown(
    cluster: Cluster, request: CreatePartitionsRequest, deadline: Deadline
) -> TopicDescription:
    """Give a topic more partitions. Return the topic when every broker that answers knows them."""
    name = request.topic
    before = (await described(cluster, [name], deadline))[name]
    # With the number of partitions before, the controller knows a repeated request as such.
    request.known_count = len(before.partitions)
    response = await _ask_again(cluster, request, deadline)
    if request.validate_only:
        return before
    await wait_until_known(cluster, {response.topic_id: response.num_partitions}, deadline)
    return (await described(cluster, [name], deadline))[name]


async def _ask_again(
    cluster: Cluster, request: CreatePartitionsRequest, deadline: Deadline
) -> CreatePartitionsResponse:
    """Ask until the outcome is known, because a controller that stops may have done a part of it.

    Raises OutcomeUnknownError at the deadline.
    """
    while True:
        try:
            return await ask(cluster, CREATE_PARTITIONS, request, deadline, safe_to_repeat=True)
        except OutcomeUnknownError:
            if deadline.left_s <= TRY_AGAIN_S:
                raise
        await asyncio.sleep(TRY_AGAIN_S)
