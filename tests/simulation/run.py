"""`make sim SEEDS=1000 FIRST_SEED=0 [STATE=FILE]`, `make sim SEED=123`: seeds of whole clusters.

ARGS="--scenario kafka-reads": Kafka clients that read from followers in their rack.

With --state a run can be stopped at any time and be continued. The plan of the first seed that
fails is shrunk to the faults and programs that are needed: `--seed 123 --only 3,7 --without grows`
replays those faults of its plan without a program that its shape has. A run of many seeds also
fails if too little happened (FLOORS), or a kind of fault never did.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from quorate_testing.simulated.chaos import Fault
from tests.harness.cluster_faults import KINDS
from tests.harness.cluster_shape import FLAGS, Shape
from tests.harness.kafka_reads_world import run_reads
from tests.harness.quorum_seed import broken_rule, shortest
from tests.harness.world import Outcome, plan_of, run_seed, shape_of
from tests.simulation.many import Result, results

CLUSTER, KAFKA_READS = "cluster", "kafka-reads"
#: With fewer seeds than this, chance may stay below a floor, or never draw a kind of fault.
FLOORS_FROM_SEEDS = 100
#: The least that must happen in 100 seeds: otherwise they prove less than they say.
FLOORS = {
    "acked": 15_000,
    "batches compared": 25_000,
    "elections": 150,
    "partition leaders elected": 800,
    "preferred elections": 30,
    "ISR shrinks": 1000,
    "ISR expansions": 1000,
    "truncations": 200,
    "lossy returns": 10,
    "retried duplicates": 500,
    "moves finished": 300,
    "moves throttled": 50,
    "moves cancelled": 10,
    "drains": 20,
    "compactions": 800,
    "trims": 150,
    "topics made again": 15,
    "partitions added": 60,
    "configurations changed": 150,
    "clients killed": 20,
}
#: What a shape may have beside its promises: a failure that needs none of it is simpler to read.
PROGRAMS = tuple(name for name in FLAGS if name not in ("compacts", "unclean", "beyond"))
SUMS = ("sent", "acked", "failed", "read", "elections", "leader_changes", "checks")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell what happens")
    parser.add_argument("--only", help="numbers of the faults of its plan, with --seed")
    parser.add_argument("--without", default="", help=f"of {','.join(PROGRAMS)}, with --seed")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--scenario", choices=(CLUSTER, KAFKA_READS), default=CLUSTER)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--state", type=Path, help="where what is done is remembered")
    parser.add_argument("--no-shrink", action="store_true", help="only say which seeds fail")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if options.scenario == KAFKA_READS:
        if options.seed is not None:
            return _replay(lambda: _counted(run_reads(options.seed, verbose=True)), options.seed)
        return _many_reads(seeds, options.workers, options.state)
    if options.seed is not None:
        plan = plan_of(options.seed)
        if options.only is not None:
            plan = [plan[int(number)] for number in options.only.split(",") if number]
        left_out = [name for name in options.without.split(",") if name]
        if unknown := set(left_out) - set(PROGRAMS):
            parser.error(
                f"--without {','.join(sorted(unknown))}: it may name {', '.join(PROGRAMS)}"
            )
        shape = without(shape_of(options.seed), left_out)
        return _replay(
            lambda: _told(run_seed(options.seed, plan, shape=shape, verbose=True)), options.seed
        )
    return _many(seeds, options.workers, options.state, shrink=not options.no_shrink)


def _replay(run: Callable[[], str], seed: int) -> int:
    """Run one seed, print a verdict as the last line, and return the exit status."""
    try:
        told = run()
    except Exception as error:
        traceback.print_exc()
        print(f"seed {seed} FAILED: it breaks {broken_rule(error)}")
        return 1
    print(f"{told}\nseed {seed} passed: no rule was broken")
    return 0


def _told(outcome: Outcome) -> str:
    """Return what happened in a run."""
    counts = Counter({name: getattr(outcome, name) for name in SUMS}) + outcome.counters
    return f"{outcome.shape}\n{_counted(counts)}\nfaults:\n{_counted(outcome.injected)}"


def _counted(counts: Counter[str]) -> str:
    return "\n".join(f"  {counts[name]:10}  {name}" for name in sorted(counts))


def _many(seeds: range, workers: int, state: Path | None, *, shrink: bool) -> int:
    started = time.monotonic()
    earlier = 0
    bad: list[int] = []
    passed: list[Result] = []
    for result, was_done in results(seeds, _result, workers=workers, state=state, scenario=CLUSTER):
        earlier += was_done
        if not result["failure"]:
            passed.append(result)
            continue
        bad.append(result["seed"])
        print(f"seed {result['seed']} failed:\n{result['failure']}", flush=True)
    seconds = time.monotonic() - started
    count = len(seeds) - earlier
    print(f"{count} seeds in {seconds:.0f} s, {count / seconds * 3600:.0f} an hour")
    is_low = _report(passed, earlier)
    if bad:
        print(f"{len(bad)} failed; replay with: make sim SEED={bad[0]}   (all: {sorted(bad)})")
        if shrink:
            _shrink(bad[0])
    return 1 if bad or is_low else 0


def _many_reads(seeds: range, workers: int, state: Path | None) -> int:
    """Run seeds of Kafka clients that read from followers; return 1 if one failed."""
    counts: Counter[str] = Counter()
    bad: list[int] = []
    for result, _ in results(
        seeds, _reads_result, workers=workers, state=state, scenario=KAFKA_READS
    ):
        counts.update(result.get("counters", {}))
        if result["failure"]:
            bad.append(result["seed"])
            print(f"seed {result['seed']} failed:\n{result['failure']}", flush=True)
    print(f"{len(seeds) - len(bad)} of {len(seeds)} seeds passed; in all:")
    for name in sorted(counts):
        print(f"  {counts[name]:10}  {name}")
    if bad:
        print(f"failed: {sorted(bad)}")
        print(f'replay with: make sim SEED={bad[0]} ARGS="--scenario {KAFKA_READS}"')
    return 1 if bad else 0


def _reads_result(seed: int) -> Result:
    try:
        return {"seed": seed, "failure": "", "counters": run_reads(seed)}
    except Exception:
        return {"seed": seed, "failure": traceback.format_exc(limit=12)}


def _result(seed: int) -> Result:
    result: Result = {"seed": seed, "failure": ""}
    try:
        outcome = run_seed(seed)
    except Exception as error:
        told = f"{broken_rule(error)}\n{traceback.format_exc(limit=12)}"
        return result | {"failure": told}
    sums = {name: getattr(outcome, name) for name in SUMS}
    return result | {"counters": outcome.counters + Counter(sums), "injected": outcome.injected}


def _report(passed: list[Result], earlier: int) -> bool:
    """Print what happened; return whether it was too little."""
    counters: Counter[str] = Counter()
    injected: Counter[str] = Counter()
    for result in passed:
        counters.update(result["counters"])
        injected.update(result["injected"])
    print(f"{len(passed)} seeds passed, {earlier} of them in an earlier run; per 100 seeds:")
    for name in sorted({*counters, *FLOORS}):
        least = f" (at least {FLOORS[name]})" if name in FLOORS else ""
        each = counters[name] * 100 / max(len(passed), 1)
        print(f"  {each:10.0f}  {name}{least}")
    print(f"faults in all, of {len(KINDS)} kinds:")
    for name in KINDS:
        print(f"  {injected[name]:10}  {name}")
    low = too_few(counters, injected, len(passed))
    if low:
        print(f"too little happened: {', '.join(low)}")
    return bool(low)


def too_few(counters: Counter[str], injected: Counter[str], seeds: int) -> list[str]:
    """Return what is below its floor, and the faults that never happened.

    Nothing if there were fewer seeds than the floors are made for.
    """
    if seeds < FLOORS_FROM_SEEDS:
        return []
    low = [name for name, least in FLOORS.items() if counters[name] * 100 < least * seeds]
    return low + [name for name in KINDS if not injected[name]]


def without(shape: Shape, names: Iterable[str]) -> Shape:
    """Return the shape without some of its programs."""
    flags: dict[str, Any] = dict.fromkeys(names, False)
    return replace(shape, **flags)


def _shrink(seed: int) -> None:
    plan, shape = plan_of(seed), shape_of(seed)
    rule = _broken_by(seed, plan, shape)
    # A part of the plan may break another rule: that is another fault, and would hide this one.
    kept = shortest(plan, lambda part: _broken_by(seed, part, shape) == rule, tries_max=60)
    left_out: list[str] = []
    for name in PROGRAMS:
        fewer = without(shape, [*left_out, name])
        if getattr(shape, name) and _broken_by(seed, kept, fewer) == rule:
            left_out.append(name)
    numbers = ",".join(str(plan.index(fault)) for fault in kept)
    told = without(shape, left_out)
    print(f"seed {seed} ({told}) breaks {rule} with these faults of {len(plan)} already:")
    for fault in kept:
        print(f"  {fault}")
    arguments = f"--seed {seed} --only {numbers}"
    if left_out:
        arguments += f" --without {','.join(left_out)}"
    print(f"replay: python -m tests.simulation.run {arguments}")


def _broken_by(seed: int, plan: list[Fault], shape: Shape) -> str | None:
    try:
        run_seed(seed, plan, shape=shape)
    except Exception as error:
        return broken_rule(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
