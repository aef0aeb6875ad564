"""`make bit-flips FLIPS=10000 [FIRST_SEED=0] [STATE=FILE]`: flipped bits, and what became of them.

Each seed is a simulated cluster of its own, with some hundred flips: see tests/harness/bit_flips.
`--seed 123` runs one seed again.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.harness.bit_flips import PARTITIONS, ROUNDS, run_world
from tests.simulation.many import Result, results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--state", type=Path, help="where what is done is remembered")
    options = parser.parse_args()
    first, count = options.first_seed, -(-options.flips // (PARTITIONS * ROUNDS))
    seeds = range(options.seed, options.seed + 1) if options.seed is not None else None
    return _many(seeds or range(first, first + count), options.workers, options.state)


def _many(seeds: range, workers: int, state: Path | None) -> int:
    started = time.monotonic()
    counters: Counter[str] = Counter()
    bad: list[int] = []
    workers = min(workers, len(seeds))
    for result, _ in results(seeds, _result, workers=workers, state=state, scenario="flips"):
        counters.update(result["counters"])
        if result["failure"]:
            bad.append(result["seed"])
            print(f"seed {result['seed']} failed:\n{result['failure']}", flush=True)
    print(
        f"seeds {seeds.start} to {seeds.stop - 1} in {time.monotonic() - started:.0f} s, "
        f"{counters.pop('CPU ms') / 1000:.0f} s of CPU"
    )
    for name in sorted(counters):
        print(f"  {counters[name]:10}  {name}")
    if bad:
        print(
            f"{len(bad)} failed; again with: python -m tests.simulation.bit_flips --seed {bad[0]}"
        )
        return 1
    print("0 wrong records read, 0 acknowledged records lost, all flips in logs told and healed")
    return 0


def _result(seed: int) -> Result:
    began = time.process_time()
    result: Result = {"seed": seed, "failure": "", "counters": {}}
    try:
        result["counters"] = dict(run_world(seed).counters)
    except Exception:
        result["failure"] = traceback.format_exc(limit=12)
    result["counters"]["CPU ms"] = int((time.process_time() - began) * 1000)
    return result


if __name__ == "__main__":
    sys.exit(main())
