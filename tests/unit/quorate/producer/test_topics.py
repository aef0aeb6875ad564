"""What a producer does with topics and partitions: sizes, shares, topics that go and come back."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from quorate import Delivery, Producer
from quorate.errors import (
    OutcomeUnknownError,
    QuorateError,
    RecordTooLargeError,
    UnknownTopicError,
    WrongClusterError,
)
from tests.harness.fake_leaders import FakeCluster, with_cluster


def producer(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap, **settings)


def at_most(size: int) -> Any:
    """As a broker whose max.message.bytes that is."""
    return lambda _topic, _partition, batch: (
        RecordTooLargeError(f"a batch of {len(batch)} bytes; max.message.bytes is {size}")
        if len(batch) > size
        else None
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression_type": "gzip"},
        {"compression_type": "snappy"},
        {"compression_type": "lz4", "compression_level": 17},
        {"compression_type": "zstd"},
        {"acks": 1},
    ],
)
def test_small_records_arrive_whatever_a_topic_allows_a_batch(settings: dict[str, Any]) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        cluster.fault = at_most(2000)
        async with producer(cluster, max_batch_size=16_000, **settings) as p:
            values = [b"%d" % number * 50 for number in range(1000)]
            deliveries = [await p.send("t", value) for value in values]
            offsets = [(await one).offset for one in deliveries]
            assert offsets == list(range(1000))
            assert p._accumulator.bytes_used == 0
            assert p.undelivered == 0
        assert topic.partitions[0].values() == values

    with_cluster(program)


def test_a_delivery_of_a_batch_that_was_split_tells_of_its_own_record() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.fault = at_most(2000)
        async with producer(cluster, max_batch_size=16_000) as p:
            called: list[Delivery] = []
            deliveries = [await p.send("t", bytes(size)) for size in (10, 3000, 10, 10)]
            for one in deliveries:
                one.add_done_callback(called.append)
            results = await asyncio.gather(*deliveries, return_exceptions=True)
            assert [isinstance(one, RecordTooLargeError) for one in results] == [
                False,
                True,
                False,
                False,
            ]
            await asyncio.sleep(0)
            assert set(called) == set(deliveries)
            assert p.undelivered == 0  # all of them were awaited

    with_cluster(program)


@pytest.mark.parametrize("call", ["send", "send_many"])
def test_a_record_that_no_message_carries_fails_alone_and_is_never_in_the_buffer(
    call: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quorate.producer.accumulator.WIRE_BATCH_BYTES_MAX", 100_000)

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        async with producer(cluster) as p:
            others = [await p.send("t", b"s", partition=1) for _ in range(10)]
            used = p._accumulator.bytes_used
            if call == "send":
                large = [await p.send("t", bytes(200_000), partition=0) for _ in range(2)]
                assert p._accumulator.bytes_used == used
            else:
                large = [*(await p.send_many("t", [bytes(200_000)] * 2, partition=0))]
            with pytest.raises(RecordTooLargeError, match="a message of the wire carries"):
                await large[0]
            await p.flush()
            assert isinstance(large[1].exception(), RecordTooLargeError)
            assert p.undelivered == 1
            others += [await p.send("t", b"s", partition=number % 2) for number in range(20)]
            await asyncio.gather(*others)

    with_cluster(program)


@pytest.mark.parametrize("fits", [True, False])
def test_a_record_that_a_codec_may_make_small_is_judged_by_its_batch(
    fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.producer.accumulator.WIRE_BATCH_BYTES_MAX", 100_000)
    monkeypatch.setattr("quorate.producer.accumulator.DECOMPRESSED_BYTES_MAX", 300_000)

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, compression_type="gzip") as p:
            value = bytes(200_000) if fits else Random(1).randbytes(200_000)
            sent = await p.send("t", value)
            if fits:
                assert (await sent).offset == 0
            else:
                with pytest.raises(RecordTooLargeError, match="a message of the wire carries"):
                    await sent
            with pytest.raises(RecordTooLargeError, match="300000 are allowed"):
                await p.send_and_wait("t", bytes(400_000))

    with_cluster(program)


def test_headers_count_as_the_same_bytes_in_the_value_do() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster, max_batch_size=1000, buffer_memory=5000) as p:
            await p.send("t", bytes(500))
            await p.send("t", b"v", headers=[("trace", bytes(900))])
            await p.flush()
            sizes = [header.size for header, _ in topic.partitions[0].batches]
            assert len(sizes) == 2
            assert max(sizes) < 1000
            with pytest.raises(RecordTooLargeError, match="buffer_memory"):
                await p.send("t", b"v", headers=[("trace", bytes(6000))])
            with pytest.raises(RecordTooLargeError, match="buffer_memory"):
                await p.send("t", b"v", headers=[("\u00e9" * 3000, None)])

    with_cluster(program)


def test_records_without_keys_go_to_another_partition_after_a_batch_size_of_bytes() -> None:
    """Also one by one, when no batch is ever full (KIP-794)."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 5)
        async with producer(cluster, max_batch_size=2000) as p:
            places = [(await p.send_and_wait("t", bytes(100))).partition for _ in range(400)]
        runs = [1]
        for one, other in pairwise(places):
            if one == other:
                runs[-1] += 1
            else:
                runs.append(1)
        assert set(places) == {0, 1, 2, 3, 4}
        assert {*runs[:-1]} == {19}  # 19 records of 107 bytes are the first above 2000

    with_cluster(program)


