"""How long a call of create_topics takes, until the leader of each partition answers.

With an Apache Kafka of this machine, the same is done through the Kafka listener, in turn with it.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.admin import NewTopic as NewKafkaTopic

from bench.replication.cluster import PATIENCE_S, Figures, cluster_of
from bench.voters import ask
from quorate import Admin, Consumer, NewTopic, TopicPartition

REPLICAS = 3
#: Name -> topics of one call, and partitions of each.
SHAPES = {"200 topics x 3": (200, 3), "1 topic x 1,000": (1, 1000)}
TARGETS = {
    "create 200 topics x 3 until led, s: median": 0.34,
    "create 1 topic x 1,000 until led, s: median": 2.6,
}
#: The time in which the cluster is calm again after a deletion; an Apache Kafka needs longer.
PAUSE_S, KAFKA_PAUSE_S = 2.0, 8.0


async def _create(servers: str, names: list[str], partitions: int) -> tuple[float, float]:
    """Return the seconds until the call has ended, and until all leaders have answered."""
    keys = [TopicPartition(name, number) for name in names for number in range(partitions)]
    async with (
        Admin(bootstrap_servers=servers) as admin,
        Consumer(bootstrap_servers=servers) as consumer,
    ):
        await admin.describe_cluster()
        began = time.perf_counter()
        await admin.create_topics([NewTopic(name, partitions, REPLICAS) for name in names])
        created_s = time.perf_counter() - began
        ends = await consumer.end_offsets(keys)
        led_s = time.perf_counter() - began
        assert len(ends) == len(keys)
        await admin.delete_topics(names)
    return created_s, led_s


def _create_by_kafka(servers: str, names: list[str], partitions: int) -> tuple[float, float]:
    """Do the same as a Kafka client."""
    admin = AdminClient({"bootstrap.servers": servers})
    consumer = KafkaConsumer({"bootstrap.servers": servers, "group.id": "bench"})
    keys = [KafkaPartition(name, number) for name in names for number in range(partitions)]
    admin.list_topics(timeout=PATIENCE_S)
    began = time.perf_counter()
    made = admin.create_topics([NewKafkaTopic(name, partitions, REPLICAS) for name in names])
    for one in made.values():
        one.result(PATIENCE_S)
    created_s = time.perf_counter() - began
    latest: Any = OffsetSpec
    left = keys
    while left:
        asked = admin.list_offsets({key: latest.latest() for key in left})
        left = [key for key, answer in asked.items() if answer.exception() is not None]
    led_s = time.perf_counter() - began
    consumer.close()
    for one in admin.delete_topics(names).values():
        one.result(PATIENCE_S)
    return created_s, led_s


def creation(runs: int, kafka: str | None) -> Figures:
    """Create topics `runs` times, on three brokers. The first time is not counted."""
    figures: Figures = {}
    with cluster_of(3, with_kafka=kafka is not None) as cluster:
        for shape, (topics, partitions) in SHAPES.items():
            for number in range(runs + 1):
                names = [f"bench-{time.time_ns()}-{one}" for one in range(topics)]
                found = {"": ask(_create(cluster.bootstrap_servers, names, partitions))}
                time.sleep(PAUSE_S)
                if kafka is not None:
                    for by, servers in (("listener, ", cluster.kafka_servers), ("Kafka, ", kafka)):
                        found[by] = _create_by_kafka(servers, names, partitions)
                        time.sleep(KAFKA_PAUSE_S)
                if number == 0:
                    continue
                for by, (created_s, led_s) in found.items():
                    figures.setdefault(f"{by}create {shape}, s", []).append(created_s)
                    figures.setdefault(f"{by}create {shape} until led, s", []).append(led_s)
    return figures
