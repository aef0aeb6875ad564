"""`quorate topic copy`: what is kept, how many were copied, and what a failure leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from quorate import Consumer
from quorate_testing import EmbeddedCluster
from tests.cluster.support import PATIENCE_S
from tests.unit.quorate_cli.commands import AnyRecord, Quorate

RECORDS: list[dict[str, Any]] = [
    {
        "value": None if number == 3 else b"%d" % number,
        "key": None if number % 4 == 0 else b"" if number == 5 else b"k%d" % (number % 3),
        "partition": number % 3,
        "timestamp_ms": 1_700_000_000_000 + number,
        "headers": [("h", b"\xff"), ("h", None)] if number % 2 else None,
    }
    for number in range(30)
]


def kept(record: AnyRecord) -> tuple[Any, ...]:
    """What a copy keeps of a record, if both topics have the same number of partitions."""
    return record.partition, record.key, record.value, tuple(record.headers), record.timestamp_ms


def test_a_copy_keeps_everything_but_offsets(quorate: Quorate) -> None:
    source, target = quorate.topic(3), quorate.topic(3)
    quorate.write(source, RECORDS)
    said = quorate("topic", "copy", source, target, "--until-end")
    assert (said.status, said.out, said.err) == (0, "30 records copied, 0 failed\n", "")
    assert list(map(kept, quorate.read(target))) == list(map(kept, quorate.read(source)))


def test_a_copy_keeps_times_before_1970_and_the_lack_of_a_time(quorate: Quorate) -> None:
    source, target = quorate.topic(1), quorate.topic(1)
    times = [1000, -5, -1, 2000, -(10**13)]
    quorate.write(source, [{"value": b"x", "timestamp_ms": one} for one in times])
    said = quorate("topic", "copy", source, target, "--until-end")
    assert (said.status, said.out) == (0, "5 records copied, 0 failed\n"), said.err
    assert [record.timestamp_ms for record in quorate.read(target)] == times


def test_a_key_keeps_its_order_where_the_numbers_of_partitions_differ(quorate: Quorate) -> None:
    source, target = quorate.topic(1), quorate.topic(4)
    quorate.write(source, [{**one, "partition": 0} for one in RECORDS])
    said = quorate("topic", "copy", source, target, "--until-end", "-o", "json")
    assert said.json == {
        "copied": 30,
        "failed": 0,
        "partitions": [{"partition": 0, "next_offset": 30}],
    }
    for key in {one["key"] for one in RECORDS} - {None}:
        found = [record for record in quorate.read(target) if record.key == key]
        assert len({record.partition for record in found}) == 1
        assert [record.value for record in found] == [
            one["value"] for one in RECORDS if one["key"] == key
        ]


def test_a_copy_from_another_cluster(quorate: Quorate, capfd: pytest.CaptureFixture[str]) -> None:
    topic = quorate.topic(3)
    quorate.write(topic, RECORDS)
    with EmbeddedCluster() as other:
        other.create_topic(topic, 3)
        there = Quorate(other, capfd)
        copy = ("topic", "copy", topic, topic, "--until-end", "--compression", "zstd")
        said = there(*copy, "--from-bootstrap", quorate.servers)
        assert (said.status, said.out) == (0, "30 records copied, 0 failed\n")
        assert list(map(kept, there.read(topic))) == list(map(kept, quorate.read(topic)))


def test_a_copy_begins_where_start_says(quorate: Quorate) -> None:
    source, target = quorate.topic(3), quorate.topic(3)
    quorate.write(source, RECORDS)
    copy = ("topic", "copy", source, target, "--until-end")
    said = quorate(*copy, "--start", "0=8", "--start", "2=10")
    assert (said.status, said.out) == (0, "12 records copied, 0 failed\n")
    assert [record.value for record in quorate.read(target) if record.partition != 1] == [
        b"24",
        b"27",
    ]


@pytest.mark.parametrize(
    ("wrong", "status", "what"),
    [
        (("--start", "0"), 2, "--start takes PARTITION=OFFSET, as 3=1500, not '0'"),
        (("--start", "0=-1"), 2, "--start takes PARTITION=OFFSET"),
        (("--start", "7=0"), 2, "--start names partition 7"),
        (("--start", "0=5"), 1, "--start 5 is outside"),
        (("--compression", "best"), 2, "best"),
    ],
)
def test_a_wrong_option_is_refused(
    quorate: Quorate, wrong: tuple[str, ...], status: int, what: str
) -> None:
    said = quorate("topic", "copy", quorate.topic(), quorate.topic(), "--until-end", *wrong)
    assert (said.status, said.out) == (status, "")
    assert what in said.err
    assert len(said.err.splitlines()) == 1


def test_a_topic_is_not_copied_into_itself(quorate: Quorate) -> None:
    topic = quorate.topic()
    said = quorate("topic", "copy", topic, topic)
    assert said.status == 2
    assert "the same topic: a copy into itself would never end" in said.err


def test_a_topic_that_does_not_exist_is_named(quorate: Quorate) -> None:
    topic = quorate.topic()
    for pair in ((topic, "missing"), ("missing", topic)):
        said = quorate("topic", "copy", *pair)
        assert (said.status, said.out) == (1, "")
        assert "missing" in said.err


def test_a_failure_ends_the_copy_and_says_how_to_go_on(quorate: Quorate) -> None:
    """A retry with the options that were printed leaves no gap."""
    source, target = quorate.topic(2), quorate.topic(2, max_message_bytes=2000)
    values = [b"%d" % number for number in range(20)]
    values[11] = b"x" * 5000
    quorate.write(
        source, [{"value": one, "partition": number % 2} for number, one in enumerate(values)]
    )
    said = quorate("topic", "copy", source, target, "--until-end", "-o", "json")
    assert said.status == 1
    assert f"{source}/1 offset 5: " in said.err
    assert "[RECORD_TOO_LARGE]" in said.err
    found = quorate.read(target)
    assert said.json["copied"] == len(found)
    assert said.json["failed"] >= 1
    offsets = {one["partition"]: one["next_offset"] for one in said.json["partitions"]}
    assert offsets[1] == 5
    options = said.err.splitlines()[-1].partition(" with ")[2].split()
    assert options == ["--start", f"0={offsets[0]}", "--start", "1=5"]

    assert quorate("topic", "alter", target, "-c", "max.message.bytes=9000").status == 0
    again = quorate("topic", "copy", source, target, "--until-end", *options)
    assert again.status == 0
    for partition in (0, 1):
        copied = [record.value for record in quorate.read(target) if record.partition == partition]
        began_again = values[partition::2][offsets[partition] :]
        assert copied[: offsets[partition]] == values[partition::2][: offsets[partition]]
        assert copied[len(copied) - len(began_again) :] == began_again


def test_a_target_that_fails_in_the_middle_leaves_no_gap(
    quorate: Quorate, capfd: pytest.CaptureFixture[str]
) -> None:
    """The copy ends with status 3. The same command with the printed options goes on."""
    topic = quorate.topic(2)
    quorate.write(topic, [{"value": b"%d" % number, "partition": 0} for number in range(3)])
    with EmbeddedCluster() as other:
        other.create_topic(topic, 2)
        there = Quorate(other, capfd)
        servers = ("--from-bootstrap", quorate.servers, "--bootstrap", there.servers)
        copy = ("topic", "copy", topic, topic, *servers)
        run = "from quorate_cli.app import main; main()"
        with subprocess.Popen(
            [sys.executable, "-c", run, *copy, "--timeout", "3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                asyncio.run(until_copied(there, topic, 3))
                other.crash_broker(0)
                quorate.write(topic, [{"value": b"later", "partition": 1}])
                out, err = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
        assert (process.returncode, out) == (3, "3 records copied, 1 failed\n")
        assert f"{topic}/1 offset 0: " in err
        assert err.endswith("to go on: the same command with --start 0=3 --start 1=0\n")
        other.start_broker(0)
        again = there(*copy[:6], "--until-end", "--start", "0=3", "--start", "1=0")
        assert (again.status, again.out) == (0, "1 record copied, 0 failed\n")
        assert [one.value for one in there.read(topic)] == [b"0", b"1", b"2", b"later"]


def test_control_c_ends_a_copy_that_follows(quorate: Quorate) -> None:
    source, target = quorate.topic(), quorate.topic()
    quorate.write(source, [{"value": b"old"}])
    run = "from quorate_cli.app import main; main()"
    with subprocess.Popen(
        [
            *(sys.executable, "-c", run, "topic", "copy", source, target),
            *("--bootstrap", quorate.servers),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            quorate.write(source, [{"value": b"new"}])
            asyncio.run(until_copied(quorate, target, 2))
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read() == "2 records copied, 0 failed\n"
            assert process.stderr.read() == "to go on: the same command with --start 0=2\n"
        finally:
            process.kill()
    assert [record.value for record in quorate.read(target)] == [b"old", b"new"]


async def until_copied(quorate: Quorate, topic: str, count: int) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        Consumer(topic, bootstrap_servers=quorate.servers, auto_offset_reset="earliest") as reader,
    ):
        for _ in range(count):
            await reader.getone()
