"""The driver of a machine: loads before it answers, answers after the commit, drops what failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quorate.aio.clock import loop_ms
from quorate.errors import (
    CoordinatorLoadingError,
    FencedMemberEpochError,
    GroupNotFoundError,
    NotCoordinatorError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OverloadedError,
    RecordTooLargeError,
    UnknownServerError,
)
from quorate.record.batch import split
from quorate_broker.groups import replay, step_log
from quorate_broker.groups.machine.values import (
    LEAVE,
    PARKED,
    Heartbeat,
    MemberState,
    Parked,
    Push,
    Step,
)
from quorate_broker.groups.member_stream import MemberStream
from quorate_broker.groups.shard import Shard
from quorate_broker.replica.hints import hint_of
from tests.unit.quorate_broker.builders import until
from tests.unit.quorate_broker.groups.builders import GroupWorld, put, read


@pytest.fixture
async def world() -> AsyncIterator[GroupWorld]:
    world = GroupWorld()
    yield world
    await world.end()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


async def batches_of(shard: Shard) -> list[int]:
    """Return how many records each batch of the log has."""
    fetched = await shard.leader.fetch(0, bytes_max=64 << 20)
    return [header.count for header, _ in split(fetched.batches)]


def member(world: GroupWorld, member_id: str = "m") -> MemberStream:
    stream = MemberStream()
    stream.belong_to("g", member_id)
    world.shard().open(stream)
    return stream


async def test_an_answer_leaves_after_its_records_are_committed(world: GroupWorld) -> None:
    shard = await world.begin()
    await world.hold_commits()
    asked = asyncio.ensure_future(shard.call(put("g", "1")))
    await settle()
    assert shard.partition.log_end_offset == 1, "written"
    assert not asked.done()
    await world.release_commits()
    assert await asked == "{'g': '1'}"


async def test_an_answer_without_records_waits_for_the_records_before_it(
    world: GroupWorld,
) -> None:
    """It may tell of state that is not committed: a failover would take it back."""
    shard = await world.begin()
    await world.hold_commits()
    written = asyncio.ensure_future(shard.call(put("g", "1")))
    found = asyncio.ensure_future(shard.call(read("g")))
    refused = asyncio.ensure_future(shard.call(read("nothing")))
    await settle()
    assert not found.done()
    assert not refused.done(), "an error may be the consequence of a record as well"
    await world.release_commits()
    assert await found == "1"
    with pytest.raises(GroupNotFoundError):
        await refused
    await written
    assert await shard.call(read("g")) == "1", "at once, without anything that waits"


async def test_the_next_leader_has_what_was_answered(world: GroupWorld) -> None:
    shard = await world.begin()
    for number in range(5):
        await shard.call(put(f"g{number}", str(number)))
    await world.caught_up(2, 3)
    await world.change(leader=2)
    assert not world.coordinators[1].shards
    with pytest.raises(NotCoordinatorError) as caught:
        await shard.call(read("g1"))
    hint = hint_of(caught.value)
    assert hint is not None
    assert (hint.leader, hint.leader_epoch) == (2, 1)
    with pytest.raises(NotCoordinatorError, match="broker 2 does") as caught:
        world.coordinators[1].shard_of("g1")
    assert hint_of(caught.value) == hint
    moved = world.shard(2)
    await until(lambda: moved.is_loaded)
    assert await moved.call(read("g3")) == "3"


async def test_callers_that_wait_learn_that_the_leadership_is_lost(world: GroupWorld) -> None:
    shard = await world.begin()
    await world.hold_commits()
    stream = member(world)
    asked = asyncio.ensure_future(shard.call(put("g", "1")))
    beats = asyncio.ensure_future(shard.heartbeat(stream, Heartbeat("g", "m", 0)))
    await settle()
    await world.change(leader=3, isr=[1, 3])
    with pytest.raises(NotCoordinatorError):
        await asked
    await beats
    assert isinstance(await stream.next(), NotCoordinatorError)
    assert await stream.next() is None


async def test_a_new_leader_answers_only_when_all_of_its_log_is_committed(
    world: GroupWorld,
) -> None:
    """Records above the high watermark may be cut again, or may be what callers were told."""
    shard = await world.begin()
    await world.hold_commits()
    asked = asyncio.ensure_future(shard.call(put("g", "1")))
    await settle()
    await world.caught_up(3)
    assert shard.partition.log_end_offset == 1
    await world.brokers[1].fetchers.stop()
    await world.change(leader=3)  # brokers 1 and 2 are in the ISR, and fetch nothing
    with pytest.raises(NotCoordinatorError):
        await asked
    moved = world.shard(3)
    await settle()
    with pytest.raises(CoordinatorLoadingError):
        await moved.call(read("g"))
    assert moved.partition.high_watermark == 0
    world.brokers[2].fetchers.start() if False else None


async def test_what_a_machine_decided_is_dropped_with_a_refused_batch(world: GroupWorld) -> None:
    shard = await world.begin()
    await shard.call(put("kept", "1"))
    await world.change(isr=[1])
    with pytest.raises(NotEnoughReplicasError):
        await shard.call(put("g", "1"))
    with pytest.raises(CoordinatorLoadingError):
        await shard.call(read("g"))
    await until(lambda: shard.is_loaded)
    assert len(world.machines) == 2
    assert world.machines[-1].values == {"kept": "1"}
    with pytest.raises(GroupNotFoundError):
        await shard.call(read("g"))


async def test_a_parked_caller_is_answered_after_the_commit_of_a_later_step(
    world: GroupWorld,
) -> None:
    shard = await world.begin()
    tickets: list[int] = []

    def park(machine: object, ticket: int, now_ms: int, wall_ms: int) -> Step[str | Parked]:
        tickets.append(ticket)
        return Step(PARKED)

    def put_for(ticket: int, value: str) -> Any:
        return lambda machine, now_ms, wall_ms: machine.put_for(ticket, "g", value)

    parked = asyncio.ensure_future(shard.call_later(park))
    gone = asyncio.ensure_future(shard.call_later(park))
    await settle()
    gone.cancel()
    await world.hold_commits()
    later = asyncio.ensure_future(shard.call(put_for(tickets[0], "7")))
    await settle()
    assert not parked.done(), "not before the commit"
    await world.release_commits()
    assert (await parked, await later) == ("7", "done")
    assert await shard.call(put_for(tickets[1], "8")) == "done", "that caller is gone"


async def test_parked_callers_learn_that_the_leadership_is_lost(world: GroupWorld) -> None:
    shard = await world.begin()
    parked = asyncio.ensure_future(shard.call_later(lambda *_: Step(PARKED)))
    await settle()
    shard.end()
    with pytest.raises(NotCoordinatorError):
        await parked


async def test_a_call_that_writes_is_refused_while_the_isr_is_too_small(
    world: GroupWorld,
) -> None:
    """The machine is not asked, so nothing of it must be dropped."""
    shard = await world.begin()
    await shard.call(put("kept", "1"))
    await world.change(isr=[1])
    with pytest.raises(NotEnoughReplicasError, match="nothing was done"):
        await shard.call(put("g", "1"), writes=True)
    assert await shard.call(read("kept")) == "1"
    assert len(world.machines) == 1
    await world.change(isr=[1, 2])
    await shard.call(put("g", "1"), writes=True)


async def test_callers_learn_that_the_isr_shrank_below_the_minimum(world: GroupWorld) -> None:
    shard = await world.begin()
    await world.hold_commits()
    asked = asyncio.ensure_future(shard.call(put("g", "1")))
    await settle()
    await world.change(isr=[1])
    with pytest.raises(NotEnoughReplicasAfterAppendError):
        await asked
    await world.change(isr=[1, 3])
    await until(lambda: shard.is_loaded)
    assert await shard.call(read("g")) == "1", "it was written, and is committed after all"


async def test_no_batch_is_written_after_one_that_was_refused(world: GroupWorld) -> None:
    """The later one was decided on a state that has the refused one."""
    shard = await world.begin()
    large = asyncio.ensure_future(shard.call(put("large", "x" * (2 << 20))))
    # so large that it does not wait for the commit of the one before it
    later = asyncio.ensure_future(shard.call(put("later", "x" * step_log.BATCH_BYTES_MAX)))
    with pytest.raises(RecordTooLargeError):
        await large
    with pytest.raises(RecordTooLargeError):
        await later
    await until(lambda: shard.is_loaded)
    assert shard.partition.log_end_offset == 0
    assert await shard.call(put("next", "1")) == "{'next': '1'}"


async def test_steps_that_come_while_a_batch_waits_for_its_commit_share_the_next_batch(
    world: GroupWorld,
) -> None:
    """Then 50 commits cost two appends and two rounds of replication, and not 50."""
    shard = await world.begin()
    await world.hold_commits()
    first = asyncio.ensure_future(shard.call(put("first", "1")))
    await settle()
    later = [asyncio.ensure_future(shard.call(put(f"g{n}", str(n)))) for n in range(50)]
    await settle()
    assert shard.partition.log_end_offset == 1, "the others are gathered"
    await world.release_commits()
    await asyncio.gather(first, *later)
    assert await batches_of(shard) == [1, 50]


async def test_the_steps_of_one_turn_share_a_batch(world: GroupWorld) -> None:
    shard = await world.begin()
    await asyncio.gather(*(shard.call(put(f"g{n}", str(n))) for n in range(50)))
    assert await batches_of(shard) == [50]


async def test_a_large_batch_waits_for_none_and_no_step_makes_it_too_large(
    world: GroupWorld,
) -> None:
    """Many steps that are gathered must not become a batch that is refused for its size."""
    shard = await world.begin()
    await world.hold_commits()
    most = step_log.BATCH_BYTES_MAX
    first = asyncio.ensure_future(shard.call(put("first", "1")))
    await settle()
    sizes = (most // 2, most // 4, most // 2, most, 10)
    later = [
        asyncio.ensure_future(shard.call(put(f"g{n}", "x" * size))) for n, size in enumerate(sizes)
    ]
    await settle()
    assert shard.partition.log_end_offset == 5, "all but the last small one"
    await world.release_commits()
    await asyncio.gather(first, *later)
    assert await batches_of(shard) == [1, 2, 1, 1, 1]


async def test_a_gathered_step_leaves_after_its_own_commit(world: GroupWorld) -> None:
    """The batch before is committed first. Its commit says nothing about the later steps."""
    shard = await world.begin()
    await world.hold_commits()
    first = asyncio.ensure_future(shard.call(put("first", "1")))
    await settle()
    later = asyncio.ensure_future(shard.call(put("later", "1")))
    found = asyncio.ensure_future(shard.call(read("later")))
    await settle()
    await world.release_commits()
    await first
    assert shard.partition.high_watermark == 1, "the later one is not committed yet"
    assert not later.done()
    assert not found.done()
    await asyncio.gather(later, found)


async def test_what_is_gathered_is_dropped_with_the_batch_before_it(world: GroupWorld) -> None:
    shard = await world.begin()
    await world.hold_commits()
    first = asyncio.ensure_future(shard.call(put("first", "1")))
    await settle()
    later = asyncio.ensure_future(shard.call(put("later", "1")))
    await settle()
    await world.change(isr=[1])
    for asked in (first, later):
        with pytest.raises(NotEnoughReplicasAfterAppendError):
            await asked
    await world.change(isr=[1, 3])
    await until(lambda: shard.is_loaded)
    assert shard.partition.log_end_offset == 1
    assert await shard.call(put("next", "1")) == "{'first': '1', 'next': '1'}"


async def test_a_fault_of_the_machine_costs_its_state_and_not_the_node(world: GroupWorld) -> None:
    shard = await world.begin()
    await shard.call(put("g", "1"))

    def faulty(*_: object) -> Step[str]:
        world.machines[-1].values["g"] = "wrong"
        raise KeyError("a fault")

    with pytest.raises(UnknownServerError):
        await shard.call(faulty)
    await until(lambda: shard.is_loaded)
    assert await shard.call(read("g")) == "1"
    assert world.brokers[1].failures == []


async def test_a_reload_waits_for_the_batch_that_is_being_written(
    world: GroupWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the log is not known before, and the new state would lack that batch."""
    shard = await world.begin()
    log, written = shard.partition.replica_log, asyncio.Event()
    append = log.append

    async def slowly(writes: Any) -> None:
        await written.wait()
        await append(writes)

    monkeypatch.setattr(log, "append", slowly)
    asked = asyncio.ensure_future(shard.call(put("g", "1")))
    await settle()

    def faulty(*_: object) -> Step[str]:
        raise KeyError("a fault")

    with pytest.raises(UnknownServerError):
        await shard.call(faulty)
    with pytest.raises(NotCoordinatorError):
        await asked
    await asyncio.sleep(0.2)  # longer than the wait before a reload
    was_loaded = shard.is_loaded
    written.set()
    assert not was_loaded
    await until(lambda: shard.is_loaded)
    assert await shard.call(read("g")) == "1"


