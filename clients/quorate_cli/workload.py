"""A producer with a steady rate, and the times of acknowledgements in each partition.

`bench failover` and `demo` use both to measure how long a partition was silent when its leader
died.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

from quorate import Delivery, Producer
from quorate.errors import QuorateError


@dataclass(slots=True)
class AckTimes:
    """The times of the acknowledgements in each partition, in seconds of the event loop's clock."""

    times: dict[int, list[float]] = field(default_factory=dict)
    acked: int = 0
    failed: list[Exception] = field(default_factory=list)

    def note(self, delivery: Delivery) -> None:
        """Count a delivery that has its outcome.

        This is a callback for Delivery.add_done_callback.
        """
        try:
            metadata = delivery.result()
        except QuorateError as error:
            self.count(error)
            return
        self.count(metadata.partition)

    def count(self, outcome: int | Exception) -> None:
        """Count a record: the partition in which it was written now, or why it was not."""
        if isinstance(outcome, Exception):
            self.failed.append(outcome)
            return
        self.acked += 1
        now = asyncio.get_running_loop().time()
        self.times.setdefault(outcome, []).append(now)

    def longest_silence(self, partitions: list[int], start: float, end: float) -> tuple[float, int]:
        """Return the longest time without an acknowledgement in [start, end), and its partition.

        A silence that continues after `end` counts up to `end`.
        """
        worst = (0.0, -1)
        for partition in partitions:
            inside = [t for t in self.times.get(partition, []) if start <= t < end]
            marks = [start, *inside, end]
            for before, after in itertools.pairwise(marks):
                if after - before > worst[0]:
                    worst = (after - before, partition)
        return worst


async def produce_paced(
    producer: Producer,
    topic: str,
    partitions: int,
    *,
    records_per_s: float,
    acks: AckTimes,
    stop: asyncio.Event,
) -> int:
    """Send small records to all partitions in turn, at a steady rate, until `stop` is set.

    Returns the number of records. A record's value is its number, so a reader can tell which
    records are missing.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    sent = 0
    while not stop.is_set():
        while sent < (loop.time() - started) * records_per_s:
            delivery = await producer.send(topic, b"%d" % sent, partition=sent % partitions)
            delivery.add_done_callback(acks.note)
            sent += 1
        await asyncio.sleep(1 / records_per_s)
    return sent
