"""When a follower heard its leader last."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Contact:
    """The time of the last frame from one leader. All partitions of its stream share the object.

    None: there was no frame on this stream yet.
    """

    heard_ms: int | None = None

    def is_silent(self, now_ms: int, lag_ms: int) -> bool:
        """Return whether the leader is silent for so long that this broker may be out of date.

        >>> Contact(heard_ms=100).is_silent(600, 500), Contact(heard_ms=100).is_silent(601, 500)
        (False, True)
        >>> Contact().is_silent(0, 500)
        True
        """
        return self.heard_ms is None or now_ms - self.heard_ms > lag_ms
