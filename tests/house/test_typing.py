"""Programs of users are clean under mypy --strict, and wrong ones are refused.

The programs are checked as a user checks them: without the settings of this repository.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RIGHT = """
import asyncio
from dataclasses import dataclass
from typing import Any, assert_type

from quorate import (
    Admin,
    Consumer,
    Delivery,
    NewTopic,
    Producer,
    Record,
    RecordMetadata,
    TopicPartition,
)
from quorate import sync
from quorate.serializers import Json, Long, String
from quorate.model import OffsetAndMetadata
from quorate_testing import AsyncEmbeddedCluster, EmbeddedCluster


@dataclass
class Order:
    number: int


class Orders:
    def serialize(self, topic: str, value: Order) -> bytes:
        return b""

    def deserialize(self, topic: str, data: bytes) -> Order:
        return Order(1)


def with_defaults(producer: Producer, consumer: Consumer, record: Record) -> None:
    print(producer, consumer, record.value)


def with_types(producer: Producer[str, Order], consumer: Consumer[str, Order]) -> None:
    with_defaults(producer, consumer, Record("t", 0, 0, 0, "create_time", "k", Order(1), (), 0))


async def main() -> None:
    async with Producer(
        bootstrap_servers="localhost:7092", key_serializer=String(), value_serializer=Orders()
    ) as producer:
        assert_type(await producer.send("orders", Order(1), key="k"), Delivery)
        assert_type(await producer.send_and_wait("orders", Order(1)), RecordMetadata)
    async with Producer() as plain:
        await plain.send("t", b"v", b"k", headers=[("a", b"b")])
    async with Producer(value_serializer=lambda text: str(text).encode()) as any_value:
        await any_value.send("t", 5)
    async with Consumer(
        "orders", group_id="g", key_deserializer=String(), value_deserializer=Orders()
    ) as consumer:
        async for record in consumer:
            assert_type(record.value, Order | None)
            assert_type(record.key, str | None)
        assert_type(await consumer.committed(TopicPartition("t", 0)), int | None)
        assert_type(
            await consumer.committed(TopicPartition("t", 0), metadata=True),
            OffsetAndMetadata | None,
        )
    async with Consumer("orders") as raw:
        print((await raw.getone()).value)
    async with Consumer("orders", value_deserializer=Json()) as json:
        read = (await json.getone()).value
        print(read["a"] if read is not None else None)
    async with Admin() as admin:
        assert_type(await admin.list_topics(), list[str])
        await admin.create_topics([NewTopic(name="t")])
    async with EmbeddedCluster(brokers=3) as cluster:
        assert_type(cluster, AsyncEmbeddedCluster)
        await cluster.create_topic("t", configs={"retention.ms": 1})


def blocking() -> None:
    with sync.Producer(value_serializer=Orders()) as producer:
        assert_type(producer.send("t", Order(1), b"k"), sync.Delivery)
        assert_type(producer.send_and_wait("t", Order(1)), RecordMetadata)
    with sync.Consumer("t", value_deserializer=Long()) as consumer:
        for record in consumer:
            assert_type(record.value, int | None)
        assert_type(consumer.getone().value, int | None)
        assert_type(
            consumer.getmany(timeout_ms=1), dict[TopicPartition, list[Record[Any, int]]]
        )
        assert_type(consumer.committed(TopicPartition("t", 0)), int | None)
        consumer.seek(TopicPartition("t", 0), 5)
    with sync.Admin() as admin:
        assert_type(admin.list_topics(), list[str])
    with EmbeddedCluster() as cluster:
        cluster.create_topic("t")


asyncio.run(main())
"""

#: Each wrong line has the code of its error behind it.
WRONG = """
from quorate import Admin, Consumer, Producer, TopicPartition, sync
from quorate.serializers import Long
from quorate_testing import EmbeddedCluster


async def program(producer: Producer, consumer: Consumer, admin: Admin) -> None:
    Producer(linger=5)  # call-arg
    Producer(bootstrap_servers=7092)  # arg-type
    sync.Consumer("t", group="g")  # call-arg
    await producer.send(5, b"v")  # arg-type
    consumer.seek(TopicPartition("t", 0), "5")  # arg-type
    consumer.subscribe(topics=5)  # arg-type
    await admin.create_topics(["t"])  # list-item
    EmbeddedCluster(brokers="3")  # arg-type
    number: int = await admin.list_topics()  # assignment
    producer.send_soon("t")  # attr-defined
    record = await consumer.getone()
    record.offset = 5  # misc


def blocking(producer: sync.Producer, admin: sync.Admin) -> None:
    producer.send("t", partition="0")  # arg-type
    text: str = producer.send_and_wait("t")  # assignment
    admin.create_topic(5)  # arg-type


async def typed(texts: Producer[str, int], numbers: Consumer[str, int]) -> None:
    await texts.send("t", "text")  # arg-type
    await texts.send("t", 5, key=b"k")  # arg-type
    await Producer(value_serializer=Long()).send("t", "text")  # arg-type
    sync.Producer(value_serializer=Long()).send("t", "text")  # arg-type
    Producer(value_serializer=Long)  # arg-type
    sync.Consumer("t", value_deserializer=5)  # arg-type
    text: str | None = (await numbers.getone()).value  # assignment
"""


@pytest.fixture
def errors(tmp_path: Path) -> dict[str, dict[int, str]]:
    """Return the code of the error of each line, by program."""
    for name, program in (("right", RIGHT), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(program)
    cache = ROOT / ".mypy_cache" / "programs"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}"]
    done = subprocess.run(
        [*mypy, "--python-version=3.11", "right.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, dict[int, str]] = {"right": {}, "wrong": {}}
    for name, line, said in re.findall(
        r"^(\w+)\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE
    ):
        code = re.search(r"\[([\w-]+)\]$", said)
        found[name][int(line)] = code[1] if code else said
    return found


@pytest.mark.timeout(300)
def test_right_programs_are_clean_and_each_wrong_line_is_refused(
    errors: dict[str, dict[int, str]],
) -> None:
    assert errors["right"] == {}
    wanted = {}
    for number, line in enumerate(WRONG.splitlines(), 1):
        if "  # " in line:
            wanted[number] = line.rpartition("# ")[2]
    assert errors["wrong"] == wanted
