"""`python -m bench.partitions`: what a broker with many partitions costs, and how long it stalls.

It runs a cluster of real processes through create, produce, idle, fetch, stop, start, kill -9,
start, fail-over and delete, and prints for each phase: seconds, the longest turn of a broker's
event loop (by the clock, and by the CPU time of its thread), the most open files, the resident
memory, and the CPU of the brokers. The goals of the project:

    python -m bench.partitions --partitions 10000 --brokers 1
    python -m bench.partitions --partitions 2200 --brokers 3
    python -m bench.partitions --partitions 20 --brokers 1 --log-mb 5120

Turns need asyncio's own loop and a little time of their own: --no-turns measures CPU and memory as
users have them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.voters import ask
from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import QuorateError
from quorate_cli.local import LocalCluster, process_cpu_seconds
from quorate_cli.local_shape import Shape, free_port

PATIENCE_S = 600.0
TOPIC_PARTITIONS = 100
ASKED_AT_ONCE = 500
TURNS = Path(__file__).parent / "turns"
SAMPLE_S = 0.1
#: The turn in which a node imports its modules, before it listens, does not count.
IMPORTS = "__main__.py"


class Watcher:
    """Samples the brokers' open files and memory, and reads their long turns."""

    def __init__(self, cluster: LocalCluster, turns: Path) -> None:
        self._cluster = cluster
        self._turns = turns
        self._lock = threading.Lock()
        self._files = self._rss = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(SAMPLE_S)
            for pid in self.pids():
                with suppress(OSError, ValueError, IndexError):
                    files = len(os.listdir(f"/proc/{pid}/fd"))
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    with self._lock:
                        self._files = max(self._files, files)
                        self._rss = max(self._rss, pages * os.sysconf("SC_PAGE_SIZE"))

    def pids(self) -> list[int]:
        """Return the processes of the running brokers."""
        brokers = {node.id for node in self._cluster.brokers}
        held = list(self._cluster.processes.items())
        return [one.pid for node_id, one in held if node_id in brokers and one.poll() is None]

    def cpu(self) -> float:
        return sum(process_cpu_seconds(pid) or 0.0 for pid in self.pids())

    def take(self) -> tuple[int, int]:
        """Return the most open files and resident bytes of a broker since the last call."""
        with self._lock:
            found = self._files, self._rss
            self._files = self._rss = 0
        return found

    def longest(self, since: float, until: float, pids: set[int]) -> list[dict[str, Any]]:
        """Return the long turns of these processes in a time, the longest first."""
        found: list[dict[str, Any]] = []
        for pid in pids:
            with suppress(OSError):
                for line in (self._turns / str(pid)).read_text().splitlines():
                    with suppress(ValueError):
                        turn = json.loads(line)
                        if since <= turn["at"] <= until and IMPORTS not in turn["slowest"]:
                            found.append(turn)
        return sorted(found, key=lambda turn: -float(turn["ms"]))


