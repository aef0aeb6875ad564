"""`make sim-groups SEEDS=100 FIRST_SEED=0 [SEED=n]`: consumer groups under faults of chance.

One core runs about one seed a second. The end tells how often what happened in each 100 seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import structlog

from tests.harness.group_world import run_group
from tests.harness.invariants import Violation

#: The level of errors and worse. With SEED= everything is told.
QUIET = 50


def main() -> int:
    """Run the seeds; return 1 if a rule did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell what happens")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    if options.seed is not None:
        return _run(range(options.seed, options.seed + 1))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(QUIET))
    return _run(range(options.first_seed, options.first_seed + options.seeds))


def _run(seeds: range) -> int:
    floors: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        try:
            floors += run_group(seed).floors
        except (Violation, AssertionError) as error:
            print(f"seed {seed}: {error}", flush=True)
            failed.append(seed)
    share = 100 / len(seeds)
    told = ", ".join(f"{what} {round(count * share)}" for what, count in sorted(floors.items()))
    print(f"{len(seeds)} seeds; in 100 of them: {told}; failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
