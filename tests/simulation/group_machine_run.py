"""`make sim-group-machine SEEDS=2000 FIRST_SEED=0 [SEED=n]`: schedules of the bare group machine.

One core runs some twenty seeds a second. A seed that fails is printed with the end of its trace;
with SEED= the whole trace of that seed is printed. At the end stand the floors: how often each kind
of event happened in 100 seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.harness.group_schedules import run_schedule
from tests.harness.invariants import Violation

#: More lines than the trace of any schedule has.
LINES_MAX = 1_000_000


def main() -> int:
    """Run the seeds; return 1 if a rule did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell what happens")
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    if options.seed is not None:
        print(*run_schedule(options.seed, lines_told=LINES_MAX).trace, sep="\n")
        return 0
    return _run(range(options.first_seed, options.first_seed + options.seeds))


def _run(seeds: range) -> int:
    counts: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        try:
            counts += run_schedule(seed).counts
        except Violation as error:
            print(error, flush=True)
            failed.append(seed)
    floors = {kind: round(100 * count / len(seeds)) for kind, count in sorted(counts.items())}
    print(f"{len(seeds)} seeds; in 100 seeds: {floors}; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
