"""`make crash-points [SEEDS=n] [FIRST_SEED=n]`: a voter dies at each point of a run, in both ways.

Prints how often it died at each kind of point. Returns 1 if a run did not recover.
`--seed 3 --point 120 --crash power` replays one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.harness.quorum_crash import CRASHES, Crash, Point, crash_at, record

#: (kind of point, kind of crash) -> number of crashes.
Tally = Counter[tuple[str, Crash]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, help="replay one point of this seed")
    parser.add_argument("--point", type=int, default=0)
    parser.add_argument("--crash", choices=CRASHES, default="kill")
    options = parser.parse_args()
    if options.seed is not None:
        crash_at(options.seed, options.point, options.crash, record(options.seed)[options.point])
        return 0
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    begin, done, failures = time.monotonic(), Tally(), list[str]()
    with ProcessPoolExecutor(options.workers) as pool:
        for tally, failed in pool.map(_all_points, seeds):
            done += tally
            failures += failed
            print("\n".join(failed), end="\n" if failed else "", flush=True)
    _print_table(done)
    seconds = time.monotonic() - begin
    print(
        f"{done.total()} crashes of {len(seeds)} seeds in {seconds:.0f} s: {len(failures)} failed"
    )
    return bool(failures)


def _all_points(seed: int) -> tuple[Tally, list[str]]:
    done, failures = Tally(), []
    for number, point in enumerate(record(seed)):
        for crash in CRASHES:
            done[point.kind, crash] += 1
            wrong = _wrong(seed, number, crash, point)
            if wrong is not None:
                failures.append(
                    f"--seed {seed} --point {number} --crash {crash}: {point.kind} {point.what},"
                    f" {point.part}: {wrong}"
                )
    return done, failures


def _wrong(seed: int, number: int, crash: Crash, point: Point) -> str | None:
    try:
        crash_at(seed, number, crash, point)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _print_table(done: Tally) -> None:
    kinds = Counter[str]()
    for (kind, _), count in done.items():
        kinds[kind] += count
    print(f"{'point':>16}" + "".join(f"{crash:>8}" for crash in CRASHES))
    for kind, _ in kinds.most_common():
        print(f"{kind:>16}" + "".join(f"{done[kind, crash]:>8}" for crash in CRASHES))


if __name__ == "__main__":
    sys.exit(main())
