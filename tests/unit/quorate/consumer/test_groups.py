"""Consumers of a group against a coordinator that a test moves and breaks, in virtual time."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from quorate import Admin, Consumer, TopicPartition
from quorate.cluster.group_offsets import GroupOffsets
from quorate.cluster.parts import Part
from quorate.errors import (
    ClosedError,
    CoordinatorLoadingError,
    DeserializationError,
    GroupAuthorizationFailedError,
    InvalidAssignmentError,
    InvalidGroupIdError,
    InvalidPatternError,
    InvalidRequestError,
    NonEmptyGroupError,
    NotMemberError,
    OffsetMetadataTooLargeError,
    OutcomeUnknownError,
    QuorateError,
    RequestTimedOutError,
    StorageError,
    UnreleasedInstanceIdError,
)
from quorate.model import AssignorMember, OffsetAndMetadata
from tests.harness.fake_leaders import START_MS, FakeCluster, FakePartition, with_cluster

T0, T1, T2, T3 = (TopicPartition("t", number) for number in range(4))


def member(cluster: FakeCluster, *topics: str, **settings: Any) -> Consumer:
    settings.setdefault("auto_offset_reset", "earliest")
    settings.setdefault("group_id", "g")
    return Consumer(*topics, bootstrap_servers=cluster.bootstrap, **settings)


async def values(c: Consumer, count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [(await c.getone()).value for _ in range(count)]


async def until_assigned(c: Consumer, count: int) -> None:
    async with asyncio.timeout(60):
        while len(c.assignment()) != count:  # noqa: ASYNC110  (it reads nothing meanwhile)
            await asyncio.sleep(0.01)


async def forever(c: Consumer) -> None:
    async for _ in c:
        pass


class Told:
    """A listener that notes its calls. `hold`: on_partitions_revoked waits until it is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[TopicPartition]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
        self.calls.append(("revoked", keys))
        await self.gate.wait()

    def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
        self.calls.append(("assigned", keys))

    def on_partitions_lost(self, keys: list[TopicPartition]) -> None:
        self.calls.append(("lost", keys))


def four_partitions(cluster: FakeCluster, *, records: int = 3) -> list[FakePartition]:
    partitions = cluster.add_topic("t", 4).partitions
    for number, partition in enumerate(partitions):
        partition.write(*(b"%d-%d" % (number, offset) for offset in range(records)))
    return partitions


# -- joining and leaving ---------------------------------------------------------------------------


def test_one_member_reads_all_and_commits_at_its_stop() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t") as c:
            assert c.assignment() == {T0, T1, T2, T3}
            assert len(set(await values(c, 12))) == 12
        assert cluster.coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}
        assert cluster.coordinator.group("g").members == {}
        async with member(cluster, "t") as c:
            assert await c.getmany(timeout_ms=500) == {}
            assert await c.committed(T0) == 3
            assert await c.committed(T0, metadata=True) == OffsetAndMetadata(3, "", 1)

    with_cluster(program)


def test_a_member_that_joins_gets_partitions_after_they_are_released() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        first = member(cluster)
        first.subscribe(["t"], listener=told)
        async with first:
            await values(first, 12)
            told.gate.clear()
            async with member(cluster, "t") as second:
                assert second.assignment() == frozenset()
                assert await first.getmany(timeout_ms=2000) == {}
                revoked = told.calls[-1][1]
                assert told.calls == [("assigned", [T0, T1, T2, T3]), ("revoked", revoked)]
                assert len(revoked) == 2
                assert second.assignment() == frozenset(), "given before the callback has ended"
                told.gate.set()
                await until_assigned(second, 2)
                assert second.assignment() == set(revoked)
                assert first.assignment() == {T0, T1, T2, T3} - set(revoked)
                assert await second.getmany(timeout_ms=500) == {}, "committed before the release"
            await until_assigned(first, 4)
            assert told.calls[-1] == ("assigned", revoked)

    with_cluster(program)


def test_a_partition_that_stays_keeps_its_pause_and_its_position() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t") as first:
            await values(first, 5)
            first.pause(T0, T1, T2, T3)
            before = {key: await first.position(key) for key in first.assignment()}
            async with member(cluster, "t") as second:
                await until_assigned(second, 2)
                kept = first.assignment()
                assert first.paused() == kept
                assert len(kept) == 2
                assert {key: await first.position(key) for key in kept} == {
                    key: before[key] for key in kept
                }

    with_cluster(program)


def test_a_removed_member_loses_its_partitions_and_joins_anew() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        c = member(cluster)
        c.subscribe(["t"], listener=told)
        async with c:
            await values(c, 3)
            group = cluster.coordinator.group("g")
            cluster.coordinator.remove(group, next(iter(group.members)))
            await asyncio.sleep(1)
            assert [name for name, _ in told.calls] == ["assigned", "lost", "assigned"]
            await until_assigned(c, 4)

    with_cluster(program)


def test_a_removed_member_is_given_nothing_more_while_a_callback_runs() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        first = member(cluster, enable_auto_commit=False)
        first.subscribe(["t"], listener=told)
        async with first:
            await first.getone()  # the others are in the buffer
            told.gate.clear()
            async with member(cluster, "t"):
                await asyncio.sleep(1)
                assert told.calls[-1][0] == "revoked"
                group = cluster.coordinator.group("g")
                mine = next(one for one in group.members.values() if one.revoking)
                cluster.coordinator.remove(group, mine.member_id)
                await asyncio.sleep(1)
                assert await first.getmany(timeout_ms=1000) == {}
                told.gate.set()
                await until_assigned(first, 2)
                assert [name for name, _ in told.calls[:3]] == ["assigned", "revoked", "lost"]

    with_cluster(program)


