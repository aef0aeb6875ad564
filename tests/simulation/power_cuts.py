"""`make power-cuts [SEEDS=n]`: all nodes of a cluster lose their power, at many points of a run.

Every acknowledged record of the topics, which have flush.on.ack, must be read after that. Prints
how often the power failed at each kind of point. Returns 1 if a record was lost.
`--seed 3 --point 120` replays one, and tells what happens.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.harness.power_cut import Point, chosen, cut_at, record


class Result(NamedTuple):
    """What one cut came to."""

    kind: str
    acked_before: int
    acked: int
    wrong: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=1000, help="of all seeds together")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, help="replay one point of this seed")
    parser.add_argument("--point", type=int, default=0)
    options = parser.parse_args()
    if options.seed is not None:
        point = record(options.seed).points[options.point]
        cut_at(options.seed, options.point, point, verbose=True)
        return 0
    begin, results = time.monotonic(), list[Result]()
    with ProcessPoolExecutor(options.workers) as pool:
        running = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            points = record(seed).points
            numbers = chosen(points, options.points // options.seeds)
            running += [pool.submit(_cut, seed, number, points[number]) for number in numbers]
        for future in running:
            result = future.result()
            results.append(result)
            if len(results) % 100 == 0:
                print(
                    f"{len(results)} done, {sum(bool(one.wrong) for one in results)} failed",
                    flush=True,
                )
            if result.wrong:
                print(result.wrong, flush=True)
    for kind, count in Counter(result.kind for result in results).most_common():
        print(f"{kind:>16} {count:>6}")
    failed = sum(bool(result.wrong) for result in results)
    print(
        f"{len(results)} power cuts of {options.seeds} seeds in {time.monotonic() - begin:.0f} s:"
        f" {sum(one.acked_before for one in results)} records acknowledged before them,"
        f" {sum(one.acked for one in results)} in all; {failed} failed"
    )
    return bool(failed)


def _cut(seed: int, number: int, point: Point) -> Result:
    try:
        outcome = cut_at(seed, number, point)
    except Exception as error:
        where = f"--seed {seed} --point {number}: {point.kind} {point.node} {point.what}"
        return Result(point.kind, 0, 0, f"{where}: {type(error).__name__}: {error}")
    return Result(point.kind, outcome.acked_before, outcome.acked)


if __name__ == "__main__":
    sys.exit(main())
