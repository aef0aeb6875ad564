"""A deserializer that has to look for a schema: the consumer waits, and reads the record again."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest

from quorate import Consumer
from quorate.aio.bell import Bell
from quorate.consumer.schema_lookups import LOOKUP_MAX_S
from quorate.errors import DeserializationError, UnknownSchemaError
from tests.harness.fake_leaders import FakeCluster, with_cluster


class Looking:
    """A deserializer that looks for the schema of each value before it knows it."""

    def __init__(self) -> None:
        self.lookups: dict[bytes, Future[None]] = {}
        self.known: set[bytes] = set()
        self.asks = Bell()

    def deserialize(self, topic: str, data: bytes) -> str:
        if data in self.known:
            return data.decode()
        lookup = self.lookups.get(data)
        if lookup is not None and lookup.done():
            del self.lookups[data]
            raise UnknownSchemaError("it is nowhere")
        self.asks.ring()
        raise UnknownSchemaError("it is looked for", self.lookups.setdefault(data, Future()))

    def found(self, data: bytes) -> None:
        self.known.add(data)
        self.lookups[data].set_result(None)

    async def asked(self, data: bytes) -> Future[None]:
        while data not in self.lookups:
            await self.asks.next_ring()
        return self.lookups[data]


def consumer(
    cluster: FakeCluster, looking: Looking, *topics: str, **settings: Any
) -> Consumer[str, str]:
    return Consumer(
        *topics,
        bootstrap_servers=cluster.bootstrap,
        auto_offset_reset="earliest",
        key_deserializer=looking,
        value_deserializer=looking,
        **settings,
    )


def test_a_read_waits_for_the_schemas_of_the_key_and_of_the_value() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"a", key=b"k")
        looking = Looking()
        async with consumer(cluster, looking, "t") as c:
            read = asyncio.create_task(c.getone())
            for data in (b"k", b"a"):
                await looking.asked(data)
                assert not read.done()
                looking.found(data)
            record = await read
            assert (record.key, record.value) == ("k", "a")

    with_cluster(program)


def test_many_are_read_up_to_the_one_that_waits() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"a", b"b")
        looking = Looking()
        looking.known.add(b"a")
        async with consumer(cluster, looking, "t") as c:
            found = await c.getmany(timeout_ms=10_000)
            assert [one.value for records in found.values() for one in records] == ["a"]
            assert await c.getmany() == {}
            assert await c.getmany(timeout_ms=100) == {}
            looking.found(b"b")
            found = await c.getmany()
            assert [one.value for records in found.values() for one in records] == ["b"]

    with_cluster(program)


def test_a_schema_that_is_nowhere_is_an_error_and_the_next_read_looks_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"a")
        looking = Looking()
        async with consumer(cluster, looking, "t") as c:
            read = asyncio.create_task(c.getone())
            (await looking.asked(b"a")).set_exception(UnknownSchemaError("the reason"))
            with pytest.raises(DeserializationError, match="it is nowhere"):
                await read
            read = asyncio.create_task(c.getone())
            await looking.asked(b"a")
            looking.found(b"a")
            assert (await read).value == "a"

    with_cluster(program)


def test_a_look_up_that_does_not_end_is_waited_for_so_long_and_goes_on() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"a")
        looking = Looking()
        async with consumer(cluster, looking, "t") as c:
            began = asyncio.get_running_loop().time()
            with pytest.raises(DeserializationError, match="it is looked for"):
                await c.getone()
            assert asyncio.get_running_loop().time() - began >= LOOKUP_MAX_S
            assert not looking.lookups[b"a"].cancelled()
            read = asyncio.create_task(c.getone())
            await asyncio.sleep(1)
            looking.found(b"a")
            assert (await read).value == "a"

    with_cluster(program)


def test_a_read_that_is_cancelled_leaves_the_look_up_to_others() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"a")
        looking = Looking()
        async with consumer(cluster, looking, "t") as c:
            read = asyncio.create_task(c.getone())
            lookup = await looking.asked(b"a")
            await asyncio.sleep(0.01)
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read
            assert not lookup.cancelled()
            looking.found(b"a")
            assert (await c.getone()).value == "a"

    with_cluster(program)
