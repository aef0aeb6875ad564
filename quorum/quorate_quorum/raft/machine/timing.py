"""The times that a replica waits, and the bounds of a leader's uncommitted proposals."""

from __future__ import annotations

from dataclasses import dataclass

#: If a sync takes longer than this, the follower repeats its last fetch, so that the leader hears
#: it.
REPEAT_MS = 200
#: The time that a new process waits for a leader before it begins an election, which could end a
#: healthy reign.
FRESH_START_MS = (200, 500)
#: The time after which a follower begins an election if its leader's process is gone.
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

        If a leader without a majority led for longer, voters that still hear it would refuse the
        pre-votes of the followers that have given it up.
        """
        return self.fetch_timeout_ms * 3 // 2
