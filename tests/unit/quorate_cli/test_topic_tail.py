"""`quorate topic tail`: the last records of each partition, and those that come."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from quorate import Record, TopicPartition
from quorate_cli.topic_records import records_until
from quorate_cli.topic_tail import last_records
from tests.cluster.support import PATIENCE_S
from tests.unit.quorate_cli.commands import AnyRecord, Quorate


def filled(quorate: Quorate) -> str:
    """A topic of two partitions: five records in each, in turn by their timestamps."""
    topic = quorate.topic(2)
    quorate.write(
        topic,
        [
            {"value": b"%d" % number, "partition": number % 2, "timestamp_ms": 1000 + number}
            for number in range(10)
        ],
    )
    return topic


def test_the_last_records_of_each_partition_come_by_their_times(quorate: Quorate) -> None:
    topic = filled(quorate)
    tail = ("topic", "tail", topic, "--until-end", "--format", "{partition}={value}")
    said = quorate(*tail, "-n", "2")
    assert (said.status, said.err) == (0, "")
    assert said.out.split() == ["0=6", "1=7", "0=8", "1=9"]
    assert quorate(*tail, "-n", "100").out.split() == [f"{n % 2}={n}" for n in range(10)]
    assert quorate(*tail, "-n", "0").out == ""
    assert quorate(*tail, "-n", "1", "--partition", "1").out.split() == ["1=9"]
    assert quorate(*tail[:-2], "-n", "1", "-o", "json").lines[0]["value"] == "8"


def test_count_ends_a_tail(quorate: Quorate) -> None:
    topic = filled(quorate)
    said = quorate("topic", "tail", topic, "-n", "2", "--count", "3", "--format", "{value}")
    assert (said.status, said.out.split()) == (0, ["6", "7", "8"])


def test_records_are_printed_as_they_come_until_control_c(quorate: Quorate) -> None:
    topic = filled(quorate)
    run = "from quorate_cli.app import main; main()"
    options = ("--format", "{value}", "--bootstrap", quorate.servers)
    with subprocess.Popen(
        [sys.executable, "-c", run, "topic", "tail", topic, "-n", "1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert [process.stdout.readline() for _ in range(2)] == ["8\n", "9\n"]
            quorate.write(topic, [{"value": b"new", "partition": 1}])
            assert process.stdout.readline() == "new\n"
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
            assert process.stderr.read() == ""
        finally:
            process.kill()


class Compacted:
    """Stands for a consumer: one partition, whose log holds some offsets only."""

    def __init__(self, offsets: list[int]) -> None:
        self.offsets = offsets
        self.at = 0
        self.key = TopicPartition("t", 0)

    def assignment(self) -> set[TopicPartition]:
        return {self.key}

    def pause(self, *_: TopicPartition) -> None:
        return

    resume = pause

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, _: TopicPartition) -> int:
        return self.at

    async def getmany(
        self, *, timeout_ms: int, max_records: int | None
    ) -> dict[TopicPartition, list[AnyRecord]]:
        found = [one for one in self.offsets if one >= self.at]
        self.at = self.offsets[-1] + 1
        return {self.key: [self._record(self.key, one) for one in found]}

    @staticmethod
    def _record(key: TopicPartition, offset: int) -> AnyRecord:
        return Record(
            key.topic, key.partition, offset, offset, "create_time", None, b"%d" % offset, (), 0
        )


@pytest.mark.parametrize("last", [1, 3, 6, 7, 100])
def test_compaction_hides_none_of_the_last_records(last: int) -> None:
    """The last ten offsets may hold one record."""
    offsets = [0, 1, 2, 500, 900, 999]
    consumer = Compacted(offsets)
    found = asyncio.run(
        last_records(consumer, {consumer.key: 0}, {consumer.key: 1000}, last, 5.0)  # type: ignore[arg-type]
    )
    assert [record.offset for record in found] == offsets[-last:]
    assert consumer.at == 1000


class Grown(Compacted):
    """The topic has one partition more than at the start of the reading."""

    async def getmany(
        self, *, timeout_ms: int, max_records: int | None
    ) -> dict[TopicPartition, list[AnyRecord]]:
        new = TopicPartition("t", 1)
        found = await super().getmany(timeout_ms=timeout_ms, max_records=max_records)
        return {new: [self._record(new, 0)], **found}


def test_a_partition_that_is_added_does_not_end_a_reading_to_the_end() -> None:
    """`topic consume --until-end` ended with a KeyError."""

    async def read(records: AsyncIterator[AnyRecord]) -> list[tuple[int, int]]:
        return [(one.partition, one.offset) async for one in records]

    consumer = Grown([0, 1])
    reading = records_until(consumer, {consumer.key: 2}, 5.0)  # type: ignore[arg-type]
    assert asyncio.run(read(reading)) == [(0, 0), (0, 1)]
