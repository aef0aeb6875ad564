"""How long a follower waits for a frame before it takes its stream for broken.

A machine. A frame comes at least every replica.fetch.wait.max.ms, but over a congested link a frame
with batches takes longer. A follower that gave up and asked again would get the same frame, again
too late, for ever. So after each silence it waits twice as long, and asks for half as much.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The most times that the wait is doubled.
DOUBLINGS_MAX = 5


@dataclass(slots=True)
class Patience:
    """The patience with one leader, over all streams to it. Times are in seconds."""

    #: The wait on a good link.
    least_s: float
    doublings: int = 0
    _heard_s: float = 0.0
    #: The longest time between two frames since `_since_s`.
    _longest_s: float = 0.0
    _since_s: float = 0.0

    @property
    def silence_s(self) -> float:
        """The time without a frame after which the stream counts as broken."""
        return self.least_s * (1 << self.doublings)

    def room(self, bytes_max: int) -> int:
        """Return how many of so many bytes to ask for.

        >>> Patience(2.0, doublings=3).room(8 << 20) >> 20
        1
        """
        return bytes_max >> self.doublings

    def began(self, now_s: float) -> None:
        """Take note that a stream begins."""
        self._heard_s = self._since_s = now_s
        self._longest_s = 0.0

    def heard(self, now_s: float) -> None:
        """Take note of a frame. If all frames of a while were quick, wait half as long again."""
        self._longest_s = max(self._longest_s, now_s - self._heard_s)
        self._heard_s = now_s
        if self.doublings and now_s - self._since_s >= self.silence_s:
            if self._longest_s <= self.least_s / 2:
                self.doublings -= 1
            self.began(now_s)

    def was_silent(self) -> None:
        """Take note that a stream ended because no frame came."""
        self.doublings = min(self.doublings + 1, DOUBLINGS_MAX)
