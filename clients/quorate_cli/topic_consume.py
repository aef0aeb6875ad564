"""`quorate topic consume`: print a topic's records."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any

import typer

from quorate import Consumer, TopicDescription, TopicPartition
from quorate.errors import InvalidPartitionsError, OffsetOutOfRangeError, RequestTimedOutError
from quorate_cli import record_text
from quorate_cli.output import print_json, usage_error
from quorate_cli.record_text import AnyRecord
from quorate_cli.session import Name, Session, in_session, milliseconds, run

#: Longest wait of one getmany().
LOOK_MS = 500
#: Longest wait for the first partitions from the group, and the pause between two looks.
FIRST_SHARE_S, FIRST_SHARE_LOOK_S = 2.0, 0.05


@in_session
def consume(
    session: Session,
    name: Name,
    from_beginning: Annotated[
        bool,
        typer.Option("--from-beginning", help="Start at the first record held, not at the end."),
    ] = False,
    offset: Annotated[
        int | None, typer.Option(min=0, help="Start at this offset; needs --partition.")
    ] = None,
    from_time: Annotated[
        str | None,
        typer.Option(
            "--from-time",
            metavar="TIME",
            help="Start at the first record of that time: 2026-01-31T12:00:00 (UTC, unless it "
            "names a zone), or milliseconds since 1970.",
        ),
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this partition; may be repeated.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="TEXT",
            help="Print each record so: {topic} {partition} {offset} {timestamp_ms} {time} {key} "
            "{value} {headers}; \\t is a tab.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Read as a member of this consumer group: begin at its committed offsets, share "
            "the partitions with its other members, and commit what is printed. With "
            "--from-beginning, what has no committed offset is read from its beginning."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.")] = None,
    until_end: Annotated[
        bool,
        typer.Option(
            "--until-end", help="Stop at the end that the partitions have when it starts."
        ),
    ] = False,
) -> None:
    r"""Print a topic's records, each on one line. Print until Ctrl-C, --count or --until-end.

    Text: partition, offset, key (if any) and value, with tabs between them. Null is \N. Line breaks
    and control characters are escaped. JSON has them as they are.
    """
    write = _writer(session.as_json, pattern)
    if sum((from_beginning, offset is not None, from_time is not None)) > 1:
        usage_error("--from-beginning, --offset and --from-time exclude each other")
    if offset is not None and not partition:
        usage_error("--offset needs --partition: each partition has offsets of its own")
    if group is not None and (partition or from_time is not None):
        usage_error("a group divides the partitions: leave out --partition, --offset, --from-time")
    timeout = session.timeout
    since_ms = None if from_time is None else _or_usage(record_text.milliseconds_of, from_time)

    async def main() -> None:
        topic = await session.must_exist(name)
        chosen = _partitions(topic, partition)
        consumer = Consumer(
            bootstrap_servers=session.bootstrap,
            group_id=group,
            auto_offset_reset=_policy(from_beginning, offset),
        )
        if len(chosen) == len(topic.partitions):
            # subscribe to the topic, so that partitions that are added later are read, too
            consumer.subscribe([name])
        else:
            consumer.assign(chosen)
        async with asyncio.timeout(timeout):
            await consumer.start()
        try:
            async with asyncio.timeout(timeout):
                await _go_to(consumer, chosen, offset, since_ms)
            await _print(
                consumer,
                write,
                count=count,
                until_end=until_end,
                timeout=timeout,
                is_group=group is not None,
            )
        finally:
            await consumer.stop()

    run(main, timeout=timeout, bounded=False)


def _writer(as_json: bool, pattern: str | None) -> Callable[[AnyRecord], None]:
    if as_json:
        if pattern is not None:
            usage_error("--format is for text: leave it out with -o json")
        return lambda record: print_json(record_text.as_json(record))
    printed = record_text.plain if pattern is None else _or_usage(record_text.template, pattern)

    def write(record: AnyRecord) -> None:
        sys.stdout.write(printed(record) + "\n")
        sys.stdout.flush()

    return write


def _or_usage(read: Callable[[str], Any], given: str) -> Any:
    try:
        return read(given)
    except ValueError as error:
        usage_error(str(error))


def _policy(from_beginning: bool, offset: int | None) -> str:
    """Return the consumer's auto_offset_reset: with --offset "none", so no other offset is read."""
    if offset is not None:
        return "none"
    return "earliest" if from_beginning else "latest"


def _partitions(topic: TopicDescription, asked: list[int] | None) -> list[TopicPartition]:
    """Return the partitions to read. InvalidPartitionsError names one that does not exist."""
    count = len(topic.partitions)
    for number in asked or ():
        if number >= count:
            raise InvalidPartitionsError(
                f"topic {topic.name!r} has partitions 0 to {count - 1}, and no {number}"
            )
    return [TopicPartition(topic.name, one) for one in sorted(set(asked or range(count)))]


async def _go_to(
    consumer: Consumer,
    chosen: list[TopicPartition],
    offset: int | None,
    since_ms: int | None,
) -> None:
    if offset is not None:
        begins, ends = await consumer.beginning_offsets(chosen), await consumer.end_offsets(chosen)
        for one in chosen:
            if not begins[one] <= offset <= ends[one]:
                raise OffsetOutOfRangeError(
                    f"{one.topic}-{one.partition} begins at offset {begins[one]} and ends before "
                    f"{ends[one]}; --offset {offset} is outside"
                )
            consumer.seek(one, offset)
    elif since_ms is not None:
        found = await consumer.offsets_for_times(dict.fromkeys(chosen, since_ms))
        late = [one for one, at in found.items() if at is None]
        for one, at in found.items():
            if at is not None:
                consumer.seek(one, at.offset)
        if late:
            await consumer.seek_to_end(*late)


async def _print(
    consumer: Consumer,
    write: Callable[[AnyRecord], None],
    *,
    count: int | None,
    until_end: bool,
    timeout: float,
    is_group: bool,
) -> None:
    written = 0
    records = _until_end(consumer, timeout, is_group) if until_end else aiter(consumer)
    async for record in records:
        write(record)
        written += 1
        if count is not None and written >= count:
            return


async def _until_end(
    consumer: Consumer, timeout: float, is_group: bool
) -> AsyncIterator[AnyRecord]:
    """Yield the records that the partitions have now.

    Raises RequestTimedOutError if records are missing and none has come for `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    if is_group:
        await _first_share(consumer, min(timeout, FIRST_SHARE_S))
    async with asyncio.timeout(timeout):
        ends = await consumer.end_offsets(consumer.assignment())
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
                if is_group or record.offset < ends[one]:
                    yield record
        left = await _behind(consumer, ends)
        if left and loop.time() - heard_at > timeout:
            first = left[0]
            raise RequestTimedOutError(
                f"{len(left)} partitions, {first.topic}-{first.partition} among them, gave no "
                f"record for {timeout:g} s though they hold more: see `quorate cluster health`"
            )


async def _first_share(consumer: Consumer, seconds: float) -> None:
    """Wait until the group gives this member partitions. It may have none for it."""
    for _ in range(int(seconds / FIRST_SHARE_LOOK_S)):
        if consumer.assignment():
            break
        await asyncio.sleep(FIRST_SHARE_LOOK_S)


async def _behind(consumer: Consumer, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    """Return the partitions that are not read to these ends. A group may have moved some away."""
    assigned = sorted(key for key in ends if key in consumer.assignment())
    return [key for key in assigned if await consumer.position(key) < ends[key]]
