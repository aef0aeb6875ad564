"""`quorate topic copy`: write the records of a topic into another one, also of another cluster."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

import typer

from quorate import Consumer, Delivery, Producer, TopicDescription, TopicPartition
from quorate.errors import DeliveryTimeoutError, NetworkError, QuorateError, RequestTimedOutError
from quorate.record.compression import NAMES
from quorate_cli.completion import topic_names, words
from quorate_cli.output import NO_ANSWER, SAID_NO, check_word, counted, say, usage_error
from quorate_cli.progress import Show, progress
from quorate_cli.record_text import AnyRecord
from quorate_cli.session import Session, in_session, milliseconds, not_acknowledged, run
from quorate_cli.topic_records import (
    LOOK_MS,
    UntilEnd,
    chosen_of,
    or_usage,
    read_from,
    records_until,
    seek_to,
)

#: The most records that wait for their acknowledgement.
AHEAD_MAX: Final = 20_000
#: One getmany() of a copy returns so many records, as they are there.
BATCH_MAX: Final = 5_000
INTERRUPTED: Final = 130


@dataclass(slots=True)
class Copied:
    """What has become of the records that were read.

    `next_offsets` has, by the number of the source's partition, the first offset that is not surely
    in the target: every record below it is acknowledged.
    """

    next_offsets: dict[int, int] = field(default_factory=dict)
    copied: int = 0
    failed: int = 0
    #: Why the copy ended early, and at what.
    error: QuorateError | None = None
    where: str = ""
    interrupted: bool = False
    waiting: deque[tuple[AnyRecord, Delivery]] = field(default_factory=deque)
    #: The first record of each partition that failed. What is behind it moves no offset.
    failures: dict[int, int] = field(default_factory=dict)

    def expect(self, record: AnyRecord, delivery: Delivery) -> None:
        """Take in a record that was sent."""
        delivery.add_done_callback(_is_reported)
        self.waiting.append((record, delivery))

    def settle_done(self) -> None:
        """Take in the outcomes that are there, as far as those before them are there, too."""
        while self.waiting and self.waiting[0][1].done():
            record, delivery = self.waiting.popleft()
            try:
                delivery.result()
            except QuorateError as error:
                self.note(record, error)
            else:
                self.copied += 1
                if record.offset < self.failures.get(record.partition, sys.maxsize):
                    self.next_offsets[record.partition] = record.offset + 1

    async def settle(self, ahead: int = 0) -> None:
        """Wait until at most so many records have no outcome."""
        while len(self.waiting) > ahead:
            with contextlib.suppress(QuorateError):  # settle_done counts it
                await self.waiting[0][1]
            self.settle_done()

    def note(self, record: AnyRecord, error: QuorateError) -> None:
        """Take in a record that failed."""
        self.failed += 1
        first = self.failures.get(record.partition, record.offset)
        self.failures[record.partition] = min(first, record.offset)
        self.end(f"{record.topic}/{record.partition} offset {record.offset}", error)

    def end(self, where: str, error: QuorateError) -> None:
        """End the copy. The first reason is the one that is told."""
        if self.error is None:
            self.where, self.error = where, error


def _is_reported(_delivery: Delivery) -> None:
    """Do nothing: the command reports the outcome. Without this the producer would log it, too."""


@in_session
def copy(
    session: Session,
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The topic to read.", autocompletion=topic_names)
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="The topic to write; it exists.", autocompletion=topic_names
        ),
    ],
    from_bootstrap: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT[,...]",
            help="Brokers of the cluster to read from, if it is another one.",
        ),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARTITION=OFFSET",
            help="Begin there, not at the first record held; may be repeated.",
        ),
    ] = None,
    until_end: UntilEnd = False,
    compression: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(NAMES)}.",
            autocompletion=words(*NAMES),
        ),
    ] = "none",
) -> None:
    """Copy the records of a topic into another one, and go on until Ctrl-C or --until-end.

    Keys, values, headers and timestamps are kept; so are partitions, if both topics have the same
    number of them. Otherwise the key chooses the partition. The order of a partition, or of a key,
    is kept. A retry writes nothing twice. Offsets are new.

    A record that fails ends the copy. What was acknowledged stays in the target. The command says
    with which --start the same copy goes on without a gap. Of the partition of the record that
    failed, the target may have some records behind it already, and gets them again.
    """
    starts: dict[int, int] = dict(or_usage(_parsed, one) for one in start or ())
    check_word("--compression", compression, NAMES)
    reading = replace(session, bootstrap=from_bootstrap or session.bootstrap)

    async def main() -> Copied:
        topic = await reading.must_exist(source)
        into = await session.must_exist(target)
        _check_is_another(reading, session, topic, into)
        keeps = len(topic.partitions) == len(into.partitions)
        consumer = Consumer(
            bootstrap_servers=reading.bootstrap,
            auto_offset_reset="earliest",
            max_poll_records=BATCH_MAX,
        )
        chosen = chosen_of(topic, None)
        read_from(topic, chosen, consumer)
        async with asyncio.timeout(session.timeout):
            await consumer.start()
        try:
            async with asyncio.timeout(session.timeout):
                begins = await _begin(consumer, chosen, starts)
                ends = await consumer.end_offsets(chosen) if until_end else None
            copied = Copied({key.partition: offset for key, offset in sorted(begins.items())})
            timeout_ms = milliseconds(session.timeout)
            async with Producer(
                bootstrap_servers=session.bootstrap,
                enable_idempotence=True,
                compression_type=compression,
                request_timeout_ms=timeout_ms,
                delivery_timeout_ms=timeout_ms,
            ) as producer:
                total = None if ends is None else sum(ends[key] - begins[key] for key in chosen)
                with progress(f"{source} to {target}", total, "records") as show:
                    records = (
                        _as_they_come(consumer)
                        if ends is None
                        else records_until(consumer, ends, session.timeout)
                    )
                    await _copy(producer, target, records, copied, keeps=keeps, show=show)
            return copied
        finally:
            await consumer.stop()

    _report(session, run(main, timeout=session.timeout, bounded=False))


async def _as_they_come(consumer: Consumer) -> AsyncIterator[AnyRecord | None]:
    """Yield the records without an end; None if there is none for a while."""
    while True:
        found = await consumer.getmany(timeout_ms=LOOK_MS)
        for records in found.values():
            for record in records:
                yield record
        if not found:
            yield None


async def _copy(
    producer: Producer,
    target: str,
    records: AsyncIterator[AnyRecord | None],
    copied: Copied,
    *,
    keeps: bool,
    show: Show,
) -> None:
    """Send records, one after another, until one fails or Ctrl-C. Wait for what was sent."""
    try:
        async for record in records:
            if record is not None:
                await _send(producer, target, record, copied, keeps=keeps)
            await copied.settle(AHEAD_MAX)
            copied.settle_done()
            show(copied.copied)
            if copied.error is not None:
                break
    except QuorateError as error:
        copied.end("the source", error)
    except asyncio.CancelledError:
        # Ctrl-C. A second one does not wait for the acknowledgements.
        copied.interrupted = True
    await copied.settle()


async def _send(
    producer: Producer, target: str, record: AnyRecord, copied: Copied, *, keeps: bool
) -> None:
    try:
        delivery = await producer.send(
            target,
            record.value,
            record.key,
            partition=record.partition if keeps else None,
            timestamp_ms=record.timestamp_ms,
            headers=record.headers,
        )
    except QuorateError as error:
        copied.note(record, error)
    else:
        copied.expect(record, delivery)


async def _begin(
    consumer: Consumer, chosen: list[TopicPartition], starts: Mapping[int, int]
) -> dict[TopicPartition, int]:
    """Put the consumer where the copy begins. Return the offsets."""
    topic = chosen[0].topic
    named = {TopicPartition(topic, number): offset for number, offset in starts.items()}
    unknown = sorted(key.partition for key in named.keys() - set(chosen))
    if unknown:
        usage_error(f"--start names partition {unknown[0]}; {topic} has 0 to {len(chosen) - 1}")
    await seek_to(consumer, named, "--start")
    return {**await consumer.beginning_offsets(chosen), **named}


def _check_is_another(
    reading: Session, writing: Session, source: TopicDescription, target: TopicDescription
) -> None:
    """Refuse to copy a topic into itself: the copy would never reach the end."""
    if source.topic_id != target.topic_id:
        return
    usage_error(
        f"{source.name} of {reading.bootstrap} and {target.name} of {writing.bootstrap} are the"
        f" same topic: a copy into itself would never end; name another topic"
    )


def _parsed(text: str) -> tuple[int, int]:
    """Return the partition and the offset of --start.

    >>> _parsed("3=1500")
    (3, 1500)
    """
    number, equals, offset = text.partition("=")
    if not (equals and _is_number(number) and _is_number(offset)):
        raise ValueError(f"--start takes PARTITION=OFFSET, as 3=1500, not {text!r}")
    return int(number), int(offset)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _report(session: Session, copied: Copied) -> None:
    offsets = sorted(copied.next_offsets.items())
    session.answer(
        {
            "copied": copied.copied,
            "failed": copied.failed,
            "partitions": [
                {"partition": number, "next_offset": offset} for number, offset in offsets
            ],
        },
        f"{counted(copied.copied, 'record')} copied, {copied.failed} failed\n",
    )
    if copied.error is not None:
        say(f"{copied.where}: {not_acknowledged(copied.error)}")
    if copied.error is not None or copied.interrupted:
        options = " ".join(f"--start {number}={offset}" for number, offset in offsets)
        sys.stderr.write(f"to go on: the same command with {options}\n")
    if isinstance(copied.error, DeliveryTimeoutError | RequestTimedOutError | NetworkError):
        raise typer.Exit(NO_ANSWER)
    if copied.error is not None:
        raise typer.Exit(SAID_NO)
    if copied.interrupted:
        raise typer.Exit(INTERRUPTED)
