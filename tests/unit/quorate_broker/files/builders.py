"""Formatted directories on a simulated disk, and images of what lies in them."""

from __future__ import annotations

import random
from typing import Any

from rpds import HashTrieMap

from quorate_broker.files.replica_files import PartitionMetadata
from quorate_quorum.disk import replace_whole
from quorate_quorum.log.identity import Identity, write_identity
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.config import BrokerConfig
from quorate_testing.simulated.disk import SimulatedDisk

CLUSTER = "c1"
OURS, THEIRS = b"i" * 16, b"j" * 16
D1, D2 = b"1" * 16, b"2" * 16
TOPIC, GONE = b"t" * 16, b"g" * 16


def config(*log_dirs: str, **options: Any) -> BrokerConfig:
    return BrokerConfig(
        node_id=3,
        listeners=("127.0.0.1:7092",),
        log_dirs=log_dirs or ("/d1",),
        quorum_bootstrap_servers=("127.0.0.1:7093",),
        broker_rack="R1",
        **options,
    )


async def formatted(*directories: tuple[str, bytes], node_id: int = 3) -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    for path, directory_id in directories:
        await write_identity(disk, path, Identity(CLUSTER, node_id, directory_id, 0))
    return disk


def placed(directory_id: bytes = D1) -> TopicImage:
    partition = PartitionImage(
        replicas=(ReplicaImage(3, directory_id),), isr=(3,), leader=3, leader_epoch=1
    )
    return TopicImage(TOPIC, "t", (partition,))


def image(offset: int, *brokers: BrokerImage, topic: TopicImage | None = None) -> MetadataImage:
    topics = {} if topic is None else {topic.id: topic}
    names = {} if topic is None else {topic.name: topic.id}
    return MetadataImage(
        offset=offset,
        brokers=HashTrieMap({broker.id: broker for broker in brokers}),
        topics=HashTrieMap(topics),
        topic_ids=HashTrieMap(names),
    )


async def replica(
    disk: SimulatedDisk, path: str, topic_id: bytes, cluster_id: str = "c1", generation: int = 1
) -> None:
    await disk.make_directory(path)
    content = PartitionMetadata(topic_id, cluster_id, generation).encode()
    await replace_whole(disk, f"{path}/partition.metadata", content)
