"""The times that a replica waits, and the bounds of a leader's uncommitted proposals."""

from __future__ import annotations

from dataclasses import dataclass

#: If a follower's sync takes longer than this, it repeats its last fetch, so the leader hears it.
REPEAT_MS = 200
#: The time that a new process waits for a leader: its election could end a healthy reign.
FRESH_START_MS = (200, 500)
#: The time after which a follower stands if its leader's process is gone.
REFUSED_MS = (50, 150)
#: An observer that is silent for this many fetch timeouts is forgotten, and its place is free.
OBSERVER_SILENCE_FETCH_TIMEOUTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The configured times in milliseconds, and the bounds of uncommitted proposals."""

    fetch_timeout_ms: int = 1000  # the drawn time is up to 1.5 times as long
    election_timeout_ms: int = 500  # the drawn time is up to twice as long
    fetch_wait_ms: int = 250  # the longest that a leader keeps a fetch without news
    uncommitted_max: int = 10_000  # batches proposed and not committed
    uncommitted_bytes_max: int = 64 * 2**20  # the bytes of those batches

    def __post_init__(self) -> None:
        for name in ("fetch_timeout_ms", "election_timeout_ms"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name} must be 10 or more, not {getattr(self, name)}")

    @property
    def check_quorum_ms(self) -> int:
        """How long a leader leads without a majority: its followers' longest fetch timeout.

        If it led for longer, its followers would have given it up already, and voters that still
        hear it would refuse their pre-votes.
        """
        return self.fetch_timeout_ms * 3 // 2
