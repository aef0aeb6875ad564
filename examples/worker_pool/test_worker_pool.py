"""The pool does each job, in the order of its key, and commits no job that is not done."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from worker_pool import Handler, Job, Reject, Settings, WorkerPool

from quorate import Admin, Consumer, Producer, RecordMetadata, TopicPartition
from quorate.errors import UnknownTopicError
from quorate.sync import Consumer as BlockingConsumer
from quorate.sync import Producer as BlockingProducer
from quorate_testing import EmbeddedCluster

HERE = Path(__file__).parent
PATIENCE_S = 30
PARTITIONS = 3
QUICK = Settings(pause_s=0.001, commit_interval_s=0.02)


class Topics:
    """A topic of jobs and its dead letters."""

    def __init__(self, cluster: EmbeddedCluster, name: str) -> None:
        self.servers, self.jobs, self.dead = cluster.bootstrap_servers, name, f"{name}-dead"
        cluster.create_topic(self.jobs, PARTITIONS)
        cluster.create_topic(self.dead)

    def send(self, jobs: list[tuple[str, bytes]]) -> None:
        """Write jobs, as (key, value). All are acknowledged when it returns."""
        with BlockingProducer(bootstrap_servers=self.servers) as producer:
            for key, value in jobs:
                producer.send(self.jobs, value, key=key.encode(), headers=[("from", b"a test")])

    def dead_letters(self) -> list[Job]:
        """Return the dead letters."""
        partition = TopicPartition(self.dead, 0)
        with BlockingConsumer(
            bootstrap_servers=self.servers, auto_offset_reset="earliest"
        ) as consumer:
            consumer.assign([partition])
            return [consumer.getone() for _ in range(consumer.end_offsets([partition])[partition])]

    async def committed(self) -> int:
        """Return how many jobs the group has committed."""
        async with Admin(bootstrap_servers=self.servers) as admin:
            offsets = await admin.list_group_offsets("workers")
        return sum(one.offset for key, one in offsets.items() if key.topic == self.jobs)

    @asynccontextmanager
    async def pool(
        self, handle: Handler, make_producer: type[Producer] = Producer
    ) -> AsyncIterator[WorkerPool]:
        """Run a pool, which stops in good order at the end."""
        consumer = Consumer(
            bootstrap_servers=self.servers,
            group_id="workers",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        async with make_producer(bootstrap_servers=self.servers) as producer:
            pool = WorkerPool(
                consumer, producer, handle, dead_letter_topic=self.dead, settings=QUICK
            )
            running = asyncio.create_task(pool.run(self.jobs))
            try:
                yield pool
            finally:
                pool.stop()
                await running


@pytest.fixture
def topics(quorate_cluster: EmbeddedCluster, quorate_topic: str) -> Topics:
    """Topics on the cluster of the plugin."""
    return Topics(quorate_cluster, f"{quorate_topic}-jobs")


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not so within {PATIENCE_S} s: {condition}"
        await asyncio.sleep(0.01)


async def until_is(ask: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Wait until the answer is as wanted, and no more than that."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := await ask()) < wanted:
        assert time.monotonic() < deadline, f"{answer} after {PATIENCE_S} s, and not {wanted}"
        await asyncio.sleep(0.01)
    assert answer == wanted


def test_failed_jobs_are_tried_again_and_dead_letters_have_their_reason(topics: Topics) -> None:
    attempts: Counter[bytes] = Counter()

    async def handle(job: Job) -> None:
        assert job.value is not None
        attempts[job.value] += 1
        if job.value == b"wrong":
            raise Reject("no such customer")
        if job.value == b"hopeless" or (job.value == b"unlucky" and attempts[job.value] < 3):
            raise ConnectionError("the printer does not answer")

    async def main() -> None:
        values = [b"fine", b"wrong", b"hopeless", b"unlucky"]
        topics.send([(f"key-{number}", value) for number, value in enumerate(values)])
        async with topics.pool(handle):
            await until(
                lambda: attempts == {b"fine": 1, b"wrong": 1, b"hopeless": 5, b"unlucky": 3}
            )
        assert await topics.committed() == 4

    asyncio.run(main())
    letters = {letter.value: dict(letter.headers) for letter in topics.dead_letters()}
    assert letters.keys() == {b"wrong", b"hopeless"}
    wrong, hopeless = letters[b"wrong"], letters[b"hopeless"]
    assert wrong["from"] == b"a test"
    assert wrong["dead-letter-reason"] == b"Reject: no such customer"
    assert wrong["dead-letter-attempts"] == b"1"
    assert f"{topics.jobs}/".encode() in (wrong["dead-letter-source"] or b"")
    assert hopeless["dead-letter-reason"] == b"ConnectionError: the printer does not answer"
    assert hopeless["dead-letter-attempts"] == b"5"


def test_nothing_behind_a_job_that_is_not_done_is_committed(topics: Topics) -> None:
    done: list[int] = []

    async def main() -> None:
        may_end = asyncio.Event()

        async def handle(job: Job) -> None:
            if job.key == b"slow":
                await may_end.wait()
            done.append(job.offset)

        async with Producer(bootstrap_servers=topics.servers) as producer:
            for number in range(20):
                key = b"slow" if number == 5 else b"key-%d" % number
                await producer.send_and_wait(topics.jobs, b"", key=key, partition=0)
        async with topics.pool(handle):
            await until(lambda: len(done) >= 17)
            assert 5 not in done
            await until_is(topics.committed, 5)
            may_end.set()
        assert len(done) == 20
        assert await topics.committed() == 20

    asyncio.run(main())


class WritesNothing(Producer):
    """A producer that finds its topic gone."""

    async def send_and_wait(self, topic: str, *_: object, **__: object) -> RecordMetadata:
        raise UnknownTopicError(f"topic {topic!r} was deleted")


def test_a_job_whose_dead_letter_cannot_be_written_is_not_committed(topics: Topics) -> None:
    async def handle(job: Job) -> None:
        raise Reject("no such customer")

    async def main() -> None:
        topics.send([(f"key-{number}", b"") for number in range(20)])
        with pytest.raises(ExceptionGroup) as caught:
            async with topics.pool(handle, WritesNothing) as pool:
                await until(lambda: pool.has_failed)
        assert caught.group_contains(UnknownTopicError)
        assert await topics.committed() == 0

    asyncio.run(main())


def test_members_that_come_and_go_double_nothing_and_keep_the_order_of_each_key(
    topics: Topics,
) -> None:
    seen: defaultdict[bytes | None, list[int]] = defaultdict(list)

    async def handle(job: Job) -> None:
        await asyncio.sleep(random.uniform(0, 0.01))
        seen[job.key].append(int(job.value or b""))

    def count() -> int:
        return sum(map(len, seen.values()))

    async def main() -> None:
        topics.send([(f"key-{number % 30}", str(number).encode()) for number in range(600)])
        async with topics.pool(handle):
            await until(lambda: count() > 50)
            async with topics.pool(handle):
                await until(lambda: count() > 250)
                async with topics.pool(handle):
                    await until(lambda: count() > 400)
            await until(lambda: count() == 600)
        assert await topics.committed() == 600

    asyncio.run(main())
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())


@contextmanager
def process(topics: Topics, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program in a process of its own, which is killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "invoices.py", topics.jobs, str(folder), "--dead-letter-topic",
         topics.dead, "--failing-share", "0.1", "--bootstrap", topics.servers],
        cwd=HERE, stderr=subprocess.DEVNULL,
    ) as started:  # fmt: skip
        try:
            yield started
        finally:
            started.kill()


def invoices(numbers: range, *, is_wrong: Callable[[int], bool]) -> list[tuple[str, bytes]]:
    """Return jobs, some of which are wrong."""
    return [
        (
            f"customer-{number % 50}",
            b"no JSON"
            if is_wrong(number)
            else json.dumps(
                {"invoice": str(number), "customer": "alice", "cents": number}
            ).encode(),
        )
        for number in numbers
    ]


def test_of_two_processes_one_is_killed_and_no_job_is_lost(topics: Topics, tmp_path: Path) -> None:
    def is_written() -> bool:
        return len(list(tmp_path.glob("*.txt"))) == 570

    def is_wrong(number: int) -> bool:
        return number % 20 == 0

    topics.send(invoices(range(300), is_wrong=is_wrong))
    with process(topics, tmp_path) as first, process(topics, tmp_path) as second:
        asyncio.run(until(lambda: len(list(tmp_path.glob("*.txt"))) > 20))
        topics.send(invoices(range(300, 600), is_wrong=is_wrong))
        first.kill()
        asyncio.run(until(is_written))
        second.terminate()
        assert second.wait(PATIENCE_S) == 0
    letters = [dict(letter.headers)["dead-letter-source"] for letter in topics.dead_letters()]
    assert len(set(letters)) == 30
    assert (tmp_path / "599.txt").read_text() == "alice owes 5.99\n"


def test_a_broker_that_crashes_costs_no_job() -> None:
    with EmbeddedCluster(brokers=3, kafka=False) as cluster:
        topics = Topics(cluster, "jobs")
        seen: set[bytes | None] = set()

        async def handle(job: Job) -> None:
            if job.value == b"7":
                raise Reject("seven")
            seen.add(job.value)

        async def main() -> None:
            async with topics.pool(handle):
                for broker in range(3):
                    numbers = range(broker * 100, broker * 100 + 100)
                    jobs = [(f"key-{number}", str(number).encode()) for number in numbers]
                    await asyncio.to_thread(topics.send, jobs[:50])
                    await asyncio.to_thread(cluster.crash_broker, broker)
                    await asyncio.to_thread(topics.send, jobs[50:])
                    await asyncio.to_thread(cluster.start_broker, broker)
                await until(lambda: len(seen) == 299)
            assert await topics.committed() == 300

        asyncio.run(main())
        assert {letter.value for letter in topics.dead_letters()} == {b"7"}
