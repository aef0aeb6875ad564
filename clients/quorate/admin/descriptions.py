"""Turns the answers of brokers into the values that users see (quorate.model)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.message import Message

from quorate import model
from quorate.v1 import admin_pb2 as wire

V = TypeVar("V")


def topic(described: wire.DescribedTopic) -> model.TopicDescription:
    """Return a topic as the broker that answered knows it."""
    partitions = tuple(map(_partition, described.topic.partitions))
    configs = dict(described.configs)
    return _value(
        model.TopicDescription, described.topic, partitions=partitions, configs=configs, warnings=()
    )


def explanation(topic: str, response: wire.ExplainPartitionResponse) -> model.PartitionExplanation:
    """Return why a partition is in its state."""
    return _value(
        model.PartitionExplanation,
        response,
        topic=topic,
        state=_partition(response.state),
        events=tuple(_value(model.PartitionEvent, one) for one in response.events),
    )


def _partition(one: wire.PartitionMetadata) -> model.PartitionDescription:
    out = tuple(_value(model.OutOfSyncReplica, replica) for replica in one.out_of_sync)
    return _value(model.PartitionDescription, one, out_of_sync=out)


def cluster(response: wire.DescribeClusterResponse) -> model.ClusterDescription:
    """Return the registered brokers and the controller."""
    brokers = tuple(
        _value(model.BrokerDescription, one, id=one.broker_id, endpoint=one.listener.endpoint)
        for one in response.brokers
    )
    return _value(model.ClusterDescription, response, brokers=brokers)


def log_dirs(
    broker_id: int, response: wire.DescribeLogDirsResponse
) -> list[model.LogDirDescription]:
    """Return the log directories of one broker."""
    return [
        _value(
            model.LogDirDescription,
            one,
            broker_id=broker_id,
            replicas=tuple(_value(model.ReplicaSize, replica) for replica in one.replicas),
        )
        for one in response.log_dirs
    ]


def quorum(response: wire.DescribeQuorumResponse) -> model.QuorumDescription:
    """Return the metadata quorum as its leader sees it."""
    voters = tuple(_value(model.QuorumReplicaDescription, one) for one in response.voters)
    observers = tuple(_value(model.QuorumReplicaDescription, one) for one in response.observers)
    return _value(model.QuorumDescription, response, voters=voters, observers=observers)


def health(response: wire.DescribeHealthResponse) -> model.ClusterHealth:
    """Return the troubles of the cluster, as the controller sees them."""
    return _value(
        model.ClusterHealth,
        response,
        nodes=tuple(
            _value(model.NodeTrouble, one, kind=_kind(one.voter)) for one in response.nodes
        ),
        offline=_value(model.PartitionTrouble, response.offline),
        under_min_isr=_value(model.PartitionTrouble, response.under_min_isr),
        under_replicated=_value(model.PartitionTrouble, response.under_replicated),
    )


def features(response: wire.DescribeFeaturesResponse) -> list[model.FeatureDescription]:
    """Return each feature with its level in force, and the levels that each node knows."""
    found = []
    for one in response.features:
        nodes = tuple(_value(model.NodeLevels, node, kind=_kind(node.voter)) for node in one.nodes)
        found.append(_value(model.FeatureDescription, one, nodes=nodes))
    return found


def _value(kind: type[V], message: Message, /, **others: object) -> V:
    """Return a value of class `kind`.

    Its fields have the message's values, or those of `others`.
    """
    dataclass: Any = kind
    names = [one.name for one in fields(dataclass) if one.name not in others]
    return kind(**{name: _plain(getattr(message, name)) for name in names}, **others)


def _plain(value: Any) -> object:
    """Return a field's value in the form for users: an id as hex digits, a list as a tuple."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int) else tuple(value)


def _kind(is_voter: bool) -> str:
    return "voter" if is_voter else "broker"