def test_a_listener_without_lost_is_told_that_partitions_are_revoked() -> None:
    class OnlyRevoked:
        def __init__(self) -> None:
            self.revoked: list[TopicPartition] = []

        def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
            self.revoked += keys

    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        listener = OnlyRevoked()
        c = member(cluster)
        c.subscribe(["t"], listener=listener)
        async with c:
            group = cluster.coordinator.group("g")
            cluster.coordinator.remove(group, next(iter(group.members)))
            await asyncio.sleep(1)
            assert listener.revoked == [T0, T1, T2, T3]

    with_cluster(program)


def test_a_broken_stream_is_opened_again_within_the_grace() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        c = member(cluster)
        c.subscribe(["t"], listener=told)
        async with c:
            for _ in range(5):
                cluster.coordinator.break_streams()
                await asyncio.sleep(2)
            assert told.calls == [("assigned", [T0, T1, T2, T3])]
            assert len(await values(c, 12)) == 12

    with_cluster(program)


@pytest.mark.parametrize("hints", [True, False])
def test_the_coordinator_moves_and_the_group_does_not_notice(hints: bool) -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        coordinator = cluster.coordinator
        coordinator.hints = hints
        told = Told()
        c = member(cluster)
        c.subscribe(["t"], listener=told)
        async with c:
            await values(c, 12)
            coordinator.is_loading = True
            coordinator.fail_over(1)
            commit = asyncio.create_task(c.commit())
            await asyncio.sleep(0.4)
            assert not commit.done()
            coordinator.is_loading = False
            async with asyncio.timeout(1):
                await commit
            assert coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}
            await asyncio.sleep(1)
            assert told.calls == [("assigned", [T0, T1, T2, T3])]

    with_cluster(program)


def test_a_silent_coordinator_that_was_replaced_is_left() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 1)
        topic.partitions[0].leader = 1
        topic.partitions[0].write(b"v")
        told = Told()
        c = member(cluster, session_timeout_ms=30_000)
        c.subscribe(["t"], listener=told)
        async with c:
            cluster.brokers[0].running.clear()
            cluster.coordinator.leader = 1
            cluster.coordinator.forget_streams()
            await values(c, 1)
            async with asyncio.timeout(5):
                await c.commit()
            await asyncio.sleep(5)
            assert told.calls == [("assigned", [T0])]

    with_cluster(program)


def test_a_member_without_news_for_its_session_has_lost_its_partitions() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 1).partitions[0].leader = 1
        told = Told()
        c = member(cluster, session_timeout_ms=3_000)
        c.subscribe(["t"], listener=told)
        async with c:
            cluster.brokers[0].running.clear()
            await asyncio.sleep(5)
            assert told.calls == [("assigned", [T0]), ("lost", [T0])]
            assert c.assignment() == frozenset()
            cluster.brokers[0].running.set()
            await until_assigned(c, 1)

    with_cluster(program)


def test_a_program_that_does_not_ask_for_records_leaves_and_comes_back() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        c = member(cluster, max_poll_interval_ms=1000)
        c.subscribe(["t"], listener=told)
        async with c:
            await values(c, 1)
            await asyncio.sleep(3)
            assert cluster.coordinator.group("g").members == {}
            assert [name for name, _ in told.calls] == ["assigned", "lost"]
            assert len(await values(c, 12)) == 12, "read again: it was not committed"

    with_cluster(program)


def test_a_callback_that_hangs_costs_the_member_its_place_until_it_ends() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told, gate = Told(), asyncio.Event()
        assigned = told.on_partitions_assigned

        async def hangs(keys: list[TopicPartition]) -> None:
            assigned(keys)
            await gate.wait()

        a, b = member(cluster, max_poll_interval_ms=5_000), member(cluster)
        a.subscribe(["t"], listener=told)
        async with a:
            b.subscribe(["t"])
            async with b:
                await until_assigned(b, 2)
                told.on_partitions_assigned = hangs  # type: ignore[method-assign, assignment]
            reading = asyncio.create_task(forever(a))
            await asyncio.sleep(4)
            assert len(cluster.coordinator.group("g").members) == 1
            await asyncio.sleep(4)
            assert cluster.coordinator.group("g").members == {}
            assert a.assignment()
            gate.set()
            await asyncio.sleep(1)
            assert told.calls[-2:] == [
                ("lost", [T0, T1, T2, T3]),
                ("assigned", [T0, T1, T2, T3]),
            ]
            reading.cancel()

    with_cluster(program)


def test_a_callback_that_hangs_keeps_no_partition_after_unsubscribe() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        c = member(cluster, max_poll_interval_ms=5_000)
        c.subscribe(["t"], listener=told)
        async with c:
            told.gate.clear()
            leaving = asyncio.ensure_future(c.unsubscribe())
            await asyncio.sleep(4)
            assert len(cluster.coordinator.group("g").members) == 1
            await asyncio.sleep(4)
            assert cluster.coordinator.group("g").members == {}
            told.gate.set()
            await leaving

    with_cluster(program)


