"""A coordinator's machine at work without a driver, and members that talk to it by hand.

Whatever a step writes counts as committed at once, and goes to a log that another machine can
replay. The clock moves only by `run`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from quorate.errors import QuorateError
from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.topics import Topic, TopicChanges
from quorate_broker.groups.machine.values import (
    JOIN,
    LEAVE,
    CommitOffsets,
    Committed,
    CommittedOffset,
    DescribedGroup,
    FetchOffsets,
    Heartbeat,
    LogRecord,
    MemberState,
    OffsetCommit,
    Proposal,
    Push,
    Step,
    Subscription,
    Task,
)
from quorate_broker.groups.records.values import Partition

T = TypeVar("T")

GROUP = "g"
#: The time since 1970 at the machine's time 0.
WALL_MS = 1_700_000_000_000


class FakeTopics:
    """The topics of an image that never changes."""

    def __init__(self, topics: Iterable[Topic], racks: Mapping[str, Sequence[str]]) -> None:
        self._by_name = {topic.name: topic for topic in topics}
        self._by_id = {topic.id: topic for topic in self._by_name.values()}
        self._racks = racks

    def named(self, name: str) -> Topic | None:
        return self._by_name.get(name)

    def with_id(self, topic_id: bytes) -> Topic | None:
        return self._by_id.get(topic_id)

    def names(self) -> Iterator[str]:
        return iter(self._by_name)

    def racks(self, topic_id: bytes) -> Sequence[frozenset[str]]:
        topic = self._by_id[topic_id]
        racks = self._racks.get(topic.name, ())
        return [frozenset(racks[number : number + 1]) for number in range(topic.partitions)]

    def every(self) -> list[Topic]:
        return [*self._by_name.values()]


class Desk:
    """A shard machine, its log, its clock, and what it pushed to whom."""

    def __init__(self, topics: Mapping[str, int], **config: Any) -> None:
        self.config = GroupsConfig(**config)
        #: What a principal may not describe, by its name and the topic's.
        self.forbidden: set[tuple[str, str]] = set()
        self.now_ms = 1_000_000
        self.log: list[LogRecord] = []
        self.pushes: defaultdict[str, list[MemberState | QuorateError]] = defaultdict(list)
        #: All topics that were ever made, by id: members know their names, also of hidden ones.
        self.made: dict[bytes, Topic] = {}
        self._racks: dict[str, Sequence[str]] = {}
        self.topics = FakeTopics([self._topic(name, size) for name, size in topics.items()], {})
        self.machine = self._new_machine()
        self.machine.loaded(self.now_ms, self.wall_ms)

    def _new_machine(self) -> ShardMachine:
        return ShardMachine(
            self.config, self.topics, lambda who, topic: (who.name, topic) not in self.forbidden
        )

    def _topic(self, name: str, partitions: int) -> Topic:
        made = Topic((len(self.made) + 1).to_bytes(16, "big"), name, partitions)
        self.made[made.id] = made
        return made

    @property
    def wall_ms(self) -> int:
        return WALL_MS + self.now_ms

    def of(self, name: str, *numbers: int) -> PartitionSet:
        """Return partitions of the topic of this name; all, if no number is given."""
        topic = self.topics.named(name)
        assert topic is not None
        return frozenset((topic.id, one) for one in numbers or range(topic.partitions))

    # Steps.

    def take(self, step: Step[T]) -> T:
        """Commit what a step writes, deliver what it pushes, and return or raise its answer."""
        self.log += step.records
        for push in step.pushes:
            self.deliver(push)
        if isinstance(step.answer, QuorateError):
            raise step.answer
        return step.answer

    def deliver(self, push: Push) -> None:
        self.pushes[push.member_id].append(push.state)

    def beat(self, heartbeat: Heartbeat) -> MemberState:
        """Send a heartbeat."""
        return self.take(self.machine.heartbeat(heartbeat, self.now_ms, self.wall_ms))

    def run(self, ms: int) -> None:
        """Let time pass, with a tick at each deadline."""
        until_ms = self.now_ms + ms
        for _ in range(10_000):
            deadline = self.machine.deadline()
            if deadline is None or deadline > until_ms:
                break
            self.now_ms = max(self.now_ms, deadline)
            self.take(self.machine.tick(self.now_ms, self.wall_ms))
        else:
            raise AssertionError("the machine's deadline does not move")
        self.now_ms = until_ms

    # The topics.

    def _change(self, topics: Iterable[Topic], *names: str) -> None:
        self.topics = FakeTopics(topics, self._racks)
        changes = TopicChanges(frozenset(names))
        self.take(self.machine.topics_changed(self.topics, changes, self.now_ms, self.wall_ms))

    def create(self, *names: str, partitions: int = 4) -> None:
        """Create topics."""
        made = [self._topic(name, partitions) for name in names]
        self._change([*self.topics.every(), *made], *names)

    def delete(self, name: str) -> None:
        """Delete a topic."""
        self._change([one for one in self.topics.every() if one.name != name], name)

    def hide(self, name: str) -> None:
        """Let the coordinator not see a topic that members see: its image is older than theirs."""
        self.delete(name)

    def show(self, name: str) -> None:
        """Let the coordinator see a topic again that was hidden."""
        hidden = [one for one in self.made.values() if one.name == name]
        self._change([*self.topics.every(), *hidden], name)

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions."""
        topics = [
            replace(one, partitions=partitions) if one.name == name else one
            for one in self.topics.every()
        ]
        self._change(topics, name)

    def place(self, name: str, *racks: str) -> None:
        """Say in which rack each partition of a topic has its replica."""
        self._racks[name] = racks
        self._change(self.topics.every(), name)

    def described(self, group_id: str = GROUP) -> DescribedGroup:
        """Return the description of a group of the consumer protocol."""
        found = self.take(self.machine.describe_group(group_id))
        assert isinstance(found, DescribedGroup)
        return found

    # Failover.

    def fail_over(self, records: Iterable[LogRecord] | None = None) -> None:
        """Another coordinator replays the log, or these records."""
        self.machine = self._new_machine()
        for key, value in self.log if records is None else records:
            self.machine.replay(key, value)
        self.pushes.clear()
        self.take(self.machine.loaded(self.now_ms, self.wall_ms))
        self.run(0)

    def compacted(self) -> list[LogRecord]:
        """Return the last record of each key, tombstones included, in the order of the log."""
        last = {record.key: at for at, record in enumerate(self.log)}
        return [record for at, record in enumerate(self.log) if last[record.key] == at]

    # Offsets.

    def commit(
        self,
        offsets: Mapping[Partition, int | None],
        member: Member | None = None,
        metadata: str = "",
        group_id: str = GROUP,
    ) -> Committed:
        """Commit offsets, as a member or as no member. None takes away what is committed."""
        one_by_one = [OffsetCommit(one, at, 3, metadata) for one, at in offsets.items()]
        request = CommitOffsets(group_id, one_by_one)
        if member is not None:
            request = replace(request, member_id=member.id, member_epoch=member.epoch)
        return self.take(self.machine.commit_offsets(request, self.now_ms, self.wall_ms))

    def committed(self, *partitions: Partition, group_id: str = GROUP) -> list[int | None]:
        """Return the committed offsets of partitions; None: nothing is committed."""
        fetched = self.take(self.machine.fetch_offsets(FetchOffsets(group_id, partitions)))
        return [None if one.committed is None else one.committed.offset for one in fetched]

    def every_offset(self, group_id: str = GROUP) -> dict[Partition, CommittedOffset]:
        """Return all that a group has committed."""
        names = [name for name, _ in self.take(self.machine.committed_topics(group_id))]
        request = FetchOffsets(group_id, topics=names)
        fetched = self.take(self.machine.fetch_offsets(request))
        return {one.partition: one.committed for one in fetched if one.committed is not None}

    def member(self, member_id: str, *topics: str, **fields: Any) -> Member:
        """Return a member that has not joined yet."""
        return Member(self, member_id, Subscription(frozenset(topics)), **fields)

    def joined(self, member_id: str, *topics: str, **fields: Any) -> Member:
        """Return a member that has joined."""
        member = self.member(member_id, *topics, **fields)
        member.join()
        return member

    def settle(self, *members: Member) -> None:
        """Let members take in what they are told, and give back what they must, until all is quiet.

        Time passes as well, for assignments that wait for their interval.
        """
        for _ in range(100):
            self.run(self.config.assignment_interval_ms)
            if not [member for member in members if member.catch_up()]:
                return
        raise AssertionError("the group does not come to rest")


