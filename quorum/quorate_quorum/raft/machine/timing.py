"""How long a replica waits, and how much a leader keeps for its followers."""

from __future__ import annotations

from dataclasses import dataclass

#: A follower whose sync takes longer repeats its last synced offset, so that it is not forgotten.
REPEAT_MS = 200
#: A process that starts listens for a leader first: its stand could disturb one that is fine.
FRESH_START_MS = (200, 500)
#: When a leader's process is gone, its followers stand this soon.
REFUSED_MS = (50, 150)
#: An observer silent for so many fetch timeouts is forgotten, and its place is free.
OBSERVER_SILENCE_FETCH_TIMEOUTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds; upper bounds of the random ones follow from the lower."""

    fetch_timeout_ms: int = 1000  # to 1.5 times that
    election_timeout_ms: int = 500  # to twice that
    fetch_wait_ms: int = 250  # the longest that a leader keeps a fetch without news
    uncommitted_max: int = 10_000  # batches proposed and not committed
    uncommitted_bytes_max: int = 64 * 2**20  # and their bytes

    def __post_init__(self) -> None:
        for name in ("fetch_timeout_ms", "election_timeout_ms"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name} must be 10 or more, not {getattr(self, name)}")

    @property
    def check_quorum_ms(self) -> int:
        """How long a leader leads without a majority: as long as its followers wait at most.

        Longer, a leader that reaches too few voters would stay, and its followers would not hear
        of another one.
        """
        return self.fetch_timeout_ms * 3 // 2
