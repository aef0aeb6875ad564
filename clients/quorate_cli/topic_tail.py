"""`quorate topic tail`: print the last records of a topic, and those that come."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from quorate import Consumer, TopicPartition
from quorate_cli.record_text import AnyRecord
from quorate_cli.session import Name, Session, in_session, run
from quorate_cli.topic_records import (
    Format,
    Partitions,
    UntilEnd,
    chosen_of,
    read_from,
    records_until,
    writer,
)

#: The last records of all partitions are in memory before the first one is printed.
LAST_MAX: Final = 10_000
#: Compaction removes records and keeps the offsets of the others. The search for the last N records
#: goes back N offsets, and this many times further as long as they hold too few.
FURTHER: Final = 8


@in_session
def tail(
    session: Session,
    name: Name,
    last: Annotated[
        int,
        typer.Option(
            "--lines",
            "-n",
            metavar="N",
            min=0,
            max=LAST_MAX,
            help="Print the last N records of each partition first.",
        ),
    ] = 10,
    partition: Partitions = None,
    pattern: Format = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.")] = None,
    until_end: UntilEnd = False,
) -> None:
    r"""Print the last records of a topic, then each record as it comes, until Ctrl-C.

    The last records are in the order of their timestamps; those of one partition in the order of
    its log. Each record is on one line, as `quorate topic consume` prints it.
    """
    write = writer(session.as_json, pattern)
    timeout = session.timeout

    async def main() -> None:
        topic = await session.must_exist(name)
        chosen = chosen_of(topic, partition)
        # "earliest": of a partition that is added later, all records are new
        consumer = Consumer(bootstrap_servers=session.bootstrap, auto_offset_reset="earliest")
        read_from(topic, chosen, consumer)
        async with asyncio.timeout(timeout):
            await consumer.start()
        try:
            async with asyncio.timeout(timeout):
                begins = await consumer.beginning_offsets(chosen)
                ends = await consumer.end_offsets(chosen)
            left = _printed(await last_records(consumer, begins, ends, last, timeout), write, count)
            if left == 0 or until_end:
                return
            async for record in consumer:
                left = _printed([record], write, left)
                if left == 0:
                    return
        finally:
            await consumer.stop()

    run(main, timeout=timeout, bounded=False)


async def last_records(
    consumer: Consumer,
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    last: int,
    timeout: float,
) -> list[AnyRecord]:
    """Return the last records of each partition, and leave the consumer at these ends."""
    found: dict[TopicPartition, deque[AnyRecord]] = {}
    window, missing = last, set(ends) if last else set()
    others = set(ends)
    while missing:
        consumer.pause(*(others - missing))
        consumer.resume(*missing)
        for one in missing:
            found[one] = deque(maxlen=last)
            consumer.seek(one, max(begins[one], ends[one] - window))
        wanted = {one: ends[one] for one in missing}
        async for record in records_until(consumer, wanted, timeout):
            found[TopicPartition(record.topic, record.partition)].append(record)
        missing = {
            one for one in missing if len(found[one]) < last and ends[one] - window > begins[one]
        }
        window *= FURTHER
    for one, end in ends.items():
        consumer.seek(one, end)
    consumer.resume(*others)
    return list(heapq.merge(*found.values(), key=lambda record: record.timestamp_ms))


def _printed(
    records: list[AnyRecord], write: Callable[[AnyRecord], None], left: int | None
) -> int | None:
    """Print records, at most `left`. Return how many are left to print; None: no limit."""
    for record in records[:left]:
        write(record)
    return None if left is None else max(0, left - len(records))
