"""One seed of the quorum: voters, clients, a plan of faults, and the judgement of the run."""

from __future__ import annotations

import asyncio
import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from quorate_testing.simulated.loop import SimulatedLoop, SimulationError, simulate
from tests.harness.invariants import Violation
from tests.harness.quorum_clients import KEYS, Clients, Kind
from tests.harness.quorum_faults import Fault
from tests.harness.quorum_judge import judge
from tests.harness.quorum_machines import Quorum
from tests.harness.quorum_rules import Rules
from tests.harness.quorum_scenarios import SCENARIOS, Scenario
from tests.harness.world import logs

F = TypeVar("F")

SIMULATED_S = 60.0
FAULTS_S = 46.0
RECOVERY_S = 30.0
CLIENTS = 4
#: Small, so that logs are cut again and again, and a snapshot comes in several chunks.
SETTINGS = {
    "metadata_log_segment_bytes": 16384,
    "metadata_log_max_record_bytes_between_snapshots": 1200,
    "quorum_fetch_snapshot_max_bytes": 128,
}


@dataclass(slots=True)
class Outcome:
    """The counts of a seed's run."""

    seed: int
    counters: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    #: A digest of which process ran when: the same for the same seed, in any Python process.
    trace: str = ""


@dataclass(slots=True)
class Failure:
    """A seed that broke a rule."""

    seed: int
    what: str
    plan: list[Fault]


def plan_of(seed: int, scenario: str = "faults") -> list[Fault]:
    """Return the faults that a seed stands for."""
    machines = size_of(seed) + spares_of(seed)
    return SCENARIOS[scenario].draw(random.Random(f"plan {seed}"), machines, FAULTS_S)


def size_of(seed: int) -> int:
    """Return how many voters a seed has: 5 in one of four."""
    return 5 if seed % 4 == 3 else 3


def spares_of(seed: int) -> int:
    """Return how many machines follow as observers at first: one in one seed of four."""
    return 1 if seed % 4 == 1 else 0


def run_seed(
    seed: int,
    plan: Sequence[Fault] | None = None,
    *,
    scenario: str = "faults",
    verbose: bool = False,
) -> Outcome:
    """Run a seed, or a part of its plan; raise Violation, or SimulationError."""
    faults = plan_of(seed, scenario) if plan is None else plan
    of = SCENARIOS[scenario]
    with logs(verbose=verbose):
        return simulate(lambda loop: _World(loop, seed, faults, of, verbose=verbose).run(), seed)


def broken_rule(error: BaseException) -> str:
    """Return which rule a seed broke: the type of the error, and the line that raised it."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, SimulationError) and error.__cause__ is not None:
            error = error.__cause__  # a task failed, and no caller awaited it
        else:
            break
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def shortest(plan: list[F], fails: Callable[[list[F]], bool], tries_max: int = 150) -> list[F]:
    """Return a part of the plan that still fails, and passes without any one piece (ddmin)."""
    pieces, tries = 2, 0
    while len(plan) >= 2 and tries < tries_max:
        size = -(-len(plan) // pieces)
        for start in range(0, len(plan), size):
            rest = plan[:start] + plan[start + size :]
            tries += 1
            if fails(rest):
                plan, pieces = rest, max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(2 * pieces, len(plan))
    return plan


class _World:
    def __init__(
        self,
        loop: SimulatedLoop,
        seed: int,
        plan: Sequence[Fault],
        scenario: Scenario,
        *,
        verbose: bool,
    ) -> None:
        self.loop, self.seed, self.plan, self.verbose = loop, seed, plan, verbose
        self.quorum = Quorum(loop, size_of(seed), SETTINGS, spares=spares_of(seed))
        self.rules = Rules(self.quorum)
        self.clients = Clients(self.quorum, random.Random(loop.chance.getrandbits(64)))
        self.troubles = scenario.troubles(self.quorum, self.rules, self.tell)
        self.trace = hashlib.sha256()

    def tell(self, what: str) -> None:
        if self.verbose:
            print(f"{self.loop.time():10.3f}  {what}", flush=True)

    async def run(self) -> Outcome:
        self.loop.on_instant = self._instant_ends
        try:
            await self._run()
        except BaseException as error:
            error.add_note(f"at {self.loop.time():.6f} s of seed {self.seed}")
            raise
        finally:
            self.loop.on_instant = None
        return self._outcome()

    def _instant_ends(self) -> None:
        self.trace.update(f"{self.loop.time()!r} {' '.join(self.loop.ran)}\n".encode())
        try:
            self.rules.check()
        except Violation as error:
            error.add_note(f"at {self.loop.time():.6f} s, after {' '.join(self.loop.ran)} ran")
            raise

    async def _run(self) -> None:
        await self.quorum.begin()
        work = [asyncio.create_task(self.clients.work()) for _ in range(CLIENTS)]
        await self.troubles.run(self.plan)
        self.quorum.heal()
        self.tell("healed")
        await asyncio.sleep(max(0.0, SIMULATED_S - 6.0 - self.loop.time()))
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        async with asyncio.timeout(RECOVERY_S):
            await self._converge()
        await asyncio.sleep(max(0.0, SIMULATED_S - self.loop.time()))
        judge(self.clients.history, self.rules.values())
        for machine in self.quorum.machines:
            assert machine.controller is not None
            self.rules.compare_image(machine, machine.controller.image)
        if not self.clients.count()["write ok"]:
            raise Violation("nothing was committed")

    async def _converge(self) -> None:
        """Write and read each key at the leader, until every voter has applied all of it."""
        for key in KEYS:
            await self._until_done("write", key)
            await self._until_done("read", key)
        goal = self.rules.committed_end
        while not all(  # noqa: ASYNC110  # virtual time
            machine.controller is not None and machine.controller.image.offset >= goal
            for machine in self.quorum.machines
        ):
            await asyncio.sleep(0.01)

    async def _until_done(self, kind: Kind, key: str) -> None:
        while True:
            leader = self.quorum.leader
            if leader is not None:
                operation = await self.clients.operate(leader, kind, key)
                if operation.status == "ok":
                    return
            await asyncio.sleep(0.05)

    def _outcome(self) -> Outcome:
        done, injected = self.clients.count(), self.troubles.injected
        counters = Counter(
            {
                "commits": done["write ok"] + done["cas ok"],
                "reads": done["read ok"],
                "unknown": done["write unknown"] + done["cas unknown"],
                "elections": len(self.rules.leaders),
                "truncations": self.rules.truncations - self.rules.snapshots.installed,
                "pauses": injected["pause"],
                "power losses": sum(n for kind, n in injected.items() if kind.startswith("power")),
                "snapshots taken": self.rules.snapshots.taken,
                "snapshots installed": self.rules.snapshots.installed,
                "snapshots loaded": self.rules.snapshots_loaded,
                "voter changes": self.rules.voter_changes(),
                "returns": injected["leader"] + injected["follower"],
                "returns of the removed": injected["removed"]
                + injected["removed with a later epoch"]
                + injected["new disk"],
                "checks": self.rules.checks,
            }
        )
        return Outcome(self.seed, +counters, injected, self.trace.hexdigest())
