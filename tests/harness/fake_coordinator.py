"""A coordinator of groups as consumers see it, with the rules of KIP-848 in their simplest form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from quorate.cluster.parts import Part, from_wire, to_wire
from quorate.errors import (
    CoordinatorLoadingError,
    FencedMemberEpochError,
    InvalidPatternError,
    NonEmptyGroupError,
    NotCoordinatorError,
    OffsetMetadataTooLargeError,
    QuorateError,
    StaleMemberEpochError,
    UnknownMemberIdError,
    UnreleasedInstanceIdError,
)
from quorate.errors import (
    StreamBrokenError as Broken,
)
from quorate.errors import (
    to_wire as error_to_wire,
)
from quorate.model import OffsetAndMetadata
from quorate.v1 import common_pb2
from quorate.v1 import groups_pb2 as wire
from tests.harness.addresses import listener

GRACE_S = 0.5
HEARTBEAT_INTERVAL_MS = 1000


@dataclass
class FakeMember:
    member_id: str
    instance_id: str
    topics: frozenset[str] = frozenset()
    assignor: str = ""
    epoch: int = 0
    assigned: set[Part] = field(default_factory=set)
    revoking: set[Part] = field(default_factory=set)
    #: The epoch since when it has each partition.
    since: dict[Part, int] = field(default_factory=dict)
    #: What it said last that it owns.
    owned: frozenset[Part] = frozenset()
    #: Of the last assignment that went down its stream.
    number: int = 0
    states: asyncio.Queue[wire.MemberState] | None = None
    is_away: bool = False


@dataclass
class FakeGroup:
    epoch: int = 0
    members: dict[str, FakeMember] = field(default_factory=dict)
    target: dict[str, set[Part]] = field(default_factory=dict)
    offsets: dict[Part, OffsetAndMetadata] = field(default_factory=dict)
    #: The number of partitions that the topic had at the first commit of each partition.
    first_commits: dict[Part, int] = field(default_factory=dict)

    def may_commit(self, member_id: str, epoch: int, part: Part) -> bool:
        """Return whether a member has had a partition since this epoch; without an id: always."""
        if not member_id:
            return True
        member = self.members[member_id]
        return part in member.assigned | member.revoking and member.since[part] <= epoch


class FakeCoordinator:
    """All groups of a fake cluster. `leader` is the broker that coordinates them."""

    def __init__(self, topics: Callable[[], dict[str, tuple[bytes, int]]]) -> None:
        self._topics = topics
        self.groups: dict[str, FakeGroup] = {}
        self.leader = 0
        self.is_loading = False
        self.hints = True
        #: Every heartbeat and commit that came, in order.
        self.heartbeats: list[wire.MemberHeartbeat] = []
        self.commits: list[wire.CommitOffsetsRequest] = []
        self.fault: QuorateError | None = None
        #: The answer to each commit; and a gate at which commits wait while it is not set.
        self.commit_fault: QuorateError | None = None
        self.commit_gate = asyncio.Event()
        self.commit_gate.set()
        #: Partition -> members that had it at the same time; must stay empty.
        self.balance: Callable[[FakeGroup, list[Part]], dict[str, set[Part]]] = sticky

    def group(self, group_id: str) -> FakeGroup:
        return self.groups.setdefault(group_id, FakeGroup())

    def committed(self, group_id: str) -> dict[int, int]:
        """Return partition -> offset of a group that reads one topic."""
        return {
            part.partition: value.offset for part, value in self.group(group_id).offsets.items()
        }

    # -- calls -------------------------------------------------------------------------------------

    def find(self, request: wire.FindCoordinatorsRequest) -> wire.FindCoordinatorsResponse:
        response = wire.FindCoordinatorsResponse()
        for group_id in request.group_ids:
            response.coordinators.add(group_id=group_id, coordinator=self._hint())
        return response

    def _hint(self) -> common_pb2.LeaderHint:
        return common_pb2.LeaderHint(
            leader=self.leader, leader_epoch=1, listener=listener(f"b{self.leader}:9092")
        )

    def _check(self, broker: int) -> None:
        if broker != self.leader:
            raise NotCoordinatorError(f"broker {self.leader} is the coordinator")
        if self.is_loading:
            raise CoordinatorLoadingError("loading")
        if self.fault is not None:
            raise self.fault

    async def membership(
        self, broker: int, requests: AsyncIterator[wire.MemberHeartbeat]
    ) -> AsyncIterator[wire.MemberState]:
        states: asyncio.Queue[wire.MemberState] = asyncio.Queue()
        reader = asyncio.ensure_future(self._read(broker, requests, states))
        try:
            while True:
                state = await states.get()
                if state.member_epoch == -9:
                    raise Broken("broken by the test")
                yield state
                if state.error.code or state.member_epoch < 0:
                    return
        finally:
            reader.cancel()
            self._stream_ended(states)

    async def _read(
        self,
        broker: int,
        requests: AsyncIterator[wire.MemberHeartbeat],
        states: asyncio.Queue[wire.MemberState],
    ) -> None:
        group_id = member_id = ""
        async for heartbeat in requests:
            group_id = heartbeat.group_id or group_id
            member_id = heartbeat.member_id or member_id
            self.heartbeats.append(heartbeat)
            try:
                self._check(broker)
                self._heartbeat(self.group(group_id), member_id, heartbeat, states)
            except QuorateError as error:
                state = wire.MemberState(error=error_to_wire(error))
                if self.hints:
                    state.coordinator.CopyFrom(self._hint())
                states.put_nowait(state)

    def _stream_ended(self, states: asyncio.Queue[wire.MemberState]) -> None:
        for group in self.groups.values():
            for member in group.members.values():
                if member.states is states:
                    member.states = None
                    if not member.instance_id:
                        asyncio.get_running_loop().call_later(GRACE_S, self._gone, group, member)

    def _gone(self, group: FakeGroup, member: FakeMember) -> None:
        if member.states is None and group.members.get(member.member_id) is member:
            self.remove(group, member.member_id)

    # -- the rules ---------------------------------------------------------------------------------

    def _heartbeat(
        self,
        group: FakeGroup,
        member_id: str,
        heartbeat: wire.MemberHeartbeat,
        states: asyncio.Queue[wire.MemberState],
    ) -> None:
        if heartbeat.member_epoch < 0:
            self._leave(group, member_id, heartbeat.member_epoch)
            states.put_nowait(wire.MemberState(member_epoch=heartbeat.member_epoch))
            return
        member = group.members.get(member_id)
        if heartbeat.member_epoch == 0:
            member = self._join(group, member_id, heartbeat.instance_id)
        if member is None:
            raise UnknownMemberIdError(f"no member {member_id}")
        if heartbeat.member_epoch not in (0, member.epoch, member.epoch - 1):
            raise FencedMemberEpochError(f"epoch {heartbeat.member_epoch}, not {member.epoch}")
        is_first = member.states is not states
        member.states = states
        if is_first:
            member.number = 0
        if heartbeat.HasField("assignor"):
            member.assignor = heartbeat.assignor
        if heartbeat.HasField("subscription"):
            self._subscribe(group, member, heartbeat.subscription)
        if heartbeat.HasField("proposal"):
            group.target = {
                one.member_id: set(from_wire(one.partitions)) for one in heartbeat.proposal.members
            }
        if heartbeat.HasField("owned"):
            member.owned = from_wire(heartbeat.owned)
        if heartbeat.state_number == member.number:
            member.revoking &= member.owned
        self._reconcile(group)
        self._push(member, with_assignment=is_first)

    def _join(self, group: FakeGroup, member_id: str, instance_id: str) -> FakeMember:
        for other in list(group.members.values()):
            if instance_id and other.instance_id == instance_id and other.member_id != member_id:
                if other.states is not None and not other.is_away:
                    raise UnreleasedInstanceIdError(f"{instance_id} belongs to another member")
                del group.members[other.member_id]
                other.member_id, other.is_away, other.epoch = member_id, False, group.epoch
                group.target[member_id] = group.target.pop(
                    next(one for one in group.target if one not in group.members), set()
                )
                group.members[member_id] = other
        member = group.members.setdefault(member_id, FakeMember(member_id, instance_id))
        if not member.instance_id:
            member.assigned, member.revoking, member.epoch = set(), set(), 0
        return member

    def _subscribe(
        self, group: FakeGroup, member: FakeMember, subscription: wire.Subscription
    ) -> None:
        if subscription.pattern == "(?=a)":
            raise InvalidPatternError("invalid perl operator: (?=")
        names = set(subscription.topics)
        if subscription.pattern:
            prefix = subscription.pattern.removesuffix(".*")
            names |= {name for name in self._topics() if name.startswith(prefix)}
        if member.topics != frozenset(names) or member.member_id not in group.target:
            member.topics = frozenset(names)
            self.rebalance(group)

    def rebalance(self, group: FakeGroup) -> None:
        """Compute a new target assignment."""
        group.epoch += 1
        if any(one.assignor == "client" for one in group.members.values()):
            self._ask_for_proposal(group)
            return
        group.target = self.balance(group, self._parts(group))
        self._reconcile(group)

    def _parts(self, group: FakeGroup) -> list[Part]:
        names = {name for member in group.members.values() for name in member.topics}
        known = self._topics()
        return [
            Part(known[name][0], number)
            for name in sorted(names)
            if name in known
            for number in range(known[name][1])
        ]

    def _ask_for_proposal(self, group: FakeGroup) -> None:
        known = self._topics()
        task = wire.AssignmentTask(group_epoch=group.epoch)
        for member in group.members.values():
            task.members.add(
                member_id=member.member_id,
                topic_ids=[known[name][0] for name in sorted(member.topics) if name in known],
                assigned=to_wire(group.target.get(member.member_id, set())),
            )
        for name, (topic_id, count) in known.items():
            task.topics.add(topic_id=topic_id, name=name, partitions=count)
        asked = next(one for one in group.members.values() if one.states is not None)
        asked.epoch = group.epoch
        self._push(asked, with_assignment=True, task=task)

    def _reconcile(self, group: FakeGroup) -> None:
        for member in group.members.values():
            self._reconcile_one(group, member)

    def _reconcile_one(self, group: FakeGroup, member: FakeMember) -> None:
        target = group.target.get(member.member_id, set())
        before = (member.epoch, set(member.assigned))
        if member.assigned - target:
            member.revoking |= member.assigned - target
            member.assigned &= target
        elif not member.revoking:
            member.epoch = group.epoch
            taken = {
                part
                for other in group.members.values()
                if other is not member
                for part in other.assigned | other.revoking
            }
            given = target - taken - member.assigned
            member.since |= dict.fromkeys(given, group.epoch)
            member.assigned |= given
        if before != (member.epoch, member.assigned):
            self._push(member, with_assignment=before[1] != member.assigned)
            self._reconcile(group)

    def _push(
        self,
        member: FakeMember,
        *,
        with_assignment: bool,
        task: wire.AssignmentTask | None = None,
    ) -> None:
        if member.states is None:
            return
        state = wire.MemberState(
            member_epoch=member.epoch, heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS, task=task
        )
        if with_assignment:
            member.number += 1
            state.assignment.CopyFrom(to_wire(member.assigned))
        state.state_number = member.number
        member.states.put_nowait(state)

    def _leave(self, group: FakeGroup, member_id: str, epoch: int) -> None:
        member = group.members.get(member_id)
        if member is None:
            return
        if epoch == -2:
            member.is_away, member.states = True, None
        else:
            self.remove(group, member_id)

    def remove(self, group: FakeGroup, member_id: str) -> None:
        """Remove a member. If it has a stream, it is told."""
        member = group.members.pop(member_id)
        group.target.pop(member_id, None)
        if member.states is not None:
            error = error_to_wire(FencedMemberEpochError("removed by the test"))
            member.states.put_nowait(wire.MemberState(error=error))
        self.rebalance(group)

    def break_streams(self) -> None:
        """Break the streams of all members."""
        for group in self.groups.values():
            for member in group.members.values():
                if member.states is not None:
                    member.states.put_nowait(wire.MemberState(member_epoch=-9))

    def fail_over(self, leader: int) -> None:
        """Another broker becomes the coordinator. All streams break, and sessions start anew."""
        self.leader = leader
        for group in self.groups.values():
            for member in group.members.values():
                if member.states is not None:
                    member.states.put_nowait(wire.MemberState(member_epoch=-9))
        self.forget_streams()

    def forget_streams(self) -> None:
        """The streams of all members end with their broker, which tells nobody."""
        for group in self.groups.values():
            for member in group.members.values():
                member.states = None

    # -- offsets -----------------------------------------------------------------------------------

    async def commit(
        self, broker: int, request: wire.CommitOffsetsRequest
    ) -> wire.CommitOffsetsResponse:
        self.commits.append(request)
        await self.commit_gate.wait()
        response = wire.CommitOffsetsResponse()
        try:
            self._check(broker)
            if self.commit_fault is not None:
                raise self.commit_fault
            group = self.group(request.group_id)
            self._check_committer(group, request)
        except QuorateError as error:
            response.error.CopyFrom(error_to_wire(error))
            response.coordinator.CopyFrom(self._hint())
            return response
        counts = dict(self._topics().values())
        for topic in request.topics:
            told = response.topics.add(topic_id=topic.topic_id)
            for one in topic.partitions:
                result = told.partitions.add(partition=one.partition)
                part = Part(topic.topic_id, one.partition)
                if not group.may_commit(request.member_id, request.member_epoch, part):
                    stale = StaleMemberEpochError(f"epoch {request.member_epoch} is too old")
                    result.error.CopyFrom(error_to_wire(stale))
                    continue
                if len(one.metadata) > 4096:
                    too_large = OffsetMetadataTooLargeError("4096 bytes are allowed")
                    result.error.CopyFrom(error_to_wire(too_large))
                    continue
                group.offsets[part] = OffsetAndMetadata(one.offset, one.metadata, one.leader_epoch)
                group.first_commits.setdefault(part, counts[topic.topic_id])
        return response

    def _check_committer(self, group: FakeGroup, request: wire.CommitOffsetsRequest) -> None:
        if not request.member_id:
            if group.members:
                raise NonEmptyGroupError("the group has members")
            return
        member = group.members.get(request.member_id)
        if member is None:
            raise UnknownMemberIdError(f"no member {request.member_id}")
        if not 0 < request.member_epoch <= member.epoch:
            raise FencedMemberEpochError(f"epoch {request.member_epoch}, not {member.epoch}")

    def fetch(self, broker: int, request: wire.FetchOffsetsRequest) -> wire.FetchOffsetsResponse:
        response = wire.FetchOffsetsResponse()
        try:
            self._check(broker)
        except QuorateError as error:
            response.error.CopyFrom(error_to_wire(error))
            response.coordinator.CopyFrom(self._hint())
            return response
        group = self.group(request.group_id)
        for topic in request.topics:
            told = response.topics.add(topic_id=topic.topic_id)
            for number in topic.partitions:
                part = Part(topic.topic_id, number)
                found = group.offsets.get(part)
                told.partitions.add(
                    partition=number,
                    offset=-1 if found is None else found.offset,
                    leader_epoch=-1 if found is None else found.leader_epoch,
                    metadata="" if found is None else found.metadata,
                    partitions_at_first_commit=group.first_commits.get(part, 0),
                )
        return response


def sticky(group: FakeGroup, parts: list[Part]) -> dict[str, set[Part]]:
    """Give each member about as many, and let each keep what it has as far as that allows."""
    members = sorted(group.members)
    if not members:
        return {}
    target: dict[str, set[Part]] = {}
    free = set(parts)
    for index, member_id in enumerate(members):
        share = len(parts) // len(members) + (index < len(parts) % len(members))
        kept = sorted(group.target.get(member_id, set()) & free)[:share]
        target[member_id] = set(kept)
        free -= target[member_id]
    for index, member_id in enumerate(members):
        share = len(parts) // len(members) + (index < len(parts) % len(members))
        more = sorted(free)[: share - len(target[member_id])]
        target[member_id].update(more)
        free -= set(more)
    return target
