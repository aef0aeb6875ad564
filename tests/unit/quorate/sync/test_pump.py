"""The way of records from the inbox into the producer of the loop, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from quorate import Producer
from quorate.errors import DeliveryTimeoutError, OverloadedError, QuorateError
from quorate.producer.bulk import Bulk
from quorate.record.column_builder import RecordColumns
from quorate.record.record import record_bytes_max
from quorate.sync.inbox import parts_of
from quorate.sync.pump import Pump
from tests.harness.fake_leaders import FakeCluster, with_cluster

TIMEOUT_S = 1.0


def put(pump: Pump, topic: str, value: bytes, *, count: int) -> Bulk:
    """Put records into the inbox, as `send` or `send_many` of a thread does."""
    size = record_bytes_max(None, value, ())
    if count == 1:
        return pump.inbox.put(topic, 0, 7, None, value, (), size, TIMEOUT_S)[0]
    records = RecordColumns()
    for _ in range(count):
        records.append(7, None, value, (), size)
    (bulk,) = parts_of(topic, 0, records, pump.inbox.bytes_max)
    pump.inbox.put_all(bulk, TIMEOUT_S)
    return bulk


def error_of(bulk: Bulk, index: int) -> QuorateError | None:
    place = bulk.place(index)
    return place[0].error if isinstance(place, tuple) else place


@pytest.mark.parametrize("count", [1, 3])
def test_the_time_in_the_inbox_counts_against_the_delivery_time_out(count: int) -> None:
    """A record that waits in the inbox for room in the buffer does not get the time twice."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.add_topic("u")
        loop = asyncio.get_running_loop()
        client = Producer(
            bootstrap_servers=cluster.bootstrap,
            buffer_memory=2000,
            delivery_timeout_ms=int(TIMEOUT_S * 1000),
        )
        pump = Pump(client, loop, 100_000, lambda: True, TIMEOUT_S, loop.time)
        await pump.start()
        for topic in ("t", "u"):
            await client.partitions_for(topic)
        for broker in cluster.brokers:
            broker.running.clear()
        begin = loop.time()
        put(pump, "t", bytes(1900), count=1)  # fills the buffer until it has failed
        await asyncio.sleep(0.4 * TIMEOUT_S)
        bulks = [put(pump, topic, bytes(1500), count=count) for topic in ("t", "u", "t")]
        await pump.flush()
        assert loop.time() - begin < 1.6 * TIMEOUT_S
        for bulk in bulks:
            for index in range(count):
                assert isinstance(error_of(bulk, index), DeliveryTimeoutError | OverloadedError)
        for broker in cluster.brokers:
            broker.running.set()
        last = put(pump, "t", b"in time", count=1)
        await pump.flush()
        assert last.is_done
        assert error_of(last, 0) is None
        await pump.end()

    with_cluster(program)
