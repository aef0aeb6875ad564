"""Quorate: a Kafka-style replicated commit log. See README.md for a first program."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorate.admin.admin import Admin
    from quorate.admin.drains import BrokerDrain
    from quorate.admin.elections import LeaderElection
    from quorate.admin.new_topic import NewTopic
    from quorate.admin.reassignments import Reassignment
    from quorate.consumer.consumer import Consumer
    from quorate.errors import QuorateError
    from quorate.model import (
        AssignorMember,
        BrokerDescription,
        ClusterDescription,
        ClusterHealth,
        CommittedOffset,
        ConfigDescription,
        FeatureDescription,
        GroupDescription,
        GroupListing,
        LeadershipTransfer,
        LogDirDescription,
        MemberDescription,
        NodeLevels,
        NodeTrouble,
        OffsetAndMetadata,
        OffsetAndTimestamp,
        OutOfSyncReplica,
        PartitionDescription,
        PartitionEvent,
        PartitionExplanation,
        PartitionTrouble,
        QuorumDescription,
        QuorumReplicaDescription,
        Record,
        RecordMetadata,
        ReplicaSize,
        TopicDescription,
        TopicPartition,
        VoterChange,
    )
    from quorate.producer.delivery import Delivery
    from quorate.producer.partitioner import RoundRobinPartitioner
    from quorate.producer.producer import Producer
    from quorate.producer.record_batch import RecordBatch
    from quorate.schema_registry.catalog import SchemaVersion
    from quorate.schema_registry.registry import SchemaRegistry

# A library prints no log lines until the program configures logging.
logging.getLogger("quorate").addHandler(logging.NullHandler())

__version__ = "0.1.0"

__all__ = [
    "Admin",
    "AssignorMember",
    "BrokerDescription",
    "BrokerDrain",
    "ClusterDescription",
    "ClusterHealth",
    "CommittedOffset",
    "ConfigDescription",
    "Consumer",
    "Delivery",
    "FeatureDescription",
    "GroupDescription",
    "GroupListing",
    "LeaderElection",
    "LeadershipTransfer",
    "LogDirDescription",
    "MemberDescription",
    "NewTopic",
    "NodeLevels",
    "NodeTrouble",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "OutOfSyncReplica",
    "PartitionDescription",
    "PartitionEvent",
    "PartitionExplanation",
    "PartitionTrouble",
    "Producer",
    "QuorateError",
    "QuorumDescription",
    "QuorumReplicaDescription",
    "Reassignment",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "ReplicaSize",
    "RoundRobinPartitioner",
    "SchemaRegistry",
    "SchemaVersion",
    "TopicDescription",
    "TopicPartition",
    "VoterChange",
    "__version__",
]

#: Name -> module, for the names that are not in quorate.model. A name is imported at its first use,
#: so a program that only consumes does not load the producer.
_HOMES = {
    "Admin": "quorate.admin.admin",
    "Consumer": "quorate.consumer.consumer",
    "Delivery": "quorate.producer.delivery",
    "BrokerDrain": "quorate.admin.drains",
    "LeaderElection": "quorate.admin.elections",
    "Reassignment": "quorate.admin.reassignments",
    "NewTopic": "quorate.admin.new_topic",
    "Producer": "quorate.producer.producer",
    "QuorateError": "quorate.errors",
    "RecordBatch": "quorate.producer.record_batch",
    "RoundRobinPartitioner": "quorate.producer.partitioner",
    "SchemaRegistry": "quorate.schema_registry.registry",
    "SchemaVersion": "quorate.schema_registry.catalog",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__`, or a module of quorate at its first use.

    So `quorate.errors` works after `import quorate`.
    """
    if name in __all__:
        globals()[name] = found = getattr(import_module(_HOMES.get(name, "quorate.model")), name)
        return found
    if not name.startswith("_"):
        try:
            return import_module(f"quorate.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"quorate.{name}":
                raise  # the module exists, but a module that it imports does not
    raise AttributeError(f"module 'quorate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