def test_a_program_that_waits_for_records_is_not_silent() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t", 1).partitions[0]
        async with member(cluster, "t", max_poll_interval_ms=1000) as c:
            read = asyncio.create_task(c.getone())
            await asyncio.sleep(5)
            assert len(cluster.coordinator.group("g").members) == 1
            partition.write(b"v")
            assert (await read).value == b"v"

    with_cluster(program)


def test_a_program_that_reads_one_record_at_a_time_is_not_silent() -> None:
    # An automatic commit, a heartbeat's answer and the end of a chunk make the next read a full
    # ask, which the watch counts. Between them only the look at the last record tells that the
    # program reads: here longer than the longest silence.
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 1).partitions[0].write(*[b"v"] * 100)
        told = Told()
        c = member(cluster, max_poll_interval_ms=1_000, enable_auto_commit=False)
        c.subscribe(["t"], listener=told)
        async with c:
            for _ in range(80):
                await c.getone()
                await asyncio.sleep(0.3)
            assert [name for name, _ in told.calls] == ["assigned"]

    with_cluster(program)


def test_a_read_that_raises_has_come_back_from_the_record_before() -> None:
    class Picky:
        def deserialize(self, topic: str, data: bytes) -> bytes:
            if data == b"bad":
                raise ValueError("no")
            return data

    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t", 1).partitions[0]
        partition.write(b"a", b"b", b"bad", b"c")
        async with member(cluster, "t", value_deserializer=Picky()) as c:
            assert await values(c, 2) == [b"a", b"b"]
            with pytest.raises(DeserializationError):
                await c.getone()
            await asyncio.sleep(6)
            assert cluster.coordinator.committed("g") == {0: 2}

    with_cluster(program)


def test_tasks_that_read_one_record_each_commit_no_other_s_record() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t", 1).partitions[0]
        async with member(cluster, "t", auto_commit_interval_ms=1_000) as c:
            gate = asyncio.Event()

            async def works() -> None:
                await c.getone()
                await gate.wait()

            workers = [asyncio.create_task(works()) for _ in range(2)]
            await asyncio.sleep(1)
            partition.write(b"a", b"b")
            await asyncio.sleep(1)
            partition.write(b"c", b"d")
            assert await values(c, 1) == [b"c"]
            await asyncio.sleep(5)
            assert cluster.coordinator.committed("g").get(0, 0) == 0
            gate.set()
            await asyncio.wait(workers)
            assert await values(c, 1) == [b"d"]
            await asyncio.sleep(5)
            assert cluster.coordinator.committed("g") == {0: 3}

    with_cluster(program)


def test_unsubscribe_gives_everything_back_and_another_subscription_joins_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        cluster.add_topic("u").partitions[0].write(b"u")
        told = Told()
        c = member(cluster)
        c.subscribe(["t"], listener=told)
        async with c:
            await values(c, 12)
            await c.unsubscribe()
            assert c.assignment() == frozenset()
            assert cluster.coordinator.group("g").members == {}
            assert cluster.coordinator.committed("g")[0] == 3
            await c.subscribe(["u"])
            assert await values(c, 1) == [b"u"]
            await c.subscribe(["t", "u"])
            await until_assigned(c, 5)

    with_cluster(program)


def test_a_static_member_keeps_its_partitions_over_a_restart() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        other = member(cluster)
        other.subscribe(["t"], listener=told)
        async with other:
            async with member(cluster, "t", group_instance_id="a") as c:
                await until_assigned(c, 2)
                had = c.assignment()
                with pytest.raises(UnreleasedInstanceIdError):
                    await member(cluster, "t", group_instance_id="a").start()
            calls = list(told.calls)
            await asyncio.sleep(1)
            async with member(cluster, "t", group_instance_id="a") as c:
                await until_assigned(c, 2)
                assert c.assignment() == had
            assert told.calls == calls

    with_cluster(program)


# -- what is committed -----------------------------------------------------------------------------


def test_only_what_the_program_has_come_back_from_is_committed() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"0", b"1", b"2")
        async with member(cluster, "t", auto_commit_interval_ms=100) as c:
            await c.getone()
            await asyncio.sleep(1)
            assert cluster.coordinator.committed("g") in ({}, {0: 0})
            await c.getone()
            await asyncio.sleep(1)
            assert cluster.coordinator.committed("g") == {0: 1}
            await c.getmany()
            await asyncio.sleep(1)
            assert cluster.coordinator.committed("g") == {0: 2}
            await c.getmany()
            await asyncio.sleep(1)
            assert cluster.coordinator.committed("g") == {0: 3}

    with_cluster(program)


@pytest.mark.parametrize("error", [ValueError("bad record"), asyncio.CancelledError()])
def test_a_record_with_which_the_program_failed_is_read_again(error: BaseException) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"0", b"1", b"2")

        async def fail() -> None:
            async with member(cluster, "t") as c:
                await values(c, 2)
                raise error

        with pytest.raises(type(error)):
            await fail()
        assert cluster.coordinator.committed("g") == {0: 1}
        c = member(cluster, "t")
        await c.start()
        try:
            assert await values(c, 1) == [b"1"]
        finally:
            await c.stop()
        assert cluster.coordinator.committed("g") == {0: 2}

    with_cluster(program)


