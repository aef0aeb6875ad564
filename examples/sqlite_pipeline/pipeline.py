"""Sums up the readings of sensors in a SQLite file: each reading counts exactly once.

    python pipeline.py readings sums.db

A record's key is the sensor, its value is a number as text. Any number of these programs may run on
one file: they share the partitions of the topic. Ctrl-C ends one.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from quorate import Consumer, Record, TopicPartition

#: Where the cluster is, unless --bootstrap says otherwise.
SERVERS = os.environ.get("QUORATE_BOOTSTRAP", "localhost:7092")

TABLES = """
create table if not exists total (sensor text primary key, readings int, sum real);
create table if not exists position (
    topic text, partition int, next_offset int, leader_epoch int, primary key (topic, partition)
);
create table if not exists rejected (
    topic text, partition int, offset int, reason text, primary key (topic, partition, offset)
);
"""


class Position(NamedTuple):
    """The place in a partition up to which the database has the records.

    `leader_epoch` is that of the last record before it, -1 if there is none. With it, the consumer
    finds out if the topic has lost records that are in the database already.
    """

    next_offset: int
    leader_epoch: int


START = Position(0, -1)


class Outdated(Exception):
    """Another process has stored records of this partition since the position was read."""


class Totals:
    """The sums, and the position in each partition. One transaction changes both."""

    def __init__(self, file: str) -> None:
        # isolation_level=None: this class begins and ends its transactions itself
        self._database = sqlite3.connect(file, timeout=30, isolation_level=None)
        self._database.executescript(TABLES)

    def position(self, partition: TopicPartition) -> Position:
        """Return the position in a partition, which is START if nothing of it was stored."""
        found = self._database.execute(
            "select next_offset, leader_epoch from position where topic = ? and partition = ?",
            partition,
        ).fetchone()
        return START if found is None else Position(*found)

    def add(
        self, partition: TopicPartition, since: Position, records: Sequence[Record[bytes, bytes]]
    ) -> Position:
        """Add records of a partition to the sums. Return the position after them.

        Raises Outdated, and changes nothing, if the position in the database is not `since`.
        """
        after = Position(records[-1].offset + 1, records[-1].leader_epoch)
        self._database.execute("begin immediate")
        try:
            # The check is inside the transaction. A process that the group has removed without its
            # knowledge may still have records in hand, and the next owner may have stored them.
            if self.position(partition) != since:
                raise Outdated(f"{partition.topic}-{partition.partition} is not at {since}")
            for record in records:
                self._add_one(record)
            self._database.execute(
                "insert or replace into position values (?, ?, ?, ?)", (*partition, *after)
            )
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise
        return after

    def _add_one(self, record: Record[bytes, bytes]) -> None:
        try:
            sensor, number = reading_of(record)
        except ValueError as error:
            # A record that nobody can read must not stop those behind it.
            self._database.execute(
                "insert into rejected values (?, ?, ?, ?)",
                (record.topic, record.partition, record.offset, str(error)),
            )
            return
        self._database.execute(
            "insert into total values (?, 1, ?) on conflict (sensor)"
            " do update set readings = readings + 1, sum = sum + excluded.sum",
            (sensor, number),
        )


def reading_of(record: Record[bytes, bytes]) -> tuple[str, float]:
    """Return the sensor and the number. Raises ValueError, which says what is wrong."""
    if record.key is None or record.value is None:
        raise ValueError("a reading needs a key, the sensor, and a value, the number")
    number = float(record.value)
    if not math.isfinite(number):
        raise ValueError(f"a reading must be finite, not {number}")
    return record.key.decode(), number


class Pipeline:
    """Takes records from a consumer of a group to the database. It is the consumer's listener."""

    def __init__(self, consumer: Consumer[bytes, bytes], totals: Totals) -> None:
        self._consumer = consumer
        self._totals = totals
        self._positions: dict[TopicPartition, Position] = {}

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on where the database is, whatever the group has committed."""
        for partition in partitions:
            self._seek(partition)

    async def run(self) -> None:
        """Store records until the task is cancelled."""
        while True:
            # A commit of SQLite takes some milliseconds, and nothing else runs in this event loop.
            # With a slower database, call it in asyncio.to_thread.
            for partition, records in (await self._consumer.getmany(timeout_ms=10_000)).items():
                self._store(partition, records)

    def _store(self, partition: TopicPartition, records: list[Record[bytes, bytes]]) -> None:
        try:
            after = self._totals.add(partition, self._positions[partition], records)
        except Outdated:
            if partition in self._consumer.assignment():
                self._seek(partition)
        else:
            self._positions[partition] = after
            print(f"{partition.topic}-{partition.partition}: {len(records)} stored", flush=True)

    def _seek(self, partition: TopicPartition) -> None:
        position = self._positions[partition] = self._totals.position(partition)
        if position == START:
            self._consumer.seek_to_beginning(partition)
        else:
            self._consumer.seek(partition, position.next_offset, position.leader_epoch)


async def run(servers: str, topic: str, file: str) -> None:
    """Run one process of the pipeline until the task is cancelled."""
    # "none": a position that is not in the log any more is an error. Any other place to go on at
    # would leave readings out, or count them twice.
    consumer = Consumer(bootstrap_servers=servers, group_id="sums", auto_offset_reset="none")
    pipeline = Pipeline(consumer, Totals(file))
    consumer.subscribe([topic], listener=pipeline)
    async with consumer:
        await pipeline.run()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Sum up readings in a SQLite file.")
    parser.add_argument("topic")
    parser.add_argument("file")
    parser.add_argument("--bootstrap", default=SERVERS, help="HOST:PORT[,HOST:PORT]")
    options = parser.parse_args()
    try:
        asyncio.run(run(options.bootstrap, options.topic, options.file))
    except KeyboardInterrupt:
        print("stopped; the next start goes on from here")


if __name__ == "__main__":
    main()
