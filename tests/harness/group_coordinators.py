"""A driver of the machine of consumer groups that a schedule controls: what is committed, and when.

Steps go into a queue. `commit` takes the first ones out: their records are in the log for good, and
only then their answers and pushes leave. `fail_over` drops the machine: of the queue only some
first steps survive, without their answers; another machine replays the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from quorate.errors import QuorateError
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.topics import Topics
from quorate_broker.groups.machine.values import (
    DescribedGroup,
    FetchOffsets,
    LogRecord,
    MemberState,
    Push,
    Reply,
    Step,
)
from tests.harness.invariants import Violation

State = MemberState | QuorateError


def _nobody(answer: object) -> None:
    """Take the answer to a call that was given up."""


class Pending(NamedTuple):
    """A step that is appended and not committed: what it wrote, and what waits for it."""

    records: tuple[LogRecord, ...]
    reply: Callable[[Any], None]
    answer: Any
    pushes: tuple[Push, ...]
    replies: tuple[Reply, ...]


def summary(machine: ShardMachine) -> dict[str, tuple[Any, Any]]:
    """Return all that the log tells of the groups of a machine.

    Of a classic group it tells the last stable generation alone, so its members are left out.
    """
    found: dict[str, tuple[Any, Any]] = {}
    listed = machine.list_groups().answer
    assert not isinstance(listed, QuorateError)
    for group in listed:
        described = machine.describe_group(group.group_id).answer
        topics = machine.committed_topics(group.group_id).answer
        assert not isinstance(topics, QuorateError)
        names = [name for name, _ in topics]
        offsets = machine.fetch_offsets(FetchOffsets(group.group_id, topics=names)).answer
        found[group.group_id] = (described, offsets)
    return found


class Coordinator:
    """The machine, its queue of steps, its log, and the streams of members."""

    def __init__(self, config: GroupsConfig, topics: Topics, push: Callable[[Push], None]) -> None:
        self._config = config
        self._push = push
        self.log: list[LogRecord] = []
        self.queue: deque[Pending] = deque()
        self.machine = ShardMachine(config, topics)
        self.machine.loaded(0, 0)
        self.failovers = 0
        #: Who gets the reply to a ticket. A call that was parked waits here.
        self.waiting: dict[int, Callable[[Any], None]] = {}
        self.tickets = count(1)

    def take(self, step: Step[Any], reply: Callable[[Any], None] = lambda _: None) -> Any:
        """Queue a step; return its answer, which nobody may be told yet."""
        pending = Pending(
            tuple(step.records), reply, step.answer, tuple(step.pushes), tuple(step.replies)
        )
        self.queue.append(pending)
        return step.answer

    def commit(self, steps: int) -> None:
        """Commit the first steps of the queue."""
        for _ in range(min(steps, len(self.queue))):
            pending = self.queue.popleft()
            self.log += pending.records
            for push in pending.pushes:
                self._push(push)
            pending.reply(pending.answer)
            for told in pending.replies:
                self.waiting.pop(told.ticket, _nobody)(told.answer)

    def fail_over(self, surviving: int, topics: Topics, now_ms: int, wall_ms: int) -> None:
        """Another machine takes over. The first steps of the queue survive, without answers."""
        for pending in [*self.queue][:surviving]:
            self.log += pending.records
        self.queue.clear()
        self.waiting.clear()
        self.failovers += 1
        self.machine = self._replayed(self.log, topics)
        if summary(self._replayed(self.compacted(), topics)) != summary(self.machine):
            raise Violation("a compacted log tells of other groups than the whole one")
        self.take(self.machine.loaded(now_ms, wall_ms))

    def check_replay(self, topics: Topics) -> None:
        """What the machine decided is what another one reads from its records."""
        decided = [*self.log, *(record for pending in self.queue for record in pending.records)]
        replayed = summary(self._replayed(decided, topics))
        for group_id, (described, offsets) in summary(self.machine).items():
            is_told = isinstance(described, DescribedGroup) and described.group_epoch
            if is_told and replayed.get(group_id) != (described, offsets):
                raise Violation("the machine differs from what its records tell")

    def compacted(self) -> list[LogRecord]:
        """Return the last record of each key."""
        last = {record.key: at for at, record in enumerate(self.log)}
        return [record for at, record in enumerate(self.log) if last[record.key] == at]

    def _replayed(self, records: list[LogRecord], topics: Topics) -> ShardMachine:
        machine = ShardMachine(self._config, topics)
        for key, value in records:
            machine.replay(key, value)
        return machine
