"""Programs of users are clean under mypy --strict and pyright, and wrong ones are refused.

The programs are checked as a user checks them: without the settings of this repository.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RIGHT = """
import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, assert_type

import msgspec
from pydantic import BaseModel

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
from quorate.serializers import Avro, Boolean, Json, Long, Msgspec, Pydantic, String, Uuid
from quorate.model import OffsetAndMetadata
from quorate_testing import AsyncEmbeddedCluster, EmbeddedCluster, SimulatedCluster, run_simulated


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
    print(consumer)
    record = Record("t", 0, 0, 0, "create_time", "k", Order(1), (), 0)
    with_defaults(producer, Consumer("t"), record)


def of_all_types(consumer: Consumer[Any, Any]) -> None:
    print(consumer)


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
        of_all_types(consumer)
    async with Consumer("orders") as raw:
        assert_type(raw, Consumer[bytes, bytes])
        assert_type((await raw.getone()).value, bytes | None)
    async with Consumer("t", value_deserializer=lambda data: data.decode()) as texts:
        assert_type((await texts.getone()).value, str | None)
    async with Consumer("orders", value_deserializer=Json()) as json:
        read = (await json.getone()).value
        print(read["a"] if read is not None else None)
    async with Admin() as admin:
        assert_type(await admin.list_topics(), list[str])
        await admin.create_topics([NewTopic(name="t")])
    async with EmbeddedCluster(brokers=3) as cluster:
        assert_type(cluster, AsyncEmbeddedCluster)
        await cluster.create_topic("t", configs={"retention.ms": 1})


async def simulated(cluster: SimulatedCluster, number: int) -> int:
    await cluster.create_topic("t")
    chaos = asyncio.create_task(cluster.faults.random(5))
    cluster.network.cut({0}, {1, 2, "worker"})
    await cluster.clock.advance_until(lambda: cluster.leader_of("t") == 1)
    assert_type(cluster.spawn(asyncio.sleep, 5, name="worker"), asyncio.Task[None])
    await chaos
    return number


def in_virtual_time() -> None:
    with SimulatedCluster(seed=7, voters=3, brokers=3) as cluster:
        cluster.clock.advance(60)
        cluster.create_topic("u")
        assert_type(cluster.run(simulated, cluster, 5), int)
        cluster.run(cluster.clock.advance, 5)
    assert_type(run_simulated(asyncio.sleep, 5, seed=7), None)


def blocking() -> None:
    with sync.Producer(value_serializer=Orders()) as producer:
        assert_type(producer.send("t", Order(1), b"k"), sync.Delivery)
        assert_type(producer.send_and_wait("t", Order(1)), RecordMetadata)
    with sync.Consumer("t", value_deserializer=Long()) as consumer:
        for record in consumer:
            assert_type(record.value, int | None)
        assert_type(consumer.getone().value, int | None)
        assert_type(
            consumer.getmany(timeout_ms=1), dict[TopicPartition, list[Record[bytes, int]]]
        )
        assert_type(consumer.committed(TopicPartition("t", 0)), int | None)
        consumer.seek(TopicPartition("t", 0), 5)
    with sync.Consumer("t") as raw:
        assert_type(next(raw).key, bytes | None)
    with sync.Admin() as admin:
        assert_type(admin.list_topics(), list[str])
    with sync.SchemaRegistry() as registry:
        assert_type(registry.subjects(), list[str])
    with EmbeddedCluster() as cluster:
        cluster.create_topic("t")


class Measure(msgspec.Struct):
    degrees: float


class Payment(BaseModel):
    total: int


def serializers() -> None:
    with sync.Producer(key_serializer=Uuid(), value_serializer=Msgspec(Measure)) as producer:
        producer.send("t", Measure(1.5), key=uuid.uuid4())
    with sync.Consumer("t", value_deserializer=Msgspec(Measure)) as consumer:
        assert_type(consumer.getone().value, Measure | None)
    with sync.Consumer(
        "t", key_deserializer=Boolean(), value_deserializer=Pydantic(Payment)
    ) as payments:
        assert_type(payments.getone(), Record[bool, Payment])
    schema = '{"type": "record", "name": "Order", "fields": [{"name": "n", "type": "long"}]}'
    with sync.SchemaRegistry() as registry:
        registry.set_compatibility("backward", subject="order-value")
        version = registry.register("order-value", schema)
        assert_type(version.version, int)
        with sync.Producer(value_serializer=Avro(schema, schemas=registry)) as orders:
            orders.send("order", {"n": 1})


