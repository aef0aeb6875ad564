"""An offset that grows, and the coroutines that wait until it reaches their offset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.offset_waiters import OffsetWaiters
from quorate.errors import QuorateError


class ReachedOffset:
    """The offset up to which some work is done, and the coroutines that wait for a higher one.

    `waiters_max` and `what` have the meaning of OffsetWaiters: a wait beyond the maximum raises
    OverloadedError.
    """

    def __init__(self, waiters_max: int, what: str, offset: int = 0) -> None:
        #: Everything below this offset is reached. Only `advance` changes it.
        self.offset = offset
        self._waiters: OffsetWaiters[_Waiter] = OffsetWaiters(waiters_max, what)

    def check_room(self) -> None:
        """Raise OverloadedError if `waiters_max` coroutines wait already."""
        self._waiters.check_room()

    def advance(self, offset: int) -> None:
        """Set the offset, and wake the coroutines that waited for `offset` or a lower one."""
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
        """Wait until everything below `offset` is reached.

        After the timeout, raises the error that `late` returns. If `end` is called first, raises
        `if_ended`; if that is None, the error given to `end`.
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
        """Fail every wait, because the offset grows no more.

        The error is the wait's `if_ended`, or else `error`.
        """
        for future, if_ended in self._waiters.take_all():
            if not future.done():
                future.set_exception(if_ended or error)


_Waiter = tuple[asyncio.Future[None], QuorateError | None]
