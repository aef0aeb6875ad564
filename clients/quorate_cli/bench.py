"""`quorate bench`: throughput, latency, and the silence after a kill.

produce, consume and latency measure the cluster of --bootstrap, or else start a local cluster of
three voters and three brokers. failover always starts its own cluster. The JSON document has a list
`runs`, and for each figure {"median", "min", "max", "all"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from quorate import Admin, Consumer, Producer
from quorate.errors import QuorateError
from quorate_cli.bench_report import Run, repeat, report, tell_run
from quorate_cli.completion import ACKS, words
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import Shape, free_port
from quorate_cli.output import (
    NO_ANSWER,
    Output,
    check_output,
    check_word,
    fail,
    usage_error,
)
from quorate_cli.progress import progress
from quorate_cli.session import by_options
from quorate_cli.workload import AckTimes, produce_paced

app = typer.Typer(no_args_is_help=True, help="Measure a cluster.")

Own = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        metavar="HOST:PORT[,...]",
        help="Measure this cluster; else one is started on this machine.",
    ),
]
Runs = Annotated[
    int, typer.Option("--runs", min=1, help="How often to measure; the median counts.")
]
Partitions = Annotated[int, typer.Option("--partitions", "-p", min=1, help="Of the topic.")]
Replicas = Annotated[
    int, typer.Option("--replication-factor", "-r", min=1, help="Replicas of each partition.")
]
RecordBytes = Annotated[int, typer.Option("--record-bytes", min=1, help="Bytes of each value.")]
Records = Annotated[int, typer.Option("--records", min=1, help="How many records in each run.")]
Acks = Annotated[str, typer.Option("--acks", help="all, 1 or 0.", autocompletion=words(*ACKS))]
Linger = Annotated[float, typer.Option("--linger-ms", min=0, help="Wait to fill a batch.")]


@contextlib.contextmanager
def own_cluster(voters: int = 3, brokers: int = 3) -> Iterator[LocalCluster]:
    """Start a local cluster in a temporary folder, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="quorate-bench-", ignore_cleanup_errors=True) as folder:
        shape = Shape(voters=voters, brokers=brokers, port=free_port(max(voters, brokers)))
        cluster = LocalCluster(Path(folder), shape)
        cluster.prepare()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def _or_fail(main: Callable[[], Any]) -> Any:
    try:
        return asyncio.run(main())
    except (ValueError, OSError) as error:
        usage_error(by_options(str(error)))
    except (QuorateError, TimeoutError) as error:
        fail(str(error) or "no answer in time", NO_ANSWER)


def _measure(
    bootstrap: str | None, measured: Callable[[str, LocalCluster | None], Awaitable[list[Run]]]
) -> list[Run]:
    """Return the result of `measured` for the cluster at `bootstrap`; None: for a new local one.

    The local cluster is ready before `measured` is called.
    """

    async def when_ready(cluster: LocalCluster) -> list[Run]:
        await cluster.wait_ready()
        return await measured(cluster.bootstrap_servers, cluster)

    if bootstrap is not None:
        return cast(list[Run], _or_fail(lambda: measured(bootstrap, None)))
    with own_cluster() as cluster:
        return cast(list[Run], _or_fail(lambda: when_ready(cluster)))


def _acks(word: str) -> str | int:
    return word if word == "all" else int(word)


@contextlib.asynccontextmanager
async def _topic(
    bootstrap: str, name: str, partitions: int, replication_factor: int
) -> AsyncIterator[str]:
    async with Admin(bootstrap_servers=bootstrap) as admin:
        await admin.create_topic(name, partitions, replication_factor)
        try:
            yield name
        finally:
            await admin.delete_topics([name])


# -- produce -------------------------------------------------------------------------------------


@app.command()
def produce(
    records: Records = 200_000,
    record_bytes: RecordBytes = 1024,
    partitions: Partitions = 6,
    replication_factor: Replicas = 3,
    acks: Acks = "all",
    linger_ms: Linger = 5,
    runs: Runs = 3,
    bootstrap: Own = None,
    output: Output = "text",
) -> None:
    """Measure the throughput of one producer, and the CPU seconds of every process."""
    as_json = check_output(output)
    check_word("--acks", acks, ACKS)

    async def measured(servers: str, cluster: LocalCluster | None) -> list[Run]:
        async def one(number: int) -> Run:
            topic = f"bench-produce-{number}"
            async with _topic(servers, topic, partitions, replication_factor) as name:
                return await _produce_once(
                    servers, cluster, name, records, record_bytes, _acks(acks), linger_ms
                )

        return await repeat(runs, one)

    found = _measure(bootstrap, measured)
    report(
        "produce",
        found,
        ("records_per_s", "mb_per_s", "server_cpu_s_per_million", "client_cpu_s_per_million"),
        as_json=as_json,
    )


