"""`make sim-raft SEEDS=5000 FIRST_SEED=0 [SEED=n]`: schedules of the bare Raft machine.

One core runs some thirty seeds a second. A seed that fails is printed with the end of its trace;
with SEED= the whole trace of that seed is printed.
"""

from __future__ import annotations

import argparse
import sys

from tests.harness.invariants import Violation
from tests.harness.raft_schedules import run_schedule

#: More lines than the trace of any schedule has.
LINES_MAX = 1_000_000


def main() -> int:
    """Run the seeds; return 1 if a rule did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell what happens")
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    if options.seed is not None:
        print(*run_schedule(options.seed, lines_told=LINES_MAX).trace, sep="\n")
        return 0
    return _run(range(options.first_seed, options.first_seed + options.seeds))


def _run(seeds: range) -> int:
    reigns = committed = 0
    failed = []
    for seed in seeds:
        try:
            outcome = run_schedule(seed)
        except Violation as error:
            print(error, flush=True)
            failed.append(seed)
            continue
        reigns += outcome.reigns
        committed += outcome.committed
    print(f"{len(seeds)} seeds, {reigns} reigns, {committed} committed records; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
