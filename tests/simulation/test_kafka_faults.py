"""Idempotent producers of the Kafka protocol in the simulated world, while leaders are killed."""

from __future__ import annotations

import asyncio
import random

import pytest

from quorate.errors import QuorateError
from quorate_broker.listeners.kafka import errors
from quorate_broker.listeners.kafka.errors import OF_PRODUCE, code_of
from quorate_broker.listeners.kafka.versions import PRODUCE
from quorate_broker.replica.partition import Partition
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedNode
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.kafka_cluster import TOPIC, KafkaCluster, read, until
from tests.harness.kafka_connection import connect
from tests.harness.kafka_producer import ALL, REQUEST_MS, KafkaProducer, batch, produce_request
from tests.harness.world import logs

pytestmark = pytest.mark.simulation

#: How many batches of each partition are under way: librdkafka has 5, aiokafka 1.
IN_FLIGHT = (5, 5, 1)
PARTITIONS = len(IN_FLIGHT)
FAULTS = (
    ("kill", "leader"),
    ("kill", "leader"),
    ("pause", "leader"),
    ("cut", "leader"),
    ("kill", "controller"),
)
RECOVERY_S = 60.0


async def break_things(cluster: KafkaCluster, chance: random.Random) -> None:
    """Do each of FAULTS to the leader of a partition or to the controller, in any order."""
    names = list(cluster.nodes)
    for what, whom in chance.sample(FAULTS, len(FAULTS)):
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        is_leader = whom == "leader"
        victim = cluster.leader(chance.randrange(PARTITIONS)) if is_leader else cluster.controller()
        if what == "kill":
            cluster.kill(victim.name)
        elif what == "pause":
            cluster.pause(victim.name)
        else:
            cluster.network.cut([victim.name], [one for one in names if one != victim.name])
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        cluster.network.heal()
        cluster.resume(victim.name)
        cluster.start_all()


@pytest.mark.parametrize("seed", [1])
def test_faults_lose_and_double_nothing_of_an_idempotent_kafka_producer(seed: int) -> None:
    """Every acknowledged record is at its offset, once, and nothing else is in the log."""

    async def run(loop: SimulatedLoop) -> None:
        cluster = KafkaCluster(loop, ClusterShape())
        await cluster.begin(PARTITIONS)
        producers = [
            KafkaProducer(
                cluster.ports,
                cluster.kafka_endpoints,
                TOPIC,
                partition,
                random.Random(loop.chance.getrandbits(64)),
                in_flight_max,
            )
            for partition, in_flight_max in enumerate(IN_FLIGHT)
        ]
        running = [cluster.spawn_client(one.run) for one in producers]
        await break_things(cluster, random.Random(loop.chance.getrandbits(64)))
        for one in producers:
            one.is_stopped = True
        async with asyncio.timeout(RECOVERY_S):
            await asyncio.gather(*running)
        for one in producers:
            assert one.acked == await read(cluster, one.partition)
            assert [int(value) for _, value in one.acked] == list(range(len(one.acked)))
        assert all(one.acked for one in producers)
        assert any(one.retries for one in producers)
        for name in list(cluster.nodes):
            cluster.kill(name)

    with logs(verbose=False):
        simulate(run, seed)


#: What a producer sends after a fail-over, in order, with the base sequence and producer epoch.
AFTER_FAIL_OVER = {
    "the last batch again": (1, 0, errors.NONE, 1),
    "an older batch again": (0, 0, errors.NONE, 0),
    "a batch after a gap": (5, 0, errors.OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
    "the next batch": (2, 0, errors.NONE, 2),
    "a new epoch that begins in the middle": (7, 1, errors.OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
    "a new epoch": (0, 1, errors.NONE, 3),
    "a batch of the old epoch": (3, 0, errors.INVALID_PRODUCER_EPOCH, -1),
}
ANOTHER_PRODUCER = 7


def test_sequences_are_checked_after_a_fail_over_as_at_the_partition_itself() -> None:
    """A new leader gives a Kafka client the answers that the partition gives to any listener."""

    async def run(loop: SimulatedLoop) -> None:
        cluster = KafkaCluster(loop, ClusterShape())
        await cluster.begin(1)
        old = cluster.leader(0)
        await cluster.spawn_client(lambda: before(cluster))
        cluster.kill(old.name)
        await until(lambda: cluster.leader(0) is not old)
        new = cluster.leader(0)
        await until(lambda: partition_at(new).is_leader)
        await cluster.spawn_client(lambda: after(cluster, new))
        for name in list(cluster.nodes):
            cluster.kill(name)

    async def before(cluster: KafkaCluster) -> None:
        client = await connect(cluster.ports, f"{cluster.leader(0).name}:9092")
        for sequence in (0, 1):
            data = batch((b"v",), 1, sequence)
            answer = await client.ask(PRODUCE, 9, produce_request(TOPIC, 0, data))
            found = answer.responses[0].partition_responses[0]
            assert (found.error_code, found.base_offset) == (errors.NONE, sequence)

    async def after(cluster: KafkaCluster, new: SimulatedNode) -> None:
        client = await connect(cluster.ports, f"{new.name}:9092")
        for what, (sequence, epoch, code, offset) in AFTER_FAIL_OVER.items():
            data = batch((b"v",), 1, sequence, producer_epoch=epoch)
            answer = await client.ask(PRODUCE, 9, produce_request(TOPIC, 0, data))
            found = answer.responses[0].partition_responses[0]
            assert (found.error_code, found.base_offset) == (code, offset), what
            # a batch that was taken is now an old one, and has the same answer again
            assert await native(new, data) == (code, offset), what
        data = batch((b"v",), ANOTHER_PRODUCER, 3)
        answer = await client.ask(PRODUCE, 9, produce_request(TOPIC, 0, data))
        refused = errors.UNKNOWN_PRODUCER_ID
        assert answer.responses[0].partition_responses[0].error_code == refused
        assert await native(new, data) == (refused, -1)

    with logs(verbose=False):
        simulate(run, 1)


def partition_at(node: SimulatedNode) -> Partition:
    assert isinstance(node.server, BrokerServer)
    [found] = [one for one in node.server.replicas.all() if one.topic == TOPIC]
    return found


async def native(node: SimulatedNode, data: bytes) -> tuple[int, int]:
    """Return Kafka's code of the partition's own answer, and the offset."""
    partition = partition_at(node)
    queue = partition.as_leader().queue
    try:
        produced = await queue.produce(
            memoryview(data),
            acks=ALL,
            timeout_ms=REQUEST_MS,
            in_doubt_ms=0,
            appended=lambda: None,
        )
    except QuorateError as error:
        return code_of(error, OF_PRODUCE), -1
    return errors.NONE, produced.base_offset
