"""The groups of a shard, by id."""

from __future__ import annotations

from collections.abc import Iterable

from quorate.errors import (
    CoordinatorLoadingError,
    GroupNotFoundError,
    OverloadedError,
    UnknownMemberIdError,
)
from quorate_broker.groups.machine.administration import listed
from quorate_broker.groups.machine.classic.protocol import ClassicProtocol
from quorate_broker.groups.machine.consumer_protocol import ConsumerProtocol, too_wide
from quorate_broker.groups.machine.conversion import to_classic, to_consumer
from quorate_broker.groups.machine.door import check_group_id
from quorate_broker.groups.machine.group import Group, Shared
from quorate_broker.groups.machine.mixed import MixedMembers
from quorate_broker.groups.machine.state import GroupState
from quorate_broker.groups.machine.subscriptions import View
from quorate_broker.groups.machine.turn import Turn
from quorate_broker.groups.machine.values import Heartbeat, ListedGroup
from quorate_broker.groups.records.keys import decode_key
from quorate_broker.groups.records.values import decode_value

#: How the members of a group come to what they read: each group has one of these.
MembersProtocol = ClassicProtocol | ConsumerProtocol
#: Who takes the requests of classic members.
ClassicMembership = ClassicProtocol | MixedMembers


class Groups:
    """What the log says of each group, and for those that were needed since then, their sessions.

    A group of the log costs nothing but its records until it is needed, so that a coordinator with
    many groups is ready soon.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._states: dict[str, GroupState] = {}
        self._protocols: dict[str, MembersProtocol] = {}
        #: Groups whose deletion takes more than one step. They take no members and no commits.
        self.deleting: dict[str, None] = {}

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Apply one committed record."""
        decoded = decode_key(key)
        if decoded is None:
            return
        state = self._states.get(decoded.group_id)
        if state is None:
            if value is None:
                return
            state = self._states[decoded.group_id] = GroupState(decoded.group_id)
        state.apply(decoded, None if value is None else decode_value(decoded, value))
        if value is None:
            self.drop_if_blank(decoded.group_id)

    def ids(self) -> Iterable[str]:
        """Return the ids of all groups."""
        return self._states.keys()

    def listed(self) -> list[ListedGroup]:
        """Return all groups, by id."""
        return [
            self._protocols[group_id].listed()
            if group_id in self._protocols
            else listed(self._states[group_id])
            for group_id in sorted(self._states)
        ]

    def opened(self) -> Iterable[MembersProtocol]:
        """Return the groups that were needed."""
        return self._protocols.values()

    def find(self, group_id: str, now_ms: int) -> MembersProtocol | None:
        """Return a group; None if there is no such group. Its sessions begin at the first call."""
        protocol = self._protocols.get(group_id)
        state = self._states.get(group_id)
        if protocol is None and state is not None:
            group = Group(state, self._shared)
            if state.classic is not None:
                protocol = ClassicProtocol(group, state.classic, now_ms)
            else:
                protocol = ConsumerProtocol(group)
                group.open(now_ms)
            self._protocols[group_id] = protocol
        return protocol

    def consumer(self, heartbeat: Heartbeat, turn: Turn) -> ConsumerProtocol:
        """Return the group that a member of the consumer protocol joins; make it if need be.

        A classic group is converted. Raises InconsistentGroupProtocolError, GroupMaxSizeError or
        InvalidPatternError if that cannot be: nothing is changed then; OverloadedError.
        """
        group_id = heartbeat.group_id
        protocol = self._made(group_id, turn)
        if isinstance(protocol, ClassicProtocol):
            if protocol.member_count:
                protocol.check_newcomer(heartbeat.member_id, heartbeat.instance_id)
                view = View(heartbeat.pattern or "", heartbeat.principal)
                if self._shared.subscriptions.is_too_wide(view):
                    raise too_wide(view.pattern, protocol.group)
                protocol = to_consumer(protocol, turn)
            else:
                protocol = ConsumerProtocol(protocol.group)
            self._protocols[group_id] = protocol
        return protocol

    def classic(self, group_id: str, turn: Turn) -> ClassicMembership:
        """Return the group that a member of the classic protocol joins; make it if need be.

        Raises OverloadedError.
        """
        protocol = self._made(group_id, turn)
        if isinstance(protocol, ConsumerProtocol):
            if protocol.member_count:
                return MixedMembers(protocol)
            protocol = ClassicProtocol(protocol.group, None, turn.now_ms)
            self._protocols[group_id] = protocol
        return protocol

    def _made(self, group_id: str, turn: Turn) -> MembersProtocol:
        self.make(group_id)
        protocol = self.find(group_id, turn.now_ms)
        assert protocol is not None, "made just now"
        return protocol

    def existing(self, group_id: str, now_ms: int) -> MembersProtocol:
        """Return a group. Errors: InvalidGroupIdError, GroupNotFoundError."""
        check_group_id(group_id, self._shared.config)
        protocol = self.find(group_id, now_ms)
        if protocol is None:
            raise GroupNotFoundError(f"there is no group {group_id!r}")
        return protocol

    def make(self, group_id: str) -> None:
        """Make a group, unless it is there. It stays only if something is written for it.

        Raises OverloadedError if there are too many groups, CoordinatorLoadingError while the group
        of this id is deleted.
        """
        if group_id in self.deleting:
            raise CoordinatorLoadingError(f"group {group_id!r} is being deleted: ask again")
        if group_id in self._states:
            return
        if len(self._states) >= self._shared.config.groups_max:
            raise OverloadedError(
                f"this coordinator has {len(self._states)} groups, the most that it takes; delete "
                "groups that are not used"
            )
        self._states[group_id] = GroupState(group_id)

    def tidy(self, group_id: str, turn: Turn) -> None:
        """See after a decision that the log tells of one protocol, and drop a blank group.

        A group that has classic members alone is a classic one.

        An empty group that gets members of the other protocol keeps its old records until it has
        new ones: they tell since when the group was empty, and its offsets expire by that time. If
        no member joined after all, the group keeps its old protocol.
        """
        protocol, state = self._protocols.get(group_id), self._states.get(group_id)
        if isinstance(protocol, ConsumerProtocol):
            protocol = to_classic(protocol, turn) or protocol
            self._protocols[group_id] = protocol
        if isinstance(protocol, ClassicProtocol):
            if protocol.group.state.classic is not None:
                protocol.group.forget_consumer_protocol(turn)
            elif not protocol.member_count:
                self._protocols[group_id] = ConsumerProtocol(protocol.group)
        elif protocol is not None and state is not None and state.classic is not None:
            if protocol.member_count:
                protocol.group.forget_classic_protocol(turn)
            else:
                classic = ClassicProtocol(protocol.group, state.classic, turn.now_ms)
                self._protocols[group_id] = classic
        self.drop_if_blank(group_id)

    def drop_if_blank(self, group_id: str) -> None:
        """Drop a group of which no record is left and that has no members."""
        state, protocol = self._states.get(group_id), self._protocols.get(group_id)
        has_members = protocol is not None and protocol.member_count > 0
        if state is not None and state.is_blank and not has_members:
            del self._states[group_id]
            self._protocols.pop(group_id, None)


def unknown_member(group_id: str, member_id: str) -> UnknownMemberIdError:
    """Return the error for a member of a group that does not exist."""
    return UnknownMemberIdError(
        f"there is no group {group_id!r}, so it has no member {member_id!r}; join with the epoch 0"
    )