async def admin(admin: Admin) -> None:
    await admin.create_topic("t", num_partitions=10, replication_factor=3)
    described = await admin.describe_topics(["t"])
    print([partition.leader for partition in described["t"].partitions])
    assert_type((await admin.describe_cluster()).controller, int)
    groups = await admin.list_groups()
    assert_type([group.group_id for group in groups], list[str])


def test_of_a_user(quorate_cluster: EmbeddedCluster, quorate_topic: str) -> None:
    servers = quorate_cluster.bootstrap_servers
    with sync.Producer(bootstrap_servers=servers) as producer:
        assert producer.send_and_wait(quorate_topic, b"9.50").offset == 0


asyncio.run(main())
"""

#: Each wrong line has the code of its error behind it. Pyright need not say that its variable is
#: used nowhere, or what follows from an error.
WRONG = """
# pyright: reportUnusedVariable=false, reportUnknownMemberType=false
from quorate import Admin, Consumer, Producer, TopicPartition, sync
from quorate.serializers import Long
from quorate_testing import EmbeddedCluster, SimulatedCluster


async def program(producer: Producer, consumer: Consumer, admin: Admin) -> None:
    Producer(linger=5)  # call-arg
    Producer(bootstrap_servers=7092)  # arg-type
    sync.Consumer("t", group="g")  # call-arg
    await producer.send(5, b"v")  # arg-type
    consumer.seek(TopicPartition("t", 0), "5")  # arg-type
    consumer.subscribe(topics=5)  # arg-type
    await admin.create_topics(["t"])  # list-item
    EmbeddedCluster(brokers="3")  # arg-type
    SimulatedCluster(folder="data")  # call-arg
    SimulatedCluster().run(Producer)  # arg-type
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


async def without_deserializers() -> None:
    async with Consumer("t") as raw:
        text: str | None = (await raw.getone()).value  # assignment
    with sync.Consumer("t", "u") as blocking:
        number: int | None = blocking.getone().value  # assignment
    EmbeddedCluster(broker=3)  # call-arg
    Admin(bootstrap="localhost:7092")  # call-arg
    sync.Producer(linger=5)  # call-arg
"""


Errors = dict[str, dict[int, str]]

#: What pyright calls the errors that mypy has these codes for.
PYRIGHT = {
    "call-arg": "reportCallIssue",
    "arg-type": "reportArgumentType",
    "list-item": "reportArgumentType",
    "assignment": "reportAssignmentType",
    "attr-defined": "reportAttributeAccessIssue",
    "misc": "reportAttributeAccessIssue",
}


def run(folder: Path, *command: str | Path) -> str:
    """Return what a type checker printed: both end with 1 if they found errors."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def by_mypy(folder: Path) -> Errors:
    """Return the codes of mypy's errors, by program and line."""
    cache = ROOT / ".mypy_cache" / "programs"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}"]
    printed = run(folder, *mypy, "--python-version=3.11", "right.py", "wrong.py")
    found: Errors = {"right": {}, "wrong": {}}
    for name, line, said in re.findall(r"^(\w+)\.py:(\d+): error: (.*)$", printed, re.MULTILINE):
        code = re.search(r"\[([\w-]+)\]$", said)
        found[name][int(line)] = code[1] if code else said
    return found


def by_pyright(folder: Path) -> Errors:
    """Return the rules of pyright's errors, by program and line. Warnings are not counted.

    basedpyright is pyright with rules of its own; its mode "strict" has those of pyright alone.
    """
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    python = f"--pythonpath={sys.executable}"
    pyright = [sys.executable, "-m", "basedpyright", "--outputjson", python]
    printed = run(folder, *pyright, "right.py", "wrong.py")
    found: Errors = {"right": {}, "wrong": {}}
    for one in json.loads(printed)["generalDiagnostics"]:
        if one["severity"] == "error":
            line = one["range"]["start"]["line"] + 1
            found[Path(one["file"]).stem][line] = one.get("rule", one["message"])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with both programs."""
    for name, program in (("right", RIGHT), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(program)
    return tmp_path


def wanted() -> dict[int, str]:
    """Return mypy's code of each wrong line."""
    lines = enumerate(WRONG.splitlines(), 1)
    return {number: line.rpartition("# ")[2] for number, line in lines if "  # " in line}


@pytest.mark.timeout(300)
def test_mypy_takes_the_right_program_and_refuses_each_wrong_line(folder: Path) -> None:
    assert by_mypy(folder) == {"right": {}, "wrong": wanted()}


@pytest.mark.timeout(300)
def test_pyright_takes_the_right_program_and_refuses_each_wrong_line(folder: Path) -> None:
    rules = {number: PYRIGHT[code] for number, code in wanted().items()}
    assert by_pyright(folder) == {"right": {}, "wrong": rules}
