"""`make bench`: what a user would compare, in a few minutes, as medians with their spread.

    startup   from the first process to the first acknowledged record, and CPU seconds a node
    memory    resident MB of each node, fresh
    restart   kill -9 of all six, started again: to the first acknowledged record
    stop      SIGTERM to all six: until the last has ended
    produce   records of 1 KiB, three replicas, acks=all; against one replica, acks=1
    failover  kill -9 of a leading broker: the longest silence on a partition that it led
    quorum    commits of three voters, by stage; a new leader; 30,000 partitions

`python -m bench --only quorum --runs 5 --json`. Figures of different machines can not be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import current, quorum, stages
from bench.voters import ask
from quorate import Admin, Producer
from quorate.errors import QuorateError
from quorate_cli import bench
from quorate_cli.bench_report import Run
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from quorate_quorum.node.logs import set_up_logs

PATIENCE_S = 60.0
Figures = dict[str, list[float]]


async def first_ack(cluster: LocalCluster, *, create: bool) -> None:
    """Return when a record is acknowledged by all in-sync replicas; ask as soon as nodes listen."""
    servers = cluster.bootstrap_servers
    if create:
        await cluster.wait_ready(timeout=PATIENCE_S)
        async with Admin(bootstrap_servers=servers) as admin:
            await admin.create_topic("bench", 1, len(cluster.brokers))
    async with asyncio.timeout(PATIENCE_S), Producer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait("bench", b"first")


def life() -> Figures:
    """One cluster from its first process to its end."""
    with tempfile.TemporaryDirectory(prefix="quorate-bench-", ignore_cleanup_errors=True) as folder:
        cluster = LocalCluster(Path(folder), Shape(port=free_port(3)))
        cluster.prepare()
        try:
            started = time.perf_counter()
            cluster.start()
            ask(first_ack(cluster, create=True))
            startup_s = time.perf_counter() - started
            cpu = [*cluster.cpu_seconds().values()]
            rss = [size / 1e6 for size in cluster.rss_bytes().values()]
            cluster.kill(*cluster.nodes)
            started = time.perf_counter()
            cluster.start()
            ask(first_ack(cluster, create=False))
            restart_s = time.perf_counter() - started
        finally:
            started = time.perf_counter()
            statuses = cluster.stop()
            stop_s = time.perf_counter() - started
    if any(statuses.values()):
        raise SystemExit(f"not every node stopped cleanly: {statuses}")
    return {
        "startup to first ack, s": [startup_s],
        "CPU of a node until then, s": cpu,
        "resident, MB": rss,
        "restart after kill -9 of all, s": [restart_s],
        "SIGTERM of all to the end, s": [stop_s],
    }


def produce() -> Figures:
    """Throughput of one producer, and what three replicas cost."""
    with bench.own_cluster() as cluster:
        servers = cluster.bootstrap_servers

        async def measure() -> tuple[Run, Run]:
            await cluster.wait_ready(timeout=PATIENCE_S)
            runs = []
            for name, replicas, acks in (("three", 3, "all"), ("one", 1, 1)):
                async with Admin(bootstrap_servers=servers) as admin:
                    await admin.create_topic(name, 6, replicas)
                runs.append(
                    await bench._produce_once(servers, cluster, name, 60_000, 1024, acks, 5)
                )
            return runs[0], runs[1]

        three, one = ask(measure())
    return {
        "produce 1 KiB, 3 replicas, acks=all, records/s": [three["records_per_s"]],
        "produce 1 KiB, 1 replica, acks=1, records/s": [one["records_per_s"]],
        "three replicas against one": [three["records_per_s"] / one["records_per_s"]],
        "CPU of all nodes per million, 3 replicas, s": [three["server_cpu_s_per_million"]],
    }


def failover() -> Figures:
    """The gap under kill -9 of a leader."""
    with bench.own_cluster() as cluster:
        run = ask(bench._failover_once(cluster, "broker", 200, 6))
    return {"failover, longest silence, ms": [run["gap_ms"]], "lost": [run["missing"]]}


def commits_and_leaders() -> Figures:
    """The figures of the quorum that vary from run to run."""
    return quorum.commit() | quorum.leader()


BENCHES: dict[str, Callable[[], Figures]] = {
    "life": life,
    "produce": produce,
    "failover": failover,
    "quorum": commits_and_leaders,
}
#: Benches that run once: they take long and vary little, or give a median of many already.
ONCE: dict[str, tuple[Callable[[], Figures], ...]] = {
    "quorum": (stages.stages, quorum.topics, current.current),
}

#: The targets of a figure's median: at most, or at least.
AT_MOST = {
    "commit, one caller, p50, ms": 2.5,
    "commit, one caller, p99, ms": 8.0,
    "new leader after kill -9, s": 0.6,
    "new leader after SIGTERM, s": 0.15,
    "10,000 topics x 3: load of a snapshot, s": 5.0,
    "10,000 topics x 3: Watch from 0 to current, by the log, s": 8.0,
    "10,000 topics x 3: Watch to current, by snapshot, s": 8.0,
    "10,000 topics x 3: new broker process to unfenced, s": 8.0,
}
AT_LEAST = {"commits by 100 callers, requests/s": 2500.0}


def target_of(figure: str, middle: float) -> str:
    """Return a figure's target, and whether it is met; empty if the figure has no target."""
    if figure in AT_MOST:
        return f"at most {AT_MOST[figure]:g}: {'yes' if middle <= AT_MOST[figure] else 'NO'}"
    if figure in AT_LEAST:
        return f"at least {AT_LEAST[figure]:g}: {'yes' if middle >= AT_LEAST[figure] else 'NO'}"
    return ""


def show(all_runs: Figures, *, as_json: bool) -> None:
    """Print one line a figure: median, spread, target; with --json one object a line."""
    for figure, values in all_runs.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        target = target_of(figure, middle)
        if as_json:
            row = {"figure": figure, "median": middle, "values": values, "target": target}
            print(json.dumps(row | {"load": os.getloadavg()[0]}), flush=True)
        else:
            spread = f"({low:,.2f} to {high:,.2f})"
            print(f"{figure:58} {middle:10,.2f}   {spread:26} {target}".rstrip(), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Quorate here.")
    parser.add_argument("--only", choices=BENCHES, help="this one alone")
    parser.add_argument("--runs", type=int, default=3, help="how often each; the median counts")
    parser.add_argument("--json", action="store_true", help="a JSON object for each figure")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f"--runs must be 1 or more, not {options.runs}")
    set_up_logs("error")
    try:
        for name in [options.only] if options.only else BENCHES:
            all_runs: Figures = {}
            for measure in [BENCHES[name]] * options.runs + [*ONCE.get(name, ())]:
                for figure, values in measure().items():
                    all_runs.setdefault(figure, []).extend(values)
            show(all_runs, as_json=options.json)
    except (QuorateError, TimeoutError, OSError) as error:
        print(f"bench: {str(error) or 'no answer in time'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
