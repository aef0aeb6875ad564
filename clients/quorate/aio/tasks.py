"""Background tasks that have an owner, so that a task's failure is never overlooked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Task = asyncio.Task[Any]


class Tasks:
    """The background tasks of one object. A task's failure is never lost.

    `on_failure(name, error)` is called in the loop when a task has raised. `on_cancelled(name)` is
    called when other code has cancelled a task, as the end of asyncio.run() does. Servers leave
    `on_cancelled` out: such a cancellation means that their process ends.

    The event loop keeps only weak references to tasks, and drops the exception of a task that has
    no owner. So every task that no code awaits belongs to a Tasks object.
    """

    def __init__(
        self,
        on_failure: Callable[[str, BaseException], None],
        *,
        on_cancelled: Callable[[str], None] | None = None,
    ) -> None:
        self._on_failure = on_failure
        self._on_cancelled = on_cancelled
        #: Running tasks, in the order of their start -> whether this object asked the task to end.
        self._living: dict[Task, bool] = {}

    def __len__(self) -> int:
        return len(self._living)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._living))

    def named(self, name: str) -> list[Task]:
        """Return the running tasks that have this name."""
        return [task for task in self._living if task.get_name() == name]

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` in the background. The callbacks get `name`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._living[task] = False
        task.add_done_callback(self._ended)
        return task

    def cancel(self, *tasks: Task) -> None:
        """Ask these tasks to end. Do not wait for their end."""
        for task in tasks:
            if task in self._living:
                self._living[task] = True
                task.cancel()

    async def end(self, *tasks: Task | None, timeout_s: float | None = None) -> None:
        """Cancel these tasks, and wait until they have ended, at most until the timeout.

        None stands for a task that was not started yet. The calling task is skipped, because it
        would wait for its own end.
        """
        here = asyncio.current_task()
        others = [task for task in tasks if task is not None and task is not here]
        self.cancel(*others)
        if others:
            await asyncio.wait(others, timeout=timeout_s)

    async def end_all(self, *, timeout_s: float | None = None) -> None:
        """End every running task, as `end` does. Safe to call twice."""
        await self.end(*self._living, timeout_s=timeout_s)

    async def ended(self) -> None:
        """Wait until no other task runs. Tasks are not asked to end."""
        here = asyncio.current_task()
        while others := [task for task in self._living if task is not here]:
            await asyncio.wait(others)

    def _ended(self, task: Task) -> None:
        was_asked = self._living.pop(task)
        if task.cancelled():
            if not was_asked and self._on_cancelled is not None:
                self._on_cancelled(task.get_name())
            return
        error = task.exception()
        if error is not None:
            self._on_failure(task.get_name(), error)
