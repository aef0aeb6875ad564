"""`quorate topic consume`: print a topic's records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import typer

from quorate import Consumer, TopicPartition
from quorate_cli import record_text
from quorate_cli.completion import group_names
from quorate_cli.output import usage_error
from quorate_cli.record_text import AnyRecord
from quorate_cli.session import Name, Session, in_session, run
from quorate_cli.topic_records import (
    Format,
    Partitions,
    UntilEnd,
    chosen_of,
    or_usage,
    read_from,
    records_until,
    seek_to,
    writer,
)

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
    partition: Partitions = None,
    pattern: Format = None,
    group: Annotated[
        str | None,
        typer.Option(
            autocompletion=group_names,
            help="Read as a member of this consumer group: begin at its committed offsets, share "
            "the partitions with its other members, and commit what is printed. With "
            "--from-beginning, what has no committed offset is read from its beginning.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.")] = None,
    until_end: UntilEnd = False,
) -> None:
    r"""Print a topic's records, each on one line. Print until Ctrl-C, --count or --until-end.

    Text: partition, offset, key (if any) and value, with tabs between them. Null is \N. Line breaks
    and control characters are escaped. JSON has them as they are.
    """
    write = writer(session.as_json, pattern)
    if sum((from_beginning, offset is not None, from_time is not None)) > 1:
        usage_error("--from-beginning, --offset and --from-time exclude each other")
    if offset is not None and not partition:
        usage_error("--offset needs --partition: each partition has offsets of its own")
    if group is not None and (partition or from_time is not None):
        usage_error("a group divides the partitions: leave out --partition, --offset, --from-time")
    timeout = session.timeout
    since_ms = None if from_time is None else or_usage(_since_ms, from_time)

    async def main() -> None:
        topic = await session.must_exist(name)
        chosen = chosen_of(topic, partition)
        consumer = Consumer(
            bootstrap_servers=session.bootstrap,
            group_id=group,
            auto_offset_reset=_policy(from_beginning, offset),
        )
        read_from(topic, chosen, consumer)
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


def _policy(from_beginning: bool, offset: int | None) -> str:
    """Return the consumer's auto_offset_reset: with --offset "none", so no other offset is read."""
    if offset is not None:
        return "none"
    return "earliest" if from_beginning else "latest"


async def _go_to(
    consumer: Consumer,
    chosen: list[TopicPartition],
    offset: int | None,
    since_ms: int | None,
) -> None:
    if offset is not None:
        await seek_to(consumer, dict.fromkeys(chosen, offset), "--offset")
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
    """Yield the records that the partitions have now."""
    if is_group:
        await _first_share(consumer, min(timeout, FIRST_SHARE_S))
    async with asyncio.timeout(timeout):
        ends = await consumer.end_offsets(consumer.assignment())
    async for record in records_until(consumer, ends, timeout, is_group=is_group):
        yield record


async def _first_share(consumer: Consumer, seconds: float) -> None:
    """Wait until the group gives this member partitions. It may have none for it."""
    for _ in range(int(seconds / FIRST_SHARE_LOOK_S)):
        if consumer.assignment():
            break
        await asyncio.sleep(FIRST_SHARE_LOOK_S)


def _since_ms(text: str) -> int:
    return record_text.milliseconds_of(text, "--from-time")
