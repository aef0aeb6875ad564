"""From what a broker answers to the values that users see (quorate.model)."""

from __future__ import annotations

from quorate.model import (
    PartitionDescription,
    PartitionTrouble,
    QuorumReplicaDescription,
    TopicDescription,
)
from quorate.v1 import admin_pb2 as wire


def partition_trouble(trouble: wire.PartitionTrouble) -> PartitionTrouble:
    """How many partitions are in a trouble, and some of them."""
    return PartitionTrouble(trouble.count, tuple(trouble.examples))


def topic(described: wire.DescribedTopic) -> TopicDescription:
    """A topic as the answering broker knows it."""
    topic = described.topic
    return TopicDescription(
        topic.name,
        topic.topic_id.hex(),
        tuple(
            PartitionDescription(
                one.partition,
                one.leader,
                one.leader_epoch,
                tuple(one.replicas),
                tuple(one.isr),
                tuple(one.elr),
            )
            for one in topic.partitions
        ),
        dict(described.configs),
        topic.internal,
    )


def quorum_replica(one: wire.QuorumReplica) -> QuorumReplicaDescription:
    """A voter or observer as the quorum's leader sees it."""
    return QuorumReplicaDescription(
        one.id,
        one.directory_id.hex(),
        one.endpoint,
        one.log_end_offset,
        one.lag,
        one.last_caught_up_ms,
    )
