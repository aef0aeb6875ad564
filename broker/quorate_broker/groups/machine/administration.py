"""What administrators ask of groups: lists, descriptions, members to remove."""

from __future__ import annotations

from quorate_broker.groups.machine.group import Group, subscription_of
from quorate_broker.groups.machine.state import GroupState
from quorate_broker.groups.machine.target import chosen_assignor
from quorate_broker.groups.machine.values import (
    DescribedGroup,
    DescribedMember,
    ListedGroup,
    RemoveMembers,
    Subscription,
)


def protocol_of(state: GroupState) -> str:
    """Return "consumer" for a group that has or had members of KIP-848; else ""."""
    return "" if state.metadata is None else "consumer"


def listed(state: GroupState) -> ListedGroup:
    """Return a group as it stands in a list, by what the log says of it."""
    if state.classic is not None:
        classic = state.classic
        phase = "Stable" if classic.members else "Empty"
        count = len(classic.members)
        return ListedGroup(state.group_id, phase, "classic", count, classic.protocol_type)
    return ListedGroup(state.group_id, state.phase, protocol_of(state), len(state.members))


def described(group: Group) -> DescribedGroup:
    """Return all about a group, its members by id."""
    state = group.state
    return DescribedGroup(
        state.group_id,
        state.phase,
        protocol_of(state),
        state.epoch,
        state.target.epoch,
        chosen_assignor(group),
        tuple(_described(state, member_id) for member_id in sorted(state.members)),
    )


def _described(state: GroupState, member_id: str) -> DescribedMember:
    value, current = state.members[member_id], state.current_of(member_id)
    return DescribedMember(
        member_id,
        value.instance_id or "",
        value.client_id,
        value.client_host,
        value.rack or "",
        current.epoch,
        Subscription(*subscription_of(value)),
        frozenset((*current.assigned, *current.revoking)),
        state.target_of(member_id),
        value.classic is not None,
    )


def members_named(state: GroupState, request: RemoveMembers) -> list[str]:
    """Return the members that a request names, as far as they are there."""
    if request.all:
        return [*state.members]
    by_instance = (state.instances.get(name) for name in request.instance_ids)
    named = dict.fromkeys([*request.member_ids, *(one for one in by_instance if one is not None)])
    return [member_id for member_id in named if member_id in state.members]
