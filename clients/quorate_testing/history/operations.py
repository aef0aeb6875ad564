"""The operations of a history: what clients asked, when, and what they were told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

#: The name of a process, or a value. Values are unique within a key.
Name = str | int
Kind = Literal["send", "poll", "txn", "assign", "subscribe", "crash"]
#: done: it had its effect. failed: it certainly had none, and will have none. unknown: all else.
Outcome = Literal["done", "failed", "unknown"]


class Send(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="send"):
    """One record that was sent. A key is a partition, as partition_name() gives it."""

    key: str
    value: Name
    #: None: the client was not told.
    offset: int | None = None
    #: The key of the record itself. Only histories of compacted topics need it.
    record_key: Name | None = None


class Poll(msgspec.Struct, frozen=True, array_like=True, tag="poll"):
    """The records that one poll returned: for each key its (offset, value), in the order read."""

    records: dict[str, list[tuple[int, Name]]]


class Operation(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One operation of a process.

    * "send" has steps Send. Each of them is for itself: some may have failed.
    * "poll" has steps Poll.
    * "txn" has steps of both sorts, and takes effect as a whole or not at all: a transaction.
    * "assign" and "subscribe" have `keys`: from now on the process reads these.
    * "crash": the process threw its clients away. It goes on with new ones.

    Times are numbers in one order for all processes, for example nanoseconds of the monotonic
    clock. If one operation ends at the time at which another starts, the two overlap.
    """

    process: Name
    kind: Kind
    start: int
    #: None: it has not ended.
    end: int | None = None
    outcome: Outcome = "unknown"
    steps: tuple[Send | Poll, ...] = ()
    keys: tuple[str, ...] = ()
    #: An "assign" that also sets the positions of its keys, for example to the beginning.
    seeks: bool = False
    #: The keys that a rebalance gave or took while this operation ran.
    rebalanced: tuple[str, ...] = ()
    #: In a file, a later line with the same number replaces an earlier one.
    number: int | None = None

    def sends(self) -> Iterator[Send]:
        """Return the records that it sent, in order."""
        return (step for step in self.steps if isinstance(step, Send))

    def polls(self) -> Iterator[tuple[str, list[tuple[int, Name]]]]:
        """Return what it read: pairs of a key and the records of one step, in order."""
        for step in self.steps:
            if isinstance(step, Poll):
                yield from step.records.items()

    def __str__(self) -> str:
        return line_of(self)


#: The most records of a step that the line of an operation shows.
SHOWN_MAX = 8


def line_of(operation: Operation, key: str | None = None, offset: int | None = None) -> str:
    """Return an operation in one line, with `key`: only what it did there, near `offset`.

    >>> steps = (Send("invoice/0", "a", 7),)
    >>> send = Operation(process=1, kind="send", start=3, end=5, outcome="done", steps=steps)
    >>> print(line_of(send))
    [3, 5] process 1: send invoice/0 'a' at offset 7: done
    """
    end = "..." if operation.end is None else operation.end
    parts = [_step(step, key, offset) for step in operation.steps]
    shown = [part for part in parts if part]
    if len(shown) > SHOWN_MAX:
        shown = [*shown[:SHOWN_MAX], f"{len(shown) - SHOWN_MAX} more"]
    if operation.keys:
        shown.append(f"{operation.kind} {', '.join(operation.keys)}")
    what = "; ".join(shown) or operation.kind
    txn = "txn " if operation.kind == "txn" else ""
    times = f"[{operation.start}, {end}]"
    return f"{times} process {operation.process}: {txn}{what}: {operation.outcome}"


def _step(step: Send | Poll, key: str | None, offset: int | None) -> str:
    if isinstance(step, Send):
        if key not in {None, step.key}:
            return ""
        at = "" if step.offset is None else f" at offset {step.offset}"
        return f"send {step.key} {step.value!r}{at}"
    keys = list(step.records) if key is None else [key] if key in step.records else []
    return "; ".join(f"poll {name} {_records(step.records[name], offset)}" for name in keys)


def _records(records: list[tuple[int, Name]], offset: int | None) -> str:
    """Return the records, or if they are many the first ones, or those around `offset`."""
    first = 0
    if offset is not None and len(records) > SHOWN_MAX:
        nearest = min(range(len(records)), key=lambda i: abs(records[i][0] - offset))
        first = max(0, nearest - SHOWN_MAX // 2)
    shown = [f"{at}: {value!r}" for at, value in records[first : first + SHOWN_MAX]]
    before = [f"{first} more"] if first else []
    rest = len(records) - first - len(shown)
    after = [f"{rest} more"] if rest > 0 else []
    return "{" + ", ".join([*before, *shown, *after]) + "}"


def partition_name(topic: str, partition: int, incarnation: int = 0) -> str:
    """Return the key of a partition. Count `incarnation` up when the topic is made again.

    >>> partition_name("invoice", 3), partition_name("invoice", 3, incarnation=1)
    ('invoice/3', 'invoice/3#1')
    """
    return f"{topic}/{partition}" + (f"#{incarnation}" if incarnation else "")
