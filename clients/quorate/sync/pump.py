"""The task that takes the records of threads out of the inbox, into the producer of the loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from quorate.aio.bell import Bell
from quorate.errors import ClosedError, QuorateError, UnknownServerError
from quorate.producer.bulk import Bulk
from quorate.producer.producer import Producer
from quorate.sync.inbox import Inbox

log = logging.getLogger(__name__)

#: If the loop has taken no record for so long after the delivery time-out, it is broken.
STUCK_S: Final = 5.0


class Pump:
    """Moves records from the inbox of a blocking producer to its asynchronous producer.

    It does not refer to the blocking producer: the loop keeps this object alive, and a producer
    that the program has dropped must be collected, and then delivers what is left.
    """

    def __init__(
        self,
        client: Producer[Any, Any],
        loop: asyncio.AbstractEventLoop,
        inbox_bytes: int,
        is_loop: Callable[[], bool],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: of the loop; any thread may ask it."""
        self._client = client
        self._loop = loop
        self._timeout_s = timeout_s
        self.inbox = Inbox(inbox_bytes, self._wake, is_loop, clock)
        #: Number of records that the loop has taken out of the inbox.
        self._moved = 0
        #: In the loop: rings when records were put into the producer's buffer, and when there are
        #: some in the inbox.
        self.sent_more = Bell()
        self._arrived = Bell()
        self._task: asyncio.Task[None] | None = None

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._arrived.ring)

    # -- in the loop

    async def start(self) -> None:
        """Start the producer, and take records."""
        await self._client.start()
        if self._task is None:
            self._task = self._client._owner.spawn(self._move(), "inbox")

    async def end(self) -> None:
        """Give the producer all records of the inbox, and stop it."""
        try:
            if self._task is not None:
                await self.emptied()
        finally:
            await self._client.stop()

    async def flush(self) -> None:
        """Wait until every record has its outcome that is in the inbox or the buffer now."""
        await self.emptied()
        await self._client.flush()

    async def emptied(self) -> None:
        """Wait until the producer has the records that were in the inbox at the call."""
        owner, wanted = self._client._owner, self.inbox.puts
        while self._moved < wanted:
            ring = self.sent_more.next_ring()
            self._arrived.ring()
            await owner.wait(ring, timeout_s=self._timeout_s + STUCK_S, late=_stuck)

    async def _move(self) -> None:
        """Give the producer the records of the inbox, in order, as long as it runs."""
        taken: deque[Bulk] = deque()
        try:
            while True:
                self._arrived.reset()
                taken = self.inbox.take()
                if taken:
                    for bulk in taken:
                        await self._send_all(bulk)
                else:
                    self.sent_more.ring()
                    await self._arrived.wait()
        finally:
            # a thread that waits for one of these records must not wait for ever
            stopped = ClosedError("this producer was stopped before it had sent the record")
            self.inbox.close(stopped)
            for bulk in (*taken, *self.inbox.take()):
                bulk.seal()
                while not bulk.is_done:
                    self._failed(bulk, stopped)
            self.sent_more.ring()

    async def _send_all(self, bulk: Bulk) -> None:
        """Give the producer the records of a bulk. Then give the inbox's room back.

        Wake the calls that wait for these records.
        """
        size = bulk.records.size
        bulk.seal()
        while not bulk.is_done:
            try:
                await self._client._intake.put_all(bulk)
            except QuorateError as error:
                self._failed(bulk, error)
            except Exception as error:  # of the application's partitioner
                failure = UnknownServerError(f"the record was not sent: {error!r}")
                failure.__cause__ = error
                self._failed(bulk, failure)
        self._moved += bulk.count
        self.inbox.give_back(size)
        self.sent_more.ring()

    def _failed(self, bulk: Bulk, error: QuorateError) -> None:
        is_asked = bulk.position in bulk.asked
        bulk.skip(error)
        if not is_asked:
            self._client.undelivered += 1
            log.error("a record was not sent: %s", error)


def _stuck() -> QuorateError:
    return UnknownServerError("the records of this producer's inbox were not taken in time")