async def _produce_once(
    servers: str,
    cluster: LocalCluster | None,
    name: str,
    records: int,
    record_bytes: int,
    acks: str | int,
    linger_ms: float,
) -> Run:
    value = bytes(i * 31 % 251 for i in range(record_bytes))
    async with Producer(bootstrap_servers=servers, acks=acks, linger_ms=linger_ms) as producer:
        await producer.send_and_wait(name, value)
        cpu_before = cluster.cpu_seconds() if cluster is not None else {}
        own_before = time.process_time()
        started = time.perf_counter()
        deliveries = [await producer.send(name, value) for _ in range(records)]
        await producer.flush()
        seconds = time.perf_counter() - started
        failed = sum(1 for delivery in deliveries if _failed(delivery))
    own = time.process_time() - own_before
    cpu_after = cluster.cpu_seconds() if cluster is not None else {}
    cpu = {str(i): cpu_after[i] - cpu_before.get(i, 0.0) for i in cpu_after}
    million = records / 1e6
    return {
        "records": records,
        "failed": failed,
        "seconds": seconds,
        "records_per_s": (records - failed) / seconds,
        "mb_per_s": (records - failed) * record_bytes / seconds / 1e6,
        "cpu_s": {**cpu, "client": own},
        "server_cpu_s_per_million": sum(cpu.values()) / million if cpu else None,
        "client_cpu_s_per_million": own / million,
    }


def _failed(delivery: Any) -> bool:
    try:
        delivery.result()
    except QuorateError:
        return True
    return False


# -- consume -------------------------------------------------------------------------------------


@app.command()
def consume(
    records: Records = 200_000,
    record_bytes: RecordBytes = 1024,
    partitions: Partitions = 6,
    replication_factor: Replicas = 3,
    runs: Runs = 3,
    bootstrap: Own = None,
    output: Output = "text",
) -> None:
    """Measure how fast one consumer reads records that were written before."""
    as_json = check_output(output)

    async def measured(servers: str, _cluster: LocalCluster | None) -> list[Run]:
        async with _topic(servers, "bench-consume", partitions, replication_factor) as name:
            await _produce_once(servers, None, name, records, record_bytes, "all", 5)
            return await repeat(runs, lambda _: _consume_once(servers, name, records, record_bytes))

    found = _measure(bootstrap, measured)
    report(
        "consume",
        found,
        ("records_per_s", "mb_per_s", "client_cpu_s_per_million"),
        as_json=as_json,
    )


async def _consume_once(servers: str, name: str, records: int, record_bytes: int) -> Run:
    own_before = time.process_time()
    async with Consumer(
        name, bootstrap_servers=servers, auto_offset_reset="earliest", max_poll_records=5000
    ) as consumer:
        await consumer.getone()
        started = time.perf_counter()
        count = 1
        while count < records:
            for found in (await consumer.getmany(timeout_ms=5000)).values():
                count += len(found)
        seconds = time.perf_counter() - started
    own = time.process_time() - own_before
    return {
        "records": count,
        "seconds": seconds,
        "records_per_s": count / seconds,
        "mb_per_s": count * record_bytes / seconds / 1e6,
        "client_cpu_s_per_million": own / count * 1e6,
    }


# -- latency -------------------------------------------------------------------------------------


@app.command()
def latency(
    records: Annotated[int, typer.Option(min=10, help="How many records in each run.")] = 5_000,
    record_bytes: RecordBytes = 100,
    partitions: Partitions = 1,
    replication_factor: Replicas = 3,
    acks: Acks = "all",
    runs: Runs = 3,
    bootstrap: Own = None,
    output: Output = "text",
) -> None:
    """Measure the time of send_and_wait, one record after another."""
    as_json = check_output(output)
    check_word("--acks", acks, ACKS)

    async def measured(servers: str, _cluster: LocalCluster | None) -> list[Run]:
        async def one(number: int) -> Run:
            topic = f"bench-latency-{number}"
            async with _topic(servers, topic, partitions, replication_factor) as name:
                return await _latency_once(servers, name, records, record_bytes, _acks(acks))

        return await repeat(runs, one)

    found = _measure(bootstrap, measured)
    report("latency", found, ("p50_ms", "p99_ms", "p999_ms"), as_json=as_json)


