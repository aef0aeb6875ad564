"""The pipeline counts each reading once, whatever is killed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pipeline import START, Outdated, Totals

from quorate import Record, TopicPartition
from quorate.sync import Producer
from quorate_testing import EmbeddedCluster

HERE = Path(__file__).parent
PATIENCE_S = 30

#: The program, and a trap: before the nth SQL statement that begins so, the process kills itself.
KILLED = """
import os, runpy, signal, sqlite3, sys

begins_so, count = sys.argv.pop(1), int(sys.argv.pop(1))
connect = sqlite3.connect

def count_down(statement):
    global count
    count -= statement.startswith(begins_so)
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def trapped(*args, **settings):
    database = connect(*args, **settings)
    database.set_trace_callback(count_down)
    return database

sqlite3.connect = trapped
runpy.run_path("pipeline.py", run_name="__main__")
"""

#: Before a transaction, inside one, before its end, after its end, and in a later one.
TRAPS = [
    ("begin", 1),
    ("insert into total", 5),
    ("commit", 1),
    ("begin", 2),
    ("insert or replace into position", 2),
]


class World:
    """A topic, a database, and the sums that belong into it."""

    def __init__(self, servers: str, topic: str, file: Path) -> None:
        self.servers, self.topic, self.file = servers, topic, file
        self.sent: Counter[str] = Counter()
        self.seed = random.randrange(1 << 32)
        print(f"seed {self.seed}")
        self._chance = random.Random(self.seed)

    def send(self, count: int) -> None:
        """Write readings of 20 sensors. All are acknowledged when it returns."""
        with Producer(bootstrap_servers=self.servers) as producer:
            for _ in range(count):
                sensor, number = f"sensor-{self._chance.randrange(20)}", self._chance.randrange(9)
                producer.send(self.topic, str(number).encode(), key=sensor.encode())
                self.sent[sensor] += number
            producer.flush()

    @contextmanager
    def program(self, *python: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program in a process of its own, which is killed at the end."""
        command = [sys.executable, *(python or ["pipeline.py"])]
        with subprocess.Popen(
            [*command, self.topic, str(self.file), "--bootstrap", self.servers], cwd=HERE
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def stored(self) -> Counter[str]:
        """Return the sums in the database."""
        return Counter(dict(self._rows("select sensor, sum from total")))

    def positions(self) -> int:
        """Return how many records the database says that it has."""
        [(count,)] = self._rows("select coalesce(sum(next_offset), 0) from position")
        return int(count)

    def counted(self) -> int:
        """Return how many readings are in the sums."""
        [(count,)] = self._rows("select coalesce(sum(readings), 0) from total")
        return int(count)

    def has_all(self) -> bool:
        """Return whether the sums are those that were sent."""
        has_table = self._rows("select 1 from sqlite_master where name = 'total'")
        return bool(has_table) and self.stored() == self.sent

    def _rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.file, timeout=30)) as database:
            return database.execute(query).fetchall()


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not so within {PATIENCE_S} s: {condition}"
        time.sleep(0.02)


@pytest.fixture
def world(quorate_cluster: EmbeddedCluster, quorate_topic: str, tmp_path: Path) -> World:
    """A world on the cluster of the plugin, with a topic of three partitions."""
    topic = f"{quorate_topic}-in-three"
    quorate_cluster.create_topic(topic, 3)
    return World(quorate_cluster.bootstrap_servers, topic, tmp_path / "sums.db")


def test_a_process_that_is_killed_at_any_statement_loses_and_doubles_nothing(world: World) -> None:
    for begins_so, count in TRAPS:
        world.send(60)
        with world.program("-c", KILLED, begins_so, str(count)) as process:
            assert process.wait(PATIENCE_S) == -9, f"not killed at {begins_so!r}"
        assert world.counted() == world.positions(), f"killed at {begins_so!r}"
    assert world.stored() != world.sent
    with world.program():
        until(world.has_all)


def test_of_two_processes_one_is_killed_and_the_other_takes_over(world: World) -> None:
    world.send(100)
    with world.program() as first, world.program():
        until(world.has_all)
        world.send(500)
        first.kill()
        world.send(100)
        until(world.has_all)
    assert world.counted() == 700


def test_a_broker_that_crashes_costs_nothing(tmp_path: Path) -> None:
    with EmbeddedCluster(brokers=3, kafka=False) as cluster:
        cluster.create_topic("readings", 3)
        world = World(cluster.bootstrap_servers, "readings", tmp_path / "sums.db")
        with world.program():
            for broker in range(3):
                world.send(100)
                cluster.crash_broker(broker)
                world.send(100)
                cluster.start_broker(broker)
            until(world.has_all)


def record(offset: int, value: bytes, key: bytes | None = b"sensor-1") -> Record[bytes, bytes]:
    return Record("readings", 0, offset, 0, "create_time", key, value, (), 0)


def test_a_process_that_is_not_the_owner_any_more_stores_nothing(tmp_path: Path) -> None:
    partition = TopicPartition("readings", 0)
    first, second = Totals(str(tmp_path / "sums.db")), Totals(str(tmp_path / "sums.db"))
    after = first.add(partition, START, [record(0, b"1"), record(1, b"2")])
    with pytest.raises(Outdated):
        second.add(partition, START, [record(0, b"1")])
    assert second.position(partition) == after == (2, 0)
    second.add(partition, after, [record(2, b"4")])
    with pytest.raises(Outdated):
        first.add(partition, after, [record(2, b"4")])


def test_a_reading_that_is_none_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    partition = TopicPartition("readings", 0)
    totals = Totals(str(tmp_path / "sums.db"))
    records = [record(0, b"much"), record(1, b"7"), record(2, b"nan"), record(3, b"1", key=None)]
    assert totals.add(partition, START, records).next_offset == 4
    with closing(sqlite3.connect(tmp_path / "sums.db")) as database:
        assert database.execute("select sum from total").fetchall() == [(7,)]
        rejected = database.execute("select offset from rejected order by offset").fetchall()
    assert rejected == [(0,), (2,), (3,)]
