"""The simulated world of one cluster: an event loop in virtual time, a seed, and its limits."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import random
import warnings
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from quorate.errors import ClosedError, InvalidRequestError, WrongLoopError
from quorate_testing.simulated.loop import SimulatedLoop, collecting_at_the_end, unwind_quietly
from quorate_testing.simulated.not_simulated import SimulationError, only_simulated

P = ParamSpec("P")
T = TypeVar("T")

#: The most faults that the note of an error lists, the last ones.
NOTED_MAX: Final = 30


class World:
    """One event loop in virtual time. It is open from the constructor to close().

    `time_limit_s`: virtual seconds after which one run fails, without those that it passes with
    advance().
    """

    def __init__(self, seed: int, time_limit_s: float) -> None:
        self.seed = seed
        #: Whether a program was killed, and so had no time to close what it had open.
        self.has_killed = False
        #: What was done to the cluster, by time.
        self.told: list[str] = []
        self._time_limit_s = time_limit_s
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(collecting_at_the_end())
        self.loop = SimulatedLoop()
        self.loop.chance.seed(seed)
        self.loop.on_instant = self._instant_ends
        _worlds[self.loop] = self
        self._resources.callback(_worlds.pop, self.loop)
        #: The context of the world itself: its tasks belong to no process.
        self._context = Context()
        self._digest = hashlib.sha256()
        # A program that draws from `random` does the same under the same seed, too.
        state = random.getstate()
        self._resources.callback(random.setstate, state)
        random.seed(seed)

    @property
    def trace(self) -> str:
        """A digest of which process ran at which moment. The same run has the same digest."""
        return self._digest.hexdigest()

    def note(self, what: str) -> None:
        """Remember a fault, for the note of an error."""
        self.told.append(f"{self.loop.world_time():10.3f} s  {what}")

    def run(self, start: Callable[[], asyncio.Task[T]]) -> T:
        """Run the loop until the task ends that `start` begins. Return its result.

        An exception gets a note with the seed, the virtual time and the faults. Raises
        SimulationError if the run passes its time limit, hangs, or uses what is not simulated.
        """
        self._check_may_run()
        self.loop.time_max_s = self.loop.world_time() + self._time_limit_s
        task = start()
        try:
            with only_simulated(self.loop):
                return self.loop.run_until_complete(task)
        except BaseException as error:
            self.loop.failures.clear()
            task.cancel()
            self.explain(error)
            raise

    def do(self, change: Callable[[], T]) -> T:
        """Make a change to the world itself, which belongs to no process."""
        self.check_is_open()
        return self._context.run(change)

    def carry_out(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> Waited:
        """Carry out work that takes virtual time. Inside of the loop it must be awaited.

        Outside of it this call returns when the work is done.
        """
        self.check_is_open()
        if _running() is not self.loop:
            self.run(lambda: self._task(work()))
            return Waited(None)
        waited: Any = work()
        # Python warns by this name if the coroutine is never awaited.
        waited.__qualname__ = name
        return Waited(waited)

    async def as_world(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work in a task that belongs to no process."""
        return await self._task(work)

    def allow(self, seconds: float) -> None:
        """Let the present run take so much more virtual time."""
        self.loop.time_max_s += seconds

    def check_is_open(self) -> None:
        """Raise ClosedError if the world has ended."""
        if self.loop.is_closed():
            raise ClosedError("this SimulatedCluster does not run; use it as a context manager")

    def close(self, error: BaseException | None = None) -> None:
        """End every task and close the loop. With an error of the program, ignore further ones.

        Raises SimulationError if a task had failed and nothing had awaited it.
        """
        with contextlib.ExitStack() as stack:
            if self.has_killed:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore", ResourceWarning)
            stack.enter_context(self._resources)
            if error is None:
                try:
                    with only_simulated(self.loop):
                        self.loop.unwind()
                except SimulationError as failure:
                    self.explain(failure)
                    raise
            else:
                self.explain(error)
                self.loop.failures.clear()
                with only_simulated(self.loop):
                    unwind_quietly(self.loop)

    def explain(self, error: BaseException) -> None:
        """Add a note to an error, once: the seed that replays the run, the time, the faults.

        Python and pytest show the note with an error that ends the program or the test. Nothing is
        printed here: a test may expect the error.
        """
        first = f"simulated cluster: seed {self.seed}"
        if any(note.startswith(first) for note in getattr(error, "__notes__", ())):
            return
        note = (
            f"{first}, at {self.loop.world_time():.6f} s of virtual time; replay with "
            f"SimulatedCluster(seed={self.seed}) or pytest --quorate-seed={self.seed}"
        )
        if self.told:
            skipped = len(self.told) - NOTED_MAX
            more = f" (the last {NOTED_MAX} of {len(self.told)})" if skipped > 0 else ""
            note += f"\nfaults{more}:\n" + "\n".join(self.told[-NOTED_MAX:])
        error.add_note(note)

    # -- inside

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self.loop.create_task(work, name="world", context=self._context.copy())

    def _check_may_run(self) -> None:
        self.check_is_open()
        if _running() is self.loop:
            raise InvalidRequestError(
                "run() was called in a coroutine of a run: await the coroutine"
            )
        check_no_loop_runs()

    def _instant_ends(self) -> None:
        self._digest.update(f"{self.loop.world_time()!r} {' '.join(self.loop.ran)}\n".encode())


class _HasWorld(Protocol):
    @property
    def _world(self) -> World: ...


Owner = TypeVar("Owner", bound=_HasWorld)


def takes_time(
    method: Callable[Concatenate[Owner, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[Owner, P], Waited]:
    """Let an asynchronous method be awaited in a run, and block outside of a run."""

    @functools.wraps(method)
    def call(this: Owner, *arguments: P.args, **named: P.kwargs) -> Waited:
        work = functools.partial(method, this, *arguments, **named)
        return this._world.carry_out(work, method.__qualname__)

    return call  # type: ignore[return-value]


class Waited(Coroutine[Any, Any, None]):
    """What a method returns that takes virtual time: a coroutine to await in a run.

    Outside of a run the method has done its work already, and nobody has to await this.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None] | None) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, None]:
        return iter(()) if self._coroutine is None else self._coroutine.__await__()  # type: ignore[return-value]

    def send(self, value: Any) -> Any:
        if self._coroutine is None:
            raise StopIteration
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        if self._coroutine is None:
            raise StopIteration
        return self._coroutine.throw(*error)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()


#: The world of each loop that is not closed.
_worlds: dict[SimulatedLoop, World] = {}


def running_world() -> World:
    """Return the world whose loop runs now. Raises WrongLoopError if the loop is a real one."""
    running = _running()
    found = _worlds.get(running) if isinstance(running, SimulatedLoop) else None
    if found is None:
        raise WrongLoopError(
            "`async with SimulatedCluster()` needs an event loop in virtual time, and this one is"
            " real: start the coroutine with run_simulated(), or mark the test with"
            " @pytest.mark.quorate_simulation"
        )
    return found


def check_no_loop_runs() -> None:
    """Raise WrongLoopError if an event loop runs: another one cannot run inside of it."""
    if _running() is not None:
        raise WrongLoopError(
            "a simulation begins where no event loop runs: use `with SimulatedCluster() as cluster:"
            " cluster.run(main)` in a test without `async`, or mark the test with"
            " @pytest.mark.quorate_simulation and use `async with SimulatedCluster()` in it"
        )


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
