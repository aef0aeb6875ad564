"""The calls of `send` that wait for room in a producer's buffer."""

from __future__ import annotations

import asyncio
from collections import deque

from quorate.errors import OverloadedError, QuorateError, RecordTooLargeError
from quorate.producer.accumulator import Accumulator


class BufferRoom:
    """The calls of `send` that wait until their record fits into the buffer, oldest first.

    Only the first call is woken. Otherwise small records could overtake a large one for ever. When
    the first call's wait ends, the second one is woken in the next turn of the loop, even if the
    first one fails: otherwise the others would wait for ever.
    """

    def __init__(self, accumulator: Accumulator) -> None:
        self._accumulator = accumulator
        #: What the program asked for. A blocking producer keeps a part of it for its inbox.
        self.buffer_memory = accumulator.config.buffer_bytes_max
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self, size: int, since: float | None = None) -> None:
        """Wait until `size` bytes fit. The caller must use them before its next await.

        Raises RecordTooLargeError, OverloadedError when the delivery timeout has passed since
        `since` (None: now), or the error given to `close`.
        """
        accumulator = self._accumulator
        config = accumulator.config
        if size > config.buffer_bytes_max:
            part = ""
            if config.buffer_bytes_max != self.buffer_memory:
                part = f", of which one record may take {config.buffer_bytes_max}"
            raise RecordTooLargeError(
                f"a record of {size} bytes is too large for buffer_memory, "
                f"{self.buffer_memory} bytes{part}"
            )
        loop = asyncio.get_running_loop()
        deadline = (loop.time() if since is None else since) + config.delivery_timeout_s
        is_first = True
        # the batches that fill the buffer must be sent at once, without lingering
        accumulator.flushes += 1
        try:
            while (is_first and self.waiting) or not accumulator.has_room(size):
                waiter = loop.create_future()
                # If the woken call's record did not fit, the call stays the first one.
                (self.waiting.append if is_first else self.waiting.appendleft)(waiter)
                is_first = False
                await self._turn(waiter, deadline)
        finally:
            accumulator.flushes -= 1
            loop.call_soon(self.give)

    async def _turn(self, waiter: asyncio.Future[None], deadline: float) -> None:
        timer = waiter.get_loop().call_at(deadline, self._give_up, waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self.waiting:
                self.waiting.remove(waiter)
            raise
        finally:
            timer.cancel()

    def give(self) -> None:
        """Wake the first waiting call, because there may be room."""
        if self._accumulator.bytes_used >= self._accumulator.config.buffer_bytes_max:
            return
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self, error: QuorateError) -> None:
        """Fail all waiting calls, because the producer takes no more records."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            config = self._accumulator.config
            waiter.set_exception(
                OverloadedError(
                    f"the record was not sent: the buffer of {self.buffer_memory} bytes "
                    f"(buffer_memory) was full for {config.delivery_timeout_s * 1000:.0f} ms"
                )
            )
