"""Cancels a call at its k-th suspension, and counts what a loop has: tasks and pending futures."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Generator
from enum import Enum
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary


class When(Enum):
    """When the cancellation comes."""

    #: While the call waits.
    WAITING = "waiting"
    #: What the call waits for has come, and the call has not gone on yet.
    READY = "ready"
    #: While the call waits, and again while it cleans up.
    TWICE = "twice"


class Steps:
    """Awaits `work`, and cancels the task that awaits it at a suspension; 0 is the first."""

    def __init__(self, work: Awaitable[object], at: int | None, when: When) -> None:
        self._work = work
        self._at, self._when = at, when
        self.suspensions = 0
        self.was_cancelled = False

    async def run(self) -> object:
        """Run the work to its end, or to its cancellation."""
        return await self

    def __await__(self) -> Generator[Any, None, object]:
        steps = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                awaited = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            self._suspends(awaited)
            error = None
            try:
                yield awaited
            except BaseException as thrown:
                error = thrown

    def _suspends(self, awaited: asyncio.Future[Any] | None) -> None:
        number, self.suspensions = self.suspensions, self.suspensions + 1
        last = self._at if self._when is not When.TWICE or self._at is None else self._at + 1
        if self._at is None or last is None or not self._at <= number <= last:
            return
        self.was_cancelled = True
        task = asyncio.current_task()
        assert task is not None
        if self._when is When.READY and awaited is not None:
            awaited.add_done_callback(lambda _: task.cancel())  # before the task's own callback
        else:
            task.get_loop().call_soon(task.cancel)


class Census:
    """Counts the tasks of the running loop, and the pending futures made since this began."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._made: WeakKeyDictionary[asyncio.Future[Any], str] = WeakKeyDictionary()
        self._create = loop.create_future
        loop.create_future = self._noted  # type: ignore[method-assign]

    def _noted(self) -> asyncio.Future[Any]:
        made = self._create()
        names: list[str] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and len(names) < 3:
            names.append(frame.f_code.co_qualname)
            frame = frame.f_back
        self._made[made] = " < ".join(names)
        return made

    def take(self) -> Counter[str]:
        """Return how many there are of each task and of each pending future."""
        found: Counter[str] = Counter()
        for task in asyncio.all_tasks():
            name = re.sub(r"^Task-\d+$", "a task without a name", task.get_name())
            work = getattr(task.get_coro(), "__qualname__", "")
            name = re.sub(r"-b\d+:\d+$", "", name)  # any broker may lead
            found[f"task {name}: {work}"] += 1
        for future, where in list(self._made.items()):
            if not future.done():
                found[f"future of {where}"] += 1
        return found
