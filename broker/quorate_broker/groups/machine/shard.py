"""All consumer groups of one partition of __consumer_offsets: the coordinator's decisions.

The driver makes a ShardMachine when it becomes the partition's leader, replays the log into it,
calls `loaded`, and then passes on requests, ticks and news. Every call returns a Step (see there
for what the driver owes to it). Calls are serialized by the driver. If an append fails or the
leadership ends, the driver drops the machine.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeVar

from quorate.errors import NonEmptyGroupError, QuorateError
from quorate_broker.groups.machine import offsets
from quorate_broker.groups.machine.classic.calls import ClassicCalls
from quorate_broker.groups.machine.classic.values import (
    DescribedClassicGroup,
)
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.consumer_protocol import ConsumerProtocol
from quorate_broker.groups.machine.door import check_group_id, check_heartbeat
from quorate_broker.groups.machine.registry import MembersProtocol, unknown_member
from quorate_broker.groups.machine.subscriptions import MayDescribe, View, all_may_describe
from quorate_broker.groups.machine.topics import TopicChanges, Topics
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    JOIN,
    CommitOffsets,
    Committed,
    DescribedGroup,
    FetchedOffset,
    FetchOffsets,
    Heartbeat,
    ListedGroup,
    MemberState,
    RemoveMembers,
    Step,
)

T = TypeVar("T")

#: The most groups that one tick looks at, and the most timers that it takes.
GROUPS_PER_TICK_MAX: Final = 200
TIMERS_PER_TICK_MAX: Final = 500
#: A tick looks at no further group after so many committed offsets.
OFFSETS_PER_TICK_MAX: Final = 20_000
#: A tick that comes later than this finds a process that stood still. The heartbeats of that time
#: still wait to be read, so no session may end by it.
LATE_MS: Final = 2_000


class ShardMachine(ClassicCalls):
    """The groups of one partition of __consumer_offsets, with what is decided but not committed.

    Times (`now_ms`) are of one clock that never goes back; `wall_ms` is the time since 1970, which
    is stored with committed offsets and judges their expiry.
    """

    def __init__(
        self, config: GroupsConfig, topics: Topics, may_describe: MayDescribe = all_may_describe
    ) -> None:
        """Make an empty machine.

        `topics` must be the image by which this broker leads the partition, or a newer one: the
        offsets of a topic that is not in it are removed, because the topic is deleted.
        """
        super().__init__(config, topics, may_describe)
        #: Groups to look at: whether their topics are as they were, which offsets must go.
        self._to_look_at: dict[str, None] = {}
        self._next_expiry_ms: int | None = None
        self._forgiven_ms = 0

    # Loading.

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Apply one committed record. Records of unknown types are skipped.

        Only "the last record of a key wins" is assumed of the order of the log. Raises
        CorruptRecordError, or UnsupportedError for a value of a newer version.
        """
        self._groups.replay(key, value)

    def loaded(self, now_ms: int, wall_ms: int) -> Step[None]:
        """All records are replayed. The sessions of a group start when it is first needed."""
        self._to_look_at = dict.fromkeys(self._groups.ids())
        self._next_expiry_ms = now_ms + self._config.offsets_check_interval_ms
        return self._turn(now_ms, wall_ms).step(None)

    # Membership.

    def heartbeat(self, heartbeat: Heartbeat, now_ms: int, wall_ms: int) -> Step[MemberState]:
        """Take a member's message.

        Errors: UnknownMemberIdError, FencedMemberEpochError (join anew), UnreleasedInstanceIdError,
        GroupMaxSizeError, OverloadedError (too many groups or patterns), InvalidGroupIdError,
        InvalidPatternError, UnsupportedAssignorError, InvalidAssignmentError (the proposal is
        refused, the member stays and its stream can go on), InvalidRequestError.
        """

        def decide(turn: Turn) -> MemberState | QuorateError:
            check_heartbeat(heartbeat, self._config)
            if heartbeat.pattern:
                view = View(heartbeat.pattern, heartbeat.principal)
                self._shared.subscriptions.check_room(view)
            if heartbeat.member_epoch == JOIN:
                protocol: MembersProtocol | None = self._groups.consumer(heartbeat, turn)
            else:
                protocol = self._groups.find(heartbeat.group_id, turn.now_ms)
            if not isinstance(protocol, ConsumerProtocol):
                # To a member, a group that is gone and a group that forgot it are the same.
                raise unknown_member(heartbeat.group_id, heartbeat.member_id)
            return protocol.heartbeat(heartbeat, turn)

        return self._decided_for(heartbeat.group_id, decide, now_ms, wall_ms)

    def stream_opened(self, group_id: str, member_id: str, now_ms: int) -> None:
        """The member has a stream. Call it before the stream's first heartbeat."""
        self._shared.streams.add((group_id, member_id))
        protocol = self._groups.find(group_id, now_ms)
        session = protocol and protocol.group.sessions.get(member_id)
        if session:
            session.begin_stream()

    def stream_broken(self, group_id: str, member_id: str, now_ms: int) -> None:
        """The member's newest stream ended. An older stream's end is not told."""
        self._shared.streams.discard((group_id, member_id))
        protocol = self._groups.find(group_id, now_ms)
        session = protocol and protocol.group.sessions.get(member_id)
        if protocol and session:
            session.end_stream(now_ms)
            protocol.group.watch(member_id)

    # Offsets.

    def commit_offsets(self, request: CommitOffsets, now_ms: int, wall_ms: int) -> Step[Committed]:
        """Commit offsets, all that are not refused one by one.

        Errors of the request: InvalidGroupIdError, UnknownMemberIdError, FencedMemberEpochError,
        NonEmptyGroupError, OverloadedError. Errors of a partition: UnknownTopicError,
        InvalidPartitionsError, OffsetMetadataTooLargeError, GroupSubscribedToTopicError (of offsets
        that are forgotten), StaleMemberEpochError (repeat it with the newer epoch),
        FencedMemberEpochError (it is not the member's partition).
        """

        def decide(turn: Turn) -> Committed:
            check_group_id(request.group_id, self._config)
            if not request.member_id:
                self._groups.make(request.group_id)
            protocol = self._groups.find(request.group_id, turn.now_ms)
            if protocol is None:
                raise unknown_member(request.group_id, request.member_id)
            return offsets.commit(protocol, request, turn)

        return self._decided_for(request.group_id, decide, now_ms, wall_ms)

    def committed_topics(self, group_id: str) -> Step[tuple[tuple[str, int], ...]]:
        """Return the topics for which a group has committed, and how many offsets each."""

        def decide(turn: Turn) -> tuple[tuple[str, int], ...]:
            check_group_id(group_id, self._config)
            protocol = self._groups.find(group_id, turn.now_ms)
            offsets_of = {} if protocol is None else protocol.group.state.offsets
            return tuple((name, len(offsets_of[name])) for name in sorted(offsets_of))

        return self._decided(decide, self._now_ms, 0)

    def fetch_offsets(self, request: FetchOffsets) -> Step[tuple[FetchedOffset, ...]]:
        """Return committed offsets, in the order of the request.

        A group that does not exist has committed nothing. Errors: InvalidGroupIdError,
        UnknownMemberIdError, StaleMemberEpochError, FencedMemberEpochError.
        """

        def decide(turn: Turn) -> tuple[FetchedOffset, ...]:
            check_group_id(request.group_id, self._config)
            protocol = self._groups.find(request.group_id, turn.now_ms)
            if protocol is not None:
                return offsets.fetch(protocol, request)
            if request.member_id:
                raise unknown_member(request.group_id, request.member_id)
            topics = self._shared.subscriptions.topics
            return tuple(offsets.fetched(None, topics, one) for one in request.partitions or ())

        return self._decided(decide, self._now_ms, 0)

    # Administration.

    def list_groups(self) -> Step[tuple[ListedGroup, ...]]:
        """Return all groups, by id."""
        return Step(tuple(self._groups.listed()))

    def describe_group(self, group_id: str) -> Step[DescribedGroup | DescribedClassicGroup]:
        """Return a group. Errors: InvalidGroupIdError, GroupNotFoundError."""

        def decide(turn: Turn) -> DescribedGroup | DescribedClassicGroup:
            return self._groups.existing(group_id, turn.now_ms).described()

        return self._decided(decide, self._now_ms, 0)

    def delete_group(self, group_id: str, now_ms: int, wall_ms: int) -> Step[bool]:
        """Delete a group and its offsets; return whether it is gone. If not, ticks go on with it.

        Meanwhile nobody joins it, and nobody commits. Errors: InvalidGroupIdError,
        GroupNotFoundError, NonEmptyGroupError.
        """

        def decide(turn: Turn) -> bool:
            protocol = self._groups.existing(group_id, turn.now_ms)
            if protocol.member_count:
                raise NonEmptyGroupError(
                    f"group {group_id!r} has {protocol.member_count} members; only a group without "
                    "members is deleted"
                )
            return self._delete(protocol, turn)

        return self._decided(decide, now_ms, wall_ms)

    def _delete(self, protocol: MembersProtocol, turn: Turn) -> bool:
        """Delete a part of a group; return whether it is gone."""
        group_id = protocol.group.id
        is_gone = protocol.group.delete(turn, self._config.deleted_offsets_max)
        if is_gone:
            self._groups.deleting.pop(group_id, None)
            self._groups.drop_if_blank(group_id)
        else:
            self._groups.deleting[group_id] = None
        return is_gone

    def _delete_some(self, turn: Turn) -> None:
        """Go on with a deletion that takes several steps."""
        group_id = next(iter(self._groups.deleting), None)
        if group_id is not None:
            protocol = self._groups.find(group_id, turn.now_ms)
            assert protocol is not None, "a group that is being deleted is there"
            self._delete(protocol, turn)

    def remove_members(
        self, request: RemoveMembers, now_ms: int, wall_ms: int
    ) -> Step[tuple[str, ...]]:
        """Remove members, and return their ids. Those that are not there are no error.

        Errors: InvalidGroupIdError, GroupNotFoundError.
        """

        def decide(turn: Turn) -> tuple[str, ...]:
            return self._groups.existing(request.group_id, turn.now_ms).remove_by_request(
                request, turn
            )

        return self._decided_for(request.group_id, decide, now_ms, wall_ms)

    # Time and news.

    def topics_changed(
        self, topics: Topics, changes: TopicChanges, now_ms: int, wall_ms: int
    ) -> Step[None]:
        """Take a newer image of the topics."""
        turn = self._turn(now_ms, wall_ms)
        before = self._shared.subscriptions.topics
        affected = self._shared.subscriptions.changed(topics, changes.names)
        for group_id in affected:
            self._to_look_at[group_id] = None
        if any(is_deleted(name, before, topics) for name in changes.names):
            self._to_look_at.update(dict.fromkeys(self._groups.ids()))
        self._look_at_some(turn)
        return turn.step(None)

    def deadline(self) -> int | None:
        """Return when `tick` must be called (`now_ms`); None: not at all. May be in the past."""
        if self._to_look_at or self._groups.deleting or self._shared.subscriptions.has_unmatched:
            return self._now_ms
        times = [self._shared.timers.next_ms(), self._next_expiry_ms]
        return min((one for one in times if one is not None), default=None)

    def tick(self, now_ms: int, wall_ms: int) -> Step[None]:
        """Do what is due, in bounded parts: `deadline` is past while parts remain."""
        self._forgive_standstill(now_ms)
        turn = self._turn(now_ms, wall_ms)
        for group_id in self._shared.subscriptions.match_some():
            self._to_look_at[group_id] = None
        if self._next_expiry_ms is not None and self._next_expiry_ms <= now_ms:
            self._next_expiry_ms = now_ms + self._config.offsets_check_interval_ms
            self._to_look_at.update(dict.fromkeys(self._groups.ids()))
            self._shared.subscriptions.doubt_rights()
        self._take_timers(turn)
        self._delete_some(turn)
        self._look_at_some(turn)
        return turn.step(None)

    def _take_timers(self, turn: Turn) -> None:
        touched: dict[str, MembersProtocol] = {}
        for _ in range(TIMERS_PER_TICK_MAX):
            name = self._shared.timers.due(turn.now_ms)
            if name is None:
                break
            group_id, member_id = name
            protocol = self._groups.find(group_id, turn.now_ms)
            if protocol is None:
                continue
            if member_id is not None:
                protocol.remove_overdue(member_id, turn)
            touched[group_id] = protocol
        for group_id, protocol in touched.items():
            protocol.settle(turn)
            self._groups.tidy(group_id, turn)

    def _look_at_some(self, turn: Turn) -> None:
        """Look at some groups: their topics, and offsets that must go."""
        offsets_left = OFFSETS_PER_TICK_MAX
        for group_id in [*islice(self._to_look_at, GROUPS_PER_TICK_MAX)]:
            protocol = self._groups.find(group_id, turn.now_ms)
            if protocol is None:
                del self._to_look_at[group_id]
                continue
            room = self._config.cleanup_records_max - len(turn.records)
            if room <= 0 or offsets_left <= 0:
                return
            offsets_left -= sum(map(len, protocol.group.state.offsets.values()))
            if not offsets.clean(protocol, turn, room):
                return
            del self._to_look_at[group_id]
            protocol.topics_changed(turn)
            self._drop_if_forgotten(protocol, turn)

    def _drop_if_forgotten(self, protocol: MembersProtocol, turn: Turn) -> None:
        """Delete a group that has had neither members nor offsets for a while."""
        before_ms = turn.wall_ms - self._config.offsets_check_interval_ms
        empty_since_ms = protocol.empty_since_ms
        if empty_since_ms is None or empty_since_ms > before_ms or protocol.group.state.offsets:
            return
        protocol.group.delete(turn, 0)
        self._groups.drop_if_blank(protocol.group.id)

    def _forgive_standstill(self, now_ms: int) -> None:
        """Put all sessions off by the time in which this process stood still."""
        due_ms = self._shared.timers.next_ms()
        if due_ms is None:
            return
        # Timers of before may still be there after the tick that forgave that time.
        late_ms = now_ms - max(due_ms, self._forgiven_ms)
        if late_ms < LATE_MS:
            return
        self._forgiven_ms = now_ms
        for protocol in self._groups.opened():
            protocol.postpone(late_ms)


def is_deleted(name: str, before: Topics, after: Topics) -> bool:
    """Return whether the topic that had this name is gone. A new one may have its name."""
    old, new = before.named(name), after.named(name)
    return old is not None and (new is None or new.id != old.id)
