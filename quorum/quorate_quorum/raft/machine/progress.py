"""What a leader knows of one replica, in its own epoch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from quorate_quorum.raft.machine.events import FetchReceived
from quorate_quorum.raft.machine.messages import FetchRequest, StreamKey

#: Superseded incarnations of one replica that a leader remembers.
INCARNATIONS_MAX = 8


@dataclass(slots=True)
class ParkedFetch:
    """A fetch that waits for something to say."""

    event: FetchReceived
    deadline_ms: int
    told_high_watermark: int  # what the replica knows of ours


@dataclass(slots=True)
class Progress:
    """What one replica holds and has heard, by its fetches of this epoch. Times: -1 is never."""

    #: It holds our records below this offset, synced. It moves only by a fetch whose past matched
    #: ours: a replica whose log diverges holds other records there, and must not count.
    log_end_offset: int = 0
    #: The newest round of ours that it echoed.
    round: int = 0
    #: The newest fetch stream; what comes late on an older one would set the progress back.
    stream: StreamKey | None = None
    #: Its fetch that has no answer yet. One at most: it asks again only after the answer.
    parked: ParkedFetch | None = None
    last_fetch_ms: int = -1
    last_caught_up_ms: int = -1
    #: It gives no votes yet: its disk may have forgotten what it acknowledged.
    is_behind: bool = False
    #: When any request of it came, one that diverges too.
    heard_ms: int = -1
    #: Whether its stream stands; a process that is gone is known by that at once.
    is_connected: bool = False
    endpoint: str = ""  # as it said itself when it opened its stream
    _leader_end_at_fetch: int = 0
    _superseded: deque[bytes] = field(default_factory=lambda: deque(maxlen=INCARNATIONS_MAX))

    def admits(self, stream: StreamKey) -> bool:
        """Take up a newer stream; False for one that a newer one has superseded."""
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
        """Note a fetch whose past matches ours.

        Caught up, by Kafka's rule: it asks for our end, or for what was our end when it asked
        last. Under load no fetch ever names the present end. A replica that is behind is not caught
        up, whatever it holds: it gives no votes. If it became a voter now and this leader died, the
        other voters might need its vote, and it would wait for a leader to bring it up.
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
