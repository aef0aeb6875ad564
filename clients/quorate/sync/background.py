"""The event loop of this process for all blocking clients, in a thread of its own.

The thread starts with the first client, and is a daemon: a program that forgets to close a client
ends all the same. At the interpreter's exit the clients that are still open are closed first, for
at most CLOSE_MAX_S together. A child that was forked has no thread: it makes a new one, and clients
of its parent refuse to work in it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final, Protocol, TypeVar

from quorate.aio.loops import loop_factory, report_unless_noise
from quorate.errors import WrongLoopError
from quorate.net.network import current_network

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The longest wait at the interpreter's exit for all clients that the program left open.
CLOSE_MAX_S: Final = 10.0
#: The longest wait for a call to end that Ctrl-C has interrupted.
INTERRUPTED_MAX_S: Final = 5.0
#: After this time, a thread that waits looks for a signal that did not wake it: one that came just
#: before it began to wait, or one that the system gave to another thread of the process.
SIGNAL_LATE_S: Final = 0.25


class Closeable(Protocol):
    """A client that the program may leave open."""

    def close_at_exit(self, timeout_s: float) -> None: ...


class Background:
    """The thread and its event loop. Use background() to get it."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = (loop_factory() or asyncio.new_event_loop)()
        self.loop.set_exception_handler(report_unless_noise)
        #: The clients that are open, which the exit of the interpreter closes.
        self.clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self.is_of_this_process = True
        #: The loop itself keeps no task alive that waits.
        self.voices: set[Voice] = set()
        #: The ends of clients that were dropped while they were open.
        self._ends: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._live, name="quorate", daemon=True)
        self._thread.start()

    def check(self, what: str) -> None:
        """Raise WrongLoopError if the calling thread can't wait for the loop's thread.

        It can't in a child that was forked, in the loop's thread itself, or in a simulation.
        """
        _check_is_real(f"this {what}")
        if not self.is_of_this_process:
            raise WrongLoopError(
                f"this {what} was made before this process was forked, and its connections belong "
                f"to the parent: make a new {what} here, in a child that multiprocessing starts "
                'with "spawn" or "forkserver" (gRPC does not survive a fork)'
            )
        if self.is_here():
            raise WrongLoopError(
                f"a blocking call of this {what} was made in a callback, which runs in the thread "
                "that the call waits for: let the callback hand its work to another thread"
            )

    def is_here(self) -> bool:
        """Return whether the calling thread is the loop's: a callback runs there."""
        return threading.get_ident() == self._thread.ident

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a call in the loop, and wait for its end. Ctrl-C cancels the call."""
        return Voice(self, "one call").run(call, is_last=True)

    def end_later(self, last: Callable[[], Awaitable[None]]) -> None:
        """Make the last call of a client that was dropped. Do not wait for it."""

        async def end() -> None:
            await last()

        def begin() -> None:
            task = self.loop.create_task(end(), name="quorate-dropped")
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(begin)

    def close(self) -> None:
        """Close the clients that are open, and end the loop and its thread."""
        share_s = CLOSE_MAX_S / max(1, len(self.clients))
        for client in list(self.clients):
            try:
                client.close_at_exit(share_s)
            except Exception as error:
                log.warning(
                    "at the exit of the interpreter, a client was not closed well: %r", error
                )
        asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        self._thread.join(CLOSE_MAX_S)

    async def _end(self) -> None:
        """Let dropped clients end, cancel what is left, and stop the loop."""
        if self._ends:
            await asyncio.wait(self._ends, timeout=CLOSE_MAX_S / 2)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_MAX_S / 2)
        self.loop.call_soon(self.loop.stop)

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


class Voice:
    """One thread's calls of one client, in one task of the loop, one after another.

    A consumer knows by the task who has which records in hand. So all calls of a thread must come
    from the same task.
    """

    def __init__(self, background: Background, name: str) -> None:
        self._background = background
        self._loop = background.loop
        self._name = name
        self._jobs: deque[tuple[Callable[[], Awaitable[Any]], Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._called: asyncio.Event | None = None
        self._is_over = False
        #: Whether the thread waits for a call. If it makes another one, it does so in a signal's
        #: handler, and the first call goes on when the handler has returned.
        self.is_waiting = False
        #: The call that is carried out, and whether Ctrl-C has cancelled it.
        self._under_way: Future[Any] | None = None
        self._is_interrupted = False

    def run(self, call: Callable[[], Awaitable[T]], *, is_last: bool = False) -> T:
        """Run a call in the task of this voice, and wait for its end. Ctrl-C cancels the call.

        Raises what the call raises, and what the handler of a signal raises meanwhile.
        """
        done: Future[T] = Future()
        try:
            self.is_waiting = True
            self._jobs.append((call, done))
            self._is_over = self._is_over or is_last
            self._loop.call_soon_threadsafe(self._begin)
            _await_end(done)
        except BaseException:
            # The handler of a signal raised this, at any line above: KeyboardInterrupt is one such.
            # A call that stays behind holds up all later calls of this thread.
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._interrupt, done)
            with contextlib.suppress(BaseException):
                done.result(INTERRUPTED_MAX_S)
            raise
        finally:
            self.is_waiting = False
        try:
            return done.result()
        except CancelledError:
            raise asyncio.CancelledError from None

    def end(self, last: Callable[[], Awaitable[None]]) -> None:
        """Carry out a last call after those so far, and end the task. Do not wait for it."""
        if self._task is None:
            return
        self._jobs.append((last, Future()))
        self._is_over = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._begin)

    # -- in the loop

    def _begin(self) -> None:
        if self._task is None:
            if not self._jobs:
                return
            self._called = asyncio.Event()
            self._background.voices.add(self)
            self._task = self._loop.create_task(self._live(), name=f"quorate-{self._name}")
        assert self._called is not None
        self._called.set()

    def _interrupt(self, done: Future[Any]) -> None:
        """Cancel the call if it is under way; forget it if it has not begun."""
        if self._under_way is done and self._task is not None:
            self._is_interrupted = True
            self._task.cancel()
        else:
            self._jobs = deque(job for job in self._jobs if job[1] is not done)
            done.cancel()

    async def _live(self) -> None:
        called = self._called
        assert called is not None
        try:
            while True:
                while self._jobs:
                    await self._carry_out(*self._jobs.popleft())
                if self._is_over:
                    return
                called.clear()
                await called.wait()
        finally:
            self._background.voices.discard(self)

    async def _carry_out(self, call: Callable[[], Awaitable[Any]], done: Future[Any]) -> None:
        self._under_way, self._is_interrupted = done, False
        try:
            result = await call()
        except asyncio.CancelledError:
            done.cancel()
            if not self._is_interrupted:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)
        finally:
            self._under_way = None


def _await_end(done: Future[Any]) -> None:
    """Wait until a call is over, however it ended."""
    while True:
        try:
            done.exception(SIGNAL_LATE_S)
        except TimeoutError:
            continue
        except CancelledError:
            pass
        return


_background: Background | None = None
_lock = threading.Lock()


def _check_is_real(what: str) -> None:
    """Raise WrongLoopError in a simulation: all its nodes and programs share one thread."""
    if current_network.get() is not None:
        raise WrongLoopError(
            f"{what} of quorate.sync blocks the thread in which it is called, and in a simulated"
            " cluster all nodes and programs share that thread: use the class of the same name in"
            " `quorate`, and await its calls"
        )


def background() -> Background:
    """Return the background of this process. The first call makes it."""
    _check_is_real("a client")
    global _background
    with _lock:
        if _background is None:
            _background = Background()
            # What was registered last runs first. An open producer warns in a finalizer, so
            # register those before, and close the producers before them.
            weakref.finalize(_background, _nothing)
            atexit.register(_close)
        return _background


def _nothing() -> None:
    """Do nothing; see background()."""


def _close() -> None:
    global _background
    with _lock:
        found, _background = _background, None
    if found is not None:
        found.close()


def _forked() -> None:
    """Forget the parent's background: its thread does not run in this child."""
    global _background, _lock
    _lock = threading.Lock()
    if _background is not None:
        _background.is_of_this_process = False
        _background = None
        atexit.unregister(_close)


os.register_at_fork(after_in_child=_forked)
