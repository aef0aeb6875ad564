"""Takes the events of the outbox to a topic.

    python outbox_relay.py orders.db orders

The order service runs it as a task of its own. It may run as a program instead, once for a file.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sqlite3

from orders import Orders

from quorate import Producer, QuorateError

#: Where the cluster is, unless --bootstrap says otherwise.
SERVERS = os.environ.get("QUORATE_BOOTSTRAP", "localhost:7092")

log = logging.getLogger(__name__)

#: Events that are sent before the relay waits for their acknowledgements.
EVENTS_MAX = 500
POLL_S = 0.05
RETRY_S = 1.0
#: The outbox keeps what is not acknowledged, so the producer need not hold it for long.
DELIVERY_TIMEOUT_MS = 10_000
#: The header that makes duplicates known: the relay may send an event again, with the same id.
EVENT_ID = "event-id"


class Relay:
    """Sends events in the order of the outbox, and removes those that are acknowledged.

    After a crash between the two it sends events again. A retry of the producer itself writes
    nothing twice: it is idempotent, the default with acks="all".
    """

    def __init__(self, orders: Orders, producer: Producer, topic: str) -> None:
        self._orders = orders
        self._producer = producer
        self._topic = topic

    async def run(self) -> None:
        """Send what comes until the task is cancelled. Raises QuorateError."""
        while True:
            if await self.send_waiting() == 0:
                await asyncio.sleep(POLL_S)

    async def send_waiting(self) -> int:
        """Send up to EVENTS_MAX events. Return how many. Raises QuorateError if one failed."""
        events = await asyncio.to_thread(self._orders.waiting, EVENTS_MAX)
        deliveries = [
            await self._producer.send(
                self._topic,
                event.value.encode(),
                key=event.key.encode(),
                headers=[(EVENT_ID, event.event_id.encode())],
            )
            for event in events
        ]
        for delivery in deliveries:
            await delivery
        if events:
            await asyncio.to_thread(self._orders.sent, events)
        return len(events)


async def relay(orders: Orders, servers: str, topic: str) -> None:
    """Run a relay until the task is cancelled, also while the cluster cannot be reached."""
    while True:
        try:
            async with Producer(
                bootstrap_servers=servers, delivery_timeout_ms=DELIVERY_TIMEOUT_MS
            ) as producer:
                await Relay(orders, producer, topic).run()
        except (QuorateError, sqlite3.Error) as error:
            log.warning("events wait in the outbox, the next try is in %s s: %s", RETRY_S, error)
            await asyncio.sleep(RETRY_S)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Take events from the outbox to a topic.")
    parser.add_argument("file")
    parser.add_argument("topic")
    parser.add_argument("--bootstrap", default=SERVERS, help="HOST:PORT[,HOST:PORT]")
    options = parser.parse_args()
    try:
        asyncio.run(relay(Orders(options.file), options.bootstrap, options.topic))
    except KeyboardInterrupt:
        print("stopped; what is in the outbox waits for the next start")


if __name__ == "__main__":
    main()
