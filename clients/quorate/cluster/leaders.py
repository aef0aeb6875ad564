"""Groups partitions by the brokers that lead them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from quorate.cluster.cluster import Cluster
from quorate.errors import UnknownTopicError
from quorate.model import TopicPartition

V = TypeVar("V")


async def by_leader(
    cluster: Cluster, wanted: Mapping[TopicPartition, V]
) -> dict[str, dict[TopicPartition, V]]:
    """Return the wanted partitions, grouped by the endpoint of their leader.

    Partitions without a leader are left out. Raises UnknownTopicError for a topic or a partition
    that does not exist.
    """
    groups: dict[str, dict[TopicPartition, V]] = {}
    await cluster.look_up(dict.fromkeys(key.topic for key in wanted))
    for key, value in wanted.items():
        topic = await cluster.topic(key.topic)
        if not 0 <= key.partition < len(topic.partitions):
            raise UnknownTopicError(
                f"topic {key.topic!r} has partitions 0 to {len(topic.partitions) - 1}, "
                f"and no partition {key.partition}"
            )
        view = topic.partitions[key.partition]
        if view.leader >= 0 and view.endpoint:
            groups.setdefault(view.endpoint, {})[key] = value
    return groups
