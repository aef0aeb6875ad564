"""An offset that grows, and the coroutines that wait until it has grown far enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.offset_waiters import OffsetWaiters
from quorate.errors import QuorateError


class ReachedOffset:
    """How far something has come (applied, committed, carried out), and the waits for more.

    `waiters_max` and `what` are those of OffsetWaiters: OverloadedError above that many waits.
    """

    def __init__(self, waiters_max: int, what: str, offset: int = 0) -> None:
        #: All below this is reached. Grows by `advance` only.
        self.offset = offset
        self._waiters: OffsetWaiters[_Waiter] = OffsetWaiters(waiters_max, what)

    def check_room(self) -> None:
        """Raise OverloadedError if no more may wait."""
        self._waiters.check_room()

    def advance(self, offset: int) -> None:
        """All below `offset` is reached: wake those that waited for it."""
        self.offset = offset
        for future, _ in self._waiters.reached(offset):
            if not future.done():
                future.set_result(None)

    async def wait(
        self,
        offset: int,
        *,
        timeout_ms: float | None = None,
        late: Callable[[], QuorateError] | None = None,
        if_ended: QuorateError | None = None,
    ) -> None:
        """Return when all below `offset` is reached.

        Raises what `late` makes after the timeout; `if_ended`, or what `end` was given, if the
        offset stops growing before that.
        """
        if self.offset >= offset:
            return
        self._waiters.check_room()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = self._waiters.add(offset, (future, if_ended))
        try:
            async with asyncio.timeout(
                None if timeout_ms is None else timeout_ms / 1000
            ) as timeout:
                await future
        except TimeoutError:
            if not timeout.expired() or late is None:
                raise
            raise late() from None
        finally:
            self._waiters.remove(ticket)

    def end(self, error: QuorateError) -> None:
        """The offset stops growing: fail every wait, with its own `if_ended` or else `error`."""
        for future, if_ended in self._waiters.take_all():
            if not future.done():
                future.set_exception(if_ended or error)


_Waiter = tuple[asyncio.Future[None], QuorateError | None]
