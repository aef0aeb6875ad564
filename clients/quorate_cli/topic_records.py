"""Reads the records of a topic for the commands that print or copy them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from quorate import Consumer, TopicDescription, TopicPartition
from quorate.errors import InvalidPartitionsError, OffsetOutOfRangeError, RequestTimedOutError
from quorate_cli import record_text
from quorate_cli.output import print_json, usage_error
from quorate_cli.record_text import AnyRecord
from quorate_cli.session import milliseconds

#: Longest wait of one getmany().
LOOK_MS = 500

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="TEXT",
        help="Print each record so: {topic} {partition} {offset} {timestamp_ms} {time} {key} "
        "{value} {headers}; \\t is a tab.",
    ),
]
Partitions = Annotated[
    list[int] | None,
    typer.Option("--partition", min=0, help="Only this partition; may be repeated."),
]
UntilEnd = Annotated[
    bool,
    typer.Option("--until-end", help="Stop at the end that the partitions have when it starts."),
]


def writer(as_json: bool, pattern: str | None) -> Callable[[AnyRecord], None]:
    """Return a function that prints a record. Wrong usage: a --format that means nothing."""
    if as_json:
        if pattern is not None:
            usage_error("--format is for text: leave it out with -o json")
        return lambda record: print_json(record_text.as_json(record))
    printed = record_text.plain if pattern is None else or_usage(record_text.template, pattern)

    def write(record: AnyRecord) -> None:
        sys.stdout.write(printed(record) + "\n")
        sys.stdout.flush()

    return write


def or_usage(read: Callable[[str], Any], given: str) -> Any:
    """Return what a word means. Wrong usage if it means nothing."""
    try:
        return read(given)
    except ValueError as error:
        usage_error(str(error))


def chosen_of(topic: TopicDescription, asked: Iterable[int] | None) -> list[TopicPartition]:
    """Return the partitions to read. InvalidPartitionsError names one that does not exist."""
    count = len(topic.partitions)
    numbers = set(asked or range(count))
    for number in sorted(numbers):
        if number >= count:
            raise InvalidPartitionsError(
                f"topic {topic.name!r} has partitions 0 to {count - 1}, and no {number}"
            )
    return [TopicPartition(topic.name, one) for one in sorted(numbers)]


def read_from(topic: TopicDescription, chosen: list[TopicPartition], consumer: Consumer) -> None:
    """Let a consumer that is not started read these partitions."""
    if len(chosen) == len(topic.partitions):
        # subscribe to the topic, so that partitions that are added later are read, too
        consumer.subscribe([topic.name])
    else:
        consumer.assign(chosen)


async def seek_to(consumer: Consumer, starts: Mapping[TopicPartition, int], option: str) -> None:
    """Begin at these offsets. OffsetOutOfRangeError names one that a partition does not hold."""
    keys = list(starts)
    begins, ends = await consumer.beginning_offsets(keys), await consumer.end_offsets(keys)
    for one, offset in starts.items():
        if not begins[one] <= offset <= ends[one]:
            raise OffsetOutOfRangeError(
                f"{one.topic}/{one.partition} begins at offset {begins[one]} and ends before "
                f"{ends[one]}; {option} {offset} is outside"
            )
        consumer.seek(one, offset)


async def records_until(
    consumer: Consumer,
    ends: Mapping[TopicPartition, int],
    timeout: float,
    *,
    is_group: bool = False,
) -> AsyncIterator[AnyRecord]:
    """Yield the records of these partitions up to these ends.

    Raises RequestTimedOutError if records are missing and none has come for `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        left = await _behind(consumer, ends)
    heard_at = loop.time()
    # With a group, take one record at a time: the rest of a batch would be committed at the stop
    # that follows --count records.
    limit = 1 if is_group else None
    while left:
        look_ms = min(LOOK_MS, milliseconds(timeout))
        for one, found in (await consumer.getmany(timeout_ms=look_ms, max_records=limit)).items():
            heard_at = loop.time()
            for record in found:
                # A group commits what it was given, so all of it is printed.
                if is_group or record.offset < ends.get(one, 0):
                    yield record
        left = await _behind(consumer, ends)
        if left and loop.time() - heard_at > timeout:
            first = left[0]
            raise RequestTimedOutError(
                f"{len(left)} partitions, {first.topic}/{first.partition} among them, gave no "
                f"record for {timeout:g} s though they hold more: see `quorate cluster health`"
            )


async def _behind(consumer: Consumer, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    """Return the partitions that are not read to these ends. A group may have moved some away."""
    assigned = sorted(key for key in ends if key in consumer.assignment())
    return [key for key in assigned if await consumer.position(key) < ends[key]]
