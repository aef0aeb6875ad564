"""The groups of a shard, by id."""

from __future__ import annotations

from collections.abc import Iterable

from quorate.errors import GroupNotFoundError, OverloadedError, UnknownMemberIdError
from quorate_broker.groups.machine.consumer_protocol import ConsumerProtocol
from quorate_broker.groups.machine.door import check_group_id
from quorate_broker.groups.machine.group import Group, Shared
from quorate_broker.groups.machine.state import GroupState
from quorate_broker.groups.machine.values import CommitOffsets, FetchOffsets, Heartbeat
from quorate_broker.groups.records.keys import decode_key
from quorate_broker.groups.records.values import decode_value


class Groups:
    """What the log says of each group, and for those that were needed since then, their sessions.

    A group of the log costs nothing but its records until it is needed, so that a coordinator with
    many groups is ready soon.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._states: dict[str, GroupState] = {}
        self._protocols: dict[str, ConsumerProtocol] = {}

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

    def states(self) -> list[GroupState]:
        """Return what the log says of each group, by id."""
        return [self._states[group_id] for group_id in sorted(self._states)]

    def opened(self) -> Iterable[ConsumerProtocol]:
        """Return the groups that were needed."""
        return self._protocols.values()

    def find(self, group_id: str, now_ms: int) -> ConsumerProtocol | None:
        """Return a group; None if there is no such group. Its sessions begin at the first call."""
        protocol = self._protocols.get(group_id)
        state = self._states.get(group_id)
        if protocol is None and state is not None:
            group = Group(state, self._shared)
            protocol = self._protocols[group_id] = ConsumerProtocol(group)
            group.open(now_ms)
        return protocol

    def existing(self, group_id: str, now_ms: int) -> ConsumerProtocol:
        """Return a group. Errors: InvalidGroupIdError, GroupNotFoundError."""
        check_group_id(group_id, self._shared.config)
        protocol = self.find(group_id, now_ms)
        if protocol is None:
            raise GroupNotFoundError(f"there is no group {group_id!r}")
        return protocol

    def make(self, group_id: str) -> None:
        """Make a group, unless it is there. It stays only if something is written for it."""
        if group_id in self._states:
            return
        if len(self._states) >= self._shared.config.groups_max:
            raise OverloadedError(
                f"this coordinator has {len(self._states)} groups, the most that it takes; delete "
                "groups that are not used"
            )
        self._states[group_id] = GroupState(group_id)

    def drop_if_blank(self, group_id: str) -> None:
        """Drop a group of which no record is left."""
        state = self._states.get(group_id)
        if state is not None and state.is_blank:
            del self._states[group_id]
            self._protocols.pop(group_id, None)


def unknown_member(request: Heartbeat | CommitOffsets | FetchOffsets) -> UnknownMemberIdError:
    """Return the error for a member of a group that does not exist."""
    return UnknownMemberIdError(
        f"there is no group {request.group_id!r}, so it has no member {request.member_id!r}; join "
        "with the epoch 0"
    )
