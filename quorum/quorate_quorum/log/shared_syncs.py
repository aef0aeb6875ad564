"""Syncs of directories that callers share: thousands of replicas lie in one log directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class SharedSyncs:
    """Syncs directories. Calls that come during a sync of a directory share the next one.

    A call must not share the sync under way: that one may have begun before the caller's change.
    """

    def __init__(self, sync: Callable[[str], Awaitable[None]]) -> None:
        self._sync = sync
        #: By path: the sync that has not begun yet. Calls share it.
        self._next: dict[str, asyncio.Future[None]] = {}
        #: By path: held during a sync. A lock that is not used is removed.
        self._locks: dict[str, asyncio.Lock] = {}

    async def sync(self, path: str) -> None:
        """Return when a sync that began after this call has ended. Raise its error."""
        following = self._next.get(path)
        if following is None:
            following = self._next[path] = asyncio.ensure_future(self._sync_next(path))
            following.add_done_callback(_read_error)
        await asyncio.shield(following)

    async def _sync_next(self, path: str) -> None:
        async with self._locks.setdefault(path, asyncio.Lock()):
            del self._next[path]  # later calls need a sync that begins later
            try:
                await self._sync(path)
            finally:
                if path not in self._next:
                    del self._locks[path]


def _read_error(done: asyncio.Future[None]) -> None:
    """Read the error, so that asyncio does not report it if every caller was cancelled."""
    if not done.cancelled():
        done.exception()
