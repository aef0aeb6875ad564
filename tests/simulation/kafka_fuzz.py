"""`make fuzz-kafka REQUESTS=1000000 [FIRST_SEED=0] [SEED=n]`: hostile requests of Kafka clients.

Each seed is a simulated broker of its own, which gets some thousand requests, and each process runs
many seeds: see tests/harness/kafka_fuzz. SEED=n runs one seed again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Final

from tests.harness.kafka_fuzz import CPU_MS_PER_KIB, run_world
from tests.simulation.many import Result, results

#: The requests that one broker gets.
OF_ONE_BROKER: Final = 10_000
MB: Final = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    first, count = options.first_seed, -(-options.requests // OF_ONE_BROKER)
    seeds = range(options.seed, options.seed + 1) if options.seed is not None else None
    return _many(seeds or range(first, first + count), options.workers)


def _many(seeds: range, workers: int) -> int:
    started = time.monotonic()
    counts: Counter[str] = Counter()
    bad: list[int] = []
    worst = (0.0, "")
    memory: dict[int, list[float]] = {}
    for result, _ in results(
        seeds, _result, workers=min(workers, len(seeds)), state=None, scenario="kafka"
    ):
        counts.update(result["counts"])
        worst = max(worst, (result["worst"][0], result["worst"][1]))
        memory.setdefault(result["process"], []).append(result["memory"])
        if result["failure"]:
            bad.append(result["seed"])
            print(f"seed {result['seed']} failed:\n{result['failure']}", flush=True)
    cpu_s = counts.pop("CPU ms") / 1000
    print(
        f"seeds {seeds.start} to {seeds.stop - 1}: {sum(counts.values()) - counts['faults']:,} "
        f"requests in {time.monotonic() - started:.0f} s, {cpu_s:.0f} s of CPU"
    )
    for name, count in sorted(counts.items()):
        print(f"  {count:10,}  {name}")
    print(f"  {worst[0]:10.1f}  most ms of CPU a KiB ({worst[1]}); {CPU_MS_PER_KIB:g} are allowed")
    for found in memory.values():
        print(f"  {found[0]:6.0f} MB  of one process after its first broker,")
        print(f"  {found[-1]:6.0f} MB  after its {len(found)}th")
    if bad:
        print(f"{len(bad)} failed; again with: make fuzz-kafka SEED={bad[0]}")
        return 1
    print("0 crashes, 0 errors that are not foreseen; good clients worked all the time")
    return 0


def _result(seed: int) -> Result:
    began = time.process_time()
    result: Result = {"seed": seed, "failure": "", "counts": {}, "worst": (0.0, "")}
    try:
        outcome = run_world(seed, OF_ONE_BROKER)
        result["counts"], result["worst"] = dict(outcome.counts), outcome.worst
        result["failure"] = "\n".join(outcome.faults)
    except Exception:
        result["failure"] = traceback.format_exc(limit=12)
    result["counts"]["CPU ms"] = int((time.process_time() - began) * 1000)
    return result | {"process": os.getpid(), "memory": _resident_bytes() / MB}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
