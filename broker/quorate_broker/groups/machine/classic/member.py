"""A member of a classic group, as its coordinator knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate_broker.groups.machine.classic.values import JoinGroup

#: A member whose first JoinGroup waits for so long is given up. Its connection may be gone, and
#: nothing else would tell: a member that waits for an answer sends no heartbeat (KAFKA-7610).
FIRST_JOIN_MS: Final = 300_000


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
        """Take over what the member says of itself when it joins again, but for its protocols."""
        self.client_id, self.client_host = request.client_id, request.client_host
        self.session_timeout_ms = request.session_timeout_ms
        self.rebalance_timeout_ms = request.rebalance_timeout_ms

    def renew(self, now_ms: int) -> None:
        """The member was heard, or was answered just now."""
        self.expires_ms = now_ms + self.session_timeout_ms

    def metadata(self, protocol: str | None) -> bytes:
        """Return what the member gave for a protocol; nothing if it does not support it."""
        return next((data for name, data in self.protocols if name == protocol), b"")
