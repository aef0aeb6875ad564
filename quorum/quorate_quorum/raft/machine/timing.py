"""The times that a replica waits, and the bounds of a leader's uncommitted proposals."""

from __future__ import annotations

from dataclasses import dataclass

#: A follower whose sync takes longer repeats its last synced offset, so that the leader hears it.
REPEAT_MS = 200
#: The time that a new process listens for a leader: its election could disturb a good reign.
FRESH_START_MS = (200, 500)
#: The time after which followers stand when their leader's process is gone.
REFUSED_MS = (50, 150)
#: An observer that is silent for this many fetch timeouts is forgotten, and its place is free.
OBSERVER_SILENCE_FETCH_TIMEOUTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The configured times in milliseconds. Random times are drawn between these and a multiple."""

    fetch_timeout_ms: int = 1000  # drawn up to 1.5 times that
    election_timeout_ms: int = 500  # drawn up to twice that
    fetch_wait_ms: int = 250  # the longest that a leader keeps a fetch without news
    uncommitted_max: int = 10_000  # batches proposed and not committed
    uncommitted_bytes_max: int = 64 * 2**20  # and their bytes

    def __post_init__(self) -> None:
        for name in ("fetch_timeout_ms", "election_timeout_ms"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name} must be 10 or more, not {getattr(self, name)}")

    @property
    def check_quorum_ms(self) -> int:
        """How long a leader leads without a majority: the longest fetch timeout of its followers.

        With a longer time, a leader that reaches too few voters would stay, and its followers would
        not hear of another one.
        """
        return self.fetch_timeout_ms * 3 // 2
