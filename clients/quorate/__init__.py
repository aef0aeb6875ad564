"""Quorate: a Kafka-style replicated commit log. See README.md for a first program."""

import logging

from quorate.admin.admin import Admin
from quorate.admin.new_topic import NewTopic
from quorate.consumer.consumer import Consumer
from quorate.errors import QuorateError
from quorate.model import (
    BrokerDescription,
    ClusterDescription,
    ClusterHealth,
    ConfigDescription,
    FeatureDescription,
    LeadershipTransfer,
    NodeLevels,
    NodeTrouble,
    OffsetAndTimestamp,
    PartitionDescription,
    PartitionTrouble,
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

# A library is silent until its program says what becomes of logs.
logging.getLogger("quorate").addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "Admin",
    "BrokerDescription",
    "ClusterDescription",
    "ClusterHealth",
    "ConfigDescription",
    "Consumer",
    "Delivery",
    "FeatureDescription",
    "LeadershipTransfer",
    "NewTopic",
    "NodeLevels",
    "NodeTrouble",
    "OffsetAndTimestamp",
    "PartitionDescription",
    "PartitionTrouble",
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
