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
    """A fetch that waits for news."""

    event: FetchReceived
    deadline_ms: int
    told_high_watermark: int  # the leader's high watermark that the replica knows


@dataclass(slots=True)
class Progress:
    """What one replica holds and has heard, from its fetches in this epoch. A time of -1 is never.

    The records, rounds and high watermark here are the leader's.
    """

    #: The replica holds the leader's records below this offset, synced. Only a fetch that agrees
    #: with the leader's log moves it: a replica whose log diverges holds other records there.
    log_end_offset: int = 0
    #: The newest round that it echoed.
    round: int = 0
    #: Its newest fetch stream. A late request on an older one would set the progress back.
    stream: StreamKey | None = None
    #: Its fetch that has no answer yet. There is at most one: it asks again only after the answer.
    parked: ParkedFetch | None = None
    last_fetch_ms: int = -1
    last_caught_up_ms: int = -1
    #: Whether its disk may lack records that it acknowledged: it gives no votes yet.
    is_behind: bool = False
    #: The time of its last request, even if its log diverged.
    heard_ms: int = -1
    #: Whether its stream is open. A process that is gone shows by that at once.
    is_connected: bool = False
    endpoint: str = ""  # as the replica said when it opened its stream
    _leader_end_at_fetch: int = 0
    _superseded: deque[bytes] = field(default_factory=lambda: deque(maxlen=INCARNATIONS_MAX))

    def admits(self, stream: StreamKey) -> bool:
        """Take over a newer stream. Return False for a stream that a newer one has superseded."""
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

        By Kafka's rule a replica is caught up if it asks for the leader's end, or for the end that
        the leader had at the replica's last fetch: under load no fetch names the present end.

        A replica that is behind is never caught up, for it gives no votes. If it became a voter now
        and this leader died, the other voters might need its vote, but it would wait for a leader.
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
