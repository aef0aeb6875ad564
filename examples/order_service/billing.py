"""Adds the orders to what each customer owes: each order once, however often its event comes.

    python billing.py bills.db orders

Ctrl-C ends it. It may be killed at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
from collections.abc import Iterable

from quorate import Consumer, Record

#: Where the cluster is, unless --bootstrap says otherwise.
SERVERS = os.environ.get("QUORATE_BOOTSTRAP", "localhost:7092")

EVENT_ID = "event-id"
TABLES = """
create table if not exists owed (customer text primary key, cents int not null);
create table if not exists seen (event_id text primary key);
"""


class Bills:
    """What customers owe, and the events that are in it. One transaction changes both."""

    def __init__(self, file: str) -> None:
        # isolation_level=None: this class begins and ends its transactions itself
        self._database = sqlite3.connect(file, timeout=30, isolation_level=None)
        self._database.executescript(TABLES)

    def add(self, records: Iterable[Record[bytes, bytes]]) -> tuple[int, int]:
        """Add the orders that are not in it yet. Return how many are new, and how many are not."""
        new = known = 0
        self._database.execute("begin immediate")
        try:
            for record in records:
                event_id = dict(record.headers)[EVENT_ID]
                assert event_id is not None
                assert record.value is not None
                inserted = self._database.execute(
                    "insert or ignore into seen values (?)", (event_id.decode(),)
                )
                if inserted.rowcount == 0:
                    known += 1
                    continue
                new += 1
                order = json.loads(record.value)
                self._database.execute(
                    "insert into owed values (?, ?)"
                    " on conflict (customer) do update set cents = cents + excluded.cents",
                    (order["customer"], order["cents"]),
                )
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise
        return new, known


async def run(servers: str, topic: str, file: str) -> None:
    """Bill orders until the task is cancelled."""
    bills = Bills(file)
    async with Consumer(
        topic,
        bootstrap_servers=servers,
        group_id="billing",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    ) as consumer:
        while True:
            for records in (await consumer.getmany(timeout_ms=10_000)).values():
                new, known = bills.add(records)
                print(f"{new} orders billed, {known} duplicates dropped", flush=True)
            # After the transactions: a crash in between reads these events again, and drops them.
            await consumer.commit()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Bill the orders of a topic.")
    parser.add_argument("file")
    parser.add_argument("topic")
    parser.add_argument("--bootstrap", default=SERVERS, help="HOST:PORT[,HOST:PORT]")
    options = parser.parse_args()
    try:
        asyncio.run(run(options.bootstrap, options.topic, options.file))
    except KeyboardInterrupt:
        print("stopped; the next start goes on from here")


if __name__ == "__main__":
    main()
