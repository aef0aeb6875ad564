"""`python -m bench.clients`: what the client library costs, beside other libraries.

    produce   CPU a record of 100 B, from the call to the acknowledgement; against confluent-kafka
    consume   CPU and time a record of 100 B, of 60 to 140 B, and of 1 KiB; against aiokafka
    start     an embedded cluster from the import to the first acknowledged record; its memory;
              what the fixture `quorate_topic` adds to a test; `import quorate`

confluent-kafka and aiokafka work on Apache Kafka with `--kafka HOST:PORT`, else on Quorate's Kafka
listener. The runs of the libraries follow one another, and each pair begins with another one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench.kafka import REPLICAS, Kafka, Quorate, Servers, create, quorate

RECORDS = 200_000
#: Least and most bytes of a value, records, and the most time of getmany, as a share of aiokafka's.
READ = ((100, 100, 500_000, 1.0), (60, 140, 500_000, None), (1024, 1024, 200_000, 1 / 1.5))
MIB = 1 << 20
Runs = dict[str, list[dict[str, float]]]

#: Step -> its bar, as a share of the last one of its group.
PRODUCE = {"send": 0.7, "send_many": 0.35, "sync_send": 0.85, "aiokafka_send": None, "confluent_send": None}  # fmt: skip  # noqa: E501
GETMANY = {"getmany": 1.0, "aiokafka_getmany": None}
FOR = {"async_for": 1.3, "sync_for": None, "aiokafka_for": None}


def step(name: str, **arguments: object) -> dict[str, float]:
    program = [sys.executable, "-m", "bench.client_steps", name, json.dumps(arguments)]
    done = subprocess.run(program, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_turn(names: list[str], runs: int, run: Callable[[str, int], dict[str, float]]) -> Runs:
    """Run the steps in turn, each round in another order. The first round is not counted."""
    found: Runs = {name: [] for name in names}
    for number in range(runs + 1):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            figures = run(name, number)
            if number:
                found[name].append(figures)
    return found


def show(found: Runs, bars: dict[str, float | None], records: int, key: str, unit: str) -> None:
    """Print the figure of each step, and its ratio to the last one's."""
    last = list(bars)[-1]
    for name, bar in bars.items():
        mine = [one[key] / records * 1e6 for one in found[name]]
        theirs = [one[key] / records * 1e6 for one in found[last]]
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        goal = "" if bar is None else f"; the bar is {bar:g}"
        print(
            f"{name:18} {statistics.median(mine):6.2f} {unit} ({min(mine):.2f} to {max(mine):.2f})"
            f"  {ratio:5.2f} of {last}{goal}",
            flush=True,
        )


def whose(name: str, ours: Servers, native: str, theirs: Servers) -> str:
    return theirs.bootstrap if name.startswith(("aiokafka", "confluent")) else native


def measure(kafka: str | None, runs: int, only: str) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(quorate())
        ours = Quorate(cluster)
        theirs: Servers = ours if kafka is None else Kafka(kafka)
        native = cluster.bootstrap_servers

        def produce(name: str, number: int) -> dict[str, float]:
            topic = f"{name}-{os.getpid()}-{number}"
            foreign = name.startswith(("aiokafka", "confluent"))
            create(theirs if foreign else ours, topic, 6)
            servers = whose(name, ours, native, theirs)
            return step(name, servers=servers, topic=topic, records=RECORDS)

        if only in ("", "produce"):
            show(in_turn(list(PRODUCE), runs, produce), PRODUCE, RECORDS, "cpu", "us of CPU")
        if only in ("", "consume"):
            for least, most, records, of_time in READ:
                print(f"values of {least} to {most} bytes")
                topic = f"read-{least}-{most}-{os.getpid()}"
                sent = {"topic": topic, "records": records, "least": least, "most": most}
                for servers in {ours.bootstrap: ours, theirs.bootstrap: theirs}.values():
                    create(servers, topic, 6)
                    step("confluent_send", servers=servers.bootstrap, **sent)
                consume = partial(consumed, topic, records, ours, native, theirs)
                for bars in (GETMANY, FOR) if of_time == 1.0 else (GETMANY,):
                    found = in_turn(list(bars), runs, consume)
                    show(found, bars, records, "cpu", "us of CPU")
                    goals = {name: of_time if name == "getmany" else None for name in bars}
                    show(found, goals, records, "s", "us of time")


def consumed(
    topic: str, records: int, ours: Servers, native: str, theirs: Servers, name: str, _: int
) -> dict[str, float]:
    return step(name, servers=whose(name, ours, native, theirs), topic=topic, records=records)


def starts(runs: int) -> None:
    names = ["embedded", "pytest_fixture", "import_quorate"]
    found = in_turn(names, runs, lambda name, _: step(name))
    for name, figures in found.items():
        took = [one["s"] * 1000 for one in figures]
        print(f"{name:18} {statistics.median(took):6.0f} ms ({min(took):.0f} to {max(took):.0f})")
    rss = statistics.median(one["rss"] for one in found["embedded"]) / MIB
    print(f"{'embedded':18} {rss:6.0f} MiB resident at most", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--only", choices=("", "produce", "consume", "start"), default="")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="an Apache Kafka of this machine")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    if asked.only in ("", "start"):
        starts(asked.runs)
    if asked.only != "start":
        measure(asked.kafka, asked.runs, asked.only)
    print(f"load {os.getloadavg()[0]:.1f}, {REPLICAS} replicas, acks=all, idempotent")


if __name__ == "__main__":
    main()
