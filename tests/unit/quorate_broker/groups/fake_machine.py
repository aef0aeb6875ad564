"""A machine of a few lines: the offset of each group, and no rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quorate.errors import GroupNotFoundError, QuorateError
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.topics import TopicChanges, Topics
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    Committed,
    Heartbeat,
    LogRecord,
    MemberState,
    Push,
    Reply,
    Step,
)


class FakeMachine(ShardMachine):
    """Keeps one number for each key."""

    def __init__(self, config: GroupsConfig, topics: Topics) -> None:
        self.values: dict[str, str] = {}
        self.replayed = 0
        self.is_loaded = False
        self.events: list[Any] = []
        self.topics = topics
        self.next_deadline_ms: int | None = None
        self.pushes: list[Push] = []

    def replay(self, key: bytes, value: bytes | None) -> None:
        self.replayed += 1
        self.values[key.decode()] = (value or b"").decode()

    def loaded(self, now_ms: int, wall_ms: int) -> Step[None]:
        self.is_loaded = True
        return Step(None)

    def put(self, key: str, value: str, *, pushes: Sequence[Push] = ()) -> Step[str]:
        """Write a value, and answer with all values."""
        self.values[key] = value
        return Step(str(self.values), [LogRecord(key.encode(), value.encode())], pushes)

    def read(self, key: str) -> Step[str]:
        """Answer with a value; GroupNotFoundError if there is none."""
        answer: str | QuorateError = self.values.get(key) or GroupNotFoundError(key)
        return Step(answer)

    def put_for(self, ticket: int, key: str, value: str) -> Step[str]:
        """Write a value, answer an earlier caller with it, and this one with "done"."""
        self.values[key] = value
        record = LogRecord(key.encode(), value.encode())
        return Step("done", [record], replies=[Reply(ticket, value)])

    def commit_offsets(self, request: CommitOffsets, now_ms: int, wall_ms: int) -> Step[Committed]:
        self.values[request.group_id] = str(len(request.offsets))
        self.events.append(len(request.offsets))
        record = LogRecord(request.group_id.encode(), str(len(request.offsets)).encode())
        return Step(Committed(), [record])

    def heartbeat(self, heartbeat: Heartbeat, now_ms: int, wall_ms: int) -> Step[MemberState]:
        self.events.append(heartbeat)
        self.values[heartbeat.member_id] = str(heartbeat.member_epoch)
        state = MemberState(heartbeat.member_epoch or 1, len(self.events), 100)
        return Step(state, [LogRecord(heartbeat.member_id.encode(), b"1")])

    def stream_opened(self, group_id: str, member_id: str, now_ms: int) -> None:
        self.events.append(("opened", group_id, member_id))

    def stream_broken(self, group_id: str, member_id: str, now_ms: int) -> None:
        self.events.append(("broken", group_id, member_id))

    def topics_changed(
        self, topics: Topics, changes: TopicChanges, now_ms: int, wall_ms: int
    ) -> Step[None]:
        self.topics = topics
        self.events.append(changes.names)
        return Step(None)

    def deadline(self) -> int | None:
        return self.next_deadline_ms

    def tick(self, now_ms: int, wall_ms: int) -> Step[None]:
        assert self.next_deadline_ms is not None
        assert now_ms >= self.next_deadline_ms, "not before its time"
        self.next_deadline_ms = None
        return Step(None, [LogRecord(b"ticked", b"yes")])