class Bench:
    """One cluster, from its first process to its end."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        shape = Shape(voters=1, brokers=options.brokers, port=free_port(max(options.brokers, 1)))
        self.cluster = LocalCluster(folder / "cluster", shape)
        turns = folder / "turns"
        turns.mkdir(parents=True, exist_ok=True)
        if options.turns:
            os.environ["EVENT_LOOP_TURNS"] = str(turns)
            paths = [str(TURNS), os.environ.get("PYTHONPATH", "")]
            os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.watcher = Watcher(self.cluster, turns)
        self.topics = -(-options.partitions // TOPIC_PARTITIONS)
        self.each = min(options.partitions, TOPIC_PARTITIONS)

    def names(self) -> list[str]:
        return [f"many-{number}" for number in range(self.topics)]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what is done inside, and print it."""
        self.watcher.take()
        pids, began, cpu = set(self.watcher.pids()), time.time(), self.watcher.cpu()
        yield
        seconds = time.time() - began
        if self.options.settle and name != "idle":
            time.sleep(self.options.settle)
        files, rss = self.watcher.take()
        pids |= set(self.watcher.pids())
        turns = self.watcher.longest(began, time.time(), pids)
        used = max(self.watcher.cpu() - cpu, 0.0)
        row: dict[str, Any] = {
            "phase": name,
            "seconds": round(seconds, 2),
            "turn_ms": turns[0]["ms"] if turns else 0,
            "turn_cpu_ms": max((turn["cpu_ms"] for turn in turns), default=0),
            "turns_over_50_ms": sum(turn["ms"] > 50 for turn in turns),
            "open_files": files,
            "rss_mb": round(rss / 1e6, 1),
            "cpu_s": round(used, 2),
            "cpu_percent": round(used / max(seconds, 0.01) / self.options.brokers * 100, 1),
        }
        print(json.dumps(row), flush=True)
        for turn in turns[: self.options.show]:
            print(f"    {turn}", flush=True)

    async def ready(self) -> None:
        """Wait until the brokers are unfenced and every partition that exists has a leader."""
        await self.cluster.wait_ready(timeout=PATIENCE_S)

    async def led(self) -> None:
        """Wait until every partition has a leader that answers an offset."""
        partitions = [
            TopicPartition(topic, number) for topic in self.names() for number in range(self.each)
        ]
        running = [b.endpoint for b in self.cluster.brokers if b.id in self.cluster.processes]
        async with asyncio.timeout(PATIENCE_S):
            async with Consumer(bootstrap_servers=",".join(running)) as consumer:
                for start in range(0, len(partitions), ASKED_AT_ONCE):
                    await self._end_offsets(consumer, partitions[start : start + ASKED_AT_ONCE])

    async def _end_offsets(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Ask for the ends of these logs until all have answered, however slow the machine is."""
        while True:
            try:
                await consumer.end_offsets(partitions)
                return
            except QuorateError as error:
                if not error.retriable:
                    raise

    async def create(self) -> None:
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            for name in self.names():
                await admin.create_topic(name, self.each, self.options.replicas)

    async def produce(self) -> None:
        """Write some records to every partition, or the log that was asked for."""
        per_partition = max(self.options.log_mb * (1 << 20) // (self.topics * self.each), 1)
        value = os.urandom(min(per_partition, 64 << 10))
        count = max(1, per_partition // max(len(value), 1))
        async with Producer(
            bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=600_000
        ) as producer:
            for _ in range(count):
                for name in self.names():
                    for number in range(self.each):
                        await producer.send(name, value, partition=number)
            await producer.flush()

    async def consume(self) -> None:
        """Read the first records of every partition."""
        partitions = [
            TopicPartition(topic, number) for topic in self.names() for number in range(self.each)
        ]
        left = set(partitions)
        async with Consumer(
            bootstrap_servers=self.cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            consumer.assign(partitions)
            async with asyncio.timeout(PATIENCE_S):
                while left:
                    found = await consumer.getmany(timeout_ms=1000)
                    left.difference_update(found)

    async def delete(self) -> None:
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            names = self.names()
            for start in range(0, len(names), 10):
                await admin.delete_topics(names[start : start + 10])

    def run(self) -> None:
        cluster, brokers = self.cluster, [node.id for node in self.cluster.brokers]
        cluster.prepare()
        try:
            with self.phase("first start"):
                cluster.start()
                ask(self.ready())
            with self.phase("create"):
                ask(self.create())
                ask(self.led())
            with self.phase("idle, empty"):
                time.sleep(self.options.idle)
            with self.phase("produce"):
                ask(self.produce())
            with self.phase("idle"):
                time.sleep(self.options.idle)
            with self.phase("fetch"):
                ask(self.consume())
            with self.phase("stop"):
                self._check(cluster.stop(brokers, timeout=PATIENCE_S))
            with self.phase("clean start"):
                cluster.start(brokers)
                ask(self.ready())
                ask(self.led())
            if self.options.before_kill:
                ask(self.produce())
                time.sleep(self.options.before_kill)
            with self.phase("start after kill -9"):
                cluster.kill(*brokers)
                cluster.start(brokers)
                ask(self.ready())
                ask(self.led())
            if len(brokers) > 1:
                self._fail_over(brokers[0])
            with self.phase("delete"):
                ask(self.delete())
                self._until(lambda: not self._directories(), "the directories are gone")
        finally:
            for node, status in cluster.died():
                print(f"{node.name} ended with status {status}:\n{cluster.last_words(node.id)}")
            cluster.stop(timeout=60.0)

    def _fail_over(self, victim: int) -> None:
        with self.phase("fail-over"):
            self.cluster.kill(victim)
            del self.cluster.processes[victim]
            ask(self.led())
        with self.phase("rejoin"):
            self.cluster.start([victim])
            ask(self.ready())
            ask(self.led())

    def _directories(self) -> list[Path]:
        return list(self.cluster.folder.glob("broker-*/data/many-*"))

    def _until(self, is_done: Callable[[], bool], what: str) -> None:
        until = time.time() + PATIENCE_S
        while not is_done():
            if time.time() > until:
                raise SystemExit(f"not in time: {what}")
            time.sleep(0.05)

    def _check(self, statuses: dict[int, int]) -> None:
        if any(statuses.values()):
            words = [self.cluster.last_words(node_id) for node_id in statuses]
            raise SystemExit("\n".join([f"not every broker stopped cleanly: {statuses}", *words]))


def main() -> int:
    """Measure one cluster of the shape that was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.partitions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--brokers", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=0, help="0: as many as brokers")
    parser.add_argument("--log-mb", type=int, default=0, help="bytes of records, over all")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds")
    parser.add_argument("--settle", type=float, default=1.0, help="seconds after each phase")
    parser.add_argument(
        "--before-kill", type=float, default=0.0, help="seconds from another produce to the kill"
    )
    parser.add_argument("--show", type=int, default=0, help="longest turns to show of each phase")
    parser.add_argument("--no-turns", dest="turns", action="store_false")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    options.replicas = options.replicas or options.brokers
    with tempfile.TemporaryDirectory(
        prefix="quorate-partitions-", dir=options.folder, ignore_cleanup_errors=True
    ) as folder:
        Bench(options, Path(folder)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
