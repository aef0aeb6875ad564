"""Recorders: clients tell them what they do, from any task and any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from quorate_testing.history.json_lines import line
from quorate_testing.history.operations import Kind, Name, Operation, Outcome, Poll, Send


class Call:
    """An operation that runs. Its outcome is unknown until one of the methods is called, once."""

    __slots__ = ("_keep", "_now", "operation")

    def __init__(
        self, operation: Operation, now: Callable[[], int], keep: Callable[[Call], None]
    ) -> None:
        self.operation = operation
        self._now = now
        self._keep = keep

    def done(self) -> None:
        """Note that it had its effect."""
        self._end("done", self.operation.steps)

    def failed(self) -> None:
        """Note that it certainly had no effect, and will never have one.

        Call unknown() if that is not certain.
        """
        self._end("failed", self.operation.steps)

    def unknown(self) -> None:
        """Note that it ended, and that its effect is not known: for example a timeout."""
        self._end("unknown", self.operation.steps)

    def sent(self, *offsets: int | None) -> None:
        """Note that the records were written, and at which offsets (None: not told)."""
        sends = list(self.operation.sends())
        if len(offsets) != len(sends):
            raise ValueError(
                f"{self.operation} sent {len(sends)} records, and got {len(offsets)} offsets: "
                f"give one for each, None if it is not known"
            )
        told = zip(sends, offsets, strict=True)
        self._end("done", tuple(replace(send, offset=offset) for send, offset in told))

    def polled(
        self,
        records: Mapping[str, Iterable[tuple[int, Name]]],
        *,
        rebalanced: Iterable[str] = (),
    ) -> None:
        """Note the (offset, value) of each record, by key, and the keys that were rebalanced."""
        poll = Poll({key: list(found) for key, found in records.items()})
        self._end("done", (poll,), tuple(rebalanced))

    def ended(self, outcome: Outcome, steps: Iterable[Send | Poll]) -> None:
        """Note the outcome and the steps of a transaction."""
        self._end(outcome, tuple(steps))

    def _end(
        self, outcome: Outcome, steps: tuple[Send | Poll, ...], rebalanced: tuple[str, ...] = ()
    ) -> None:
        now = self._now()
        begun = self.operation
        if begun.end is not None:
            raise ValueError(f"{begun}: it has ended before, and cannot end as {outcome!r}")
        self.operation = Operation(
            process=begun.process,
            kind=begun.kind,
            start=begun.start,
            end=max(now, begun.start),
            outcome=outcome,
            steps=steps,
            keys=begun.keys,
            seeks=begun.seeks,
            rebalanced=rebalanced,
            number=begun.number,
        )
        self._keep(self)


class Recorder:
    """Keeps a history in memory.

    A process is one producer and one consumer, or one of them. Its operations are one after
    another. (Its sends may overlap: then the order is that of the calls.)

    >>> recorder = Recorder(now=iter(range(10)).__next__)
    >>> send = recorder.send("p", "invoice/0", "a")
    >>> send.sent(7)
    >>> print(recorder.operations()[0])
    [0, 1] process p: send invoice/0 'a' at offset 7: done
    """

    def __init__(self, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        """`now` returns the time. It must be one clock for all processes of the history."""
        self._now = now
        self._calls: list[Call] = []

    def send(self, process: Name, key: str, value: Name, record_key: Name | None = None) -> Call:
        """Note that a record is being sent."""
        return self._begin(process, "send", (Send(key, value, None, record_key),))

    def send_many(self, process: Name, sends: Iterable[Send]) -> Call:
        """Note that several records are being sent, in this order, in one call."""
        return self._begin(process, "send", tuple(sends))

    def poll(self, process: Name) -> Call:
        """Note that a poll begins."""
        return self._begin(process, "poll")

    def transaction(self, process: Name, sends: Iterable[Send] = ()) -> Call:
        """Note that a transaction begins, and what it will send."""
        return self._begin(process, "txn", tuple(sends))

    def assign(self, process: Name, keys: Iterable[str], *, seeks: bool = False) -> Call:
        """Note that a consumer is being assigned keys. `seeks`: it also sets their positions."""
        return self._begin(process, "assign", keys=tuple(keys), seeks=seeks)

    def subscribe(self, process: Name, keys: Iterable[str]) -> Call:
        """Note that a consumer subscribes to the topics of these keys."""
        return self._begin(process, "subscribe", keys=tuple(keys))

    def crash(self, process: Name) -> None:
        """Note that a process threw its clients away."""
        self._begin(process, "crash").done()

    def operations(self) -> list[Operation]:
        """Return what was recorded. An operation that has not ended has an unknown outcome."""
        return [call.operation for call in self._calls]

    def _begin(
        self,
        process: Name,
        kind: Kind,
        steps: tuple[Send, ...] = (),
        keys: tuple[str, ...] = (),
        seeks: bool = False,
    ) -> Call:
        operation = Operation(
            process=process,
            kind=kind,
            start=self._now(),
            steps=steps,
            keys=keys,
            seeks=seeks,
            number=self._number(),
        )
        call = Call(operation, self._now, self._ended)
        self._began(call)
        return call

    def _number(self) -> int | None:
        return None

    def _began(self, call: Call) -> None:
        self._calls.append(call)  # atomic: threads need no lock

    def _ended(self, call: Call) -> None:
        """Do nothing: the call is in the list."""


class FileRecorder(Recorder):
    """Writes a history into a file, and keeps nothing in memory.

    Each line is given to the system at once, so it survives the death of the process. A send is
    written when it begins, and again when it ends: nothing is read that no line knows.
    """

    def __init__(self, path: Path | str, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Make the file. A file that exists is an error: numbers must be unique in a file."""
        super().__init__(now=now)
        self._path = Path(path)
        self._file = self._path.open("xb", buffering=0)
        self._numbers = count()
        self._lock = threading.Lock()

    def operations(self) -> list[Operation]:
        raise TypeError(
            f"the history is in {self._path}: read it with quorate_testing.history.load"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def _number(self) -> int:
        return next(self._numbers)

    def _began(self, call: Call) -> None:
        if call.operation.steps:
            self._ended(call)

    def _ended(self, call: Call) -> None:
        text = line(call.operation)
        with self._lock:
            # A short write (a full disk) must not tear a line in two.
            while text:
                text = text[self._file.write(text) or 0 :]
