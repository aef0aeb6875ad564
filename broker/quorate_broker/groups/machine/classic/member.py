"""A member of a classic group, as its coordinator knows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from quorate_broker.groups.machine.classic.values import JoinGroup

#: A member whose first JoinGroup waits for so long is given up. Its connection may be gone, and
#: nothing else would tell: a member that waits for an answer sends no heartbeat (KAFKA-7610).
FIRST_JOIN_MS: Final = 300_000
#: Bytes of a member's record beside its names, its metadata and its assignment: lengths and times.
FIXED_BYTES: Final = 32
#: What a protocol takes in memory beside its name and its metadata.
PROTOCOL_BYTES: Final = 64


def size_of(names: Iterable[str], protocols: tuple[tuple[str, bytes], ...]) -> int:
    """Return the bytes of names, and of protocols with their metadata."""
    return sum(len(one.encode()) for one in names) + sum(
        PROTOCOL_BYTES + len(name.encode()) + len(data) for name, data in protocols
    )


@dataclass(slots=True)
class Member:
    """A member, its signs of life, and its requests that wait for an answer.

    A request that waits is known by the *ticket* of the driver. A member whose request waits cannot
    send heartbeats, so its session does not end; but for its first JoinGroup there is a limit.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    expires_ms: int
    assignment: bytes = b""
    #: It has not been in any generation yet.
    is_new: bool = False
    #: The tickets of the JoinGroup and the SyncGroup that wait.
    join: int | None = None
    sync: int | None = None
    #: It must still send SyncGroup in this generation.
    owes_sync: bool = False

    @property
    def is_awaiting(self) -> bool:
        """Whether the member waits for an answer, so that no heartbeat is due."""
        return self.sync is not None or (self.join is not None and not self.is_new)

    def take(self, request: JoinGroup) -> None:
        """Take over what the member says of itself when it joins again."""
        self.client_id, self.client_host = request.client_id, request.client_host
        self.session_timeout_ms = request.session_timeout_ms
        self.rebalance_timeout_ms = request.rebalance_timeout_ms
        self.protocols = request.protocols

    @property
    def size(self) -> int:
        """Bytes that the member takes in the group's record at most."""
        names = (self.member_id, self.instance_id or "", self.client_id, self.client_host)
        return FIXED_BYTES + len(self.assignment) + size_of(names, self.protocols)

    def renew(self, now_ms: int) -> None:
        """The member was heard, or was answered just now."""
        self.expires_ms = now_ms + self.session_timeout_ms

    def metadata(self, protocol: str | None) -> bytes:
        """Return what the member gave for a protocol; nothing if it does not support it."""
        return next((data for name, data in self.protocols if name == protocol), b"")
