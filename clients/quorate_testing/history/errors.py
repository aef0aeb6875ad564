"""The kinds of errors, and one error of a history with its smallest explanation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from quorate_testing.history.operations import Operation, line_of

#: Kind -> what it means.
KINDS: Mapping[str, str] = {
    "inconsistent-offsets": "one offset of a key has several values",
    "duplicate": "one value has several offsets",
    "lost-write": "a value that must have been written was not read, and a later one was",
    "unseen": "a value whose send is done was never read",
    "G1a": "a value was read whose send failed",
    "precommitted-read": "an operation read a value that it sent itself",
    "poll-skip": "two successive operations of a process that read a key left values out",
    "nonmonotonic-poll": "the later of two such operations read an offset again, or went back",
    "int-poll-skip": "the records of a key that one operation read leave values out",
    "int-nonmonotonic-poll": "one operation read an offset of a key again, or went back",
    "nonmonotonic-send": "a process sent a value after another, and it stands before it",
    "int-nonmonotonic-send": "the same within one operation",
    "int-send-skip": "another value stands between two that one operation sent in succession",
    "G0": "operations wrote before each other, in a circle",
    "G0-process": "a circle of writes and the order of a process",
    "G0-realtime": "a circle of writes and real time",
    "G1c": "operations wrote before, or read from, each other in a circle",
    "G1c-process": "a circle of reads, writes and the order of a process",
    "G1c-realtime": "a circle of reads, writes and real time",
    "unwritten": "a value was read that no operation sent",
    "reused-value": "two operations sent one value to one key: the history cannot be judged",
    "empty": "no operation that is done read a record: the history proves nothing",
}
#: The kinds that no log without isolation of writes excludes. A poll of a group's member may also
#: be a poll-skip or a nonmonotonic-poll, and with the order of writes a circle may be a G1c.
BY_DESIGN = frozenset({"int-send-skip", "G0", "G0-process", "G0-realtime"})


class Place(NamedTuple):
    """An operation that takes part in an error, and where in it to look."""

    operation: Operation
    key: str | None = None
    offset: int | None = None
    #: What the sentence of the error calls it.
    name: str = ""

    def __str__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        return name + line_of(self.operation, self.key, self.offset)


@dataclass(frozen=True, slots=True)
class Error:
    """One error. `sentence` says what is wrong, `places` are the operations that prove it."""

    kind: str
    sentence: str
    places: tuple[Place, ...]
    #: The smaller of two errors is the better example.
    size: int = 1
    is_by_design: bool = field(default=False)

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.kind}: {self.sentence}", *(f"  {place}" for place in self.places)]
        )
