"""The registry of schemas in a cluster: programs that write and read with it."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer, SchemaRegistry, sync
from quorate.errors import (
    ClosedError,
    DeserializationError,
    IncompatibleSchemaError,
    InvalidConfigError,
    InvalidSchemaError,
    QuorateError,
    RequestTimedOutError,
    UnknownSchemaError,
)
from quorate.serializers import Avro, AvroSchema, Compatibility
from quorate_testing import EmbeddedCluster

S = "orders-value"
ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "customer", "type": "int"}],
}
NEW_ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [
        {"name": "customer", "type": "long"},
        {"name": "note", "type": "string", "default": ""},
    ],
}
WRONG_ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "customer", "type": "int"}, {"name": "note", "type": "string"}],
}


@pytest.fixture
def servers(quorate_cluster: EmbeddedCluster) -> str:
    return quorate_cluster.bootstrap_servers


@pytest.fixture
def schemas(quorate_topic: str) -> str:
    """The name of a topic of schemas that is not there yet."""
    return f"{quorate_topic}.schemas"


def registry(servers: str, schemas: str, **settings: Any) -> SchemaRegistry:
    return SchemaRegistry(bootstrap_servers=servers, topic=schemas, **settings)


async def test_old_and_new_programs_read_one_another(
    servers: str, quorate_topic: str, schemas: str
) -> None:
    """Each finds the schema of the other one in the cluster, which it was not given."""
    async with registry(servers, schemas) as old, registry(servers, schemas) as new:
        await old.register(S, ORDER)
        await new.register(S, NEW_ORDER)
        for program, schema, value in (
            (old, ORDER, {"customer": 1}),
            (new, NEW_ORDER, {"customer": 2, "note": "x"}),
        ):
            serde = Avro(schema, schemas=program)
            async with Producer(bootstrap_servers=servers, value_serializer=serde) as producer:
                await producer.send_and_wait(quorate_topic, value)
        async with registry(servers, schemas) as late:
            read = await values(servers, quorate_topic, 2, Avro(NEW_ORDER, schemas=late))
            assert read == [{"customer": 1, "note": ""}, {"customer": 2, "note": "x"}]
        int_or_long = {**ORDER, "fields": [{"name": "customer", "type": "long"}]}
        assert await values(servers, quorate_topic, 2, Avro(int_or_long, schemas=old)) == [
            {"customer": 1},
            {"customer": 2},
        ]


async def values(servers: str, topic: str, count: int, serde: Avro) -> list[Any]:
    async with Consumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", value_deserializer=serde
    ) as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


async def test_a_reader_that_waits_gets_values_of_a_schema_that_is_registered_later(
    servers: str, quorate_topic: str, schemas: str
) -> None:
    async with registry(servers, schemas) as reader, registry(servers, schemas) as writer:
        serde = Avro(NEW_ORDER, schemas=reader)
        read = asyncio.create_task(values(servers, quorate_topic, 3, serde))
        for number, kind in enumerate(("int", "long")):
            schema = {**ORDER, "fields": [{"name": "customer", "type": kind}]}
            await writer.register(S, schema)
            await send(servers, quorate_topic, Avro(schema, schemas=writer), {"customer": number})
        await reader.register(S, NEW_ORDER)
        await send(servers, quorate_topic, serde, {"customer": 2})
        assert await read == [{"customer": number, "note": ""} for number in range(3)]


async def send(servers: str, topic: str, serde: Avro, value: Any) -> None:
    async with Producer(bootstrap_servers=servers, value_serializer=serde) as producer:
        await producer.send_and_wait(topic, value)


async def test_a_schema_that_is_not_registered_is_not_written(
    servers: str, quorate_topic: str, schemas: str
) -> None:
    async with registry(servers, schemas) as one:
        serde = Avro(ORDER, schemas=one)
        with pytest.raises(UnknownSchemaError, match=r"call registry.register\(SUBJECT, schema\)"):
            await send(servers, quorate_topic, serde, {"customer": 1})
        await one.register(S, ORDER)
        await send(servers, quorate_topic, serde, {"customer": 1})


async def test_a_value_of_an_unknown_schema_is_told_and_can_be_passed(
    servers: str, quorate_topic: str, schemas: str
) -> None:
    await send(servers, quorate_topic, Avro("string"), "x")
    await send(servers, quorate_topic, Avro("int"), 7)
    async with (
        registry(servers, schemas) as one,
        Consumer(
            quorate_topic,
            bootstrap_servers=servers,
            auto_offset_reset="earliest",
            value_deserializer=Avro("long", schemas=one),
        ) as consumer,
    ):
        said = f"no schema with the fingerprint 8f014872634503c7 is registered in .* {schemas}"
        for _ in range(2):
            with pytest.raises(DeserializationError, match=said) as raised:
                await consumer.getone()
        assert isinstance(raised.value.__cause__, UnknownSchemaError)
        await one.register("texts", "string")
        with pytest.raises(DeserializationError, match="the writer's string can't be read as long"):
            await consumer.getone()
        await one.register("numbers", "int")
        consumer.seek(next(iter(consumer.assignment())), 1)
        assert (await consumer.getone()).value == 7


async def test_a_schema_that_the_rule_forbids_is_refused(servers: str, schemas: str) -> None:
    async with registry(servers, schemas) as one:
        first = await one.register(S, ORDER)
        assert (first.version, first.fingerprint) == (1, AvroSchema(ORDER).fingerprint)
        reason = "shop.Order.note: the writer has no such field, and no default is set"
        with pytest.raises(IncompatibleSchemaError, match=reason):
            await one.register(S, WRONG_ORDER)
        assert [reason in problem for problem in await one.check(S, WRONG_ORDER)] == [True]
        assert await one.check(S, NEW_ORDER) == ()
        await one.set_compatibility("FORWARD", S)
        assert await one.compatibility(S) is Compatibility.FORWARD
        assert await one.compatibility() is Compatibility.BACKWARD
        assert (await one.register(S, WRONG_ORDER)).version == 2
        assert (await one.register(S, ORDER)).version == 1
        assert await one.subjects() == [S]
        assert [found.version for found in await one.versions(S)] == [1, 2]


async def test_values_of_a_deleted_schema_are_still_read(
    servers: str, quorate_topic: str, schemas: str
) -> None:
    async with registry(servers, schemas) as one, registry(servers, schemas) as other:
        await one.register(S, ORDER)
        await one.register(S, NEW_ORDER)
        await send(servers, quorate_topic, Avro(ORDER, schemas=one), {"customer": 1})
        assert await other.delete(S, 7) == []
        assert await other.delete(S, 1) == [1]
        assert [found.version for found in await one.versions(S)] == [2]
        assert await one.delete(S) == [2]
        assert await other.subjects() == []
        assert await other.delete(S) == []
        assert (await other.register(S, WRONG_ORDER)).version == 3
        async with registry(servers, schemas) as late:
            read = await values(servers, quorate_topic, 1, Avro(NEW_ORDER, schemas=late))
            assert read == [{"customer": 1, "note": ""}]


async def test_wrong_arguments_are_named(servers: str, schemas: str) -> None:
    async with registry(servers, schemas) as one:
        with pytest.raises(
            ValueError, match="set_compatibility: rule must be one of NONE, BACKWARD"
        ):
            await one.set_compatibility("SOME")
        with pytest.raises(ValueError, match="register: subject must be"):
            await one.register("", ORDER)
        with pytest.raises(InvalidSchemaError, match="the type 'integer' is not defined"):
            await one.register(S, "integer")


async def test_programs_that_register_at_once_get_one_order(servers: str, schemas: str) -> None:
    """Ten schemas at once, by five programs: each gets a version, and all see the same."""
    async with registry(servers, schemas) as first:
        await first.set_compatibility("NONE")
    programs = [registry(servers, schemas) for _ in range(5)]
    await asyncio.gather(*(one.start() for one in programs))
    try:
        wanted = [{"type": "fixed", "name": "F", "size": number} for number in range(10)]
        got = await asyncio.gather(
            *(programs[number % 5].register(S, one) for number, one in enumerate(wanted))
        )
        assert sorted(one.version for one in got) == list(range(1, 11))
        seen = [await one.versions(S) for one in programs]
        assert all(one == seen[0] for one in seen)
        assert {one.version: one.schema for one in got} == {
            one.version: one.schema for one in seen[0]
        }
    finally:
        await asyncio.gather(*(one.stop() for one in programs))


async def test_a_proposal_that_lost_is_deleted_and_no_other(servers: str, schemas: str) -> None:
    """Compaction would take an accepted one away, and with it all versions after it."""
    programs = [registry(servers, schemas) for _ in range(4)]
    await asyncio.gather(*(one.start() for one in programs))
    wanted = [{**ORDER, "doc": f"{number}"} for number in range(4)]
    await asyncio.gather(
        *(one.register(S, schema) for one, schema in zip(programs, wanted, strict=True))
    )
    await asyncio.gather(*(one.stop() for one in programs))
    written: dict[bytes | None, bytes | None] = {}
    async with Consumer(
        schemas, bootstrap_servers=servers, auto_offset_reset="earliest"
    ) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        for _ in range(sum(ends.values())):
            record = await consumer.getone()
            written[record.key] = record.value
    left = [value for value in written.values() if value is not None]
    assert sorted(json.loads(json.loads(one)["schema"])["doc"] for one in left) == list("0123")


async def test_the_same_schema_at_once_is_one_version(servers: str, schemas: str) -> None:
    programs = [registry(servers, schemas) for _ in range(3)]
    await asyncio.gather(*(one.start() for one in programs))
    try:
        got = await asyncio.gather(*(one.register(S, ORDER) for one in programs * 3))
        assert {one.version for one in got} == {1}
    finally:
        await asyncio.gather(*(one.stop() for one in programs))


async def test_records_that_are_no_schemas_are_passed_over(
    servers: str, schemas: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with registry(servers, schemas) as one:
        await one.register(S, ORDER)
    async with Producer(bootstrap_servers=servers) as producer:
        for key, value in ((b"junk", b"junk"), (b"{}", b"{}"), (b"k", None)):
            await producer.send_and_wait(schemas, value, key)
    async with registry(servers, schemas) as one:
        assert (await one.register(S, NEW_ORDER)).version == 2
    assert "the record at offset 1 is passed over" in caplog.text


async def test_a_topic_that_would_lose_schemas_is_refused(
    servers: str, quorate_topic: str, schemas: str
) -> None:
    with pytest.raises(InvalidConfigError, match=r"cleanup.policy=compact; it has 1 and delete"):
        await registry(servers, quorate_topic).start()
    async with Admin(bootstrap_servers=servers) as admin:
        await admin.create_topic(schemas, 2, configs={"cleanup.policy": "compact"})
    with pytest.raises(InvalidConfigError, match="it has 2 and compact"):
        await registry(servers, schemas).start()


async def test_a_registry_that_is_stopped_still_has_what_it_knew(
    servers: str, schemas: str
) -> None:
    async with registry(servers, schemas) as one:
        await one.register(S, ORDER)
    data = Avro(ORDER, schemas=one).serialize("topic", {"customer": 1})
    reader = Avro(NEW_ORDER, schemas=one)
    assert reader.deserialize("topic", data) == {"customer": 1, "note": ""}
    offline = Avro(NEW_ORDER, schemas=one.store())
    assert offline.deserialize("topic", data) == {"customer": 1, "note": ""}
    with pytest.raises(UnknownSchemaError, match="this schema registry was stopped"):
        reader.deserialize("topic", Avro("int").serialize("topic", 1))
    with pytest.raises(ClosedError):
        await one.register(S, ORDER)


def test_programs_without_a_loop(servers: str, quorate_topic: str, schemas: str) -> None:
    with (
        sync.SchemaRegistry(bootstrap_servers=servers, topic=schemas) as writer,
        sync.SchemaRegistry(bootstrap_servers=servers, topic=schemas) as reader,
        sync.Producer(
            bootstrap_servers=servers, value_serializer=Avro(ORDER, schemas=writer)
        ) as producer,
        sync.Consumer(
            quorate_topic,
            bootstrap_servers=servers,
            auto_offset_reset="earliest",
            value_deserializer=Avro(NEW_ORDER, schemas=reader),
        ) as consumer,
    ):
        with pytest.raises(UnknownSchemaError):
            producer.send(quorate_topic, {"customer": 1})
        writer.register(S, ORDER)
        producer.send_and_wait(quorate_topic, {"customer": 1})
        assert next(consumer).value == {"customer": 1, "note": ""}
        assert reader.subjects() == [S]
        assert len(reader.store()) == 1


def test_a_call_outside_a_loop_waits_for_the_schema(servers: str, schemas: str) -> None:
    """As with a Kafka client's callback, in any thread."""
    with (
        sync.SchemaRegistry(bootstrap_servers=servers, topic=schemas) as reader,
        sync.SchemaRegistry(bootstrap_servers=servers, topic=schemas) as writer,
        ThreadPoolExecutor(3) as threads,
    ):
        writer.register(S, ORDER)
        data = Avro(ORDER, schemas=writer).serialize("topic", {"customer": 1})
        serde = Avro(NEW_ORDER, schemas=reader)
        found = threads.map(lambda _: serde.deserialize("topic", data), range(6))
        assert list(found) == [{"customer": 1, "note": ""}] * 6
        assert threading.current_thread() is threading.main_thread()


