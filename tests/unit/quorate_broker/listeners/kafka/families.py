"""Handlers over partitions that a test moves by hand, and an image that a test writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from rpds import HashTrieMap

from quorate.record.batch import BatchBuilder
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.operations.operations import Operations
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.metadata.brokers import BrokerImage, DirectoryImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.listeners import parse_all
from tests.unit.quorate_broker.operations.builders import (
    TOPIC,
    FakePartition,
    FakeReplicas,
    config,
    operations,
)

NAME = "zoo"
#: A client of the listener with this name.
CLIENT = Client("127.0.0.1", "kafka")
DIRECTORY = b"d" * 16


def broker(broker_id: int, *listeners: str, fenced: bool = False, rack: str = "") -> BrokerImage:
    told = listeners or (f"grpc://b{broker_id}:7092", f"kafka://k{broker_id}:9092")
    return BrokerImage(
        broker_id,
        9,
        b"i" * 16,
        parse_all(told),
        "grpc",
        rack,
        f"b{broker_id}",
        (DirectoryImage(DIRECTORY),),
        fenced,
        False,
    )


def partition(leader: int, *replicas: int, leader_epoch: int = 4) -> PartitionImage:
    placed = replicas or (leader,)
    return PartitionImage(
        leader=leader,
        leader_epoch=leader_epoch,
        replicas=tuple(ReplicaImage(one, DIRECTORY) for one in placed),
        isr=placed,
    )


def image_of(brokers: list[BrokerImage], **topics: list[PartitionImage]) -> MetadataImage:
    """Return an image with these topics. The id of the topic NAME is TOPIC."""
    made = [
        TopicImage(TOPIC if name == NAME else name.encode().ljust(16, b"."), name, tuple(found))
        for name, found in topics.items()
    ]
    return replace(
        MetadataImage(),
        brokers=HashTrieMap({one.id: one for one in brokers}),
        topics=HashTrieMap({one.id: one for one in made}),
        topic_ids=HashTrieMap({one.name: one.id for one in made}),
    )


class World:
    """The partitions of topic NAME, by name p0, p1, ..., and the operations over them."""

    def __init__(self, bounds: dict[str, int] | None = None, **partitions: FakePartition) -> None:
        self.fake = FakeReplicas(**partitions)
        self.fake.image = image_of(
            [broker(0), broker(2, rack="R2")], zoo=[partition(0) for _ in partitions]
        )
        self.operations: Operations = operations(self.fake, config(**(bounds or {})))

    @property
    def replicas(self) -> Replicas:
        return cast(Replicas, self.fake)


def call(request: Any, version: int, client: Client = CLIENT) -> Call[Any]:
    return Call(request, version, client)


def batch(*values: bytes, codec: int = 0, **fields: int) -> bytes:
    """Return a batch as a producer sends it. `fields` are those of BatchBuilder."""
    builder = BatchBuilder(codec=codec, **fields)
    for value in values or (b"value",):
        builder.append(1_790_000_000_000, b"key", value)
    return builder.build()
