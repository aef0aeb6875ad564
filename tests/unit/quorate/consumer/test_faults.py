"""A consumer when something fails: each error is told once, belongs to one thing, and ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quorate import Consumer, TopicPartition
from quorate.consumer.fetch_stream import SILENCE_MAX_S
from quorate.errors import (
    ClosedError,
    CorruptRecordError,
    DeserializationError,
    ListenerNotFoundError,
    RequestTimedOutError,
    WrongClusterError,
)
from tests.harness.fake_leaders import START_MS, FakeCluster, with_cluster

T0 = TopicPartition("t", 0)
T1 = TopicPartition("t", 1)


def consumer(cluster: FakeCluster, *topics: str, **settings: Any) -> Consumer:
    settings.setdefault("auto_offset_reset", "earliest")
    return Consumer(*topics, bootstrap_servers=cluster.bootstrap, **settings)


async def values(c: Consumer, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [(await c.getone()).value for _ in range(count)]


# -- records that do not deserialize ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [StopAsyncIteration, StopIteration, ValueError])
def test_whatever_a_deserializer_raises_is_told_and_ends_no_loop(kind: type[Exception]) -> None:
    def refuse(data: bytes) -> bytes:
        if data == b"bad":
            raise kind("from the user's code")
        return data

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"1", b"bad", b"3", key=b"k")
        async with consumer(cluster, "t", value_deserializer=refuse) as c:
            read: list[Any] = []

            async def loop() -> None:
                async for record in c:
                    read.append(record.value)  # noqa: PERF401 - what is read before an error

            with pytest.raises(DeserializationError, match="offset 1 of t-0") as raised:
                await loop()
            assert isinstance(raised.value.__cause__, kind)
            assert (raised.value.key, raised.value.value) == (b"k", b"bad")
            c.seek(TopicPartition(raised.value.topic, raised.value.partition), 2)
            assert [*read, *await values(c, 1)] == [b"1", b"3"]

    with_cluster(program)


def test_the_way_past_a_record_asks_no_broker_again() -> None:
    def refuse(data: bytes) -> bytes:
        if data.startswith(b"bad"):
            raise ValueError(data)
        return data

    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(*(b"bad%d" % number for number in range(50)), b"good")
        async with consumer(cluster, "t", value_deserializer=refuse) as c:
            refused = 0
            while True:
                try:
                    assert (await c.getone()).value == b"good"
                    break
                except DeserializationError as error:
                    refused += error.value == b"bad%d" % refused
                    c.seek(T0, error.offset + 1)
            assert refused == 50
            named = [one for request in cluster.brokers[0].fetched for one in request.partitions]
            assert [one.fetch_offset for one in named] in ([0], [0, 51])

    with_cluster(program)


def test_an_error_of_one_partition_leaves_the_others_their_turns() -> None:
    def refuse(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError(data)
        return data

    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        topic.partitions[0].write(b"bad")
        for number in range(3):
            topic.partitions[1].write(b"%d" % number)
        async with consumer(cluster, "t", value_deserializer=refuse) as c:
            read: list[Any] = []
            errors = 0
            while len(read) < 3:
                try:
                    read.append((await c.getone()).value)
                except DeserializationError:
                    errors += 1
            assert read == [b"0", b"1", b"2"]
            with pytest.raises(DeserializationError):  # not passed over
                await c.getone()

    with_cluster(program)


def test_a_key_that_does_not_deserialize_is_told_with_its_bytes() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"v", key=b"\xff")
        async with consumer(cluster, "t", key_deserializer=lambda data: data.decode()) as c:
            with pytest.raises(DeserializationError, match="UnicodeDecodeError") as raised:
                await c.getone()
            assert (raised.value.key, raised.value.timestamp_ms) == (b"\xff", START_MS)

    with_cluster(program)


def test_a_listener_that_raises_stop_async_iteration_ends_no_loop() -> None:
    class Listener:
        def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
            raise StopAsyncIteration

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with consumer(cluster) as c:
            c.subscribe(["t"], listener=Listener())
            with pytest.raises(RuntimeError, match="on_partitions_assigned"):
                async for _ in c:
                    pass

    with_cluster(program)


def test_corrupt_bytes_of_one_partition_do_not_stop_the_others() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        topic.partitions[0].write(b"aaaa")
        topic.partitions[1].write(b"b")
        cluster.spoil = lambda data: data.replace(b"aaaa", b"aaab")
        async with consumer(cluster, "t") as c:
            assert (await c.getone()).value == b"b"
            with pytest.raises(CorruptRecordError):
                await c.getone()
            cluster.spoil = lambda data: data
            async with asyncio.timeout(5):
                while True:
                    try:
                        assert (await c.getone()).value == b"aaaa"
                        break
                    except CorruptRecordError:
                        continue

    with_cluster(program)


def test_a_stream_whose_answer_got_lost_is_opened_again() -> None:
    """As behind a middlebox that has forgotten the connection: the broker is alive elsewhere."""

    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        broker = cluster.brokers[0]
        answer, lost = broker._fetched, asyncio.Event()

        async def lose_once(*arguments: Any) -> Any:
            if not lost.is_set():
                lost.set()
                await asyncio.Event().wait()
            return await answer(*arguments)

        async with consumer(cluster, "t") as c:
            broker._fetched = lose_once  # type: ignore[assignment, method-assign]
            await lost.wait()
            partition.write(b"v")
            async with asyncio.timeout(SILENCE_MAX_S + 2):
                assert (await c.getone()).value == b"v"

    with_cluster(program)


# -- what others hold ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pause the others", "getmany of one"])
def test_what_other_partitions_hold_does_not_stop_the_one_that_is_read(how: str) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 8)
        for number, partition in enumerate(topic.partitions):
            for _ in range(40 if number == 0 else 10):
                partition.write(bytes(10_000))
        names = [TopicPartition("t", number) for number in range(8)]
        sizes = {"fetch_max_bytes": 60_000, "max_partition_fetch_bytes": 30_000}
        async with consumer(cluster, **sizes) as c:
            await c.assign(names)
            await asyncio.sleep(5)
            only: list[TopicPartition] = []
            if how == "getmany of one":
                only = names[:1]
            else:
                c.pause(*names[1:])
            read = 0
            async with asyncio.timeout(60):
                while read < 40:
                    found = await c.getmany(*only, timeout_ms=500)
                    read += len(found.get(T0, []))
            c.resume(*names[1:])
            rest = 0
            async with asyncio.timeout(60):
                while rest < 70:
                    rest += sum(map(len, (await c.getmany(timeout_ms=500)).values()))

    with_cluster(program)


def test_more_partitions_than_a_session_has_room_for_are_read_by_several_streams() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.session_partitions_max = 5
        topic = cluster.add_topic("t", 40)
        for partition in topic.partitions:
            partition.write(b"1")
        async with consumer(cluster, "t") as c:
            assert await values(c, 40) == [b"1"] * 40
            for partition in topic.partitions:
                partition.write(b"2")
            assert await values(c, 40) == [b"2"] * 40
            for broker in cluster.brokers:
                firsts = [request for request in broker.fetched if request.client_id]
                assert len(firsts) == 4  # a stream each for 20 partitions

    with_cluster(program)


# -- waits -----------------------------------------------------------------------------------------


def test_a_background_task_that_is_cancelled_by_others_is_told_to_who_reads() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        c = consumer(cluster, "t")
        await c.start()
        reading = asyncio.ensure_future(c.getone())
        await asyncio.sleep(1)
        ours = [task for task in asyncio.all_tasks() if task.get_name().startswith("quorate-")]
        assert ours
        for task in ours:
            task.cancel()
        with pytest.raises(ClosedError, match="cancelled"):
            await reading
        with pytest.raises(ClosedError, match="cancelled"):
            await c.getmany(timeout_ms=1000)
        await c.stop()

    with_cluster(program)


def test_another_cluster_at_the_address_is_told_to_who_reads() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with consumer(cluster, "t") as c:
            reading = asyncio.ensure_future(c.getone())
            await asyncio.sleep(1)
            await cluster.become_another()
            cluster.add_topic("t").partitions[0].write(b"of another")
            with pytest.raises(WrongClusterError):
                async with asyncio.timeout(60):
                    await reading

    with_cluster(program)


def test_a_leader_that_takes_long_is_not_asked_for_offsets_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 4)
        for partition in topic.partitions:
            partition.leader = 0
            partition.write(b"v")
        async with consumer(cluster, "t") as c:
            broker = cluster.brokers[0]
            broker.listed.clear()
            cluster.delay_s = 8.0
            names = [TopicPartition("t", number) for number in range(4)]
            assert await c.end_offsets(names) == dict.fromkeys(names, 1)
            await c.seek_to_end()
            assert [len(request.partitions) for request in broker.listed] == [4, 4]

    with_cluster(program)


def test_the_ends_of_many_topics_are_asked_for_with_two_questions() -> None:
    """One question for the topics, one for the offsets: not one for each topic."""

    async def program(cluster: FakeCluster) -> None:
        names = [TopicPartition(f"t{number}", 0) for number in range(100)]
        for name, _ in names:
            topic = cluster.add_topic(name)
            topic.partitions[0].leader = 0
            topic.partitions[0].write(b"v")
        async with consumer(cluster, "t0") as c:
            await c.getone()
            before = sum(broker.metadata_asked for broker in cluster.brokers)
            assert await c.end_offsets(names) == dict.fromkeys(names, 1)
            assert sum(broker.metadata_asked for broker in cluster.brokers) == before + 1

    with_cluster(program)


def test_two_starts_at_once_are_one_and_a_stop_during_start_ends_it() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"v")
        c = consumer(cluster, "t")
        await asyncio.gather(c.start(), c.start())
        assert await values(c, 1) == [b"v"]
        await asyncio.gather(c.stop(), c.stop())
        for wait_s in (0.0, 0.1):
            cluster.delay_s = 0.2
            c = consumer(cluster, "t")
            starting = asyncio.ensure_future(c.start())
            await asyncio.sleep(wait_s)
            await c.stop()
            with pytest.raises(ClosedError):
                await starting
        ours = [task for task in asyncio.all_tasks() if task.get_name().startswith("quorate-")]
        assert ours == []

    with_cluster(program)


def test_a_start_that_failed_may_be_tried_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"v")
        c = consumer(cluster, "t")
        cluster.delay_s = 40.0  # no position is told in time
        with pytest.raises(RequestTimedOutError, match="t-0"):
            await c.start()
        cluster.delay_s = 0.0
        async with c:
            assert await values(c, 1) == [b"v"]

    with_cluster(program)


def test_offsets_of_a_leader_that_cannot_be_reached_say_so_at_the_deadline() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        cluster.hindrances = {0: ListenerNotFoundError("broker 0 has no listener 'external'")}
        async with consumer(cluster, "t") as c:
            with pytest.raises(RequestTimedOutError, match="has no listener 'external'"):
                await c.end_offsets([T0])

    with_cluster(program)


def test_offsets_of_many_partitions_that_nobody_tells_are_a_short_error() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 400)
        async with consumer(cluster, "t") as c:
            for broker in cluster.brokers:
                broker.running.clear()
            with pytest.raises(RequestTimedOutError) as late:
                await c.end_offsets(TopicPartition("t", number) for number in range(400))
        assert "t-0, t-1, t-2, t-3, t-4, t-5, t-6, t-7, t-8, t-9 and 390 more" in str(late.value)
        assert len(str(late.value)) < 300

    with_cluster(program)


def test_offsets_that_nobody_tells_are_waited_for_until_the_deadline() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with consumer(cluster, "t") as c:
            for broker in cluster.brokers:
                broker.running.clear()
            before = asyncio.get_running_loop().time()
            with pytest.raises(RequestTimedOutError, match="t"):
                await c.end_offsets([T0])
            with pytest.raises(RequestTimedOutError, match="t-0"):
                await c.seek_to_beginning(T0)
            assert 55 < asyncio.get_running_loop().time() - before < 65

    with_cluster(program)


def test_offsets_are_asked_of_the_next_leader_when_the_one_that_was_asked_is_silent() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        partition.write(b"v")
        async with consumer(cluster, "t") as c:
            cluster.brokers[0].running.clear()
            asking = asyncio.ensure_future(c.end_offsets([T0]))
            await asyncio.sleep(3)
            cluster.move("t", 0, 1)
            async with asyncio.timeout(4):
                assert await asking == {T0: 1}

    with_cluster(program)