async def test_a_registry_goes_on_after_its_broker_was_away(schemas: str) -> None:
    async with EmbeddedCluster() as cluster:
        servers = cluster.bootstrap_servers
        async with registry(servers, schemas) as one, registry(servers, schemas) as other:
            await one.register(S, ORDER)
            await cluster.crash_broker(0)
            registered = asyncio.create_task(one.register(S, NEW_ORDER))
            await cluster.start_broker(0)
            assert (await registered).version == 2
            assert [found.version for found in await other.versions(S)] == [1, 2]


async def test_a_cluster_that_is_away_is_told_after_the_timeout(schemas: str) -> None:
    late = r"was not read to its end within 5000 ms"
    async with (
        EmbeddedCluster() as cluster,
        registry(cluster.bootstrap_servers, schemas, request_timeout_ms=5000) as one,
    ):
        await one.register(S, ORDER)
        await cluster.crash_broker(0)
        serde = Avro(NEW_ORDER, schemas=one)
        data = Avro("int").serialize("topic", 1)
        with pytest.raises(UnknownSchemaError, match="is looked for") as raised:
            serde.deserialize("topic", data)
        assert raised.value.lookup is not None
        found = await asyncio.gather(
            one.versions(S), asyncio.wrap_future(raised.value.lookup), return_exceptions=True
        )
        assert all(isinstance(error, RequestTimedOutError) for error in found), found
        with pytest.raises(UnknownSchemaError, match=late):
            serde.deserialize("topic", data)
        await cluster.start_broker(0)


async def test_a_start_that_fails_leaves_nothing_behind(schemas: str) -> None:
    one = registry("localhost:1", schemas, request_timeout_ms=200)
    with pytest.raises(QuorateError):
        await one.start()
    await one.stop()
    assert {task.get_name() for task in asyncio.all_tasks()} & {"quorate-schemas"} == set()