def test_the_records_of_a_task_that_failed_are_not_committed() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t").partitions[0].write(b"0", b"1", b"2")

        async def worker(c: Consumer) -> None:
            await c.getone()
            raise ValueError("bad record")

        async with member(cluster, "t", auto_commit_interval_ms=100) as c:
            failed = asyncio.create_task(worker(c))
            await asyncio.wait([failed])
            assert await values(c, 2) == [b"1", b"2"]
            await c.getmany()
            await asyncio.sleep(1)
            assert cluster.coordinator.committed("g") == {0: 0}
            assert isinstance(failed.exception(), ValueError)
            await c.commit()
            assert cluster.coordinator.committed("g") == {0: 3}

    with_cluster(program)


def test_a_cancelled_read_loses_no_record() -> None:
    async def program(cluster: FakeCluster) -> None:
        partition = cluster.add_topic("t").partitions[0]
        async with member(cluster, "t", auto_commit_interval_ms=100) as c:
            for number in range(20):
                read = asyncio.create_task(c.getone())
                await asyncio.sleep(0.01)
                partition.write(b"%d" % number)
                await asyncio.sleep(0.001 * (number % 5))
                read.cancel()
                await asyncio.wait([read])
                got = read.result().value if not read.cancelled() else (await c.getone()).value
                assert got == b"%d" % number

    with_cluster(program)


def test_without_automatic_commit_only_commit_commits() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", enable_auto_commit=False) as c:
            await values(c, 12)
            await c.commit({T0: 2, T1: OffsetAndMetadata(1, "note", 1)})
            assert cluster.coordinator.committed("g") == {0: 2, 1: 1}
            assert await c.committed(T1, metadata=True) == OffsetAndMetadata(1, "note", 1)
            assert await c.committed(T2) is None
        assert cluster.coordinator.committed("g") == {0: 2, 1: 1}
        async with member(cluster, "t", enable_auto_commit=False) as c:
            assert sorted(await values(c, 9)) == sorted(
                [b"0-2", b"1-1", b"1-2", *(b"%d-%d" % (p, o) for p in (2, 3) for o in range(3))]
            )
            await c.commit()
        assert cluster.coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}

    with_cluster(program)


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        ({T0: -1}, ValueError),
        ({T0: "1"}, TypeError),
        ({T0: (1, 2)}, TypeError),
        ({T0: (1, "m", 2, 3)}, TypeError),
        ([T0], TypeError),
        ({TopicPartition("u", 0): 1}, InvalidRequestError),
        ({T0: (1, "m" * 5000)}, OffsetMetadataTooLargeError),
    ],
)
def test_a_bad_commit_is_refused_and_the_consumer_goes_on(
    offsets: Any, error: type[Exception]
) -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", enable_auto_commit=False) as c:
            with pytest.raises(error):
                await c.commit(offsets)
            await values(c, 12)
            await c.commit()
            assert cluster.coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}

    with_cluster(program)


def test_a_commit_of_a_removed_member_is_refused() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", enable_auto_commit=False) as c:
            await values(c, 3)
            group = cluster.coordinator.group("g")
            cluster.coordinator.remove(group, next(iter(group.members)))
            with pytest.raises(NotMemberError):
                await c.commit()
            assert cluster.coordinator.committed("g") == {}

    with_cluster(program)


def test_a_commit_with_a_passed_epoch_counts_for_partitions_that_were_kept() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", enable_auto_commit=False) as c:
            await values(c, 12)
            # the epoch grows at the coordinator, and the state is still on its way
            cluster.coordinator.rebalance(cluster.coordinator.group("g"))
            await c.commit()
            assert cluster.coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}

    with_cluster(program)


def test_a_commit_that_began_before_a_removal_does_not_undo_those_of_others() -> None:
    async def program(cluster: FakeCluster) -> None:
        topic_id = cluster.add_topic("t", 1).topic_id
        coordinator = cluster.coordinator
        async with member(cluster, "t", enable_auto_commit=False) as c:
            coordinator.commit_fault = CoordinatorLoadingError("loading")
            commit = asyncio.create_task(c.commit({T0: 1}))
            await asyncio.sleep(0.1)
            group = coordinator.group("g")
            coordinator.remove(group, next(iter(group.members)))
            await asyncio.sleep(0.1)
            await until_assigned(c, 1)
            group.offsets[Part(topic_id, 0)] = OffsetAndMetadata(9)
            coordinator.commit_fault = None
            with pytest.raises(NotMemberError):
                await commit
            assert coordinator.committed("g") == {0: 9}
            await c.commit({T0: 10})
            assert coordinator.committed("g") == {0: 10}

    with_cluster(program)


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_a_late_answer_with_committed_offsets_is_not_taken_for_a_new_one(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 1)
        topic.partitions[0].write(*(b"%d" % offset for offset in range(12)))
        asked, gate = asyncio.Event(), asyncio.Event()
        fetch = GroupOffsets.fetch

        async def late(self: GroupOffsets, *arguments: Any) -> Any:
            found = await fetch(self, *arguments)
            if not asked.is_set():
                asked.set()
                await gate.wait()
            return found

        monkeypatch.setattr(GroupOffsets, "fetch", late)
        c = member(cluster, "t", auto_offset_reset=policy, enable_auto_commit=False)
        start = asyncio.create_task(c.start())
        await asked.wait()
        group = cluster.coordinator.group("g")
        cluster.coordinator.remove(group, next(iter(group.members)))
        # another member has the partition, commits, and leaves
        group.offsets[Part(topic.topic_id, 0)] = OffsetAndMetadata(9)
        await asyncio.sleep(1)
        assert [len(one.assigned) for one in group.members.values()] == [1]
        gate.set()
        await start
        assert await values(c, 3) == [b"9", b"10", b"11"]
        await c.stop()

    with_cluster(program)


