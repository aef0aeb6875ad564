"""One call of the machine, while it decides: the records so far, and the time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from quorate.errors import QuorateError
from quorate_broker.groups.machine.state import GroupState
from quorate_broker.groups.machine.values import LogRecord, Push, Reply, Step
from quorate_broker.groups.records.keys import Key, encode_key
from quorate_broker.groups.records.values import Value

T = TypeVar("T")


@dataclass(slots=True)
class Turn:
    """Collects what a step decides. Each record is applied to its group at once, as at replay."""

    now_ms: int
    #: Milliseconds since 1970.
    wall_ms: int
    records: list[LogRecord] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def write(self, state: GroupState, key: Key, value: Value | None) -> None:
        """Decide a record; None: a tombstone."""
        self.records.append(LogRecord(encode_key(key), None if value is None else value.encode()))
        state.apply(key, value)

    def reply(self, ticket: int, answer: object) -> None:
        """Answer a call of an earlier step."""
        self.replies.append(Reply(ticket, answer))

    def step(self, answer: T | QuorateError) -> Step[T]:
        """Return all that this step decided."""
        return Step(answer, self.records, self.pushes, self.replies)
