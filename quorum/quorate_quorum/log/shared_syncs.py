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
        #: By path: the sync under way, and the one that begins after it. A sync that ended is gone.
        self._running: dict[str, asyncio.Future[None]] = {}
        self._next: dict[str, asyncio.Future[None]] = {}

    async def sync(self, path: str) -> None:
        """Return when a sync that began after this call has ended. Raise its error."""
        if path not in self._running:
            await asyncio.shield(self._begin(path))
            return
        following = self._next.get(path)
        if following is None:
            following = self._next[path] = asyncio.ensure_future(self._after_the_running(path))
            following.add_done_callback(_read_error)
        await asyncio.shield(following)

    def _begin(self, path: str) -> asyncio.Future[None]:
        running = self._running[path] = asyncio.ensure_future(self._sync(path))
        running.add_done_callback(lambda _: self._running.pop(path))
        running.add_done_callback(_read_error)
        return running

    async def _after_the_running(self, path: str) -> None:
        await asyncio.wait([self._running[path]])
        del self._next[path]
        await self._begin(path)


def _read_error(done: asyncio.Future[None]) -> None:
    """Read the error, so that asyncio does not report it if every caller was cancelled."""
    if not done.cancelled():
        done.exception()
