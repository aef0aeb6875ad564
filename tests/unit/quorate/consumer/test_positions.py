"""A consumer's position is fixed when a call returns, and never skips unread records."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from quorate import Consumer, TopicPartition
from quorate.errors import LogTruncatedError, RequestTimedOutError
from quorate.v1.admin_pb2 import MetadataRequest, MetadataResponse
from tests.harness.fake_leaders import FakeCluster, FakePartition, with_cluster

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)


def consumer(cluster: FakeCluster, *topics: str, **settings: Any) -> Consumer:
    settings.setdefault("auto_offset_reset", "earliest")
    return Consumer(*topics, bootstrap_servers=cluster.bootstrap, **settings)


async def values(c: Consumer, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [(await c.getone()).value for _ in range(count)]


def write_each(partition: FakePartition, *values: bytes) -> None:
    """Write each value as a batch of its own, so that the log can be cut between them."""
    for value in values:
        partition.write(value)


# -- a log that was cut (KIP-320) ------------------------------------------------------------------


async def read_three_then_cut(cluster: FakeCluster, c: Consumer, cut_to: int) -> FakePartition:
    """Read three records; then, while the consumer pauses, replace those from `cut_to` on."""
    partition = cluster.topics["t"].partitions[0]
    write_each(partition, b"0", b"1", b"2")
    assert await values(c, 3) == [b"0", b"1", b"2"]
    c.pause(T0)
    await asyncio.sleep(1)
    partition.cut(cut_to)
    write_each(partition, *(b"new%d" % number for number in range(cut_to, 6)))
    cluster.image_offset += 1
    c.resume(T0)
    return partition


@pytest.mark.parametrize("policy", ["earliest", "latest"])
@pytest.mark.parametrize("cut_to", [0, 1, 2])
def test_what_has_the_place_of_lost_records_is_read_and_not_passed_over(
    policy: str, cut_to: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with consumer(cluster, "t", auto_offset_reset=policy) as c:
            await read_three_then_cut(cluster, c, cut_to)
            assert await values(c, 6 - cut_to) == [b"new%d" % n for n in range(cut_to, 6)]

    with_cluster(program)
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert said.startswith(
        "the log of t-0 was cut below the position 3: records that were read are gone, "
        f"reading goes on from {cut_to} ("
    )


def test_without_a_policy_a_cut_log_is_told_with_the_safe_offset_until_the_user_seeks() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with consumer(cluster, "t", auto_offset_reset="none") as c:
            c.seek(T0, 0)
            await read_three_then_cut(cluster, c, 1)
            for _ in range(2):
                with pytest.raises(LogTruncatedError, match="seek to 1") as raised:
                    await c.getone()
                assert raised.value.safe_offset == 1
            c.seek(T0, raised.value.safe_offset)
            assert await values(c, 5) == [b"new%d" % number for number in range(1, 6)]

    with_cluster(program)


def test_a_log_cut_behind_the_position_loses_nothing_that_was_read() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        write_each(partition, b"0", b"1", b"2")
        async with consumer(cluster, "t", auto_offset_reset="none") as c:
            c.seek(T0, 0)
            assert await values(c, 1) == [b"0"]
            await asyncio.sleep(1)  # the others are fetched, and not read yet
            partition.cut(1)
            write_each(partition, b"new1", b"new2", b"new3")
            await asyncio.sleep(1)
            # No error: nothing that was read is gone, and what was held is dropped.
            assert await values(c, 3) == [b"new1", b"new2", b"new3"]

    with_cluster(program)


def test_the_latest_offset_comes_with_its_past_too() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        write_each(partition, b"0", b"1", b"2")
        async with consumer(cluster, "t", auto_offset_reset="latest") as c:
            c.pause(T0)
            partition.cut(1)
            write_each(partition, b"new1", b"new2", b"new3")
            cluster.image_offset += 1
            c.resume(T0)
            assert await values(c, 3) == [b"new1", b"new2", b"new3"]

    with_cluster(program)


@pytest.mark.parametrize(("epoch", "told"), [(1, True), (2, False), (None, False)])
def test_a_seek_of_a_known_epoch_tells_if_the_record_before_it_is_gone(
    epoch: int | None, told: bool
) -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        write_each(partition, b"0", b"1", b"2")
        partition.cut(1)
        write_each(partition, b"new1", b"new2", b"new3")
        async with consumer(cluster, "t", auto_offset_reset="none") as c:
            c.seek(T0, 3, leader_epoch=epoch)
            if told:
                with pytest.raises(LogTruncatedError) as raised:
                    await c.getone()
                assert raised.value.safe_offset == 1
            else:
                assert await values(c, 1) == [b"new3"]

    with_cluster(program)


# -- fixed when the call returns -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["start", "subscribe", "assign", "seek_to_end"])
def test_what_is_written_after_the_call_returned_is_read(how: str) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        for partition in topic.partitions:
            partition.write(b"old")
        cluster.delay_s = 0.2  # an answer takes its time
        policy = "earliest" if how == "seek_to_end" else "latest"
        c = consumer(cluster, auto_offset_reset=policy)
        if how == "start":
            c.subscribe(["t"])
        async with c:
            if how == "subscribe":
                await c.subscribe(["t"])
            elif how == "assign":
                await c.assign([T0, T1])
            elif how == "seek_to_end":
                await c.assign([T0, T1])
                await c.seek_to_end()
            for partition in topic.partitions:
                partition.write(b"new")
            assert await values(c, 2) == [b"new", b"new"]
            assert await c.getmany(timeout_ms=1000) == {}

    with_cluster(program)


def test_seek_to_end_that_is_not_awaited_misses_nothing_that_is_written_afterwards() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"old")
        async with consumer(cluster, "t") as c:
            cluster.delay_s = 0.2
            c.seek_to_end()
            partition.write(b"new")
            assert await values(c, 1) == [b"new"]

    with_cluster(program)


def test_a_pattern_is_known_when_subscribe_returns() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("tea").partitions[0]
        partition.write(b"old")
        async with consumer(cluster, auto_offset_reset="latest") as c:
            await c.subscribe(pattern="t.*")
            assert c.assignment() == {TopicPartition("tea", 0)}
            partition.write(b"new")
            assert await values(c, 1) == [b"new"]

    with_cluster(program)


def test_start_waits_a_short_while_only_for_a_partition_that_has_no_leader() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        cluster.move("t", 0, -1)
        before = asyncio.get_running_loop().time()
        async with consumer(cluster, "t", auto_offset_reset="latest") as c:
            assert 4 < asyncio.get_running_loop().time() - before < 7
            topic.partitions[1].write(b"b")
            assert await values(c, 1) == [b"b"]
            with pytest.raises(RequestTimedOutError, match="t-0"):
                await c.position(T0)

    with_cluster(program)


# -- topics that come and go -----------------------------------------------------------------------


def test_a_topic_made_again_is_read_within_seconds_however_long_it_was_gone() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"old")
        async with consumer(cluster, "t", auto_offset_reset="latest") as c:
            cluster.delete_topic("t")
            assert await c.getmany(timeout_ms=20_000) == {}
            assert c.assignment() == frozenset()
            cluster.add_topic("t").partitions[0].write(b"new")
            before = asyncio.get_running_loop().time()
            assert await values(c, 1) == [b"new"]
            assert asyncio.get_running_loop().time() - before < 4

    with_cluster(program)


def test_topics_that_were_asked_of_once_are_not_looked_for_for_ever() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with consumer(cluster, "t") as c:
            for number in range(20):
                name = f"short-{number}"
                cluster.add_topic(name).partitions[0].write(b"v")
                assert await c.end_offsets([TopicPartition(name, 0)]) == {(name, 0): 1}
                cluster.delete_topic(name)
            asked: list[int] = []
            metadata = cluster.metadata

            def watched(request: MetadataRequest) -> MetadataResponse:
                asked.append(len(request.topics))
                return metadata(request)

            cluster.metadata = watched  # type: ignore[method-assign]
            assert await c.getmany(timeout_ms=400_000) == {}
            assert (asked[0], asked[-1]) == (21, 1)

    with_cluster(program)


def test_a_topic_that_matches_a_pattern_is_found_within_seconds() -> None:
    async def program(cluster: FakeCluster) -> None:
        async with consumer(cluster, auto_offset_reset="latest") as c:
            await c.subscribe(pattern="t.*")
            assert await c.getmany(timeout_ms=20_000) == {}
            cluster.add_topic("tea").partitions[0].write(b"first")
            before = asyncio.get_running_loop().time()
            assert await values(c, 1) == [b"first"]
            assert asyncio.get_running_loop().time() - before < 4

    with_cluster(program)