class Member:
    """A member that keeps to the protocol, one step at a time."""

    def __init__(
        self,
        desk: Desk,
        member_id: str,
        subscription: Subscription,
        *,
        group_id: str = GROUP,
        **fields: Any,
    ) -> None:
        self.desk = desk
        self.id = member_id
        self.group_id = group_id
        self.subscription = subscription
        self.fields = {
            "instance_id": "",
            "rack": "",
            "assignor": "",
            "session_timeout_ms": 45_000,
            **fields,
        }
        self.epoch = 0
        self.number = 0
        self.target: PartitionSet = frozenset()
        self.owned: PartitionSet = frozenset()
        self.task: Task | None = None
        self.has_news = False

    def open(self) -> None:
        """Open a stream. The state that was not taken in is forgotten with the old one."""
        self.number = 0
        self.desk.pushes.pop(self.id, None)
        self.desk.machine.stream_opened(self.group_id, self.id, self.desk.now_ms)

    def lose_stream(self) -> None:
        """The stream breaks."""
        self.desk.pushes.pop(self.id, None)
        self.desk.machine.stream_broken(self.group_id, self.id, self.desk.now_ms)

    def heartbeat(self, **changes: Any) -> Heartbeat:
        """Return the next heartbeat, with all fields."""
        whole: dict[str, Any] = {
            "group_id": self.group_id,
            "member_id": self.id,
            "member_epoch": self.epoch,
            "state_number": self.number,
            "client_id": f"client-{self.id}",
            "client_host": "10.0.0.1",
            "topics": self.subscription.topics,
            "pattern": self.subscription.pattern,
            "owned": self.owned,
            **self.fields,
        }
        return Heartbeat(**{**whole, **changes})

    def join(self, **changes: Any) -> MemberState:
        """Open a stream and join with nothing."""
        self.open()
        self.owned = self.target = frozenset()
        self.epoch = JOIN
        return self.send(**changes)

    def reopen(self) -> MemberState:
        """Open another stream and say all again."""
        self.open()
        return self.send()

    def send(self, **changes: Any) -> MemberState:
        """Send a heartbeat and take its answer in."""
        state = self.desk.beat(self.heartbeat(**changes))
        self.take(state)
        return state

    def take(self, state: MemberState) -> None:
        """Take a state in: from now on nothing is started that it does not name."""
        self.epoch = state.member_epoch
        if state.assignment is not None:
            self.number, self.target = state.state_number, state.assignment
            self.has_news = True
        if state.task is not None:
            self.task = state.task

    def take_pushes(self) -> None:
        """Take in what was pushed. An error is raised."""
        for state in self.desk.pushes.pop(self.id, []):
            if isinstance(state, QuorateError):
                raise state
            self.take(state)

    def catch_up(self) -> bool:
        """Take in, give back, start, and say so; return whether there was news."""
        self.take_pushes()
        if not self.has_news:
            return False
        self.has_news = False
        self.owned = self.target
        self.send()
        return True

    def leave(self, epoch: int = LEAVE) -> None:
        """Leave, with all given back."""
        self.owned = self.target = frozenset()
        self.desk.beat(self.heartbeat(member_epoch=epoch))
        self.epoch = JOIN
        self.desk.machine.stream_broken(self.group_id, self.id, self.desk.now_ms)

    def propose(self, partitions: Mapping[str, PartitionSet]) -> MemberState:
        """Answer the task."""
        assert self.task is not None
        proposal = Proposal(self.task.group_epoch, partitions)
        self.task = None
        return self.send(proposal=proposal)
