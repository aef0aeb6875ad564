"""The end of every background task is seen by its owner."""

from __future__ import annotations

import asyncio

import pytest

from quorate.aio.tasks import Tasks
from quorate_testing.simulated.loop import SimulatedLoop, simulate


class Reports:
    """The reports that the owner got."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, BaseException]] = []
        self.cancelled: list[str] = []
        self.tasks = Tasks(
            lambda name, error: self.failures.append((name, error)),
            on_cancelled=self.cancelled.append,
        )


def test_what_a_task_raises_is_told_with_its_name() -> None:
    async def program(loop: SimulatedLoop) -> None:
        reports = Reports()
        error = OSError("no disk")

        async def work() -> None:
            raise error

        reports.tasks.spawn(work(), "writer")
        await asyncio.sleep(0.1)
        assert reports.failures == [("writer", error)]
        assert len(reports.tasks) == 0

    simulate(program, 1)


def test_an_end_that_the_owner_asked_for_is_no_news() -> None:
    async def program(loop: SimulatedLoop) -> None:
        reports = Reports()
        first = reports.tasks.spawn(asyncio.sleep(100), "first")
        reports.tasks.spawn(asyncio.sleep(100), "second")
        await reports.tasks.end(first, None)
        assert len(reports.tasks) == 1
        await reports.tasks.end_all()
        await reports.tasks.end_all()
        await asyncio.sleep(0)
        assert (reports.failures, reports.cancelled, len(reports.tasks)) == ([], [], 0)

    simulate(program, 1)


def test_a_cancellation_by_others_is_told() -> None:
    async def program(loop: SimulatedLoop) -> None:
        reports = Reports()
        reports.tasks.spawn(asyncio.sleep(100), "reader").cancel()
        await asyncio.sleep(0.1)
        assert (reports.failures, reports.cancelled) == ([], ["reader"])

    simulate(program, 1)


def test_a_task_may_end_all_without_waiting_for_itself() -> None:
    async def program(loop: SimulatedLoop) -> None:
        reports = Reports()
        reports.tasks.spawn(asyncio.sleep(100), "other")
        last = reports.tasks.spawn(reports.tasks.end_all(), "last")
        await asyncio.wait_for(last, 1)
        await asyncio.sleep(0)
        assert (reports.failures, reports.cancelled, len(reports.tasks)) == ([], [], 0)

    simulate(program, 1)


def test_a_task_that_does_not_end_is_left_to_itself_after_the_timeout() -> None:
    async def program(loop: SimulatedLoop) -> None:
        reports = Reports()
        release = asyncio.Event()

        async def stubborn() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await release.wait()

        task = reports.tasks.spawn(stubborn(), "stubborn")
        await asyncio.sleep(0)
        before = loop.time()
        await reports.tasks.end_all(timeout_s=2)
        assert loop.time() - before == pytest.approx(2, abs=0.01)
        release.set()
        await asyncio.wait([task])

    simulate(program, 1)


def test_a_wait_for_the_end_sees_tasks_that_begin_meanwhile() -> None:
    async def program(loop: SimulatedLoop) -> None:
        reports = Reports()

        async def first() -> None:
            await asyncio.sleep(1)
            reports.tasks.spawn(asyncio.sleep(1), "second")

        before = loop.time()
        reports.tasks.spawn(first(), "first")
        await reports.tasks.ended()
        assert loop.time() - before >= 2

    simulate(program, 1)
