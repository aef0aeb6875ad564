"""Orders and their outbox, in one SQLite file.

An order and the event that tells of it are written in one transaction: there is never one without
the other. The relay (outbox_relay.py) takes the events from the outbox to a topic.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

TABLES = """
create table if not exists orders (
    id text primary key, customer text not null, item text not null, cents int not null,
    request_key text unique
);
create table if not exists outbox (
    sequence integer primary key autoincrement, event_id text not null unique,
    key text not null, value text not null
);
"""


class Order(NamedTuple):
    """An order that was accepted."""

    id: str
    customer: str
    item: str
    cents: int


class Event(NamedTuple):
    """An event that waits in the outbox. Its id stays the same however often it is sent."""

    sequence: int
    event_id: str
    key: str
    value: str


class Orders:
    """The tables of orders and of events that wait. Any thread may call it."""

    def __init__(self, file: str) -> None:
        self._file = file
        with closing(self._connect()) as database:
            database.executescript(TABLES)

    def place(
        self, customer: str, item: str, cents: int, request_key: str | None
    ) -> tuple[Order, bool]:
        """Write an order and its event. Return the order, and whether it is new.

        A client that got no answer asks again with the same `request_key`, and gets the order that
        it placed the first time.
        """
        order = Order(str(uuid.uuid4()), customer, item, cents)
        with self._transaction() as database:
            if request_key is not None:
                placed = database.execute(
                    "select id, customer, item, cents from orders where request_key = ?",
                    (request_key,),
                ).fetchone()
                if placed is not None:
                    return Order(*placed), False
            database.execute("insert into orders values (?, ?, ?, ?, ?)", (*order, request_key))
            database.execute(
                "insert into outbox (event_id, key, value) values (?, ?, ?)",
                (str(uuid.uuid4()), customer, json.dumps(order._asdict())),
            )
        return order, True

    def find(self, order_id: str) -> Order | None:
        """Return an order; None if there is none with this id."""
        with closing(self._connect()) as database:
            found = database.execute(
                "select id, customer, item, cents from orders where id = ?", (order_id,)
            ).fetchone()
        return None if found is None else Order(*found)

    def waiting(self, limit: int) -> list[Event]:
        """Return the oldest events of the outbox."""
        with closing(self._connect()) as database:
            rows = database.execute(
                "select sequence, event_id, key, value from outbox order by sequence limit ?",
                (limit,),
            ).fetchall()
        return [Event(*row) for row in rows]

    def sent(self, events: Sequence[Event]) -> None:
        """Take events out of the outbox."""
        with self._transaction() as database:
            database.executemany(
                "delete from outbox where sequence = ?", [(event.sequence,) for event in events]
            )

    def _connect(self) -> sqlite3.Connection:
        # isolation_level=None: this class begins and ends its transactions itself
        return sqlite3.connect(self._file, timeout=30, isolation_level=None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # A connection that is closed within a transaction rolls it back.
        with closing(self._connect()) as database:
            database.execute("begin immediate")
            yield database
            database.execute("commit")
