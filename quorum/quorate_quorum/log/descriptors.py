"""How many files of a disk are open at once: at most so many, the least recently used are closed.

A broker holds some files for every replica, and a process may open 1,024 by the usual limit. So a
file of the Disk seam may be closed while it is idle, and is opened again when it is used; its owner
does not notice. Two rules:

* What was written is synced before its file is closed here. The kernel reports a write that fails
  later only to descriptors that were open at that time, or once to the next one: a sync after the
  file was closed and opened again could succeed though bytes are lost. If the sync before the
  close fails, the file remembers that and can't be used any more.
* A file that is opened again must be the same one, not another that lies at its path by then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections import OrderedDict
from typing import Protocol

#: How many of the least recently used are looked through for one that can be closed at once.
LOOK_MAX = 32
#: No disk keeps more open, whatever this process may.
OPEN_MAX = 65_536
OPEN_MIN = 64


class Holder(Protocol):
    """A file whose descriptor may be taken away while no operation uses it."""

    @property
    def is_idle(self) -> bool:
        """Whether no operation uses the descriptor."""

    @property
    def is_synced(self) -> bool:
        """Whether nothing was written since the last sync."""

    def release(self) -> None:
        """Close the descriptor; the next operation asks for another."""

    async def settle(self) -> None:
        """Sync what was written; an error is remembered, not raised."""


class Descriptors:
    """The descriptors of one disk. `open_max` is kept unless all are in use."""

    def __init__(self, open_max: int | None = None) -> None:
        self.open_max = share_of_limit() if open_max is None else open_max
        self._open: OrderedDict[Holder, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def used(self, holder: Holder) -> None:
        """Note that it has a descriptor, and uses it now."""
        self._open[holder] = None
        self._open.move_to_end(holder)

    def gone(self, holder: Holder) -> None:
        """Note that its descriptor is closed."""
        self._open.pop(holder, None)

    async def make_room(self) -> None:
        """Close the least recently used until one more may be opened, or all are in use."""
        while len(self._open) >= self.open_max:
            oldest = [one for one, _ in zip(self._open, range(LOOK_MAX), strict=False)]
            idle = [one for one in oldest if one.is_idle]
            if not idle:
                return
            victim = next((one for one in idle if one.is_synced), idle[0])
            if not victim.is_synced:
                await victim.settle()
                if victim not in self._open:
                    continue  # its owner closed it meanwhile
                if not victim.is_idle or not victim.is_synced:
                    self.used(victim)  # it was used meanwhile: it is not the oldest any more
                    return
            victim.release()

    def open(self, path: str, flags: int) -> int:
        """Return a new descriptor; where the process has no more, give up idle ones first."""
        try:
            return os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._give_up_half():
                raise
        return os.open(path, flags, 0o644)

    def _give_up_half(self) -> int:
        """Close half of those that can be closed at once; return how many that were."""
        closable = [one for one in self._open if one.is_idle and one.is_synced]
        for one in closable[: (len(closable) + 1) // 2]:
            one.release()
        return len(closable)


def share_of_limit() -> int:
    """Return how many of this process's descriptors a disk may keep: half of them."""
    soft = OPEN_MAX
    with contextlib.suppress(OSError, ValueError):
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_MAX if soft == resource.RLIM_INFINITY else max(OPEN_MIN, min(soft // 2, OPEN_MAX))