def test_a_full_batch_is_followed_by_one_for_another_partition() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 3)
        cluster.delay_s = 0.01
        async with producer(cluster, max_batch_size=2000, linger_ms=1000) as p:
            for _ in range(600):
                await p.send("t", bytes(100))
        counts = [header.count for part in topic.partitions for header, _ in part.batches]
        assert sum(counts) == 600
        assert counts.count(max(counts)) > len(counts) - 6, counts  # hardly any is cut short
        assert min(len(part.batches) for part in topic.partitions) > 5

    with_cluster(program)


def test_records_without_keys_leave_a_partition_without_leader() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 2)
        async with producer(cluster) as p:
            first = (await p.send_and_wait("t", b"x")).partition
            cluster.move("t", first, -1)
            stuck = await p.send("t", b"y")
            await asyncio.sleep(0.5)
            for _ in range(5):
                assert (await p.send_and_wait("t", b"z")).partition != first
            cluster.move("t", first, 0)
            await stuck

    with_cluster(program)


def test_a_topic_made_again_gets_what_is_sent_after_it_was_made() -> None:
    async def program(cluster: FakeCluster) -> None:
        old = cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"old")
            cluster.delete_topic("t")
            topic = cluster.add_topic("t")
            sent = [await p.send("t", b"%d" % number) for number in range(5)]
            await asyncio.gather(*sent)
            await p.send_and_wait("t", b"5")
            assert topic.partitions[0].values() == [b"%d" % number for number in range(6)]
            assert old.partitions[0].values() == [b"old"]
            cluster.delete_topic("t")
            with pytest.raises(UnknownTopicError, match="was deleted"):
                await p.send_and_wait("t", b"lost")
        assert asyncio.get_running_loop().time() < 10

    with_cluster(program)


def test_a_topic_made_again_may_be_missing_for_a_while() -> None:
    """A broker that lags behind knows of the deletion, and not yet of the new topic."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"old")
            cluster.delete_topic("t")
            topic = cluster.add_topic("t")
            del cluster.topics["t"]
            await asyncio.sleep(0.1)
            sending = asyncio.ensure_future(p.send_and_wait("t", b"new"))
            await asyncio.sleep(1)
            cluster.topics["t"] = topic
            cluster.image_offset += 1
            await sending
            assert topic.partitions[0].values() == [b"new"]

    with_cluster(program)


def test_what_was_sent_before_a_topic_was_made_again_is_not_sent_to_it() -> None:
    """The clocks of the cluster and of the client may be hours apart."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"old")
            cluster.move("t", 0, -1)
            before = await p.send("t", b"before")
            await asyncio.sleep(1)
            cluster.delete_topic("t")
            await asyncio.sleep(0.5)
            topic = cluster.add_topic("t")
            with pytest.raises(UnknownTopicError, match="after the record was sent, and made"):
                await before
            await p.send_and_wait("t", b"after")
        assert topic.partitions[0].values() == [b"after"]

    with_cluster(program)


def test_what_was_meant_for_other_partitions_is_not_sent_to_a_topic_made_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 4)
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"old", key=b"k")
            cluster.delete_topic("t")
            cluster.add_topic("t", 3)
            with pytest.raises(UnknownTopicError, match="again with 3 partitions instead of 4"):
                await p.send_and_wait("t", b"new", key=b"k")
            await p.send_and_wait("t", b"new", key=b"k")

    with_cluster(program)


def test_what_may_be_in_the_deleted_topic_is_not_sent_to_the_new_one() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"old")
            cluster.break_next = True  # it is written, and the answer lost
            cluster.delay_s = 0.01
            sending = asyncio.ensure_future(p.send_and_wait("t", b"lost"))
            await asyncio.sleep(0.005)
            cluster.delete_topic("t")
            topic = cluster.add_topic("t")
            with pytest.raises(
                OutcomeUnknownError, match="deleted after the record was sent, and made"
            ):
                await sending
            await p.send_and_wait("t", b"new")
            assert topic.partitions[0].values() == [b"new"]

    with_cluster(program)


