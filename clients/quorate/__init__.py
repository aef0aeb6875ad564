"""Quorate: a Kafka-style replicated commit log. See README.md for a first program."""

from quorate.admin import Admin, ConfigDescription, NewTopic
from quorate.consumer.consumer import Consumer
from quorate.errors import QuorateError
from quorate.model import (
    BrokerDescription,
    ClusterDescription,
    FeatureDescription,
    LeadershipTransfer,
    NodeLevels,
    OffsetAndTimestamp,
    PartitionDescription,
    QuorumDescription,
    QuorumReplicaDescription,
    Record,
    RecordMetadata,
    TopicDescription,
    TopicPartition,
    VoterChange,
)
from quorate.producer.delivery import Delivery
from quorate.producer.partitioner import RoundRobinPartitioner
from quorate.producer.producer import Producer

__version__ = "0.1.0"

__all__ = [
    "Admin",
    "BrokerDescription",
    "ClusterDescription",
    "ConfigDescription",
    "Consumer",
    "Delivery",
    "FeatureDescription",
    "LeadershipTransfer",
    "NewTopic",
    "NodeLevels",
    "OffsetAndTimestamp",
    "PartitionDescription",
    "Producer",
    "QuorateError",
    "QuorumDescription",
    "QuorumReplicaDescription",
    "Record",
    "RecordMetadata",
    "RoundRobinPartitioner",
    "TopicDescription",
    "TopicPartition",
    "VoterChange",
    "__version__",
]
