"""`make sim SEEDS=1000 FIRST_SEED=0`, `make sim SEED=123`: many seeds, or one told aloud."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.harness.world import Outcome, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and tell what happens")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.seed is not None:
        print(run_seed(options.seed, verbose=True))
        return 0
    return _many(range(options.first_seed, options.first_seed + options.seeds), options.workers)


def _many(seeds: range, workers: int) -> int:
    started = time.monotonic()
    bad: list[int] = []
    total = Outcome(-1)
    injected: Counter[str] = Counter()
    with ProcessPoolExecutor(workers) as pool:
        for seed, found in zip(seeds, pool.map(_one, seeds), strict=True):
            if isinstance(found, str):
                bad.append(seed)
                print(f"seed {seed} failed:\n{found}", flush=True)
                continue
            injected.update(found.injected)
            for name in ("sent", "acked", "failed", "read", "elections", "leader_changes"):
                setattr(total, name, getattr(total, name) + getattr(found, name))
    seconds = time.monotonic() - started
    print(f"{len(seeds)} seeds in {seconds:.0f} s, {len(seeds) / seconds * 3600:.0f} an hour")
    print(
        f"records sent {total.sent}, acknowledged {total.acked}, failed {total.failed}, "
        f"read {total.read}; reigns of the quorum {total.elections}, "
        f"of partitions {total.leader_changes}"
    )
    for name, count in injected.most_common():
        print(f"  {count:6} {name}")
    if bad:
        print(f"{len(bad)} failed; replay with: make sim SEED={bad[0]}   (all: {bad})")
    return 1 if bad else 0


def _one(seed: int) -> Outcome | str:
    try:
        return run_seed(seed)
    except BaseException:
        return traceback.format_exc(limit=12)


if __name__ == "__main__":
    sys.exit(main())
