"""A leader's knowledge of one replica, in the leader's epoch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from quorate_quorum.raft.machine.events import FetchReceived
from quorate_quorum.raft.machine.messages import FetchRequest, StreamKey

#: How many superseded incarnations of one replica a leader remembers.
INCARNATIONS_MAX = 8


@dataclass(slots=True)
class ParkedFetch:
    """A fetch that waits until the leader has news for it."""

    event: FetchReceived
    deadline_ms: int
    told_high_watermark: int  # the newest high watermark that the leader told the replica


@dataclass(slots=True)
class Progress:
    """What one replica holds and has heard, known from its fetches in this epoch.

    A time of -1 means never.
    """

    #: The replica holds the leader's records below this offset, and has synced them. Only a fetch
    #: that agrees with the leader's log moves this offset: a diverging log holds other records
    #: below it.
    log_end_offset: int = 0
    #: The newest of the leader's rounds that the replica echoed.
    round: int = 0
    #: The replica's newest fetch stream. A late request on an older stream would set the progress
    #: back.
    stream: StreamKey | None = None
    #: The replica's fetch that waits for its answer. There is at most one: a replica sends its next
    #: fetch after the answer.
    parked: ParkedFetch | None = None
    last_fetch_ms: int = -1
    last_caught_up_ms: int = -1
    #: Whether the replica's disk may lack records that the replica acknowledged. If so, the replica
    #: gives no votes.
    is_behind: bool = False
    #: The time of the replica's last request, even if its log diverges.
    heard_ms: int = -1
    #: Whether the replica's stream is open. The stream closes at once when the replica's process
    #: ends.
    is_connected: bool = False
    endpoint: str = ""  # as the replica told it when it opened its stream
    _leader_end_at_fetch: int = 0
    _superseded: deque[bytes] = field(default_factory=lambda: deque(maxlen=INCARNATIONS_MAX))

    def admits(self, stream: StreamKey) -> bool:
        """Take over a new stream. Return False if a newer stream has superseded it."""
        known = self.stream
        if known is None or stream == known:
            self.stream = stream
            return True
        if stream.incarnation == known.incarnation:
            if stream.number < known.number:
                return False
        elif stream.incarnation in self._superseded:
            return False
        else:
            self._superseded.append(known.incarnation)
        self.stream = stream
        self.parked = None
        return True

    def record(self, request: FetchRequest, leader_end: int, now_ms: int) -> None:
        """Note a fetch that agrees with the leader's log.

        By Kafka's rule a replica is caught up if it fetches from the leader's end, or from the end
        that the leader had at the replica's last fetch. Without the second half of the rule, no
        replica would be caught up under load: the end moves on during each fetch.

        A replica with `is_behind` is never caught up, because it gives no votes. If such a replica
        became a voter and this leader died, an election might need its vote and not get it.
        """
        self.is_behind = request.is_behind
        if self.is_behind:
            pass
        elif request.fetch_offset >= leader_end:
            self.last_caught_up_ms = now_ms
        elif self.last_fetch_ms >= 0 and request.fetch_offset >= self._leader_end_at_fetch:
            self.last_caught_up_ms = max(self.last_caught_up_ms, self.last_fetch_ms)
        self.log_end_offset = request.fetch_offset
        self.last_fetch_ms = now_ms
        self._leader_end_at_fetch = leader_end
