"""Writes an invoice for each job of a topic, as a file. An example of a handler.

    python invoices.py invoice-jobs invoices/

A job is JSON: {"invoice": "1001", "customer": "alice", "cents": 950}. Any number of these programs
may run: they share the partitions of the topic. SIGTERM and Ctrl-C finish what was begun.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import re
import signal
from pathlib import Path

from worker_pool import Job, Reject, Settings, WorkerPool

from quorate import Consumer, Producer

#: Where the cluster is, unless --bootstrap says otherwise.
SERVERS = os.environ.get("QUORATE_BOOTSTRAP", "localhost:7092")

INVOICE = re.compile(r"[0-9]{1,20}")


class Printer:
    """Writes invoices. To write one again changes nothing: it has the same name and content."""

    def __init__(self, folder: Path, failing_share: float = 0.0) -> None:
        self._folder = folder
        self._failing_share = failing_share

    async def write(self, job: Job) -> None:
        """Do a job. Raises Reject for one that is wrong, and ConnectionError at bad luck."""
        try:
            order = json.loads(job.value or b"")
            number, customer, cents = order["invoice"], order["customer"], int(order["cents"])
        except (ValueError, KeyError, TypeError) as error:
            raise Reject(f"the job is no order: {error!r}") from None
        if not isinstance(number, str) or not INVOICE.fullmatch(number):
            raise Reject(f"an invoice's number has up to 20 digits, and is not {number!r}")
        if random.random() < self._failing_share:
            raise ConnectionError("the printer does not answer")
        self._write(f"{number}.txt", f"{customer} owes {cents / 100:.2f}\n")

    def _write(self, name: str, text: str) -> None:
        # A file gets its name when it is whole: a crash leaves no half of an invoice.
        part = self._folder / f".{name}.{os.getpid()}"
        part.write_text(text)
        part.replace(self._folder / name)


async def run(options: argparse.Namespace) -> None:
    """Run one process of the pool until a signal comes."""
    options.folder.mkdir(parents=True, exist_ok=True)
    consumer = Consumer(
        bootstrap_servers=options.bootstrap,
        group_id="invoices",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with Producer(bootstrap_servers=options.bootstrap) as producer:
        pool = WorkerPool(
            consumer,
            producer,
            Printer(options.folder, options.failing_share).write,
            dead_letter_topic=options.dead_letter_topic or f"{options.topic}-dead",
            settings=Settings(pause_s=0.05, pause_max_s=1.0),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, pool.stop)
        await pool.run(options.topic)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write invoices for the jobs of a topic.")
    parser.add_argument("topic")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dead-letter-topic", help="default: TOPIC-dead; it must exist")
    parser.add_argument("--failing-share", type=float, default=0.0, help="of attempts, 0 to 1")
    parser.add_argument("--bootstrap", default=SERVERS, help="HOST:PORT[,HOST:PORT]")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
