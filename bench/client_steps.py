"""`python -m bench.client_steps STEP JSON`: one step of one client library, in a process.

It prints the CPU seconds and the seconds of the step as JSON. bench/clients.py runs it. The step of
a producer is from the first call to the last acknowledgement; each record has 100 bytes and no key.
The step of a consumer reads what is there, from the first record that it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0
VALUE = bytes(100)
CHUNK = 1000
Figures = dict[str, float]
FIXTURE_TEST = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_nothing(quorate_topic, number):
    pass
"""


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Clock:
    """The time and the CPU time since it was made."""

    def __init__(self) -> None:
        self.began, self.cpu = time.perf_counter(), cpu_s()

    def figures(self) -> Figures:
        return {"s": time.perf_counter() - self.began, "cpu": cpu_s() - self.cpu}


async def send(servers: str, topic: str, records: int) -> Figures:
    from quorate import Producer

    async with Producer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(topic, VALUE)
        clock = Clock()
        last = None
        for _ in range(records):
            last = await producer.send(topic, VALUE)
        await producer.flush()
        assert last is not None
        last.result()
        return clock.figures()


async def send_many(servers: str, topic: str, records: int) -> Figures:
    from quorate import Producer

    async with Producer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(topic, VALUE)
        clock = Clock()
        values = [VALUE] * CHUNK
        for _ in range(records // CHUNK):
            await producer.send_many(topic, values)
        await producer.flush()
        return clock.figures()


async def sync_send(servers: str, topic: str, records: int) -> Figures:
    from quorate.sync import Producer

    with Producer(bootstrap_servers=servers) as producer:
        producer.send_and_wait(topic, VALUE)
        clock = Clock()
        for _ in range(records):
            producer.send(topic, VALUE)
        producer.flush()
        return clock.figures()


async def confluent_send(
    servers: str, topic: str, records: int, least: int = len(VALUE), most: int = len(VALUE)
) -> Figures:
    """Each value has `least` to `most` bytes."""
    import confluent_kafka

    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "on_delivery": lambda *_: None,
        }
    )
    producer.produce(topic, VALUE)
    producer.flush(PATIENCE_S)
    values = [bytes(size) for size in range(least, most + 1)]
    random.Random(records).shuffle(values)
    clock = Clock()
    for number in range(records):
        while True:
            try:
                producer.produce(topic, values[number % len(values)])
                break
            except BufferError:
                producer.poll(0.001)
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0
    return clock.figures()


async def aiokafka_send(servers: str, topic: str, records: int) -> Figures:
    import aiokafka

    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=5
    ) as producer:
        await producer.send_and_wait(topic, VALUE)
        clock = Clock()
        last = None
        for _ in range(records):
            last = await producer.send(topic, VALUE)
        await producer.flush()
        assert last is not None
        await last
        return clock.figures()


async def getmany(servers: str, topic: str, records: int) -> Figures:
    from quorate import Consumer

    async with Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        await consumer.getone()
        clock, got = Clock(), 1
        while got < records:
            found = await consumer.getmany(timeout_ms=1000, max_records=CHUNK)
            got += sum(map(len, found.values()))
        return clock.figures()


async def async_for(servers: str, topic: str, records: int) -> Figures:
    from quorate import Consumer

    async with Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        await consumer.getone()
        clock, got = Clock(), 1
        async for _ in consumer:
            got += 1
            if got == records:
                return clock.figures()
    raise AssertionError("the consumer ended")


async def sync_for(servers: str, topic: str, records: int) -> Figures:
    from quorate.sync import Consumer

    with Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        consumer.getone()
        clock, got = Clock(), 1
        for _ in consumer:
            got += 1
            if got == records:
                return clock.figures()
    raise AssertionError("the consumer ended")


async def aiokafka_getmany(servers: str, topic: str, records: int) -> Figures:
    import aiokafka

    async with aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", fetch_max_bytes=16777216
    ) as consumer:
        await consumer.getone()
        clock, got = Clock(), 1
        while got < records:
            found = await consumer.getmany(timeout_ms=1000, max_records=CHUNK)
            got += sum(map(len, found.values()))
        return clock.figures()


async def aiokafka_for(servers: str, topic: str, records: int) -> Figures:
    import aiokafka

    async with aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", fetch_max_bytes=16777216
    ) as consumer:
        await consumer.getone()
        clock, got = Clock(), 1
        async for _ in consumer:
            got += 1
            if got == records:
                return clock.figures()
    raise AssertionError("the consumer ended")


async def embedded(**_: Any) -> Figures:
    """From the import to the first acknowledged record, and the resident bytes then."""
    clock = Clock()
    from quorate import Producer
    from quorate_testing import EmbeddedCluster

    async with EmbeddedCluster() as cluster:
        await cluster.create_topic("first")
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            await producer.send_and_wait("first", VALUE)
            found = clock.figures()
    return found | {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


class _Durations:
    """A plugin of pytest that adds the times of the fixtures of each test."""

    def __init__(self) -> None:
        self.s: dict[str, float] = {}
        #: The CPU seconds at the end of each phase of a test.
        self.cpu: list[float] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call":
            self.s[report.nodeid] = self.s.get(report.nodeid, 0.0) + report.duration
        self.cpu.append(cpu_s())


async def pytest_fixture(tests: int = 50) -> Figures:
    """What `quorate_topic` adds to a test after the first: set-up and teardown."""
    import pytest

    durations = _Durations()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "test_topics.py")
        program.write_text(FIXTURE_TEST.format(tests=tests + 1))
        arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", folder, str(program)]
        with contextlib.redirect_stdout(sys.stderr):
            # pytest blocks, and this event loop has nothing else to do
            assert pytest.main(arguments, plugins=[durations]) == 0
    # the last test's teardown ends the cluster
    found = list(durations.s.values())[1:-1]
    cpu = durations.cpu[-4] - durations.cpu[2]
    return {"s": statistics.median(found), "most": max(found), "cpu": cpu / len(found)}


async def import_quorate(**_: Any) -> Figures:
    clock = Clock()
    import quorate

    found = clock.figures()
    assert quorate.__version__
    return found


STEPS: dict[str, Callable[..., Awaitable[Figures]]] = {
    one.__name__: one
    for one in (
        send, send_many, sync_send, confluent_send, aiokafka_send, getmany, async_for, sync_for,
        aiokafka_getmany, aiokafka_for, embedded, pytest_fixture, import_quorate,
    )
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(asyncio.run(STEPS[sys.argv[1]](**json.loads(sys.argv[2])))))  # type: ignore[arg-type]
