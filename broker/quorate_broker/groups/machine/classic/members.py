"""The members of a classic group: who they are, what they may, how they are described."""

from __future__ import annotations

from collections.abc import Sequence

from quorate.errors import (
    CorruptRecordError,
    FencedInstanceIdError,
    GroupMaxSizeError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    NonEmptyGroupError,
    QuorateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from quorate_broker.groups.machine.classic.embedded import (
    CONSUMER,
    READ_BYTES_MAX,
    read_subscription,
)
from quorate_broker.groups.machine.classic.member import FIXED_BYTES, Member, size_of
from quorate_broker.groups.machine.classic.rebalance import Phase, Rebalance, check_room
from quorate_broker.groups.machine.classic.roster import Roster
from quorate_broker.groups.machine.classic.values import (
    NO_GENERATION,
    DescribedClassicGroup,
    DescribedClassicMember,
    JoinGroup,
    MemberRequest,
)
from quorate_broker.groups.machine.group import Group
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import (
    CommitOffsets,
    FetchOffsets,
    ListedGroup,
)
from quorate_broker.groups.records.classic import ClassicMemberValue, ClassicValue
from quorate_broker.groups.records.values import Partition


class ClassicMembers:
    """Who is a member, in which generation, and who commits (see offsets.Rules)."""

    def __init__(self, group: Group, value: ClassicValue | None, now_ms: int) -> None:
        """`value`: the record of the group, if there is one. Its sessions begin now."""
        self.group = group
        self._roster = Roster(group.shared.classic_bytes)
        #: Members that got an id and have not come with it yet (KIP-394), and until when they may.
        self._pending: dict[str, int] = {}
        self._round = Rebalance(group, self._roster, self._pending)
        if value is not None:
            self._restore(value, now_ms)

    def _restore(self, value: ClassicValue, now_ms: int) -> None:
        for one in value.members:
            member = _restored(one, value.protocol or "", now_ms)
            self._roster.add(member)
            self._watch(member)
        self._round.restore(value)

    @property
    def member_count(self) -> int:
        """How many members the group has; one that has only an id counts as well."""
        return len(self._roster) + len(self._pending)

    @property
    def empty_since_ms(self) -> int | None:
        """When the last member went (ms since 1970). None: the group is not empty."""
        if self.member_count or self._round.phase is not Phase.EMPTY:
            return None
        value = self.group.state.classic
        return 0 if value is None else max(value.timestamp_ms, 0)

    @property
    def members(self) -> list[Member]:
        """The members, in the order in which they came."""
        return [*self._roster]

    @property
    def size(self) -> int:
        """Bytes of all members, as in the record of the group."""
        return self._roster.size

    @property
    def generation(self) -> int:
        """The number of the last generation; 0: there was none."""
        return self._round.generation

    @property
    def protocol_type(self) -> str:
        """What kind of programs the members are."""
        return self._round.protocol_type

    def begin_with(
        self, members: Sequence[Member], generation: int, protocol_type: str, turn: Turn
    ) -> None:
        """Begin with members that come from another protocol. They join the next generation."""
        for member in members:
            self._roster.add(member)
            self._watch(member)
        self._round.follow(generation, protocol_type, turn)

    def dissolve(self, turn: Turn) -> list[Member]:
        """Give the members away to another protocol. Those that wait are told to join again."""
        members = self.members
        for member in members:
            self._round.answer_join(member, self._round.in_progress(), turn)
            self._round.answer_sync(member, self._round.in_progress(), turn)
            self._roster.remove(member.member_id)
        for name in (None, *self._pending, *(one.member_id for one in members)):
            self.group.shared.timers.forget((self.group.id, name))
        self._pending.clear()
        return members

    def postpone(self, by_ms: int) -> None:
        """The coordinator stood still for so long; what members sent meanwhile waits unread."""
        for member in self._roster:
            member.expires_ms += by_ms
        for member_id in self._pending:
            self._pending[member_id] += by_ms
        self._round.postpone(by_ms)

    def topics_changed(self, turn: Turn) -> None:
        """Do nothing: classic members watch their topics themselves."""

    # Checks.

    def _check_protocols(self, request: JoinGroup) -> None:
        """Raise InconsistentGroupProtocolError if the group cannot agree with this member."""
        names = [name for name, _ in request.protocols]
        if not request.protocol_type or not names:
            raise InconsistentGroupProtocolError(
                f"a member of group {self.group.id!r} names no protocol type or no protocol"
            )
        member = self._roster.find(request.member_id)
        if member is None and request.instance_id is not None:
            member = self._roster.find(self._roster.instances.get(request.instance_id, ""))
        if not len(self._roster):
            return
        if request.protocol_type != self._round.protocol_type:
            raise InconsistentGroupProtocolError(
                f"group {self.group.id!r} is of type {self._round.protocol_type!r}; this member "
                f"is of type {request.protocol_type!r}"
            )
        if not self._roster.supports(names, without=member):
            raise InconsistentGroupProtocolError(
                f"no protocol of {names[:10]} is supported by all members of group "
                f"{self.group.id!r}; they have {sorted(self._roster.common())[:10]} in common"
            )

    def check_newcomer(self, member_id: str, instance_id: str | None) -> None:
        """Raise GroupMaxSizeError if a member of the consumer protocol is one too many.

        A member that has the id or the static name of another one takes its place.
        """
        if self._roster.find(member_id) is None and instance_id not in self._roster.instances:
            self._check_count()

    def _check_count(self) -> None:
        most = self.group.shared.config.members_max
        if self.member_count >= most:
            raise GroupMaxSizeError(
                f"group {self.group.id!r} has {self.member_count} members; group.max.size allows "
                f"{most}"
            )

    def _check_room(self, request: JoinGroup, old: Member | None = None) -> None:
        """Raise GroupMaxSizeError if a member is too many, or RecordTooLargeError."""
        if old is None and request.member_id not in self._pending:
            self._check_count()
        names = (
            request.member_id or request.new_member_id,
            request.instance_id or "",
            request.client_id,
            request.client_host,
        )
        size = FIXED_BYTES + size_of(names, request.protocols)
        check_room(self.group, self._roster, size - (0 if old is None else old.size))

    def _known(self, member_id: str, instance_id: str | None) -> Member:
        """Return a member. Raises FencedInstanceIdError if another one has its static name now."""
        if instance_id is not None:
            holder = self._roster.instances.get(instance_id)
            if holder is not None and holder != member_id:
                raise FencedInstanceIdError(
                    f"the group_instance_id {instance_id!r} of group {self.group.id!r} belongs to "
                    f"another member than {member_id!r}"
                )
        member = self._roster.find(member_id)
        if member is None or (instance_id is not None and member.instance_id != instance_id):
            raise self._unknown(repr(member_id))
        return member

    def _of_generation(self, request: MemberRequest) -> Member:
        """Return the member that asks. Raises IllegalGenerationError if it missed a round."""
        member = self._known(request.member_id, request.instance_id)
        if request.generation != self._round.generation:
            raise IllegalGenerationError(
                f"member {request.member_id!r} sent the generation {request.generation}; group "
                f"{self.group.id!r} is in generation {self._round.generation}"
            )
        return member

    def _unknown(self, who: str) -> UnknownMemberIdError:
        return UnknownMemberIdError(f"group {self.group.id!r} has no member {who}")

    # Offsets.

    def check_committer(self, request: CommitOffsets, turn: Turn) -> None:
        """Raise the error for a caller that may commit nothing at all."""
        if not request.member_id and request.member_epoch == NO_GENERATION:
            forgets = request.only_forgets and self.protocol_type == CONSUMER
            if self.member_count and not forgets:
                raise NonEmptyGroupError(
                    f"group {self.group.id!r} has {self.member_count} members; only they may "
                    "commit. Without a member id offsets are committed while it has none."
                )
            return
        asked = MemberRequest(
            request.group_id, request.member_id, request.member_epoch, request.instance_id
        )
        member = self._of_generation(asked)
        if self._round.phase is Phase.COMPLETING:
            raise RebalanceInProgressError(
                f"the leader of group {self.group.id!r} assigns partitions; commit after it"
            )
        self._heard(member, turn)

    def read_topics(self) -> frozenset[str] | None:
        """Return the names of the topics to which members subscribe; None: it is not known.

        Each step of a request asks, so all subscriptions together are read only up to the bound of
        one: those of one group may have megabytes.
        """
        subscriptions = {one.protocols[0][1] for one in self._roster}
        if sum(map(len, subscriptions)) > READ_BYTES_MAX:
            return None
        try:
            found = [read_subscription(one).topics for one in subscriptions]
        except CorruptRecordError:
            return None
        return frozenset().union(*found)

    def refusal(self, request: CommitOffsets, partition: Partition) -> QuorateError | None:
        """Return why a member may not commit for a partition: which are its own is not known."""

    def check_reader(self, request: FetchOffsets) -> None:
        """Do nothing: a classic member may read all offsets of its group."""

    # Sessions.

    def _heard(self, member: Member, turn: Turn) -> None:
        if not member.is_awaiting:
            member.renew(turn.now_ms)
            self._watch(member)

    def _watch(self, member: Member) -> None:
        self.group.shared.timers.at(member.expires_ms, (self.group.id, member.member_id))

    # Administration.

    def listed(self) -> ListedGroup:
        """Return the group as it stands in a list."""
        count, kind = len(self._roster), self._round.protocol_type
        return ListedGroup(self.group.id, self._round.phase.value, "classic", count, kind)

    def described(self) -> DescribedClassicGroup:
        """Return all about the group."""
        is_stable = self._round.phase is Phase.STABLE
        protocol = self._round.protocol or ""
        return DescribedClassicGroup(
            self.group.id,
            self._round.phase.value,
            self._round.generation,
            self._round.protocol_type,
            protocol if is_stable else "",
            tuple(
                DescribedClassicMember(
                    one.member_id,
                    one.instance_id,
                    one.client_id,
                    one.client_host,
                    one.metadata(protocol) if is_stable else b"",
                    one.assignment if is_stable else b"",
                )
                for one in self._roster
            ),
        )


def _restored(value: ClassicMemberValue, protocol: str, now_ms: int) -> Member:
    """Return a member of the log. Its session begins now, and so does its rebalance timeout."""
    rebalance_ms = value.rebalance_timeout_ms
    return Member(
        value.member_id,
        value.instance_id,
        value.client_id,
        value.client_host,
        rebalance_ms if rebalance_ms > 0 else value.session_timeout_ms,
        value.session_timeout_ms,
        ((protocol, value.subscription),),
        now_ms + value.session_timeout_ms,
        assignment=value.assignment,
    )
