"""Members of groups by Kafka's classic protocol: JoinGroup, SyncGroup, Heartbeat and LeaveGroup."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import UUID

from quorate.net.principal import Principal
from quorate_broker.groups.coordinator import Coordinator
from quorate_broker.groups.machine.classic.values import (
    Joined,
    JoinGroup,
    LeaveGroup,
    Left,
    MemberIdRequired,
    MemberRequest,
    Synced,
    SyncGroup,
)
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.values import Parked, Step
from quorate_broker.groups.shard import Shard
from quorate_broker.operations.groups import READ, check_group
from quorate_quorum.node.authorizer import Authorizer, Caller

#: So much of a client's name stands in the id of its member.
NAME_CHARS: Final = 200


class ClassicGroups:
    """The calls of classic members. Each requires the right to read by the group.

    All raise GroupAuthorizationFailedError, the errors of Shard.call, and those that the method of
    ShardMachine with the same purpose names.
    """

    def __init__(
        self, coordinator: Coordinator, authorizer: Authorizer, new_id: Callable[[], bytes]
    ) -> None:
        """`new_id` returns 16 random bytes."""
        self._coordinator = coordinator
        self._authorizer = authorizer
        self._new_id = new_id

    def new_member_id(self, name: str) -> str:
        """Return an id for a member that has none: its client id or instance id, and a UUID."""
        return f"{name[:NAME_CHARS]}-{UUID(bytes=self._new_id(), version=4)}"

    async def join(self, principal: Principal, request: JoinGroup) -> Joined | MemberIdRequired:
        """Wait until the round of joins has ended, and return the generation.

        This takes as long as the slowest member's rebalance timeout. A caller that has gone should
        cancel it; the member stays until its session ends.
        """
        return await self._shard(principal, request.group_id).call_later(partial(_join, request))

    async def sync(self, principal: Principal, request: SyncGroup) -> Synced:
        """Wait until the leader has assigned, and return the member's assignment."""
        return await self._shard(principal, request.group_id).call_later(partial(_sync, request))

    async def heartbeat(self, principal: Principal, request: MemberRequest) -> None:
        """Renew the member's session. Raises RebalanceInProgressError if it must join again."""
        await self._shard(principal, request.group_id).call(partial(_heartbeat, request))

    async def leave(self, principal: Principal, request: LeaveGroup) -> Left:
        """Take members out of the group. Return the error of each, or None."""
        shard = self._shard(principal, request.group_id)
        return await shard.call(partial(_leave, request), writes=True)

    def _shard(self, principal: Principal, group_id: str) -> Shard:
        check_group(Caller(principal, self._authorizer), READ, group_id)
        return self._coordinator.shard_of(group_id)


def _join(
    request: JoinGroup, machine: ShardMachine, ticket: int, now_ms: int, wall_ms: int
) -> Step[Joined | MemberIdRequired | Parked]:
    return machine.join_group(request, ticket, now_ms, wall_ms)


def _sync(
    request: SyncGroup, machine: ShardMachine, ticket: int, now_ms: int, wall_ms: int
) -> Step[Synced | Parked]:
    return machine.sync_group(request, ticket, now_ms, wall_ms)


def _heartbeat(
    request: MemberRequest, machine: ShardMachine, now_ms: int, wall_ms: int
) -> Step[None]:
    return machine.classic_heartbeat(request, now_ms, wall_ms)


def _leave(request: LeaveGroup, machine: ShardMachine, now_ms: int, wall_ms: int) -> Step[Left]:
    return machine.leave_group(request, now_ms, wall_ms)
