"""The room on a simulated disk: of the whole disk, and of single directories."""

from __future__ import annotations

import errno
from collections.abc import Callable

#: The free bytes of a disk without a limit.
PLENTY = 1 << 40


class Space:
    """The room on a disk. `used` returns the bytes of all files under a directory."""

    def __init__(self, used: Callable[[str], int]) -> None:
        self._used = used
        #: The bytes that may still be written; None: any number. A removed file gives none back.
        self.free: int | None = None
        #: Directory -> the most bytes that its files may have together.
        self.limits: dict[str, int] = {}

    def copy(self, used: Callable[[str], int]) -> Space:
        """Return the room on a copy of the disk."""
        made = Space(used)
        made.free, made.limits = self.free, dict(self.limits)
        return made

    def mend(self) -> None:
        """Remove all limits."""
        self.free = None
        self.limits.clear()

    def left(self, path: str) -> int:
        """Return the free bytes at a path."""
        limited = [one for one in self.limits if f"{path}/".startswith(f"{one}/")]
        lefts = [self.limits[one] - self._used(one) for one in limited]
        return max(0, min((PLENTY if self.free is None else self.free, *lefts)))

    def take(self, grown: int, path: str) -> None:
        """Let a file grow. Raises OSError if there is no room."""
        if grown <= 0:
            return
        if grown > self.left(path):
            raise OSError(errno.ENOSPC, "simulated: no space left", path)
        if self.free is not None:
            self.free -= grown
