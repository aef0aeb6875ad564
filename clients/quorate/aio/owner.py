"""The life of one client: its event loop, its background tasks, its failure.

Each Producer, Consumer and Admin has one Owner, and shares it with its Cluster. The rules:

* A client belongs to the event loop in which it was started, and so to the thread and process of
  this loop. A call from anywhere else raises WrongLoopError at once: an asyncio future that is
  awaited in another loop never wakes its waiter.
* `spawn` starts every background task. If a task raises, the whole client fails with this error as
  the cause. The client also fails if other code cancels a task, as the end of asyncio.run() does.
* Every wait inside the client goes through `wait`, or a callback of `on_failure` wakes it. So a
  wait ends with the answer, with the failure of the client, or at its deadline.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import Any, TypeVar

from quorate.aio.tasks import Tasks
from quorate.errors import ClosedError, QuorateError, UnknownServerError, WrongLoopError

T = TypeVar("T")

#: Longest wait for the end of cancelled tasks.
END_TIMEOUT_S = 5.0

#: The number of forks that led to this process. An Owner that was bound at a lower number belongs
#: to the parent process.
_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class Owner:
    """The life of one client. The rules stand at the top of the module.

    `what` names the client in errors, as in "this producer".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        #: The error that ended the client; None while the client works. Set once.
        self.failure: QuorateError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self._born_after = _forks
        self._tasks = Tasks(self._task_failed, on_cancelled=self._task_cancelled)
        self._waiters: dict[asyncio.Future[Any], None] = {}
        self._failed: list[Callable[[QuorateError], None]] = []
        #: Set by end_all(): the error of each wait that begins later.
        self._ended: ClosedError | None = None

    # -- the event loop --------------------------------------------------------------------------

    def bind(self) -> None:
        """Bind the client to the running event loop.

        Raise WrongLoopError if it is bound to another one.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread_id = get_ident()
            self._born_after = _forks
        self.check()

    def check(self) -> None:
        """Raise WrongLoopError unless the client belongs to the running loop, thread and process.

        A client that is not started yet may be configured anywhere.
        """
        loop = self._loop
        if loop is None:
            return
        # A loop that runs, in this thread, is the running one. This costs a third of
        # get_running_loop(), which asks the system for the process each time.
        if get_ident() == self._thread_id and _forks == self._born_after and loop.is_running():
            return
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not loop or self._born_after != _forks:
            raise self._wrong_loop(running)

    @property
    def is_in_this_process(self) -> bool:
        """Whether this process started the client, and is not a child that was forked since."""
        return self._born_after == _forks

    def _wrong_loop(self, running: asyncio.AbstractEventLoop | None) -> WrongLoopError:
        assert self._loop is not None
        if self._born_after != _forks:
            return WrongLoopError(
                f"this {self.what} was started before this process was forked, and its connections "
                f"belong to the parent: make a new {self.what} here, in a child that "
                'multiprocessing starts with "spawn" or "forkserver" (gRPC does not survive a fork)'
            )
        if self._loop.is_closed():
            return WrongLoopError(
                f"the event loop that this {self.what} was started in is closed: use and stop it "
                f"inside one asyncio.run(), or make a new {self.what} in each"
            )
        found = "outside of any event loop" if running is None else "in another event loop"
        return WrongLoopError(
            f"this {self.what} is used {found} than the one that it was started in: from "
            "another thread pass the call on with asyncio.run_coroutine_threadsafe(call, loop), "
            f"in another loop make another {self.what}"
        )

    # -- background tasks ------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` in the background.

        The client fails if `work` raises, or if other code cancels it.
        """
        return self._tasks.spawn(work, f"quorate-{name}")

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Ask a task to end. Do not wait for its end."""
        self._tasks.cancel(task)

    async def end(self, *tasks: asyncio.Task[Any] | None) -> None:
        """Cancel these tasks, and wait until they have ended, for END_TIMEOUT_S at most.

        The calling task is skipped, because it would wait for its own end. None stands for a task
        that was not started yet.
        """
        await self._tasks.end(*tasks, timeout_s=END_TIMEOUT_S)

    async def end_all(self) -> None:
        """End all tasks.

        Fail the remaining waits, and those that begin later, with ClosedError, because the client
        is stopped.
        """
        self._ended = ClosedError(f"this {self.what} was stopped; make a new one")
        await self._tasks.end_all(timeout_s=END_TIMEOUT_S)
        self._tell_waiters(self._ended)

    def _task_failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, QuorateError):
            self.fail(error)
            return
        failure = UnknownServerError(
            f"this {self.what} failed in its task {name}: {error!r}; this is a fault of "
            f"the library: make a new {self.what} to go on, and report it"
        )
        failure.__cause__ = error
        self.fail(failure)

    def _task_cancelled(self, name: str) -> None:
        self.fail(
            ClosedError(
                f"this {self.what} works no more: its background task {name} "
                "was cancelled, as at the end of asyncio.run(); stop it (`async with`) "
                "before the program's main coroutine returns"
            )
        )

    # -- failure ---------------------------------------------------------------------------------

    def on_failure(self, callback: Callable[[QuorateError], None]) -> None:
        """Call `callback` when the client fails.

        If the client has failed already, call it at once.
        """
        self._failed.append(callback)
        if self.failure is not None:
            callback(self.failure)

    def fail(self, error: QuorateError) -> None:
        """Mark the client as failed, and end every wait with `error`.

        Only the first failure counts.
        """
        if self.failure is not None:
            return
        self.failure = error
        self._tell_waiters(error)
        for callback in list(self._failed):
            callback(error)

    def check_alive(self) -> None:
        """Raise the client's failure, if there is one.

        Also raise WrongLoopError, as `check` does.
        """
        self.check()
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    # -- waits -----------------------------------------------------------------------------------

    async def wait(
        self,
        future: asyncio.Future[T],
        *,
        timeout_s: float | None,
        late: Callable[[], QuorateError],
    ) -> T:
        """Return the result of a future. After `timeout_s`, raise the error that `late` returns.

        Also raises the client's failure. A timeout of None sets no limit; only a read by the user
        has it. The future must have no other user, because the end of the wait cancels the future.
        """
        error = self.failure or self._ended
        if error is not None:
            future.cancel()
            raise error.with_traceback(None)
        self._waiters[future] = None
        try:
            async with asyncio.timeout(timeout_s) as timeout:
                return await future
        except TimeoutError:
            if not timeout.expired():
                raise
            raise late() from None
        finally:
            self._waiters.pop(future, None)

    def _tell_waiters(self, error: QuorateError) -> None:
        for future in list(self._waiters):
            if not future.done():
                future.set_exception(error)
        self._waiters.clear()
