"""Waits for an offset end when it is reached, at their deadline, or at the end of the source."""

from __future__ import annotations

import asyncio

import pytest

from quorate.aio.offset_waiters import OffsetWaiters
from quorate.aio.reached_offset import ReachedOffset
from quorate.errors import (
    ClosedError,
    NotControllerError,
    OverloadedError,
    QuorateError,
    RequestTimedOutError,
)
from quorate_testing.simulated.loop import SimulatedLoop, simulate


def test_waiters_are_taken_out_in_order_of_offsets_and_then_of_arrival() -> None:
    waiters = OffsetWaiters[str](10, "batches wait")
    for end_offset, name in ((7, "c"), (3, "a"), (7, "d"), (5, "b")):
        waiters.add(end_offset, name)
    assert waiters.reached(2) == []
    assert waiters.reached(5) == ["a", "b"]
    assert waiters.take_all() == ["c", "d"]
    assert len(waiters) == 0


def test_deadlines_take_out_those_that_are_late_only() -> None:
    waiters = OffsetWaiters[str](10, "batches wait")
    waiters.add(9, "late", deadline_ms=100)
    waiters.add(8, "later", deadline_ms=200)
    waiters.add(7, "never")
    assert waiters.next_deadline_ms == 100
    assert waiters.expired(99) == []
    assert waiters.expired(100) == ["late"]
    assert waiters.next_deadline_ms == 200
    assert waiters.expired(200) == ["later"]
    assert waiters.next_deadline_ms is None
    assert waiters.reached(9) == ["never"]


def test_the_bound_counts_those_that_wait_still() -> None:
    waiters = OffsetWaiters[str](2, "batches wait")
    tickets = [waiters.add(offset, "w") for offset in (1, 2)]
    with pytest.raises(OverloadedError, match="2 batches wait already"):
        waiters.check_room()
    waiters.remove(tickets[1])
    waiters.remove(tickets[1])
    waiters.check_room()
    assert waiters.reached(2) == ["w"]
    waiters.remove(tickets[0])
    assert len(waiters) == 0


def _late() -> QuorateError:
    return RequestTimedOutError("too late")


def test_a_wait_ends_when_its_offset_is_reached_and_not_sooner() -> None:
    async def program(loop: SimulatedLoop) -> None:
        applied = ReachedOffset(10, "calls wait")
        waits = [asyncio.ensure_future(applied.wait(offset)) for offset in (0, 3, 5)]
        await asyncio.sleep(0.1)
        assert [wait.done() for wait in waits] == [True, False, False]
        applied.advance(4)
        await asyncio.sleep(0.1)
        assert [wait.done() for wait in waits] == [True, True, False]
        applied.advance(5)
        await asyncio.gather(*waits)
        assert applied.offset == 5

    simulate(program, 1)


def test_waits_that_time_out_or_are_cancelled_make_room_for_others() -> None:
    async def program(loop: SimulatedLoop) -> None:
        applied = ReachedOffset(1, "calls wait")
        with pytest.raises(RequestTimedOutError, match="too late"):
            await applied.wait(5, timeout_ms=100, late=_late)
        cancelled = asyncio.ensure_future(applied.wait(5))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="1 calls wait already"):
            await applied.wait(5)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        with pytest.raises(RequestTimedOutError):
            await applied.wait(5, timeout_ms=100, late=_late)

    simulate(program, 1)


def test_the_end_fails_each_wait_with_its_own_error() -> None:
    async def program(loop: SimulatedLoop) -> None:
        committed = ReachedOffset(10, "calls wait")
        plain = asyncio.ensure_future(committed.wait(5))
        own = asyncio.ensure_future(committed.wait(5, if_ended=NotControllerError("another leads")))
        await asyncio.sleep(0)
        committed.end(ClosedError("stopping"))
        found = await asyncio.gather(plain, own, return_exceptions=True)
        assert [type(error) for error in found] == [ClosedError, NotControllerError]

    simulate(program, 1)
