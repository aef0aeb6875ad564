"""`quorate topic produce`: each line of a file or of standard input becomes a record."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast

import typer

from quorate import Delivery, Producer
from quorate.errors import DeliveryTimeoutError, QuorateError
from quorate.record.compression import NAMES
from quorate_cli.completion import ACKS, words
from quorate_cli.output import (
    NO_ANSWER,
    SAID_NO,
    WRONG_USAGE,
    check_word,
    counted,
    say,
    usage_error,
)
from quorate_cli.progress import Show, progress
from quorate_cli.record_input import NewRecord, Reader, headers_of, of_json, of_text
from quorate_cli.session import Name, Session, in_session, milliseconds, not_acknowledged, run

#: When this many lines wait for their acknowledgement, no more lines are read.
LINES_AHEAD = 20_000
#: The most bytes of one read.
READ_BYTES: Final = 64 << 10


@dataclass(slots=True)
class _Tally:
    """The outcomes of the lines that were read so far, all for one topic."""

    topic: str
    acked: int = 0
    failed: int = 0
    #: A record was not acknowledged in time. Later records would time out, too.
    has_timed_out: bool = False
    #: A line is no record. Later lines are not read.
    is_misread: bool = False
    waiting: list[Delivery] = field(default_factory=list)

    def expect(self, delivery: Delivery) -> None:
        """Take in a record that was sent."""
        # The command reports the outcome. Without a callback, the producer would log it too.
        delivery.add_done_callback(_is_reported)
        self.waiting.append(delivery)

    async def settle(self) -> None:
        """Wait until every record that was sent has its outcome. Print why the first one failed."""
        waiting, self.waiting = self.waiting, []
        for delivery in waiting:
            try:
                await delivery
                self.acked += 1
            except QuorateError as error:
                self.note(error)

    def note(self, error: QuorateError) -> None:
        """Count a failed record. Print the first error."""
        if not self.failed:
            say(f"topic {self.topic}: {not_acknowledged(error)}")
        self.failed += 1
        self.has_timed_out = self.has_timed_out or isinstance(error, DeliveryTimeoutError)

    def misread(self, number: int, reason: str) -> None:
        """Count a line that is no record. Print why it is none."""
        self.failed += 1
        self.is_misread = True
        say(f"line {number}: {reason}; nothing behind it was sent")

    @property
    def has_ended(self) -> bool:
        """Whether no more lines are to be read."""
        return self.has_timed_out or self.is_misread


def _is_reported(delivery: Delivery) -> None:
    """Do nothing: `settle` reports the outcome of this record."""


@in_session
def produce(
    session: Session,
    name: Name,
    file: Annotated[Path | None, typer.Option(help="Read this file, not standard input.")] = None,
    key_separator: Annotated[
        str | None, typer.Option(help="Splits a line into key and value.")
    ] = None,
    acks: Annotated[str, typer.Option(help="all, 1 or 0.", autocompletion=words(*ACKS))] = "all",
    compression: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(NAMES)}.",
            autocompletion=words(*NAMES),
        ),
    ] = "none",
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A header of each record; may be repeated."),
    ] = None,
    json_lines: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Each line is a JSON object: key, value, headers, partition, timestamp_ms; what "
            "`quorate topic consume -o json` prints is such a line.",
        ),
    ] = False,
) -> None:
    """Write each line of standard input as a record. Say how many were acknowledged.

    A record that is not acknowledged within --timeout has failed. Then no more lines are read, and
    the exit status is 3. With --json, a line that is no record ends the command with status 2; the
    lines before it are sent.
    """
    check_word("--acks", acks, ACKS)
    check_word("--compression", compression, NAMES)
    if key_separator == "":
        usage_error("--key-separator must not be empty")
    if json_lines and key_separator is not None:
        usage_error("--json has keys in its lines: leave out --key-separator")
    try:
        headers = headers_of(header)
    except ValueError as error:
        usage_error(str(error))
    read = of_json(headers) if json_lines else of_text(key_separator, headers)

    async def main() -> _Tally:
        loop, timeout = asyncio.get_running_loop(), session.timeout
        deadline = loop.time() + timeout
        await session.must_exist(name)
        left_ms = max(1, milliseconds(timeout) - round((timeout - deadline + loop.time()) * 1000))
        producer = Producer(
            bootstrap_servers=session.bootstrap,
            acks=acks if acks == "all" else int(acks),
            compression_type=compression,
            request_timeout_ms=left_ms,
            delivery_timeout_ms=left_ms,
        )
        with _opened(file) as source, _bar(file, name, source) as show:
            async with producer:
                return await _produce_lines(producer, name, source, read, show)

    tally = run(main, timeout=session.timeout, bounded=False)
    session.answer(
        {"acked": tally.acked, "failed": tally.failed},
        f"{counted(tally.acked, 'record')} acknowledged, {tally.failed} failed\n",
    )
    if tally.has_timed_out:
        raise typer.Exit(NO_ANSWER)
    if tally.is_misread:
        raise typer.Exit(WRONG_USAGE)
    if tally.failed:
        raise typer.Exit(SAID_NO)


def _opened(file: Path | None) -> AbstractContextManager[BinaryIO]:
    return file.open("rb") if file is not None else nullcontext(sys.stdin.buffer)


def _bar(file: Path | None, name: str, source: BinaryIO) -> AbstractContextManager[Show]:
    """Show the progress through a file. A pipe has no size, and standard input none either."""
    size = None
    if file is not None:
        found = os.fstat(source.fileno())
        size = found.st_size if stat.S_ISREG(found.st_mode) else None
    return progress(f"{file} to {name}", size, "bytes", is_wanted=file is not None)


async def _produce_lines(
    producer: Producer, name: str, source: BinaryIO, read: Reader, show: Show
) -> _Tally:
    tally = _Tally(name)
    loop = asyncio.get_running_loop()
    lines = Lines(source)
    number = 0
    while not tally.has_ended and (chunk := await loop.run_in_executor(None, lines.next)):
        for line in chunk:
            number += 1
            try:
                record = read(line)
            except ValueError as error:
                tally.misread(number, str(error))
                break
            if record is not None:
                await _send(producer, name, record, tally)
            if tally.has_ended:
                break
        if len(tally.waiting) >= LINES_AHEAD:
            await tally.settle()
        show(lines.bytes_read)
    await tally.settle()
    return tally


async def _send(producer: Producer, name: str, record: NewRecord, tally: _Tally) -> None:
    try:
        tally.expect(await producer.send(name, *record))
    except QuorateError as error:
        # only this record fails: it is too large, or there was no room in time
        tally.note(error)


class Lines:
    """The lines of a file or pipe. Each is returned as soon as it is there.

    So `tail -f log | quorate topic produce` sends each line as soon as it is in the log.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = cast(io.BufferedReader, source)
        self._rest: list[bytes] = []
        self.bytes_read = 0

    def next(self) -> list[bytes]:
        """Wait for a line. Return it and all lines that are there already; empty at the end."""
        while data := self._source.read1(READ_BYTES):
            self.bytes_read += len(data)
            head, newline, tail = data.rpartition(b"\n")
            if not newline:
                self._rest.append(data)
                continue
            whole = b"".join((*self._rest, head))
            self._rest = [tail] if tail else []
            return [line.rstrip(b"\r") for line in whole.split(b"\n")]
        last, self._rest = b"".join(self._rest), []
        return [last.rstrip(b"\r")] if last else []
