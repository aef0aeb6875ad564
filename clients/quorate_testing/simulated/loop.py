"""An event loop in virtual time, and the processes in it.

The loop never really waits: it runs the ready callbacks in the order in which they became ready,
and then sets its time to that of the next timer. Two runs with the same seed do the same things in
the same order. There are no threads, no files and no sockets.

A ``Process`` stands for one run of one program. Each task that is spawned in it, and each task that
such a task starts, belongs to it (by a context variable). A test can

* kill it, as by kill -9. From then on none of its callbacks runs. Its coroutines stay frozen, and
  their ``finally`` blocks do not run. They are unwound only after the whole simulation has ended,
  when their effects do not matter any more. The ``at_death`` callbacks release what the process had
  of the world (sockets, locks).
* pause it, as by SIGSTOP. Its callbacks wait, in order, while time and the world continue. They run
  when the process is resumed.

The program of the test itself belongs to no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import random
import sys
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

from quorate_testing.simulated.not_simulated import SimulationError, without_the_real_world
from quorate_testing.simulated.waiting import waiting

__all__ = ["Process", "SimulatedLoop", "SimulationError", "current_process", "simulate"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: The wall clock, in milliseconds since 1970, when a simulation starts.
WALL_CLOCK_START_MS = 1_700_000_000_000
#: The most callbacks at one moment of time. With more, the program must be in an endless loop.
CALLBACKS_AT_ONCE_MAX = 2_000_000
#: A timer of a drifting clock comes this much later, so that rounding does not make it come too
#: early.
CLOCK_RESOLUTION_S = 1e-9
#: Virtual seconds within which the tasks that are cancelled at the end must end.
UNWIND_S = 60.0
UNWIND_ROUNDS = 5

_process: ContextVar[Process | None] = ContextVar("simulated_process", default=None)


def current_process() -> Process | None:
    """Return the simulated process that runs now; None: the test itself or the world runs."""
    return _process.get()


class Process:
    """One run of one program. A killed process never runs again: start another one."""

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_paused = False
        self._loop = loop
        #: Whether this process's clock runs faster or slower than the world's.
        self.drifts = False
        self._jumped_ms = 0.0
        self._clock_rate = 1.0
        self._clock_since_s = self._clock_then_s = loop.world_time()
        self._at_death: list[Callable[[], None]] = []
        self._deferred: deque[events.Handle] = deque()
        self._context = copy_context()
        self._context.run(_process.set, self)

    def __repr__(self) -> str:
        state = "dead" if not self.is_alive else "paused" if self.is_paused else "alive"
        return f"<process {self.name}, {state}>"

    @property
    def runs(self) -> bool:
        """Whether the callbacks of this process run now."""
        return self.is_alive and not self.is_paused

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine in this process. A task of a killed process never completes."""
        if not self.is_alive:
            coroutine.close()
            raise SimulationError(f"{self.name} is dead: nothing can be spawned in it")
        return self._loop.create_task(coroutine, name=name, context=self.context())

    def context(self) -> Context:
        """Return a new context whose callbacks and tasks belong to this process."""
        return self._context.copy()

    def kill(self) -> None:
        """Kill the process, as by kill -9. None of its callbacks runs again.

        A process that kills itself still runs up to its next await.
        """
        if not self.is_alive:
            return
        self.is_alive = False
        callbacks, self._at_death = self._at_death, []
        for callback in callbacks:
            callback()

    def pause(self) -> None:
        """Pause the process, as by SIGSTOP."""
        self.is_paused = True

    def resume(self) -> None:
        """Resume the process, as by SIGCONT. Callbacks that became due run now, in their order."""
        self.is_paused = False
        if self.is_alive:
            self.let_go()

    def at_death(self, callback: Callable[[], None]) -> None:
        """Call `callback` at the kill, to release what the process had, as a kernel does."""
        self._at_death.append(callback)

    def defer(self, handle: events.Handle) -> None:
        """Keep a callback for let_go(). It became due during a pause, or after the kill.

        The kept callbacks of a dead process run at the end, when its tasks are unwound.
        """
        self._deferred.append(handle)

    def let_go(self) -> None:
        """Make the kept callbacks ready to run."""
        self._loop.make_ready(self._deferred)
        self._deferred.clear()

    # -- its clocks: both run at one rate; only the wall clock can be set --

    def time(self) -> float:
        """Return the loop's time in this process.

        It is monotonic, and has the rate of the process's clock.
        """
        passed_s = self._loop.world_time() - self._clock_since_s
        return self._clock_then_s + passed_s * self._clock_rate

    def world_time_of(self, when: float) -> float:
        """Return the world's time at which this process's time is `when` or a little later."""
        passed_s = (when - self._clock_then_s) / self._clock_rate
        return self._clock_since_s + passed_s + CLOCK_RESOLUTION_S

    def wall_clock_ms(self) -> int:
        """Return the machine's wall clock, for Environment.wall_clock_ms."""
        return int(self._loop.wall_clock_start_ms + self.time() * 1000 + self._jumped_ms)

    def jump_clock(self, by_ms: float) -> None:
        """Set the machine's wall clock forward or back."""
        self._jumped_ms += by_ms

    def set_clock_rate(self, rate: float) -> None:
        """Let the machine's clocks run fast (above 1) or slow (below 1) from now on.

        Timers that wait already keep their moment of the world's time.
        """
        self._clock_then_s, self._clock_since_s = self.time(), self._loop.world_time()
        self._clock_rate = rate
        self.drifts = True