async def _latency_once(
    servers: str, name: str, records: int, record_bytes: int, acks: str | int
) -> Run:
    value = bytes(record_bytes)
    async with Producer(bootstrap_servers=servers, acks=acks) as producer:
        for _ in range(min(records, 200)):
            await producer.send_and_wait(name, value)
        times = []
        for _ in range(records):
            started = time.perf_counter()
            await producer.send_and_wait(name, value)
            times.append((time.perf_counter() - started) * 1000)
    times.sort()
    return {
        "records": records,
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)],
        "p999_ms": times[min(len(times) - 1, len(times) * 999 // 1000)],
    }


# -- failover ------------------------------------------------------------------------------------

SCENARIOS = ("broker", "broker+controller", "controller", "pause", "stop")


@app.command()
def failover(
    scenario: Annotated[
        str, typer.Option(help="broker, broker+controller, controller, pause, stop.")
    ] = "broker",
    records_per_s: Annotated[float, typer.Option("--rate", min=1, help="Records a second.")] = 200,
    partitions: Partitions = 6,
    runs: Runs = 10,
    output: Output = "text",
) -> None:
    """Kill a leader under load, and measure the longest silence on any partition that it led.

    broker: kill -9 of the broker that leads most. broker+controller: also kill -9 of the quorum's
    leader, at the same moment. controller: kill -9 of the quorum's leader alone. pause: SIGSTOP of
    the broker, and SIGCONT 8 s later. stop: SIGTERM of the broker.
    """
    as_json = check_output(output)
    check_word("--scenario", scenario, SCENARIOS)
    found = []
    with progress("measuring", runs, "runs") as show:
        for number in range(runs):
            show(number)
            with own_cluster() as cluster:
                once = partial(_failover_once, cluster, scenario, records_per_s, partitions)
                found.append(_or_fail(once))
            tell_run(number, runs, found[-1], digits=1)
    report(
        f"failover {scenario}",
        found,
        ("gap_ms", "idle_max_ms", "new_controller_ms", "failed", "missing"),
        as_json=as_json,
    )


async def _failover_once(
    cluster: LocalCluster, scenario: str, records_per_s: float, partitions: int
) -> Run:
    await cluster.wait_ready()
    loop = asyncio.get_running_loop()
    servers = cluster.bootstrap_servers
    acks, stop = AckTimes(), asyncio.Event()
    async with Admin(bootstrap_servers=servers) as admin:
        await admin.create_topic("failover", partitions, 3)
        async with Producer(bootstrap_servers=servers) as producer:
            load = asyncio.create_task(
                produce_paced(
                    producer,
                    "failover",
                    partitions,
                    records_per_s=records_per_s,
                    acks=acks,
                    stop=stop,
                )
            )
            await asyncio.sleep(4)
            topic = (await admin.describe_topics(["failover"]))["failover"]
            leaders = [one.leader for one in topic.partitions]
            victim = max(sorted(set(leaders)), key=leaders.count)
            controller = (await admin.describe_quorum()).leader
            led = [i for i, leader in enumerate(leaders) if leader == victim]
            if scenario == "controller":
                led = list(range(partitions))
            at = loop.time()
            _strike(cluster, scenario, victim, controller)
            new_controller = None
            if "controller" in scenario:
                new_controller = await _new_controller(admin, controller, at)
            await asyncio.sleep(max(0.0, at + 8 - loop.time()))
            if scenario == "pause":
                cluster.signal(victim, signal.SIGCONT)
                await asyncio.sleep(3)
            stop.set()
            sent = await load
        # The measured time begins at the kill. It ends at the earliest of the partitions' last
        # acknowledgements, because the silence after the last record is no failure.
        end = min(t[-1] for t in acks.times.values()) if acks.times else at
        idle, _ = acks.longest_silence(list(range(partitions)), at - 3, at)
        gap, partition = acks.longest_silence(led, at - 0.05, max(end, at))
        missing = acks.acked - await _count_distinct(servers, "failover")
    return {
        "scenario": scenario,
        "gap_ms": gap * 1000,
        "gap_partition": partition,
        "idle_max_ms": idle * 1000,
        "new_controller_ms": new_controller,
        "sent": sent,
        "acked": acks.acked,
        "failed": len(acks.failed),
        "missing": missing,
    }


def _strike(cluster: LocalCluster, scenario: str, victim: int, controller: int) -> None:
    if scenario == "broker":
        cluster.kill(victim)
    elif scenario == "broker+controller":
        cluster.kill(victim, controller)
    elif scenario == "controller":
        cluster.kill(controller)
    elif scenario == "pause":
        cluster.signal(victim, signal.SIGSTOP)
    else:
        cluster.signal(victim, signal.SIGTERM)


async def _new_controller(admin: Admin, old: int, at: float) -> float | None:
    """Return the milliseconds until another voter leads the quorum; None after 10 s without one."""
    loop = asyncio.get_running_loop()
    while loop.time() < at + 10:
        with contextlib.suppress(QuorateError):
            if (await admin.describe_quorum()).leader not in (old, -1):
                return (loop.time() - at) * 1000
        await asyncio.sleep(0.01)
    return None


async def _count_distinct(servers: str, name: str) -> int:
    """Return the number of different values in the topic.

    Raises QuorateError for duplicates. Otherwise a duplicate could hide a lost record in `missing`.
    """
    values: set[bytes] = set()
    count = 0
    async with Consumer(name, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(p) < end for p, end in sorted(ends.items())]):
            for found in (await consumer.getmany(timeout_ms=1000)).values():
                count += len(found)
                values.update(record.value or b"" for record in found)
    if count != len(values):
        raise QuorateError(f"{count - len(values)} records were read twice")
    return len(values)
