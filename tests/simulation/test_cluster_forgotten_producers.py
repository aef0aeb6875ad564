"""Brokers forget producers while a retry is under way: no record is written twice, and each
outcome is reported as it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from quorate import Admin, Consumer, Producer
from quorate.errors import OutcomeUnknownError, QuorateError
from quorate.model import RecordMetadata
from quorate_broker.replica.producer_memory import TICK_MS
from quorate_broker.replicas.producer_expiry import TICKS_PER_LOOK
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

#: Within this time a broker looks for producers that it may forget.
LOOK_S = (TICKS_PER_LOOK + 1) * TICK_MS / 1000


async def _unfenced(cluster: SimulatedCluster) -> None:
    while not all(  # noqa: ASYNC110 - virtual time
        isinstance(node.server, BrokerServer) and not node.server.is_fenced
        for node in cluster.brokers
    ):
        await asyncio.sleep(0.01)


class Retry:
    """A producer's second batch is written, its answer is lost, and it is sent again later."""

    def __init__(self, loop: SimulatedLoop, **settings: int) -> None:
        shape = ClusterShape(voters=1, brokers=1, broker_settings=settings)
        self.cluster = SimulatedCluster(loop, shape)
        self.outcome: RecordMetadata | QuorateError | None = None
        self.later: RecordMetadata | None = None
        self.values: Counter[bytes | None] = Counter()

    async def run(self, *, silence_s: float) -> None:
        cluster = self.cluster
        await cluster.format()
        cluster.start_all()
        await _unfenced(cluster)
        written = asyncio.Event()
        others_wrote = asyncio.Event()

        async def first() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                await admin.create_topic("t", 1, 1)
            async with Producer(
                bootstrap_servers=cluster.bootstrap_servers, delivery_timeout_ms=7_200_000
            ) as producer:
                await producer.send_and_wait("t", b"one")
                cluster.network.cut(["broker-0"], ["first"], one_way=True)
                delivery = await producer.send("t", b"two")
                await asyncio.sleep(1.0)
                cluster.network.cut(["first"], ["broker-0"])
                written.set()
                await others_wrote.wait()
                cluster.network.break_streams(["first"], ["broker-0"])
                cluster.network.heal()
                try:
                    self.outcome = await delivery
                except QuorateError as error:
                    self.outcome = error
                self.later = await producer.send_and_wait("t", b"three")

        async def others() -> None:
            await written.wait()
            await asyncio.sleep(silence_s)
            for number in range(3):
                async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
                    await producer.send_and_wait("t", b"other %d" % number)
            await asyncio.sleep(LOOK_S)
            others_wrote.set()

        async def read() -> None:
            async with Consumer(
                "t", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
            ) as consumer:
                while found := await consumer.getmany(timeout_ms=2000):
                    self.values.update(record.value for some in found.values() for record in some)

        await asyncio.gather(
            cluster.spawn_client(first, "first"), cluster.spawn_client(others, "others")
        )
        await cluster.spawn_client(read)


def test_however_many_producers_write_a_retry_within_15_minutes_is_known_again() -> None:
    async def program(loop: SimulatedLoop) -> Retry:
        retry = Retry(loop, partition_producers_max=1)
        await retry.run(silence_s=10)
        return retry

    retry = simulate(program, seed=1)
    assert isinstance(retry.outcome, RecordMetadata)
    assert retry.outcome.offset == 1
    assert set(retry.values.values()) == {1}


def test_a_retry_after_its_producer_was_forgotten_is_unknown_and_not_written_twice() -> None:
    async def program(loop: SimulatedLoop) -> Retry:
        retry = Retry(loop, partition_producers_max=1)
        await retry.run(silence_s=1_200)
        return retry

    retry = simulate(program, seed=1)
    assert isinstance(retry.outcome, OutcomeUnknownError)
    assert "may have been written" in str(retry.outcome)
    assert retry.later is not None, "what comes after goes on under the next epoch"
    assert set(retry.values.values()) == {1}
    assert retry.values[b"two"] == 1
