"""`python -m bench.kafka produce|consume|idle`: what the Kafka listener can do.

    produce   confluent-kafka, three replicas, acks=all: 1 KiB; 100 B; 100 partitions with keys
    consume   confluent-kafka with large queues, in a group, 100 B
    idle      the memory of a broker with 1,000 connections that do nothing

With `--kafka HOST:PORT`, an Apache Kafka of three brokers on this machine is measured in turn with
Quorate: the two runs of a pair follow one another, and who begins changes with each pair. Rates are
those of the pair of client and servers, which share the cores. CPU seconds are those of all server
processes (for Quorate voters too), a million records. A pair that is not counted warms both up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka.admin import AdminClient, NewTopic

from bench.kafka_client import BATCH_BYTES
from bench.voters import ask
from quorate_cli.local import LocalCluster, process_cpu_seconds
from quorate_cli.local_shape import ANY_PORT, Shape, free_port

PATIENCE_S = 60.0
REPLICAS = 3
MIN_ISR = 2
#: An ApiVersions request of version 3, of the program "bench" 1.0.
HELLO = bytes.fromhex("0000001b0012000300000001000562656e6368000662656e636804312e3000")
MIB = 1 << 20


@dataclass(frozen=True)
class Work:
    """What one run does."""

    records: int
    size: int
    partitions: int = 6
    keyed: bool = False
    #: Of the rate of Kafka.
    goal: float | None = None


PRODUCE = {
    "produce 1 KiB": Work(200_000, 1024, goal=1.5),
    "produce 100 B": Work(1_000_000, 100, goal=0.9),
    "produce 100 B, 100 partitions, keys": Work(500_000, 100, 100, keyed=True),
}
CONSUME = {"consume 100 B": Work(2_000_000, 100, goal=0.6)}


class Servers(Protocol):
    """A cluster that Kafka clients can use."""

    name: str
    bootstrap: str

    def cpu_s(self) -> float: ...


class Quorate:
    """A local cluster of three voters and three brokers."""

    name = "Quorate"

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.bootstrap = ",".join(node.kafka for node in cluster.brokers)

    def cpu_s(self) -> float:
        return sum(self._cluster.cpu_seconds().values())


class Kafka:
    """An Apache Kafka that runs on this machine."""

    name = "Kafka"

    def __init__(self, address: str) -> None:
        found = AdminClient({"bootstrap.servers": address}).list_topics(timeout=PATIENCE_S)
        self.bootstrap = ",".join(f"{one.host}:{one.port}" for one in found.brokers.values())
        self._pids = {_listener(one.port) for one in found.brokers.values()}

    def cpu_s(self) -> float:
        return sum(process_cpu_seconds(pid) or 0.0 for pid in self._pids)


def _listener(port: int) -> int:
    """Return the process that listens on a port of this machine."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) in inodes:
                return int(descriptor.parts[2])
        except OSError:
            continue
    raise SystemExit(f"no process of this machine listens on port {port}")


@contextmanager
def quorate(voters: int = 3, brokers: int = REPLICAS) -> Iterator[LocalCluster]:
    """Run a local cluster with Kafka listeners."""
    with tempfile.TemporaryDirectory(prefix="quorate-bench-", ignore_cleanup_errors=True) as folder:
        shape = Shape(
            voters=voters,
            brokers=brokers,
            port=free_port(max(voters, brokers)),
            kafka_port=ANY_PORT,
        )
        cluster = LocalCluster(Path(folder), shape)
        cluster.prepare()
        cluster.start()
        try:
            ask(cluster.wait_ready(timeout=PATIENCE_S))
            yield cluster
        finally:
            cluster.stop()