@without_the_real_world
class SimulatedLoop(base_events.BaseEventLoop):
    """The event loop of a simulation."""

    # a field of the base class: stop() was called
    _stopping: bool
    _closed: bool

    def __init__(self, *, time_max_s: float = 86_400.0) -> None:
        super().__init__()
        self.set_debug(False)
        #: Failures of tasks that no other task awaits. The run ends at the first failure.
        self.failures: list[BaseException] = []
        #: The source of all random draws of the world outside the processes. simulate() seeds it.
        self.chance = random.Random(0)
        #: Called when all callbacks of a moment have run, before the time changes. A test checks
        #: its invariants here. An exception ends the run.
        self.on_instant: Callable[[], None] | None = None
        #: Names of the processes that ran at this moment. No other process has changed.
        self.ran: dict[str, None] = {}
        #: What every wall clock showed at time 0.
        self.wall_clock_start_ms: float = WALL_CLOCK_START_MS
        #: The run fails when its time passes this.
        self.time_max_s = time_max_s
        self._now_s = 0.0
        self._callbacks_now = 0
        self._runnable: deque[events.Handle] = deque()
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._serial = count()
        self._living_tasks: dict[int, _Task[Any]] = {}
        self._processes: dict[str, Process] = {}
        self._all_processes: list[Process] = []
        self._ending = False
        self.set_exception_handler(self._collect)

    # -- processes --

    def process(self, name: str) -> Process:
        """Return the living process with that name. Make one if there is none."""
        found = self._processes.get(name)
        if found is None or not found.is_alive:
            found = self._processes[name] = Process(self, name)
            self._all_processes.append(found)
        return found

    # -- the interface of an asyncio loop --

    def time(self) -> float:
        """Return the virtual seconds since the start, by the clock of the calling process."""
        process = _process.get()
        return self._now_s if process is None or not process.drifts else process.time()

    def world_time(self) -> float:
        """Return the virtual seconds since the start, by the world's clock, which never drifts."""
        return self._now_s

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> events.Handle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = events.Handle(callback, args, self, context)
        self._runnable.append(handle)
        return handle

    #: The same function, because there are no other threads.
    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> events.TimerHandle:
        process = _process.get()
        if process is not None and process.drifts:
            when = process.world_time_of(when)
        return self.call_at_world(when, callback, *args, context=context)

    def call_at_world(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> events.TimerHandle:
        """Call `callback` at a moment of the world's time, whichever clock the caller has."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = events.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._serial), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> events.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Do nothing. The loop skips a cancelled timer when its time comes."""

    def create_task(
        self,
        coro: Any,
        *,
        name: Any = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        task: _Task[Any] = _Task(coro, loop=self, name=name, context=context)
        task.process = (context or copy_context()).get(_process)
        # Keep the task. Otherwise the garbage collector would unwind it if its process is dead.
        self._living_tasks[task.serial] = task
        task.add_done_callback(self._task_done, context=Context())
        return task

    def make_ready(self, handles: deque[events.Handle]) -> None:
        """Run these callbacks after those that are ready already."""
        self._runnable.extend(handles)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, _Task)
        del self._living_tasks[task.serial]

    def _run_once(self) -> None:
        """Run all callbacks that are ready now.

        If there is none, first set the time to the next timer's.
        """
        if not self._runnable and not self._stopping:
            self._jump()
        ran = self.ran
        take = self._runnable.popleft
        for _ in range(len(self._runnable)):
            handle = take()
            if handle._cancelled:
                continue
            process = handle._context.get(_process)  # type: ignore[attr-defined]
            if process is not None:
                if not (process.is_alive and not process.is_paused) and not self._ending:
                    process.defer(handle)
                    continue
                ran[process.name] = None
            self._callbacks_now += 1
            if self._callbacks_now > CALLBACKS_AT_ONCE_MAX:
                raise self._endless(handle)
            handle._run()
            if self.failures and not self._ending:
                raise SimulationError(
                    f"after {self._now_s:.6f} s a task failed: {self.failures[0]!r}"
                ) from self.failures[0]

    def _endless(self, handle: events.Handle) -> SimulationError:
        self._callbacks_now = 0
        self._runnable.appendleft(handle)  # its task must still end when it is cancelled
        endless = f"{handle!r} and others run for ever, and time stands still"
        return SimulationError(f"{endless}; waiting: {self._waiting()}")

    def _jump(self) -> None:
        while self._timers:
            when, _serial, timer = heapq.heappop(self._timers)
            if timer._cancelled or self._is_of_the_dead(timer):
                continue
            if when > self._now_s:
                if self.on_instant is not None and not self._ending:
                    self.on_instant()
                self.ran.clear()
                self._now_s = when
                self._callbacks_now = 0
            if self._now_s > self.time_max_s:
                late = f"the simulation goes on after {self.time_max_s:g} s"
                raise SimulationError(f"{late}; waiting: {self._waiting()}")
            self._runnable.append(timer)
            return
        raise SimulationError("nothing can ever happen any more; waiting: " + self._waiting())

    def _is_of_the_dead(self, handle: events.Handle) -> bool:
        process = handle._context.get(_process)  # type: ignore[attr-defined]
        return process is not None and not process.is_alive and not self._ending

    def _waiting(self) -> str:
        return waiting(
            (task, "" if task.process is None else task.process.name)
            for task in self._living_tasks.values()
            if task.process is None or task.process.is_alive
        )

    def _collect(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self._ending:
            return
        self.failures.append(context.get("exception") or SimulationError(str(context["message"])))

    # -- the end --

    def unwind(self) -> None:
        """Cancel every task, also those of dead processes, run until all have ended, and close.

        The effects of these tasks do not matter any more. Raises SimulationError if a task does not
        end, or if a task had failed and its failure was not noticed.
        """
        # a task whose failure was not noticed reports it when it is collected
        gc.collect()
        failure = self.failures[0] if self.failures else None
        self._ending = True
        self._callbacks_now = 0
        for process in self._all_processes:
            process.let_go()
        self.time_max_s = self._now_s + 2 * UNWIND_ROUNDS * UNWIND_S
        cancelled: dict[int, asyncio.Task[Any]] = {}
        # a task that ends may begin another one
        for _ in range(UNWIND_ROUNDS):
            tasks = [task for task in self._undone() if task.serial not in cancelled]
            cancelled |= {task.serial: task for task in tasks}
            if tasks:
                super().run_until_complete(self._cancel(tasks))
        super().run_until_complete(self.shutdown_asyncgens())
        stuck = self._undone()
        for task in stuck:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._runnable.clear()
        self._timers.clear()
        self.close()
        if failure is not None:
            told = f"a task failed and its result was never read: {failure!r}"
            raise SimulationError(told) from failure
        if stuck:
            raise SimulationError(f"these did not end when cancelled: {stuck}")

    def _undone(self) -> list[_Task[Any]]:
        return [task for task in self._living_tasks.values() if not task.done()]

    async def _cancel(self, tasks: list[_Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=UNWIND_S)


class _Task(asyncio.Task[T]):
    """A task whose hash is its number.

    So asyncio's sets of tasks have the same order in each run.
    """

    serial: int
    process: Process | None = None

    def __new__(cls, *args: Any, loop: SimulatedLoop, **kwargs: Any) -> _Task[T]:
        task: _Task[T] = super().__new__(cls, *args, loop=loop, **kwargs)  # type: ignore[call-arg]
        task.serial = next(loop._serial)
        return task

    def __hash__(self) -> int:
        return self.serial


def simulate(
    program: Callable[[SimulatedLoop], Coroutine[Any, Any, T]],
    seed: int,
    *,
    time_max_s: float = 86_400.0,
) -> T:
    """Run a program in a new simulated world, and return its result.

    All its tasks have ended when this returns. A failure of the program, or of a task that no other
    task awaits, is raised. The seed is in a note of the exception and on standard error.
    """
    try:
        with collecting_at_the_end():
            return _simulate(program, seed, time_max_s)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        print(f"simulation failed: seed {seed}", file=sys.stderr)
        raise


def _simulate(
    program: Callable[[SimulatedLoop], Coroutine[Any, Any, T]], seed: int, time_max_s: float
) -> T:
    loop = SimulatedLoop(time_max_s=time_max_s)
    loop.chance.seed(seed)
    try:
        result: T = loop.run_until_complete(loop.create_task(program(loop), name="program"))
    except BaseException:
        loop.failures.clear()
        unwind_quietly(loop)
        raise
    loop.unwind()
    return result


@contextlib.contextmanager
def collecting_at_the_end() -> Iterator[None]:
    """Collect garbage only at the end, and only the garbage of the simulation.

    An automatic collection takes time, and no seed determines when it comes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def unwind_quietly(loop: SimulatedLoop) -> None:
    """Unwind after a failure. Ignore further failures, because they say nothing new."""
    try:
        loop.unwind()
    except SimulationError:
        if not loop.is_closed():
            loop.close()
