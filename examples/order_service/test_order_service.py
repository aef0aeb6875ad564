"""Each order is billed once, whatever is killed on its way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import billing
import httpx
import pytest
from order_service import create_app
from orders import Event, Orders
from outbox_relay import Relay

from quorate import Consumer, Producer, Record, TopicPartition
from quorate_testing import EmbeddedCluster

HERE = Path(__file__).parent
PATIENCE_S = 30
ORDERS = 40

#: A trap: before the nth SQL statement that begins so, the process kills itself.
TRAP = """
import os, signal, sqlite3, sys

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
"""

#: The service with a client that posts its orders, each with a key of its own, and sees them leave.
#: A client that did not get all answers does the same again.
SERVICE = """
import asyncio, sys
import httpx
from order_service import create_app
from orders import Orders

async def main(file, servers, topic, count):
    app = create_app(file, servers, topic)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://orders")
    async with app.router.lifespan_context(app), client:
        for number in range(int(count)):
            order = {"customer": f"customer-{number % 7}", "item": "a book", "cents": number + 1}
            key = {"Idempotency-Key": f"order-{number}"}
            (await client.post("/orders", json=order, headers=key)).raise_for_status()
        while Orders(file).waiting(1):
            await asyncio.sleep(0.02)

asyncio.run(main(*sys.argv[1:]))
"""

BILLING = "import runpy; runpy.run_path('billing.py', run_name='__main__')"

#: Between an order and its event; before the end of their transaction; after the events are
#: acknowledged, and before they leave the outbox.
SERVICE_TRAPS = [("insert into outbox", 5), ("commit", 12), ("delete from outbox", 20)]
#: Before and after the end of a transaction of the consumer.
BILLING_TRAPS = [("insert into owed", 7), ("commit", 1)]

OWED = Counter[str]()
for number in range(ORDERS):
    OWED[f"customer-{number % 7}"] += number + 1


def run_python(*command: object) -> int:
    """Run a program; return its status, which is -9 if it was killed."""
    arguments = [sys.executable, "-c", *map(str, command)]
    return subprocess.run(arguments, cwd=HERE, timeout=PATIENCE_S, check=False).returncode


def owed(file: Path) -> Counter[str]:
    """Return what customers owe."""
    with closing(sqlite3.connect(file, timeout=30)) as database:
        return Counter(dict(database.execute("select customer, cents from owed").fetchall()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not so within {PATIENCE_S} s: {condition}"
        await asyncio.sleep(0.02)


async def bill(servers: str, topic: str, file: Path, wanted: Counter[str]) -> None:
    """Run the consumer until the bills are as wanted."""
    billing.Bills(str(file))  # makes the tables
    task = asyncio.create_task(billing.run(servers, topic, str(file)))
    await until(lambda: task.done() or owed(file) == wanted)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def read_all(servers: str, topic: str) -> list[Record[bytes, bytes]]:
    """Return the records of a topic of one partition."""
    async with Consumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        partition = TopicPartition(topic, 0)
        await consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        return [await consumer.getone() for _ in range(end)]


def test_whatever_is_killed_each_order_is_billed_once(
    quorate_cluster: EmbeddedCluster, quorate_topic: str, tmp_path: Path
) -> None:
    servers, bills = quorate_cluster.bootstrap_servers, tmp_path / "bills.db"
    service = (tmp_path / "orders.db", servers, quorate_topic, ORDERS)
    for begins_so, count in SERVICE_TRAPS:
        assert run_python(TRAP + SERVICE, begins_so, count, *service) == -9, begins_so
    assert run_python(SERVICE, *service) == 0

    records = asyncio.run(read_all(servers, quorate_topic))
    assert len(records) > ORDERS, "an event was sent again after the last kill"
    assert len({dict(record.headers)["event-id"] for record in records}) == ORDERS

    program = (bills, quorate_topic, "--bootstrap", servers)
    for begins_so, count in BILLING_TRAPS:
        assert run_python(TRAP + BILLING, begins_so, count, *program) == -9, begins_so
    asyncio.run(bill(servers, quorate_topic, bills, OWED))
    assert owed(bills) == OWED


class CrashesAfterSending(Orders):
    """A relay that uses it stops after its events are acknowledged."""

    def sent(self, events: Sequence[Event]) -> None:
        raise RuntimeError("the relay crashes here")


def test_an_event_that_is_sent_twice_has_one_id_and_one_effect(
    quorate_cluster: EmbeddedCluster, quorate_topic: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "orders.db")
    Orders(file).place("alice", "a book", 950, None)

    async def relay_twice() -> list[Record[bytes, bytes]]:
        async with Producer(bootstrap_servers=quorate_cluster.bootstrap_servers) as producer:
            with pytest.raises(RuntimeError, match="crashes here"):
                await Relay(CrashesAfterSending(file), producer, quorate_topic).send_waiting()
            assert await Relay(Orders(file), producer, quorate_topic).send_waiting() == 1
            assert await Relay(Orders(file), producer, quorate_topic).send_waiting() == 0
        return await read_all(quorate_cluster.bootstrap_servers, quorate_topic)

    first, second = asyncio.run(relay_twice())
    assert (first.headers, first.value) == (second.headers, second.value)
    bills = billing.Bills(str(tmp_path / "bills.db"))
    assert bills.add([first, second]) == (1, 1)
    assert bills.add([second]) == (0, 1)
    assert owed(tmp_path / "bills.db") == {"alice": 950}


def test_orders_are_taken_while_the_cluster_is_away(tmp_path: Path) -> None:
    with EmbeddedCluster(kafka=False) as cluster:
        cluster.create_topic("orders")

        async def main() -> None:
            file = str(tmp_path / "orders.db")
            app = create_app(file, cluster.bootstrap_servers, "orders")
            transport = httpx.ASGITransport(app=app)
            client = httpx.AsyncClient(transport=transport, base_url="http://orders")
            async with app.router.lifespan_context(app), client:
                for number in range(10):
                    if number == 5:
                        await asyncio.to_thread(cluster.crash_broker, 0)
                    order = {"customer": "alice", "item": "a book", "cents": 100}
                    assert (await client.post("/orders", json=order)).status_code == 201
                assert len(Orders(file).waiting(10)) >= 5
                await asyncio.to_thread(cluster.start_broker, 0)
                await until(lambda: not Orders(file).waiting(1))
            wanted = Counter({"alice": 1000})
            await bill(cluster.bootstrap_servers, "orders", tmp_path / "bills.db", wanted)

        asyncio.run(main())
        assert owed(tmp_path / "bills.db") == {"alice": 1000}


def test_a_request_that_is_repeated_gets_the_same_order(tmp_path: Path) -> None:
    async def main() -> None:
        # this service does not run its relay: nothing has started its lifespan
        app = create_app(str(tmp_path / "orders.db"), "localhost:1", "orders")
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://orders") as client:
            order = {"customer": "alice", "item": "a book", "cents": 950}
            key = {"Idempotency-Key": "order-1"}
            first = await client.post("/orders", json=order, headers=key)
            again = await client.post("/orders", json=order, headers=key)
            assert (first.status_code, again.status_code) == (201, 200)
            assert first.json() == again.json()
            found = await client.get(f"/orders/{first.json()['id']}")
            assert found.json() == {"id": first.json()["id"], **order}
            assert (await client.get("/orders/none")).status_code == 404
            assert (await client.post("/orders", json={**order, "cents": 0})).status_code == 422
            assert len((await client.post("/orders", json=order)).json()["id"]) == 36

    asyncio.run(main())
    events = Orders(str(tmp_path / "orders.db")).waiting(10)
    assert [json.loads(event.value)["cents"] for event in events] == [950, 950]