def test_a_cancelled_commit_does_not_block_the_next_one() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", enable_auto_commit=False) as c:
            await values(c, 12)
            cluster.coordinator.commit_gate.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await c.commit()
            cluster.coordinator.commit_gate.set()
            await c.commit()
            assert cluster.coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}

    with_cluster(program)


def test_after_a_cancelled_commit_the_next_automatic_one_names_the_offset_again() -> None:
    """The coordinator may have the offset of the cancelled commit."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t", 1).partitions[0].write(b"0", b"1", b"2")
        async with member(cluster, "t", auto_commit_interval_ms=100) as c:
            await values(c, 3)
            await c.getmany(timeout_ms=500)
            assert cluster.coordinator.committed("g") == {0: 3}
            commit = asyncio.create_task(c.commit({T0: 1}))
            while cluster.coordinator.committed("g") == {0: 3}:  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0)
            commit.cancel()
            await asyncio.wait([commit])
            assert commit.cancelled()
            await c.getmany(timeout_ms=500)
            assert cluster.coordinator.committed("g") == {0: 3}

    with_cluster(program)


def test_stop_commits_for_the_task_that_calls_it_and_not_for_others() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster, records=1)
        at_work = asyncio.Event()

        async def worker(c: Consumer) -> None:
            await c.getmany(T1, timeout_ms=1000)
            at_work.set()
            await asyncio.sleep(60)

        c = member(cluster, "t")
        await c.start()
        task = asyncio.create_task(worker(c))
        await at_work.wait()
        assert len(await c.getmany(T0, timeout_ms=1000)) == 1
        await c.stop()
        task.cancel()
        await asyncio.wait([task])
        assert cluster.coordinator.committed("g")[0] == 1
        assert cluster.coordinator.committed("g").get(1, 0) == 0

    with_cluster(program)


def test_partitions_wait_a_moment_for_the_program_before_they_are_given_back() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t") as first:
            got = [await first.getone() for _ in range(12)]

            async def finish() -> None:
                await asyncio.sleep(0.05)
                await first.getmany(timeout_ms=0)

            async with member(cluster, "t") as second:
                await finish()
                await until_assigned(second, 2)
                assert await second.getmany(timeout_ms=500) == {}, f"{got[-1]} was done"

    with_cluster(program)


# -- where to begin --------------------------------------------------------------------------------


def test_the_first_position_of_latest_is_committed_before_start_returns() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        settings = {"auto_offset_reset": "latest", "auto_commit_interval_ms": 1_000_000}
        async with member(cluster, "t", **settings):
            assert cluster.coordinator.committed("g") == {0: 3, 1: 3, 2: 3, 3: 3}

    with_cluster(program)


def test_latest_begins_at_the_end_that_the_first_owner_saw() -> None:
    async def program(cluster: FakeCluster) -> None:
        partitions = four_partitions(cluster)
        latest = {"auto_offset_reset": "latest"}
        async with member(cluster, "t", **latest) as first:
            assert await first.getmany(timeout_ms=100) == {}
        for partition in partitions:
            partition.write(b"new")
        async with member(cluster, "t", **latest) as second:
            assert await values(second, 4) == [b"new"] * 4
            assert await second.getmany(timeout_ms=100) == {}

    with_cluster(program)


@pytest.mark.parametrize("is_same_member", [True, False])
def test_a_partition_that_is_added_is_read_from_its_beginning_with_latest(
    is_same_member: bool,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        topic = cluster.add_topic("t", 2)
        topic.partitions[0].write(b"old")
        # a member that saw the topic grow knows it, whatever is committed
        c = member(cluster, "t", auto_offset_reset="latest", enable_auto_commit=not is_same_member)
        await c.start()
        assert await c.getmany(timeout_ms=100) == {}
        if not is_same_member:
            await c.stop()
        topic.partitions.append(FakePartition())
        topic.partitions[2].write(b"first", b"second")
        cluster.image_offset += 1
        if is_same_member:
            cluster.coordinator.rebalance(cluster.coordinator.group("g"))
        else:
            c = member(cluster, "t", auto_offset_reset="latest")
            await c.start()
        assert await values(c, 2) == [b"first", b"second"]
        await c.stop()

    with_cluster(program)


def history(cluster: FakeCluster, partitions: int) -> list[FakePartition]:
    """Make the topic t, with records that no consumer with "latest" shall read."""
    made = cluster.add_topic("t", partitions).partitions
    for partition in made:
        partition.write(b"old", b"old")
    return made


def grow(cluster: FakeCluster, count: int) -> list[FakePartition]:
    """Give the topic t more partitions. Return all."""
    partitions = cluster.topics["t"].partitions
    partitions += [FakePartition() for _ in range(count - len(partitions))]
    cluster.image_offset += 1
    return partitions


LATEST = {"auto_offset_reset": "latest", "enable_auto_commit": False}


def test_a_partition_without_a_commit_is_not_read_from_its_beginning_for_a_commit_of_another() -> (
    None
):
    """The application commits one partition of the topic by hand, and starts again."""

    async def program(cluster: FakeCluster) -> None:
        partitions = history(cluster, 3)
        async with member(cluster, "t", **LATEST) as c:
            partitions[0].write(b"new")
            assert await values(c, 1) == [b"new"]
            await c.commit({T0: 3})
        async with member(cluster, "t", **LATEST) as c:
            assert await c.getmany(timeout_ms=500) == {}
            assert [await c.position(key) for key in (T0, T1, T2)] == [3, 2, 2]
        assert cluster.coordinator.committed("g") == {0: 3}, "nothing is committed by itself"

    with_cluster(program)


def test_an_offset_that_an_operator_sets_does_not_make_a_new_group_read_the_other_partitions() -> (
    None
):
    async def program(cluster: FakeCluster) -> None:
        history(cluster, 3)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            await admin.alter_group_offsets("g", {T0: 1})
        async with member(cluster, "t", **LATEST) as c:
            assert await values(c, 1) == [b"old"]
            assert await c.getmany(timeout_ms=500) == {}
            assert [await c.position(key) for key in (T0, T1, T2)] == [2, 2, 2]

    with_cluster(program)


def test_what_is_added_while_a_group_is_down_is_read_though_it_committed_one_partition_alone() -> (
    None
):
    async def program(cluster: FakeCluster) -> None:
        history(cluster, 2)
        async with member(cluster, "t", **LATEST) as c:
            await c.commit({T0: 2})
        grow(cluster, 4)[2].write(b"first", b"second")
        async with member(cluster, "t", **LATEST) as c:
            assert await values(c, 2) == [b"first", b"second"]
            assert [await c.position(key) for key in (T0, T1, T2, T3)] == [2, 2, 2, 0]

    with_cluster(program)


def test_a_program_that_joins_after_a_growth_reads_what_it_is_given_of_it() -> None:
    """The others commit all the time: the age of a commit does not tell the age of the group."""

    async def program(cluster: FakeCluster) -> None:
        history(cluster, 2)
        async with member(cluster, "t", **LATEST) as first:
            await first.commit({T0: 2})
            grow(cluster, 4)[3].write(b"first", b"second")
            await first.commit({T0: 2, T1: 2})
            async with member(cluster, "t", **LATEST) as second:
                # the new partitions go to the new program, and first has never had them
                await until_assigned(second, 2)
                assert second.assignment() == {T2, T3}
                assert await values(second, 2) == [b"first", b"second"]

    with_cluster(program)


def test_a_group_that_is_made_after_a_growth_begins_at_the_end_everywhere() -> None:
    async def program(cluster: FakeCluster) -> None:
        history(cluster, 2)
        grow(cluster, 4)[3].write(b"old", b"old")
        for _ in range(2):
            async with member(cluster, "t", **LATEST) as c:
                assert await c.getmany(timeout_ms=500) == {}
                assert [await c.position(key) for key in (T0, T1, T2, T3)] == [2, 2, 0, 2]
                await c.commit({T0: 2})

    with_cluster(program)


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_automatic_commits_name_the_first_position_of_a_partition_that_has_no_new_record(
    policy: str,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        history(cluster, 2)
        grow(cluster, 3)
        first = 0 if policy == "earliest" else 2
        async with member(cluster, "t", auto_offset_reset=policy) as c:
            assert await c.position(T2) == 0
            await asyncio.sleep(10)
            assert cluster.coordinator.committed("g") == {0: first, 1: first, 2: 0}

    with_cluster(program)


def test_assign_with_a_group_begins_at_the_committed_offsets_and_commits() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        c = member(cluster)
        c.assign([T0, T1])
        async with c:
            await values(c, 4)
            await c.getmany(timeout_ms=0)
            await c.commit()
        done = cluster.coordinator.committed("g")
        assert set(done) == {0, 1}
        assert cluster.coordinator.group("g").members == {}
        async with member(cluster) as c:
            await c.assign([T0, T1])
            assert {0: await c.position(T0), 1: await c.position(T1)} == done
            c.seek(T0, 0)
            assert await c.position(T0) == 0
            with pytest.raises(InvalidRequestError, match="unsubscribe"):
                c.subscribe(["t"])
            async with member(cluster, "t"):
                with pytest.raises(NonEmptyGroupError):
                    await c.commit()

    with_cluster(program)


def test_automatic_commits_after_assign_are_renewed_before_they_can_expire() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster) as c:
            await c.assign([T0])
            await values(c, 3)
            asyncio.get_running_loop().call_later(100, cluster.coordinator.commits.clear)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(150):
                    await c.getone()
            commits = [one.topics[0].partitions[0] for one in cluster.coordinator.commits]
            assert {one.offset for one in commits} == {3}
            assert 1 <= len(commits) <= 3

    with_cluster(program)


def test_seek_to_time_goes_to_the_first_record_at_or_after_it() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", enable_auto_commit=False) as c:
            await c.seek_to_time(START_MS + 2)
            assert [await c.position(key) for key in (T0, T1, T2, T3)] == [2] * 4
            await c.seek_to_time(START_MS + 100, T1)
            assert await c.position(T1) == 3
            await c.seek_to_time(0, T1)
            assert await c.position(T1) == 0

    with_cluster(program)


# -- the program's callbacks -----------------------------------------------------------------------


def test_an_error_in_a_callback_is_raised_by_the_next_read_and_the_group_goes_on() -> None:
    class Bad:
        async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
            raise asyncio.CancelledError

        def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
            raise StopAsyncIteration

    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        first = member(cluster)
        first.subscribe(["t"], listener=Bad())
        async with first:
            with pytest.raises(RuntimeError, match="on_partitions_assigned"):
                await first.getone()
            await values(first, 12)
            async with member(cluster, "t") as second:
                with pytest.raises(RuntimeError, match="on_partitions_revoked"):
                    await first.getone()
                await until_assigned(second, 2)

    with_cluster(program)


def test_a_callback_may_seek_commit_and_ask_for_positions() -> None:
    class Busy:
        def __init__(self, c: Consumer) -> None:
            self.c = c
            self.seen: list[int] = []

        async def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
            self.seen = [await self.c.position(key) for key in keys]
            for key in keys:
                self.c.seek(key, 1)

        async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
            await self.c.commit(dict.fromkeys(keys, 2))

    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        c = member(cluster, enable_auto_commit=False)
        listener = Busy(c)
        c.subscribe(["t"], listener=listener)
        async with c:
            assert listener.seen == [0] * 4
            assert len(await values(c, 8)) == 8
            assert await c.getmany(timeout_ms=100) == {}
        assert cluster.coordinator.committed("g") == {0: 2, 1: 2, 2: 2, 3: 2}

    with_cluster(program)


def test_a_callback_may_stop_the_consumer() -> None:
    class Stops:
        def __init__(self, c: Consumer) -> None:
            self.c = c

        async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
            await self.c.stop()

    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        c = member(cluster)
        c.subscribe(["t"], listener=Stops(c))
        await c.start()
        async with member(cluster, "t") as second:
            async with asyncio.timeout(30):
                await until_assigned(second, 4)
        await c.stop()

    with_cluster(program)


# -- several tasks ---------------------------------------------------------------------------------


def test_getmany_gives_no_partition_to_two_tasks_at_once() -> None:
    async def program(cluster: FakeCluster) -> None:
        partitions = cluster.add_topic("t", 3).partitions
        for partition in partitions:
            for number in range(20):
                partition.write(b"%d" % number)
        at_work: set[TopicPartition] = set()
        done: dict[TopicPartition, list[int]] = {}

        async def worker(c: Consumer) -> None:
            while sum(map(len, done.values())) < 60:
                batches = await c.getmany(timeout_ms=100, max_records=3)
                assert at_work.isdisjoint(batches)
                at_work.update(batches)
                await asyncio.sleep(0.01)
                for key, records in batches.items():
                    done.setdefault(key, []).extend(record.offset for record in records)
                at_work.difference_update(batches)

        async with (
            member(cluster, "t") as c,
            asyncio.timeout(60),
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(4):
                tasks.create_task(worker(c))
        assert done == {key: list(range(20)) for key in (T0, T1, T2)}

    with_cluster(program)


# -- cancellation ----------------------------------------------------------------------------------


async def reads_and_commits(cluster: FakeCluster, seen: set[bytes]) -> None:
    """Read all that comes, as a program that may be cancelled at any point."""
    c = member(cluster, auto_commit_interval_ms=20)
    c.subscribe(["t"], listener=Told())
    async with c:
        while True:
            batches = await c.getmany(timeout_ms=20, max_records=2)
            await asyncio.sleep(0.003)
            seen.update(record.value or b"" for found in batches.values() for record in found)
            if len(seen) % 3 == 0:
                await c.commit()


@pytest.mark.parametrize("seed", range(8))
def test_cancellation_anywhere_leaks_nothing_and_loses_no_position(seed: int) -> None:
    async def program(cluster: FakeCluster) -> None:
        partitions = cluster.add_topic("t", 4).partitions
        cluster.delay_s = 0.001
        chance = Random(seed)
        seen: set[bytes] = set()
        written = 0
        for _ in range(40):
            for _ in range(chance.randrange(6)):
                partitions[written % 4].write(b"%d" % written)
                written += 1
            running = asyncio.create_task(reads_and_commits(cluster, seen))
            other = asyncio.create_task(reads_and_commits(cluster, seen))
            await asyncio.sleep(chance.choice((0, 0.002, 0.01, 0.05, 0.2)) * chance.random())
            running.cancel()
            await asyncio.sleep(chance.choice((0, 0.002, 0.2)) * chance.random())
            running.cancel()  # in the middle of its stop()
            other.cancel()
            await asyncio.wait([running, other])
            assert running.cancelled()
            assert other.cancelled()
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert [name for name in names if name.startswith("quorate-")] == []
        last = asyncio.create_task(reads_and_commits(cluster, seen))
        await asyncio.sleep(2)
        last.cancel()
        await asyncio.wait([last])
        assert seen == {b"%d" % number for number in range(written)}
        assert cluster.coordinator.group("g").members == {}

    with_cluster(program, seed=seed)


def test_a_stop_while_it_joins_ends_the_start() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        cluster.coordinator.is_loading = True
        c = member(cluster, "t")
        starting = asyncio.create_task(c.start())
        await asyncio.sleep(1)
        assert not starting.done()
        await c.stop()
        with pytest.raises(ClosedError):
            await starting

    with_cluster(program)


@pytest.mark.parametrize(
    "error", [OutcomeUnknownError("it may be done"), StorageError("the disk is full")]
)
def test_an_error_of_the_coordinators_log_passes(error: Exception) -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        told = Told()
        c = member(cluster)
        c.subscribe(["t"], listener=told)
        async with c:
            await values(c, 12)
            assert isinstance(error, QuorateError)
            cluster.coordinator.fault = error
            commit = asyncio.create_task(c.commit())
            await asyncio.sleep(0.3)
            cluster.coordinator.fault = None
            await commit
            await c.getmany(timeout_ms=2000)
            assert told.calls == [("assigned", [T0, T1, T2, T3])]

    with_cluster(program)


# -- refusals --------------------------------------------------------------------------------------


def test_a_refusal_of_the_coordinator_ends_the_membership() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        cluster.coordinator.fault = GroupAuthorizationFailedError("not allowed to read group g")
        with pytest.raises(GroupAuthorizationFailedError, match="not allowed"):
            await member(cluster, "t").start()
        cluster.coordinator.fault = None
        c = member(cluster)
        with pytest.raises(InvalidPatternError):
            c.subscribe(pattern="(?=a)")
        async with member(cluster, "t") as c:
            cluster.coordinator.fault = GroupAuthorizationFailedError("not any more")
            with pytest.raises(GroupAuthorizationFailedError):
                await values(c, 1000)
            cluster.coordinator.fault = None
            await c.subscribe(["t"])
            await values(c, 1)

    with_cluster(program)


def test_a_listener_without_a_callback_or_with_a_misspelt_one_is_refused() -> None:
    class Misspelt:
        def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
            """Is right."""

        def on_partition_assigned(self, keys: list[TopicPartition]) -> None:
            """Is not."""

    for listener, has in ((object(), "none of them"), (Misspelt(), "on_partition_assigned")):
        for group_id in (None, "g"):
            with pytest.raises(TypeError, match=f"on_partitions_lost; this .* has {has}"):
                Consumer(group_id=group_id).subscribe(["t"], listener=listener)


def test_a_commit_after_unsubscribe_says_what_to_do() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t") as c:
            await c.unsubscribe()
            with pytest.raises(NotMemberError, match="subscribe first"):
                await c.commit()

    with_cluster(program)


def test_a_join_that_gets_no_answer_tells_the_last_error_of_the_coordinator() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        cluster.coordinator.fault = StorageError("nothing was written: the disk is full")
        with pytest.raises(RequestTimedOutError, match=r"StorageError: .*the disk is full"):
            await member(cluster, "t").start()

    with_cluster(program)


def test_a_pattern_reads_topics_that_come_later() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("other").partitions[0].write(b"no")
        c = member(cluster, auto_offset_reset="latest")
        c.subscribe(pattern="t.*")
        async with c:
            assert await c.getmany(timeout_ms=100) == {}
            cluster.add_topic("tea").partitions[0].write(b"yes")
            group = cluster.coordinator.group("g")
            next(iter(group.members.values())).topics = frozenset({"tea"})
            cluster.coordinator.rebalance(group)
            assert await values(c, 1) == [b"yes"]

    with_cluster(program)


@pytest.mark.parametrize("group_id", ["", "g" * 300])
def test_a_group_id_has_1_to_249_characters(group_id: str) -> None:
    with pytest.raises((ValueError, InvalidGroupIdError), match="group_id"):
        Consumer("t", group_id=group_id)


def test_arguments_that_need_a_group_are_refused_without_one() -> None:
    with pytest.raises(ValueError, match="group_instance_id needs a group_id"):
        Consumer("t", group_instance_id="a")
    with pytest.raises(TypeError, match="assignor must be the name"):
        Consumer("t", group_id="g", assignor=5)  # type: ignore[arg-type]


def test_commit_and_committed_need_a_group() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        async with Consumer("t", bootstrap_servers=cluster.bootstrap) as c:
            with pytest.raises(InvalidRequestError, match="group_id"):
                await c.commit()
            with pytest.raises(InvalidRequestError, match="group_id"):
                await c.committed(T0)

    with_cluster(program)


# -- the program's assignor ------------------------------------------------------------------------


def test_a_member_runs_the_assignor_of_the_program() -> None:
    def all_to_the_first(members: Any, counts: Any) -> dict[str, list[TopicPartition]]:
        assert all(isinstance(one, AssignorMember) for one in members)
        first = min(members)
        return {
            first.member_id: [
                TopicPartition(topic, number) for topic in counts for number in range(counts[topic])
            ]
        }

    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", assignor=all_to_the_first) as c:
            await until_assigned(c, 4)

    with_cluster(program)


def test_nonsense_of_an_assignor_is_told_and_the_consumer_goes_on() -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", assignor=lambda members, counts: {"nobody": [T0]}) as c:
            with pytest.raises(InvalidAssignmentError, match="a member 'nobody'"):
                await c.getone()
            assert await c.getmany(timeout_ms=100) == {}

    with_cluster(program)


def test_each_attempt_of_an_assignor_that_fails_is_told_and_few_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def program(cluster: FakeCluster) -> None:
        four_partitions(cluster)
        async with member(cluster, "t", assignor=lambda members, counts: None) as c:
            for attempt in range(6):
                with pytest.raises(InvalidAssignmentError, match="returned a NoneType"):
                    await c.getone()
                assert await c.getmany(timeout_ms=3000) == {}, attempt
                cluster.coordinator.rebalance(cluster.coordinator.group("g"))
                await asyncio.sleep(0.1)

    with_cluster(program)
    lines = [one.getMessage() for one in caplog.records if "assignor" in one.getMessage()]
    assert ["last line: 1)" in lines[0], "last line: 4)" in lines[1]] == [True, True]
    assert len(lines) == 2


def test_parts_are_pairs() -> None:
    assert Part(b"t", 1) == (b"t", 1)
