"""Turns the answers of brokers into the values that users see (quorate.model)."""

from __future__ import annotations

from quorate.model import (
    BrokerDescription,
    ClusterDescription,
    ClusterHealth,
    FeatureDescription,
    NodeLevels,
    NodeTrouble,
    PartitionDescription,
    PartitionTrouble,
    QuorumDescription,
    QuorumReplicaDescription,
    TopicDescription,
)
from quorate.v1 import admin_pb2 as wire


def topic(described: wire.DescribedTopic) -> TopicDescription:
    """Return a topic as the answering broker knows it."""
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


def cluster(response: wire.DescribeClusterResponse) -> ClusterDescription:
    """Return the registered brokers, and the controller."""
    return ClusterDescription(
        response.cluster_id,
        response.controller,
        tuple(
            BrokerDescription(
                one.broker_id,
                one.rack,
                one.host,
                one.listener.endpoint,
                one.fenced,
                one.broker_epoch,
            )
            for one in response.brokers
        ),
    )


def quorum(response: wire.DescribeQuorumResponse) -> QuorumDescription:
    """Return the metadata quorum as its leader sees it."""
    return QuorumDescription(
        response.leader,
        response.epoch,
        response.quorum_generation,
        response.high_watermark,
        tuple(map(_quorum_replica, response.voters)),
        tuple(map(_quorum_replica, response.observers)),
    )


def _quorum_replica(one: wire.QuorumReplica) -> QuorumReplicaDescription:
    return QuorumReplicaDescription(
        one.id,
        one.directory_id.hex(),
        one.endpoint,
        one.log_end_offset,
        one.lag,
        one.last_caught_up_ms,
    )


def health(response: wire.DescribeHealthResponse) -> ClusterHealth:
    """Return the troubles of the cluster, as the controller sees them."""
    return ClusterHealth(
        response.controller,
        tuple(
            NodeTrouble(_kind(one.voter), one.id, one.endpoint, one.state, one.reason)
            for one in response.nodes
        ),
        _partition_trouble(response.offline),
        _partition_trouble(response.under_min_isr),
        _partition_trouble(response.under_replicated),
    )


def _partition_trouble(trouble: wire.PartitionTrouble) -> PartitionTrouble:
    return PartitionTrouble(trouble.count, tuple(trouble.examples))


def features(response: wire.DescribeFeaturesResponse) -> list[FeatureDescription]:
    """Return each feature with the level in force, and the levels that each node knows."""
    return [
        FeatureDescription(
            one.name,
            one.level,
            tuple(
                NodeLevels(_kind(node.voter), node.id, node.lowest, node.highest)
                for node in one.nodes
            ),
        )
        for one in response.features
    ]


def _kind(is_voter: bool) -> str:
    return "voter" if is_voter else "broker"
