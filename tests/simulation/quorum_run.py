"""`make sim-quorum SEEDS=700 FIRST_SEED=0 [SEED=n] [STATE=FILE]`: seeds of the quorum alone.

Scenario `faults`: all kinds of faults at once, under which the rules must hold. Scenario `rejoin`
(ARGS="--scenario rejoin"): a voter that was away and comes back, or was removed, causes no change
of leader.

With --state a run can be stopped at any time and be continued: each seed that is done is a line of
that file. A seed that fails is printed with its plan, and the plan is shrunk to the faults that are
needed; `--only 3,7` replays those faults of a plan. A run also fails if a counter is below its
floor.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.harness.quorum_faults import Fault
from tests.harness.quorum_scenarios import SCENARIOS
from tests.harness.quorum_seed import broken_rule, plan_of, run_seed, shortest
from tests.simulation.many import Result, results

#: With fewer seeds than this, chance may stay below a floor.
FLOORS_FROM_SEEDS = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell what happens")
    parser.add_argument("--only", help="numbers of the faults of its plan, with --seed")
    parser.add_argument("--seeds", type=int, default=700)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--state", type=Path, help="where what is done is remembered")
    parser.add_argument("--no-shrink", action="store_true", help="only say which seeds fail")
    parser.add_argument("--scenario", choices=SCENARIOS, default="faults")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed, options.scenario, options.only)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return _Run(options.scenario, options.workers, options.state).of(seeds, not options.no_shrink)


def _one(seed: int, scenario: str, only: str | None) -> int:
    plan = plan_of(seed, scenario)
    if only is not None:
        plan = [plan[int(number)] for number in only.split(",") if number]
    print(run_seed(seed, plan, scenario=scenario, verbose=True))
    return 0


@dataclass(frozen=True)
class _Run:
    scenario: str
    workers: int
    state: Path | None

    def of(self, seeds: range, shrink: bool) -> int:
        started = time.monotonic()
        done: dict[int, Result] = {}
        earlier = 0
        run = partial(_result, scenario=self.scenario)
        for result, was_done in results(
            seeds, run, workers=self.workers, state=self.state, scenario=self.scenario
        ):
            done[result["seed"]] = result
            earlier += was_done
            if result["failure"]:
                print(f"seed {result['seed']} failed:\n{result['failure']}", flush=True)
        seconds = time.monotonic() - started
        if earlier:
            print(f"{earlier} of {len(seeds)} seeds are done already")
        if earlier < len(seeds):
            count = len(seeds) - earlier
            print(f"{count} seeds in {seconds:.0f} s, {count / seconds * 3600:.0f} an hour")
        found = [done[seed] for seed in seeds]
        bad = [result["seed"] for result in found if result["failure"]]
        is_low = _report([result for result in found if not result["failure"]], self.scenario)
        if bad:
            print(f"{len(bad)} seeds failed: {bad}")
            if shrink:
                _shrink(bad[0], self.scenario)
        return 1 if bad or is_low else 0


def _result(seed: int, scenario: str) -> Result:
    result: Result = {"seed": seed, "failure": ""}
    try:
        outcome = run_seed(seed, scenario=scenario)
    except Exception as error:
        told = f"{broken_rule(error)}\n{traceback.format_exc(limit=8)}"
        return result | {"failure": told}
    return result | {"counters": outcome.counters, "injected": outcome.injected}


def _report(results: list[Result], scenario: str) -> bool:
    """Print the totals; return whether one is below its floor."""
    counters: Counter[str] = Counter()
    injected: Counter[str] = Counter()
    for result in results:
        counters.update(result["counters"])
        injected.update(result["injected"])
    seeds = max(len(results), 1)
    floors, kinds = SCENARIOS[scenario].floors, SCENARIOS[scenario].kinds
    print(f"{len(results)} seeds passed; per 100 seeds:")
    low = []
    for name in sorted(
        {*counters, *floors}
    ):  # a counter that nothing counted is below its floor, too
        each = counters[name] * 100 / seeds
        floor = floors.get(name)
        print(f"  {each:10.0f}  {name}" + (f" (at least {floor})" if floor is not None else ""))
        if floor is not None and each < floor:
            low.append(name)
    print(f"faults, of {len(kinds)} kinds:")
    for name in kinds:
        print(f"  {injected[name]:10}  {name}")
    if len(results) < FLOORS_FROM_SEEDS:
        return False
    low += [kind for kind in kinds if not injected[kind]]
    if low:
        print(f"too little happened: {', '.join(low)}")
        return True
    return False


def _shrink(seed: int, scenario: str) -> None:
    plan = plan_of(seed, scenario)
    rule = _broken_by(seed, plan, scenario)
    # A part of the plan may break another rule: that is another fault, and would hide this one.
    kept = shortest(plan, lambda part: _broken_by(seed, part, scenario) == rule)
    numbers = ",".join(str(plan.index(fault)) for fault in kept)
    print(f"seed {seed} breaks {rule} with these faults of {len(plan)} already:")
    for fault in kept:
        print(f"  {fault}")
    print(
        "replay: python -m tests.simulation.quorum_run"
        f" --scenario {scenario} --seed {seed} --only {numbers}"
    )


def _broken_by(seed: int, plan: list[Fault], scenario: str) -> str | None:
    try:
        run_seed(seed, plan, scenario=scenario)
    except Exception as error:
        return broken_rule(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
