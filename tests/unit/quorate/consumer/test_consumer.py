"""The consumer against brokers that a test moves, silences and breaks, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from quorate import Consumer, OffsetAndTimestamp, TopicPartition
from quorate.consumer.corruption import CORRUPT_RETRY_S
from quorate.errors import (
    ClosedError,
    CorruptRecordError,
    DeserializationError,
    InvalidPatternError,
    InvalidRequestError,
    OffsetOutOfRangeError,
    UnknownTopicError,
)
from quorate.serializers import Json
from quorate.v1.admin_pb2 import MetadataRequest
from tests.harness.fake_leaders import START_MS, FakeCluster, with_cluster

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)


def consumer(cluster: FakeCluster, *topics: str, **settings: Any) -> Consumer[Any, Any]:
    settings.setdefault("auto_offset_reset", "earliest")
    return Consumer(*topics, bootstrap_servers=cluster.bootstrap, **settings)


async def values(c: Consumer[Any, Any], count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [(await c.getone()).value for _ in range(count)]


def test_records_come_in_order_with_all_they_have() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"a", None, b"", key=b"k")
        partition.write(b"b")
        async with consumer(cluster, "t") as c:
            first = await c.getone()
            assert (first.topic, first.partition, first.offset) == ("t", 0, 0)
            assert (first.key, first.timestamp, first.leader_epoch) == (b"k", START_MS, 1)
            assert await values(c, 3) == [None, b"", b"b"]
            assert await c.position(T0) == 4
            assert c.highwater(T0) == 4
            assert await c.lag() == {T0: 0}

    with_cluster(program)


def test_latest_begins_at_the_end_and_a_later_partition_at_its_beginning() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        topic.partitions[0].write(b"old")
        async with consumer(cluster, "t", auto_offset_reset="latest") as c:
            assert await c.position(T0) == 1
            topic.partitions.append(type(topic.partitions[0])())
            topic.partitions[1].write(b"first", b"second")
            cluster.image_offset += 1
            assert await values(c, 2) == [b"first", b"second"]

    with_cluster(program)


@pytest.mark.parametrize("group_id", [None, "g"])
@pytest.mark.parametrize(
    ("pattern", "is_valid"),
    [
        (r"\pLog", True),
        (r"[[:alpha:]]+", True),
        (r"orders\z", True),
        (r"\Qa.b\E", True),
        ("o(?i)rders", True),
        ("(?<n>orders)", True),
        ("g(?=1)1", False),
        (r"(a)\1", False),
        ("(", False),
    ],
)
def test_a_pattern_has_the_syntax_of_re2_with_and_without_a_group(
    pattern: str, is_valid: bool, group_id: str | None
) -> None:
    consumer = Consumer(group_id=group_id)
    if is_valid:
        consumer.subscribe(pattern=pattern)
        return
    for kind in (InvalidPatternError, ValueError):
        with pytest.raises(kind, match=r"Consumer.subscribe: .* does not compile as RE2: \w"):
            consumer.subscribe(pattern=pattern)


def test_a_pattern_finds_topics_that_come_later() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("other").partitions[0].write(b"no")
        c = consumer(cluster, auto_offset_reset="latest")
        c.subscribe(pattern="t.*")
        async with c:
            assert await c.getmany(timeout_ms=100) == {}
            cluster.add_topic("tea").partitions[0].write(b"yes")
            assert await values(c, 1) == [b"yes"]
            assert c.assignment() == {TopicPartition("tea", 0)}
            c.unsubscribe()
            assert c.assignment() == frozenset()

    with_cluster(program)


def test_the_leader_moves_or_falls_silent() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        async with consumer(cluster, "t") as c:
            partition.write(b"0")
            assert await values(c, 1) == [b"0"]
            cluster.move("t", 0, 1)
            partition.write(b"1")
            assert await values(c, 1) == [b"1"]
            cluster.brokers[1].running.clear()
            await asyncio.sleep(2)
            cluster.move("t", 0, 0)
            partition.write(b"2")
            before = asyncio.get_running_loop().time()
            assert await values(c, 1) == [b"2"]
            assert asyncio.get_running_loop().time() - before < 1.5

    with_cluster(program)


def test_the_new_leader_that_an_error_names_is_asked_at_once() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"0")
        loop = asyncio.get_running_loop()
        async with consumer(cluster, "t") as c:
            assert await values(c, 1) == [b"0"]
            old = cluster.metadata(MetadataRequest(topics=["t"]))
            cluster.metadata = lambda request: old  # type: ignore[method-assign]
            cluster.move("t", 0, 1)
            partition.write(b"1")
            began = loop.time()
            assert await values(c, 1) == [b"1"]
            assert loop.time() - began < 0.05

    with_cluster(program)


@pytest.mark.parametrize("target", [0, 3, 7])
def test_an_answer_that_comes_after_a_seek_is_dropped(target: int) -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(*(b"%d" % number for number in range(10)))
        cluster.delay_s = 0.2
        async with consumer(cluster, "t") as c:
            await c.position(T0)
            await asyncio.sleep(0.1)  # a fetch of offset 0 is under way
            c.seek(T0, target)
            rest = [b"%d" % number for number in range(target, 10)]
            assert await values(c, len(rest)) == rest
            c.seek_to_beginning(T0)
            assert await values(c, 1) == [b"0"]
            c.seek_to_end()
            assert await c.position(T0) == 10

    with_cluster(program)


def test_a_paused_partition_rests_and_goes_on_where_it_was() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        topic.partitions[0].write(b"a0", b"a1", b"a2")
        topic.partitions[1].write(b"b0", b"b1")
        async with consumer(cluster) as c:
            c.assign([T0, T1])
            assert await c.getmany(T0, timeout_ms=1000, max_records=1) != {}
            c.pause(T0)
            assert c.paused() == {T0}
            assert sorted(await values(c, 2)) == [b"b0", b"b1"]
            assert await c.getmany(timeout_ms=1000) == {}
            c.resume(T0)
            assert await values(c, 2) == [b"a1", b"a2"]

    with_cluster(program)


def test_getmany_of_some_partitions_keeps_the_others_for_later() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        for partition in topic.partitions:
            partition.write(*(b"%d" % number for number in range(10)))
        async with consumer(cluster, "t", max_poll_records=4) as c:
            seen: dict[TopicPartition, list[Any]] = {T0: [], T1: []}
            for turn in range(10):
                key = (T0, T1)[turn % 2]
                for found, got in (await c.getmany(key, timeout_ms=2000)).items():
                    assert found == key
                    assert len(got) <= 4
                    seen[found] += [record.value for record in got]
            assert seen == {key: [b"%d" % number for number in range(10)] for key in (T0, T1)}

    with_cluster(program)


def test_what_a_deserializer_refuses_is_next_again_and_seek_goes_past() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"1", b"{", b"3")
        async with consumer(cluster, "t", value_deserializer=Json()) as c:
            got = await c.getmany(timeout_ms=1000)
            assert [record.value for record in got[T0]] == [1]  # not lost by the error behind it
            for _ in range(2):
                with pytest.raises(DeserializationError, match="offset 1 of t-0") as raised:
                    await c.getone()
                assert isinstance(raised.value.__cause__, ValueError)
                assert (raised.value.topic, raised.value.partition) == T0
                assert (raised.value.offset, raised.value.value) == (1, b"{")
                assert (raised.value.key, raised.value.headers) == (None, ())
            assert await c.position(T0) == 1
            c.seek(T0, 2)
            assert await values(c, 1) == [3]

    with_cluster(program)


def spoiled(data: bytes) -> bytes:
    return data.replace(b"aaaa", b"aaab")


def test_a_batch_that_is_corrupt_for_a_while_is_fetched_again_and_raises_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"aaaa", b"b")
        cluster.spoil = spoiled
        async with consumer(cluster, "t") as c:
            assert await c.getmany(timeout_ms=5000) == {}
            reading = asyncio.ensure_future(values(c, 2))
            await asyncio.sleep(5)
            assert not reading.done()
            cluster.spoil = bytes
            assert await reading == [b"aaaa", b"b"]
            assert sum("offset 0 of t-0 is corrupt" in one for one in caplog.messages) == 1

    with_cluster(program)


def test_a_batch_that_stays_corrupt_is_told_after_a_bound_and_can_be_passed() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"aaaa")
        cluster.topics["t"].partitions[0].write(b"b")
        cluster.spoil = spoiled
        async with consumer(cluster, "t") as c:
            began = asyncio.get_running_loop().time()
            for _ in range(2):  # and again, as long as the program does not pass it
                with pytest.raises(CorruptRecordError, match=r"CRC.* seek\(Topic.*, 1\)"):
                    async with asyncio.timeout(2 * CORRUPT_RETRY_S):
                        await c.getone()
            waited = asyncio.get_running_loop().time() - began
            assert CORRUPT_RETRY_S <= waited < CORRUPT_RETRY_S + 2
            c.seek(T0, 1)
            assert await values(c, 1) == [b"b"]
            c.seek(T0, 0)
            cluster.spoil = bytes
            assert await values(c, 1) == [b"aaaa"]

    with_cluster(program)


def test_a_batch_that_two_leaders_send_corrupt_is_told_at_once() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"aaaa")
        cluster.spoil = spoiled
        async with consumer(cluster, "t") as c:
            assert await c.getmany(timeout_ms=2000) == {}
            cluster.move("t", 0, 1 - cluster.topics["t"].partitions[0].leader)
            with pytest.raises(CorruptRecordError, match=r"came from .*, "):
                async with asyncio.timeout(5):
                    await c.getone()

    with_cluster(program)


@pytest.mark.parametrize(("policy", "expected"), [("earliest", b"5"), ("latest", b"new")])
def test_out_of_range_goes_where_the_policy_says(
    policy: str, expected: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.start = 5
        partition.write(b"5")
        async with consumer(cluster, "t", auto_offset_reset=policy) as c:
            c.seek(T0, 2)
            reading = asyncio.ensure_future(c.getone())
            await asyncio.sleep(1)
            if policy == "latest":
                assert not reading.done()
                partition.write(b"new")
            assert (await reading).value == expected

    with_cluster(program)
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    told = f"the position 2 in t-0 does not exist any more: reading goes on from {policy} ("
    assert said.startswith(told)


@pytest.mark.parametrize(("policy", "expected"), [("earliest", b"7"), ("latest", b"new")])
def test_a_log_whose_start_passes_the_reader_goes_where_the_policy_says(
    policy: str, expected: bytes
) -> None:
    """Retention deletes what a consumer is reading: it has read some, and the rest is gone."""

    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"0", b"1")
        async with consumer(cluster, "t", auto_offset_reset=policy) as c:
            c.seek(T0, 0)
            assert await values(c, 2) == [b"0", b"1"]
            for number in range(2, 8):
                partition.write(b"%d" % number)
            partition.start = 7
            reading = asyncio.ensure_future(c.getone())
            await asyncio.sleep(1)
            if policy == "latest":
                assert not reading.done()
                partition.write(b"new")
            assert (await reading).value == expected

    with_cluster(program)


def test_records_that_were_fetched_before_the_log_began_later_are_given_first() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        for number in range(4):
            partition.write(b"%d" % number)
        async with consumer(cluster, "t") as c:
            assert await values(c, 1) == [b"0"]
            await asyncio.sleep(1)
            partition.batches.clear()
            partition.start = 7
            partition.write(b"7")
            await asyncio.sleep(1)
            assert await values(c, 4) == [b"1", b"2", b"3", b"7"]

    with_cluster(program)


def test_policy_none_tells_that_the_start_of_the_log_passed_the_reader() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.start = 5
        partition.write(b"5")
        async with consumer(cluster, "t", auto_offset_reset="none") as c:
            c.seek(T0, 2)
            with pytest.raises(OffsetOutOfRangeError, match="2"):
                await c.getone()
            c.seek(T0, 5)
            assert await values(c, 1) == [b"5"]

    with_cluster(program)


def test_policy_none_asks_the_user() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"0")
        async with consumer(cluster, "t", auto_offset_reset="none") as c:
            with pytest.raises(OffsetOutOfRangeError, match="seek"):
                await c.getone()
            c.seek(T0, 9)
            with pytest.raises(OffsetOutOfRangeError, match="9"):
                await c.getone()
            c.seek(T0, 0)
            assert await values(c, 1) == [b"0"]

    with_cluster(program)


def test_a_partition_without_a_leader_holds_up_nobody() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        cluster.move("t", 0, -1)
        topic.partitions[1].write(b"b")
        async with consumer(cluster, "t") as c:
            before = asyncio.get_running_loop().time()
            assert await values(c, 1) == [b"b"]
            assert asyncio.get_running_loop().time() - before < 1
            topic.partitions[0].write(b"a")
            cluster.move("t", 0, 1)
            assert await values(c, 1) == [b"a"]

    with_cluster(program)


def test_offsets_by_time_and_at_both_ends() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2).partitions[0].write(b"0", b"1", b"2")
        async with consumer(cluster, "t") as c:
            assert await c.beginning_offsets([T0]) == {T0: 0}
            assert await c.end_offsets([T0, T1]) == {T0: 3, T1: 0}
            found = await c.offsets_for_times({T0: START_MS + 1, T1: START_MS})
            assert found == {T0: OffsetAndTimestamp(1, START_MS + 1), T1: None}
            with pytest.raises(ValueError, match=r"whole number from 0 to .*, not -3"):
                await c.offsets_for_times({T0: -3})
            with pytest.raises(UnknownTopicError, match="no partition 7"):
                await c.end_offsets([TopicPartition("t", 7)])
            with pytest.raises(InvalidRequestError, match="not assigned"):
                c.seek(TopicPartition("u", 0), 1)

    with_cluster(program)


def test_a_topic_made_again_is_read_from_its_beginning() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"old0", b"old1")
        async with consumer(cluster, "t") as c:
            await values(c, 2)
            cluster.delete_topic("t")
            cluster.add_topic("t").partitions[0].write(b"new")
            assert await values(c, 1) == [b"new"]

    with_cluster(program)


def test_assign_before_start_and_listeners() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2).partitions[1].write(b"x")
        c = consumer(cluster)
        c.assign([T1])
        async with c:
            assert await values(c, 1) == [b"x"]

            class Listener:
                def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
                    raise RuntimeError(f"listener {len(keys)}")

            c.subscribe(["t"], listener=Listener())
            with pytest.raises(RuntimeError, match="listener 1"):
                await c.getone()
        with pytest.raises(ClosedError):
            await c.getone()

    with_cluster(program)


def test_iteration_ends_when_the_consumer_stops() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"x")
        async with consumer(cluster, "t") as c:
            asyncio.get_running_loop().call_later(1, lambda: stopping.append(_stop(c)))
            stopping: list[asyncio.Task[None]] = []
            assert [record.value async for record in c] == [b"x"]
            await stopping[0]

    with_cluster(program)


def _stop(c: Consumer) -> asyncio.Task[None]:
    return asyncio.ensure_future(c.stop())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"auto_offset_reset": "never"}, '"earliest", "latest" or "none", not'),
        ({"isolation_level": "x"}, "isolation_level"),
        ({"max_poll_records": 0}, "max_poll_records"),
        ({"fetch_max_wait_ms": 0}, "fetch_max_wait_ms must be a whole number from 1"),
        ({"bootstrap_servers": "nowhere"}, "HOST:PORT"),
    ],
)
def test_impossible_settings_say_what_is_wrong(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Consumer(**settings)
