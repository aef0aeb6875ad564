"""What becomes of one record, for who sent it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from typing import Any

from quorate.model import RecordMetadata
from quorate.producer.partition_queue import Batch


class Delivery(Awaitable[RecordMetadata]):
    """What becomes of one record: await it, or ask it later.

    Nobody has to await it. It resolves to a RecordMetadata, or raises the QuorateError that
    kept the record from being acknowledged (DeliveryTimeoutError: it may have been written).
    """

    __slots__ = ("_batch", "_index", "_seen", "_timestamp_ms")

    def __init__(self, batch: Batch, index: int, timestamp_ms: int) -> None:
        self._batch = batch
        self._index = index
        self._timestamp_ms = timestamp_ms
        self._seen = False

    def done(self) -> bool:
        """Whether the record was acknowledged or has failed."""
        return self._batch.done

    def result(self) -> RecordMetadata:
        """Return where the record lies, or raise why it was not acknowledged.

        asyncio.InvalidStateError if that is not known yet.
        """
        self._observe()
        batch = self._batch
        if not batch.done:
            raise asyncio.InvalidStateError("the record is not acknowledged yet")
        if batch.error is not None:
            raise batch.error.with_traceback(None)
        offset = batch.base_offset + self._index if batch.base_offset >= 0 else -1
        timestamp = batch.append_time_ms if batch.append_time_ms >= 0 else self._timestamp_ms
        return RecordMetadata(batch.queue.topic, batch.queue.partition, offset, timestamp)

    def add_done_callback(self, callback: Callable[[Delivery], object]) -> None:
        """Call back in the event loop when it is done; at once (soon) if it is already."""
        self._observe()
        loop = asyncio.get_running_loop()
        if self._batch.done:
            loop.call_soon(callback, self)
        else:
            context = copy_context()
            self._batch.callbacks.append(lambda: loop.call_soon(callback, self, context=context))

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        self._observe()
        if not self._batch.done:
            yield from batch_done(self._batch).__await__()
        return self.result()

    def _observe(self) -> None:
        if not self._seen:
            self._seen = True
            self._batch.observed += 1


async def batch_done(batch: Batch) -> None:
    """Wait for a batch's end; one future per waiter, so cancelling one leaves the others."""
    if batch.done:
        return
    waiter = asyncio.get_running_loop().create_future()
    batch.callbacks.append(lambda: _resolve(waiter))
    await waiter


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
