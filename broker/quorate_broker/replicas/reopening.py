"""Opens replicas again that went offline although their disk is good, with growing delays.

Such an error is about one file or about this process: too many open files, or no room in the middle
of a cut. No record is lost, so it is enough to try again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from quorate.aio.backoff import Backoff
from quorate.aio.tasks import Tasks
from quorate_broker.replica.replica import Key

FIRST_DELAY_MS = 1000
DELAY_MAX_MS = 30_000


class Reopening:
    """Collects keys, and calls `reopen` with them after a delay.

    The delay grows while keys keep coming. `failed` is called if `reopen` raises.
    """

    def __init__(
        self, reopen: Callable[[list[Key]], Awaitable[None]], failed: Callable[[str], None]
    ) -> None:
        self._reopen = reopen
        self._wanted: dict[Key, None] = {}
        self._tasks = Tasks(lambda _, error: failed(f"replicas can't be opened again: {error!r}"))
        self._is_stopped = False

    def want(self, key: Key) -> None:
        """Let this replica be opened again soon."""
        if self._is_stopped:
            return
        self._wanted[key] = None
        if not self._tasks:
            self._tasks.spawn(self._run(), "open replicas again")

    async def stop(self) -> None:
        """Open no more replicas. It is safe to call this twice."""
        self._is_stopped = True
        await self._tasks.end_all()

    async def _run(self) -> None:
        backoff = Backoff(FIRST_DELAY_MS, DELAY_MAX_MS)
        while self._wanted:
            await backoff.wait()
            wanted, self._wanted = self._wanted, {}
            await self._reopen(list(wanted))