async def test_steps_that_wait_are_bounded(
    world: GroupWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_log, "WAITING_MAX", 2)
    shard = await world.begin()
    await world.hold_commits()
    asked = [asyncio.ensure_future(shard.call(put("g", str(number)))) for number in range(2)]
    await settle()
    with pytest.raises(OverloadedError, match="2 steps"):
        await shard.call(put("g", "3"))
    await world.release_commits()
    await asyncio.gather(*asked)
    await shard.call(put("g", "4"))


async def test_a_log_is_loaded_in_parts(world: GroupWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = await world.begin()
    await asyncio.gather(*(shard.call(put(f"g{n}", "x" * 50)) for n in range(300)))
    monkeypatch.setattr(replay, "READ_BYTES", 1000)
    await world.caught_up(2, 3)
    await world.change(leader=2)
    moved = world.shard(2)
    await until(lambda: moved.is_loaded)
    assert world.machines[-1].replayed == 300
    assert world.machines[-1].is_loaded
    assert len(world.machines[-1].values) == 300


async def test_the_machine_is_ticked_at_its_deadline(world: GroupWorld) -> None:
    shard = await world.begin()
    machine = world.machines[-1]
    machine.next_deadline_ms = loop_ms() + 20
    await shard.call(put("g", "1"))  # the timer is set after a step
    await until(lambda: machine.next_deadline_ms is None)
    await until(lambda: shard.partition.high_watermark == 2)


async def test_a_tick_waits_while_the_isr_is_too_small(world: GroupWorld) -> None:
    """Its records could not be appended, and the machine would be dropped for nothing."""
    shard = await world.begin()
    machine = world.machines[-1]
    await shard.call(put("g", "1"))
    await world.change(isr=[1])
    machine.next_deadline_ms = loop_ms()
    await shard.call(read("g"))
    await asyncio.sleep(0.1)
    assert machine.next_deadline_ms is not None
    await world.change(isr=[1, 2])
    await until(lambda: machine.next_deadline_ms is None)
    assert len(world.machines) == 1


async def test_a_push_leaves_after_the_commit_and_only_to_the_member(world: GroupWorld) -> None:
    shard = await world.begin()
    mine, other = member(world, "m"), member(world, "other")
    await world.hold_commits()
    push = Push("g", "m", MemberState(7, 1, 100))
    asked = asyncio.ensure_future(shard.call(put("g", "1", pushes=[push])))
    told = asyncio.ensure_future(mine.next())
    await settle()
    assert not told.done()
    await world.release_commits()
    await asked
    assert await told == push.state
    other.end()
    assert await other.next() is None


async def test_the_machine_learns_which_members_have_a_stream(world: GroupWorld) -> None:
    shard = await world.begin()
    events = world.machines[-1].events
    first = member(world)
    second = member(world)
    assert events == [("opened", "g", "m"), ("opened", "g", "m")]
    assert isinstance(await first.next(), FencedMemberEpochError)
    shard.close(first)
    assert len(events) == 2, "the member has another stream"
    shard.close(second)
    assert events[2:] == [("broken", "g", "m")]


async def test_the_stream_of_a_member_that_left_ends(world: GroupWorld) -> None:
    shard = await world.begin()
    stream = member(world)
    await shard.heartbeat(stream, Heartbeat("g", "m", LEAVE))
    state = await stream.next()
    assert isinstance(state, MemberState)
    assert state.member_epoch == LEAVE
    assert await stream.next() is None
    shard.close(stream)
    assert world.machines[-1].events[-1] == ("broken", "g", "m")


async def test_the_end_of_a_batch_s_reign_does_not_reload(world: GroupWorld) -> None:
    shard = await world.begin()
    await world.change(leader=2)
    await settle()
    assert shard.is_over
    assert not shard.is_loaded
    assert len(world.machines) == 2, "one on each leader"


async def test_a_stop_ends_every_wait(world: GroupWorld) -> None:
    shard = await world.begin()
    await world.hold_commits()
    asked = asyncio.ensure_future(shard.call(put("g", "1")))
    stream = member(world)
    await settle()
    await world.coordinators[1].stop()
    with pytest.raises(NotCoordinatorError):
        await asked
    assert isinstance(await stream.next(), NotCoordinatorError)
