"""Members of groups by the consumer protocol (KIP-848): those with a stream, and those that poll.

Both give the same messages to the same machine. What differs is how a member is told its state: on
its stream, whenever it changes; or as the answer to its heartbeat.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from quorate.errors import QuorateError, StoppingError
from quorate.net.principal import Principal
from quorate_broker.groups.coordinator import Coordinator
from quorate_broker.groups.machine.shard import ShardMachine
from quorate_broker.groups.machine.values import Heartbeat, MemberState, Step
from quorate_broker.groups.member_stream import MemberStream
from quorate_broker.groups.shard import Shard
from quorate_broker.operations.groups import READ, check_group
from quorate_quorum.node.authorizer import DESCRIBE_TOPIC, Authorizer, Caller


class GroupMembers:
    """The calls of members."""

    def __init__(self, coordinator: Coordinator, authorizer: Authorizer) -> None:
        self._coordinator = coordinator
        self._authorizer = authorizer

    def stream(self, principal: Principal) -> GroupStream:
        """Return the stream of one member."""
        return GroupStream(self._coordinator, Caller(principal, self._authorizer))

    async def heartbeat(self, principal: Principal, heartbeat: Heartbeat) -> MemberState:
        """Take the heartbeat of a member that polls, and return its state.

        Raises GroupAuthorizationFailedError, TopicAuthorizationFailedError, the errors of
        Shard.call, and those of ShardMachine.heartbeat.
        """
        told = checked(Caller(principal, self._authorizer), heartbeat)
        shard = self._coordinator.shard_of(heartbeat.group_id)
        return await shard.call(partial(_heartbeat, told))


class GroupStream:
    """One Membership stream: a member's messages go in, and what it is told comes out.

    The member's rights are checked at each message.
    """

    def __init__(self, coordinator: Coordinator, caller: Caller) -> None:
        self._coordinator = coordinator
        self._caller = caller
        self._shard: Shard | None = None
        self._states = MemberStream()

    @property
    def is_over(self) -> bool:
        """Whether no further message is taken."""
        return self._states.is_over

    async def heartbeat(self, heartbeat: Heartbeat) -> None:
        """Take the member's next message. Return when its answer is there to be taken.

        The first message says which member of which group it is. An error is told on the stream.
        """
        try:
            told = checked(self._caller, heartbeat)
            if self._shard is None:
                shard = self._coordinator.shard_of(heartbeat.group_id)
                self._states.belong_to(heartbeat.group_id, heartbeat.member_id)
                shard.open(self._states)
                self._shard = shard
            await self._shard.heartbeat(self._states, told)
        except QuorateError as error:
            self._states.tell(error)
        await self._states.room()

    async def next(self) -> MemberState | QuorateError | None:
        """Wait for what the member is told next. None: the stream is over."""
        return await self._states.next()

    def refuse(self, error: QuorateError) -> None:
        """End the stream with an error, after what waits: a message of it is impossible."""
        self._states.tell(error)

    def stop(self) -> None:
        """Send the member away, because this broker stops."""
        self._states.tell(StoppingError("this broker is stopping: look for the next coordinator"))

    def done(self) -> None:
        """End the stream after what waits: the member sends nothing more."""
        self._states.end()

    def close(self) -> None:
        """Note that the stream is closed. Unless the member left, the machine waits for another."""
        if self._shard is not None:
            self._shard.close(self._states)
        self._states.end()


def checked(caller: Caller, heartbeat: Heartbeat) -> Heartbeat:
    """Return a heartbeat with its sender, who may be a member, and see the topics that it names."""
    check_group(caller, READ, heartbeat.group_id)
    for topic in sorted(heartbeat.topics or ()):
        caller.check(DESCRIBE_TOPIC, topic)
    return replace(heartbeat, principal=caller.principal)


def _heartbeat(
    heartbeat: Heartbeat, machine: ShardMachine, now_ms: int, wall_ms: int
) -> Step[MemberState]:
    return machine.heartbeat(heartbeat, now_ms, wall_ms)
