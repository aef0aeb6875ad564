"""`quorate topic produce`: each line of a file or of standard input becomes a record."""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, Final, cast

import typer

from quorate import Delivery, Producer
from quorate.errors import DeliveryTimeoutError, QuorateError
from quorate.record.compression import NAMES
from quorate_cli.output import NO_ANSWER, SAID_NO, check_word, say, usage_error
from quorate_cli.session import Name, Session, code_name, in_session, milliseconds, run

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
            say(f"topic {self.topic}: {error} [{code_name(error)}]. {error.advice}".rstrip())
        self.failed += 1
        self.has_timed_out = self.has_timed_out or isinstance(error, DeliveryTimeoutError)


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
    acks: Annotated[str, typer.Option(help="all, 1 or 0.")] = "all",
    compression: Annotated[str, typer.Option(help=f"{', '.join(NAMES)}.")] = "none",
) -> None:
    """Write each line of standard input as a record. Say how many were acknowledged.

    A record that is not acknowledged within --timeout has failed. Then no more lines are read, and
    the exit status is 3.
    """
    check_word("--acks", acks, ("all", "1", "0"))
    check_word("--compression", compression, NAMES)
    if key_separator == "":
        usage_error("--key-separator must not be empty")

    async def main() -> _Tally:
        loop, timeout = asyncio.get_running_loop(), session.timeout
        deadline = loop.time() + timeout
        await session.must_exist(name)
        source = file.open("rb") if file is not None else sys.stdin.buffer
        left_ms = max(1, milliseconds(timeout) - round((timeout - deadline + loop.time()) * 1000))
        producer = Producer(
            bootstrap_servers=session.bootstrap,
            acks=acks if acks == "all" else int(acks),
            compression_type=compression,
            request_timeout_ms=left_ms,
            delivery_timeout_ms=left_ms,
        )
        async with producer:
            return await _produce_lines(producer, name, source, key_separator)

    tally = run(main, timeout=session.timeout, bounded=False)
    session.answer(
        {"acked": tally.acked, "failed": tally.failed},
        f"{tally.acked} records acknowledged, {tally.failed} failed\n",
    )
    if tally.has_timed_out:
        raise typer.Exit(NO_ANSWER)
    if tally.failed:
        raise typer.Exit(SAID_NO)


async def _produce_lines(
    producer: Producer, name: str, source: BinaryIO, key_separator: str | None
) -> _Tally:
    tally = _Tally(name)
    loop = asyncio.get_running_loop()
    lines = Lines(source)
    while not tally.has_timed_out and (chunk := await loop.run_in_executor(None, lines.next)):
        for line in chunk:
            key, value = _split_key(line, key_separator)
            try:
                tally.expect(await producer.send(name, value, key))
            except QuorateError as error:
                # only this record fails: it is too large, or there was no room in time
                tally.note(error)
                if tally.has_timed_out:
                    break
        if len(tally.waiting) >= LINES_AHEAD:
            await tally.settle()
    await tally.settle()
    return tally


class Lines:
    """The lines of a file or pipe. Each is returned as soon as it is there.

    So `tail -f log | quorate topic produce` sends each line as soon as it is in the log.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = cast(io.BufferedReader, source)
        self._rest: list[bytes] = []

    def next(self) -> list[bytes]:
        """Wait for a line. Return it and all lines that are there already; empty at the end."""
        while data := self._source.read1(READ_BYTES):
            head, newline, tail = data.rpartition(b"\n")
            if not newline:
                self._rest.append(data)
                continue
            whole = b"".join((*self._rest, head))
            self._rest = [tail] if tail else []
            return [line.rstrip(b"\r") for line in whole.split(b"\n")]
        last, self._rest = b"".join(self._rest), []
        return [last.rstrip(b"\r")] if last else []


def _split_key(line: bytes, separator: str | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return None, line
    key, found, value = line.partition(separator.encode())
    return (key, value) if found else (None, line)
