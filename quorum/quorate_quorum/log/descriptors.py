"""The limit of a disk's open files. Above it, the least recently used files are closed.

A broker has some files for every replica, and the usual limit of a process is 1,024 open files. So
a file of the Disk seam may be closed while it is idle, and is opened again at its next use. Its
owner does not notice. Two rules:

* A file is synced before it is closed here. If the kernel fails to write a page later, it reports
  this only to descriptors that are open then, or once to the next one. So a sync after a close and
  a reopen could succeed although bytes are lost. If the sync before the close fails, the file
  remembers the failure and can't be used any more.
* A file that is opened again must be the same file, not another one that now has its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

#: The number of least recently used files among which an idle and synced one is searched for. If
#: none is synced, all of them are synced together: that takes little longer than one sync.
LOOK_MAX = 32
#: A disk keeps no more files open than this, even if the process may.
OPEN_MAX = 65_536
OPEN_MIN = 64


class Holder(Protocol):
    """A file whose descriptor may be closed while no operation uses it."""

    @property
    def is_idle(self) -> bool:
        """Whether no operation uses the descriptor."""

    @property
    def is_synced(self) -> bool:
        """Whether nothing was written since the last sync."""

    def release(self) -> None:
        """Close the descriptor. The next operation opens another one."""

    async def settle(self) -> None:
        """Sync the file, if its descriptor is open. An error is remembered, not raised."""


class Descriptors:
    """The descriptors of one disk. More than `open_max` are open only while all are in use."""

    def __init__(self, open_max: int | None = None) -> None:
        share = share_of_limit()
        self.open_max = share if open_max is None else min(open_max, share)
        self._open: OrderedDict[Holder, None] = OrderedDict()
        #: The last syncs before files are closed; perhaps they are still under way.
        self._settling: asyncio.Future[list[None]] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def used(self, holder: Holder) -> None:
        """Note that the file has a descriptor, and that this file is now the last used one."""
        self._open[holder] = None
        self._open.move_to_end(holder)

    def gone(self, holder: Holder) -> None:
        """Note that the holder's descriptor is closed."""
        self._open.pop(holder, None)

    async def make_room(self) -> None:
        """Close least recently used files until one more may be opened, or all are in use."""
        while len(self._open) >= self.open_max:
            oldest = [one for one, _ in zip(self._open, range(LOOK_MAX), strict=False)]
            idle = [one for one in oldest if one.is_idle]
            if not idle:
                return
            victim = next((one for one in idle if one.is_synced), None)
            if victim is not None:
                victim.release()
                continue
            if self._settling is not None and not self._settling.done():
                await asyncio.shield(self._settling)
                continue
            await self._settle(idle)
            if not any(one.is_idle and one.is_synced for one in idle if one in self._open):
                # The owners used their files during the sync, so now these are the newest.
                for one in idle:
                    if one in self._open:
                        self.used(one)
                return

    async def _settle(self, holders: Sequence[Holder]) -> None:
        """Sync these files together."""
        self._settling = asyncio.gather(*(one.settle() for one in holders))
        await asyncio.shield(self._settling)

    def open(self, path: str, flags: int) -> int:
        """Return a new descriptor. If the process has none left, close idle ones first."""
        try:
            return os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._give_up_half():
                raise
        return os.open(path, flags, 0o644)

    def _give_up_half(self) -> int:
        """Close half of the idle and synced files. Return how many were idle and synced."""
        closable = [one for one in self._open if one.is_idle and one.is_synced]
        for one in closable[: (len(closable) + 1) // 2]:
            one.release()
        return len(closable)


def share_of_limit() -> int:
    """Return how many descriptors a disk may keep open: half of the process's limit."""
    soft = OPEN_MAX
    with contextlib.suppress(OSError, ValueError):
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_MAX if soft == resource.RLIM_INFINITY else max(OPEN_MIN, min(soft // 2, OPEN_MAX))
