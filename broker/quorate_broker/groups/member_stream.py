"""The open streams of members, as their coordinator sees them."""

from __future__ import annotations

from collections import deque

from quorate.aio.bell import Bell
from quorate.errors import (
    FencedMemberEpochError,
    InvalidAssignmentError,
    OverloadedError,
    QuorateError,
)
from quorate_broker.groups.machine.values import LEAVE, LEAVE_STATIC, MemberState, Push

#: The most states that wait for a client that does not read them. Then no heartbeat is read.
STATES_MAX = 16
#: The most states of all kinds that wait: pushes come although no heartbeat is read. One more ends
#: the stream.
WAITING_MAX = 64


class MemberStream:
    """What a member is to be told, in order. Its end comes after the last of it.

    The stream is over after an error, except a refused assignment, and after the member left.
    """

    def __init__(self) -> None:
        #: The member. Both are empty before the stream's first message.
        self.group_id = self.member_id = ""
        #: Whether nothing is told any more after what waits.
        self.is_over = False
        self._states: deque[MemberState | QuorateError] = deque()
        self._bell = Bell()

    def belong_to(self, group_id: str, member_id: str) -> None:
        """Note the member that the first message names."""
        self.group_id, self.member_id = group_id, member_id

    def tell(self, state: MemberState | QuorateError) -> None:
        """Put a state or an error into the row. After the stream's end it is dropped."""
        if self.is_over:
            return
        if len(self._states) >= WAITING_MAX:
            state = OverloadedError(
                f"{WAITING_MAX} states wait for this member, which does not read them"
            )
        self._states.append(state)
        if isinstance(state, QuorateError):
            self.is_over = not isinstance(state, InvalidAssignmentError)
        elif state.member_epoch in (LEAVE, LEAVE_STATIC):
            self.is_over = True
        self._bell.ring()

    def end(self) -> None:
        """Tell what waits, and then nothing more."""
        self.is_over = True
        self._bell.ring()

    async def next(self) -> MemberState | QuorateError | None:
        """Wait for what comes next, and take it. None: the stream is over."""
        while not self._states:
            if self.is_over:
                return None
            await self._bell.next_ring()
        self._bell.ring()
        return self._states.popleft()

    async def room(self) -> None:
        """Wait until the client has read so much that another heartbeat may be answered."""
        while len(self._states) >= STATES_MAX and not self.is_over:
            await self._bell.next_ring()


class MemberStreams:
    """The open streams of a shard's members: the newest one of each."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], MemberStream] = {}

    def open(self, stream: MemberStream) -> None:
        """Take a stream in. An older one of the same member ends."""
        key = (stream.group_id, stream.member_id)
        older = self._streams.get(key)
        if older is not None:
            older.tell(FencedMemberEpochError("another stream of this member took its place"))
        self._streams[key] = stream

    def close(self, stream: MemberStream) -> bool:
        """Forget a stream. Return whether it was the member's newest one."""
        key = (stream.group_id, stream.member_id)
        if self._streams.get(key) is not stream:
            return False
        del self._streams[key]
        return True

    def tell(self, push: Push) -> None:
        """Tell a member its state, if it has a stream."""
        stream = self._streams.get((push.group_id, push.member_id))
        if stream is not None:
            stream.tell(push.state)

    def end(self, error: QuorateError) -> None:
        """End all streams with an error, and forget them."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.tell(error)