def test_topics_that_are_gone_are_forgotten() -> None:
    async def program(cluster: FakeCluster) -> None:
        async with producer(cluster) as p:
            assert p._cluster is not None
            for number in range(60):
                name = f"t{number}"
                cluster.add_topic(name)
                await p.send_and_wait(name, b"v")
                cluster.delete_topic(name)
            p._cluster.request_refresh()
            await asyncio.sleep(5)
            assert _kept(p) == [0] * 6

    with_cluster(program)


def test_topics_that_were_only_asked_for_are_forgotten() -> None:
    async def program(cluster: FakeCluster) -> None:
        async with producer(cluster) as p:
            for number in range(3):
                with pytest.raises(UnknownTopicError):
                    await p.send(f"nope{number}", b"v")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await p.send(f"nope{number}", b"v")
            assert _kept(p) == [0] * 6

    with_cluster(program)


def test_a_topic_that_is_idle_for_minutes_is_forgotten_and_can_be_used_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        idle = cluster.add_topic("idle", 3)
        cluster.add_topic("busy")
        async with producer(cluster) as p:
            await p.partitions_for("idle")
            for number in range(3):
                await p.send_and_wait("idle", b"v", partition=number)
            for _ in range(400):
                await p.send_and_wait("busy", b"v")
                await asyncio.sleep(1)
            assert _kept(p) == [1, 1, 0, 1, 1, 1]
            for number in range(3):
                assert (await p.send_and_wait("idle", b"w", partition=number)).offset == 1
        assert [part.values() for part in idle.partitions] == [[b"v", b"w"]] * 3

    with_cluster(program)


def _kept(p: Producer) -> list[int]:
    assert p._cluster is not None
    assert p._routes is not None
    return [
        len(p._cluster.topics),
        len(p._cluster._wanted),
        len(p._cluster.topic_errors),
        len(p._accumulator._queues),
        len(p._routes.queues),
        len(p._routes.sticky),
    ]


def test_what_an_earlier_attempt_may_have_written_fails_as_unknown() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"x")
            answers: list[QuorateError | str] = [RecordTooLargeError("lowered"), "lose"]
            cluster.fault = lambda *_: answers.pop() if answers else None
            sending = asyncio.ensure_future(p.send_and_wait("t", b"y"))
            await asyncio.sleep(0.1)
            cluster.move("t", 0, 1)
            with pytest.raises(OutcomeUnknownError, match="may have been written; now: lowered"):
                await sending

    with_cluster(program)


@pytest.mark.parametrize("settings", [{}, {"acks": 1}, {"acks": 0}])
def test_a_producer_refuses_to_go_on_in_another_cluster(settings: dict[str, Any]) -> None:
    """There its producer id belongs to another producer: batches would look like duplicates."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with producer(cluster, **settings) as old:
            await old.send_and_wait("t", b"in the old cluster")
            await cluster.become_another()
            topic = cluster.add_topic("t")
            async with producer(cluster, **settings) as new:
                await new.send_and_wait("t", b"new 1")
                with pytest.raises(WrongClusterError, match=r"with cluster fake, .*cluster fake'"):
                    await old.send_and_wait("t", b"old 1")
                with pytest.raises(WrongClusterError, match="make a new producer"):
                    await old.send("t", b"old 2")
                await new.send_and_wait("t", b"new 2")
            assert topic.partitions[0].values() == [b"new 1", b"new 2"]

    with_cluster(program)


def test_what_was_sent_when_another_cluster_answers_has_an_unknown_outcome() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.fault = lambda *_: "lose"
        async with producer(cluster, max_in_flight=1) as p:
            sent = await p.send("t", b"x")
            await asyncio.sleep(0.1)
            unsent = await p.send("t", b"y")
            cluster.start_anew()
            cluster.add_topic("t")
            await asyncio.sleep(2)
            with pytest.raises(OutcomeUnknownError, match="may have been written"):
                sent.result()
            with pytest.raises(WrongClusterError):
                unsent.result()

    with_cluster(program)


def test_a_topic_that_was_forgotten_while_a_record_waits_is_asked_for_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t")
        async with producer(cluster) as p:
            await p.send_and_wait("t", b"1")
            cluster.move("t", 0, -1)
            waiting = asyncio.ensure_future(p.send_and_wait("t", b"2"))
            await asyncio.sleep(1)
            assert p._cluster is not None
            p._cluster.release("t")
            cluster.move("t", 0, 1)
            await waiting
        assert topic.partitions[0].values() == [b"1", b"2"]

    with_cluster(program)