@dataclass
class Figures:
    """The runs of one kind of work on one cluster."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)


def create(servers: Servers, topic: str, partitions: int) -> None:
    """Create a topic, and wait until each partition has a leader and all its replicas."""
    admin = AdminClient({"bootstrap.servers": servers.bootstrap})
    new = NewTopic(topic, partitions, REPLICAS, config={"min.insync.replicas": str(MIN_ISR)})
    admin.create_topics([new])[topic].result(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions.values()
        if len(found) == partitions and all(len(one.isrs) == REPLICAS for one in found):
            return
        time.sleep(0.05)
    raise SystemExit(f"{servers.name}: the replicas of {topic} are not in sync")


def delete(servers: Servers, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers.bootstrap})
    admin.delete_topics([topic])[topic].result(PATIENCE_S)


def client(kind: str, **arguments: Any) -> dict[str, float]:
    """Run a client in a process of its own."""
    program = [sys.executable, "-m", "bench.kafka_client", kind, json.dumps(arguments)]
    done = subprocess.run(program, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(
    kind: str, work: Work, clusters: list[Servers], runs: int, batch: int
) -> dict[str, Figures]:
    """Run the work on each cluster in turn. The first round is not counted."""
    found = {servers.name: Figures() for servers in clusters}
    made: dict[str, str] = {}
    for number in range(runs + 1):
        for servers in clusters if number % 2 else reversed(clusters):
            records = work.records if number else work.records // 4
            asked = {"servers": servers.bootstrap, "records": records}
            topic = made.get(
                servers.name, f"bench-{os.getpid()}-{work.size}-{work.partitions}-{number}"
            )
            if kind == "produce" or servers.name not in made:
                create(servers, topic, work.partitions)
            if kind == "consume" and servers.name not in made:
                made[servers.name] = topic
                whole = asked | {"records": work.records}
                client("produce", **whole, topic=topic, size=work.size, keyed=False)
            if kind == "produce":
                asked |= {"size": work.size, "keyed": work.keyed, "batch": batch}
            before = servers.cpu_s()
            run = client(kind, **asked, topic=topic)
            used = servers.cpu_s() - before
            if kind == "produce" or number == runs:
                delete(servers, topic)
            if number:
                figures = found[servers.name]
                figures.rates.append(records / run["s"])
                figures.cpu.append(used / records * 1e6)
                figures.client_cpu.append(run["cpu"] / records * 1e6)
    return found


def show(title: str, work: Work, found: dict[str, Figures], *, as_json: bool) -> None:
    """Print a line for each cluster, and how they compare."""
    load = os.getloadavg()[0]
    for name, figures in found.items():
        rate, cpu = statistics.median(figures.rates), statistics.median(figures.cpu)
        if as_json:
            row = {"figure": title, "servers": name, "records_per_s": figures.rates}
            more = {"cpu_s_per_million": figures.cpu, "client_cpu": figures.client_cpu}
            print(json.dumps(row | more | {"load": load}), flush=True)
            continue
        spread = f"({min(figures.rates):,.0f} to {max(figures.rates):,.0f})"
        print(
            f"{title:36} {name:8} {rate:11,.0f} records/s {spread:24} {cpu:6.2f} s of CPU a million"
            f" of servers, {statistics.median(figures.client_cpu):5.2f} of the client",
            flush=True,
        )
    if len(found) > 1 and not as_json:
        pairs = zip(found["Quorate"].rates, found["Kafka"].rates, strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        goal = "" if work.goal is None else f"; the goal is {work.goal:g}"
        print(
            f"{'':36} {ratio:.2f} times Kafka (median of pairs){goal}; load {load:.1f}", flush=True
        )


def compare(
    kind: str, kafka: str | None, runs: int, only: str, batch: int, *, as_json: bool
) -> None:
    """Measure the kinds of work whose titles have `only` in them."""
    with ExitStack() as stack:
        clusters: list[Servers] = [Quorate(stack.enter_context(quorate()))]
        if kafka is not None:
            clusters.append(Kafka(kafka))
        for title, work in (PRODUCE if kind == "produce" else CONSUME).items():
            if only in title:
                found = measure(kind, work, clusters, runs, batch)
                show(title, work, found, as_json=as_json)


async def _hold(address: str, count: int, cluster: LocalCluster) -> int:
    """Open connections that say hello and wait. Return the broker's bytes with all of them."""
    host, _, port = address.rpartition(":")
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(HELLO)
        size = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(size)
        writers.append(writer)
    await asyncio.sleep(2)
    held = cluster.rss_bytes()[0]
    for writer in writers:
        writer.close()
    return held


def idle(count: int, *, as_json: bool) -> None:
    """Measure what idle connections cost a broker."""
    with quorate(voters=1, brokers=1) as cluster:
        address = cluster.brokers[0].kafka
        asyncio.run(_hold(address, 1, cluster))  # the broker has imported what it needs
        before = cluster.rss_bytes()[0]
        held = asyncio.run(_hold(address, count, cluster))
        again = asyncio.run(_hold(address, count, cluster))
    found = {
        "connections": count,
        "resident before, MiB": before / MIB,
        "with all of them, MiB": held / MIB,
        "the same again, MiB": again / MIB,
        "each, KiB": (held - before) / 1024 / count,
    }
    print(
        json.dumps(found) if as_json else "\n".join(f"{k:28} {v:10,.1f}" for k, v in found.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kafka", description=__doc__)
    parser.add_argument("what", choices=("produce", "consume", "idle"))
    parser.add_argument("--kafka", metavar="HOST:PORT", help="an Apache Kafka of this machine")
    parser.add_argument(
        "--runs", type=int, default=3, help="counted runs of each; the median is told"
    )
    parser.add_argument("--only", default="", help="the figures with this in their titles")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=BATCH_BYTES, help="of the producer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.what == "idle":
        idle(options.connections, as_json=options.json)
    else:
        compare(
            options.what,
            options.kafka,
            options.runs,
            options.only,
            options.batch_size,
            as_json=options.json,
        )


if __name__ == "__main__":
    main()
