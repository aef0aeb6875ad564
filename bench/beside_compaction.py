"""`python -m bench.beside_compaction`: how long a producer waits while the brokers compact.

It runs a cluster of real processes. In each round it fills a keyed topic, sends records of 1 KiB at
a steady rate to another topic and measures the time from when a record was due to its
acknowledgement: first alone, then while the brokers' workers compact the keyed topic.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.voters import ask
from quorate import Admin, Producer
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port

STEADY, TABLE = "steady", "table"
RECORD = bytes(1024)
#: Waited for the workers to begin: they look for dirty logs each 15 s.
PATIENCE_S = 120.0
LOOK_S = 0.2


class Bench:
    """One cluster, a steady producer, and a topic to compact."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        shape = Shape(voters=1, brokers=3, port=free_port(3))
        self.cluster = LocalCluster(folder / "cluster", shape)

    def run(self) -> None:
        self.cluster.prepare()
        try:
            self.cluster.start()
            ask(self.cluster.wait_ready(timeout=PATIENCE_S))
            ask(self._rounds())
        finally:
            self.cluster.stop(timeout=60.0)

    async def _rounds(self) -> None:
        servers = self.cluster.bootstrap_servers
        ratios = []
        async with (
            Admin(bootstrap_servers=servers) as admin,
            Producer(bootstrap_servers=servers) as producer,
        ):
            await admin.create_topic(STEADY, 1, 3)
            await admin.create_topic(TABLE, 3, 3, configs={"segment.bytes": str(64 << 20)})
            for number in range(self.options.rounds):
                await self._fill(producer)
                alone = await self._steady(producer, self.options.seconds)
                await admin.alter_configs(TABLE, set={"cleanup.policy": "compact"})
                await self._until_workers(True)
                done = asyncio.create_task(self._until_workers(False))
                beside = await self._steady(producer, PATIENCE_S, done)
                await admin.alter_configs(TABLE, set={"cleanup.policy": "delete"})
                row = {"round": number, "alone": percentiles(alone), "beside": percentiles(beside)}
                ratios.append(row["beside"]["p99_ms"] / row["alone"]["p99_ms"])  # type: ignore[index]
                print(json.dumps(row), flush=True)
        print(json.dumps({"p99_ratio_median": round(statistics.median(ratios), 2)}))

    async def _fill(self, producer: Producer) -> None:
        value = b"v" * 82
        keys = [b"key-%08d" % number for number in range(self.options.keys)]
        for number in range(self.options.records):
            await producer.send(TABLE, value, key=keys[number * 7919 % len(keys)])
        await producer.flush()
        await asyncio.sleep(2.0)

    async def _steady(
        self, producer: Producer, seconds: float, until: asyncio.Task[None] | None = None
    ) -> list[float]:
        """Send records at the steady rate, and return how many ms each took."""
        times: list[float] = []
        waiting: set[asyncio.Task[None]] = set()

        async def one(due: float) -> None:
            await producer.send_and_wait(STEADY, RECORD)
            times.append((time.perf_counter() - due) * 1000)

        began = time.perf_counter()
        for number in range(int(seconds * self.options.rate)):
            due = began + number / self.options.rate
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            task = asyncio.create_task(one(due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            if until is not None and until.done():
                break
        await asyncio.gather(*waiting)
        return times

    async def _until_workers(self, run: bool) -> None:
        """Wait until a worker runs, or until none was seen for a second."""
        unseen = 0.0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = self._workers()
                unseen = 0.0 if found else unseen + LOOK_S
                if (run and found) or (not run and unseen > 1.0):
                    return
                await asyncio.sleep(LOOK_S)

    def _workers(self) -> int:
        """Return how many child processes the brokers have."""
        found = 0
        for node in self.cluster.brokers:
            pid = self.cluster.processes[node.id].pid
            with suppress(OSError):
                found += len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found


def percentiles(times: list[float]) -> dict[str, float]:
    """Return the number of samples, and what half and 99 in 100 of them do not exceed."""
    ordered = sorted(times)
    return {
        "records": len(ordered),
        "p50_ms": round(ordered[len(ordered) // 2], 2),
        "p99_ms": round(ordered[len(ordered) * 99 // 100], 2),
    }


def main() -> None:
    """Measure rounds in one cluster."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.beside_compaction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=2_000_000, help="to compact in each round")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=500, help="records a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="quorate-compaction-", ignore_cleanup_errors=True
    ) as folder:
        Bench(options, Path(folder)).run()


if __name__ == "__main__":
    main()
