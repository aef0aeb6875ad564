"""The outcome of one record, for the task that sent it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, overload

from quorate.aio.owner import Owner
from quorate.argument_names import named
from quorate.errors import DeliveryTimeoutError, QuorateError
from quorate.model import RecordMetadata
from quorate.object_rules import Object
from quorate.producer.bulk import Bulk
from quorate.producer.partition_queue import Batch
from quorate.settings import CALLBACK, checked

log = logging.getLogger(__name__)

#: The sender finishes a batch by its deadline. If a batch is not finished after this extra time,
#: the sender is broken, and the wait for the batch ends with an error.
END_GRACE_S = 5.0


class Delivery(Awaitable[RecordMetadata]):
    """The outcome of one record. Await it, ask it later, or give it to asyncio.wait.

    A program may also drop it. An await returns a RecordMetadata, or raises the QuorateError that
    says why the record was not acknowledged. After OutcomeUnknownError the record may have been
    written. A delivery cannot be cancelled, because a sent record cannot be taken back.
    """

    __slots__ = ("_batch", "_callbacks", "_index", "_owner")

    def __init__(self, batch: Batch, index: int, owner: Owner) -> None:
        self._batch = batch
        self._index = index
        self._owner = owner
        self._callbacks: list[_Callback] | None = None

    @named
    def done(self) -> bool:
        """Return whether the record was acknowledged or has failed."""
        return self._current().done

    @property
    def is_over(self) -> bool:
        """Whether the outcome is known. Unlike done(), any thread may ask; False may be late."""
        return self._batch.done and not self._batch.parts

    @named
    def cancelled(self) -> bool:
        """Return False: a delivery cannot be cancelled."""
        return False

    @named
    def result(self) -> RecordMetadata:
        """Return where the record was written, or raise the error of the failed record.

        Raises asyncio.InvalidStateError if the outcome is not known yet.
        """
        batch = self._ended()
        error = self._error_in(batch)
        if error is not None:
            raise error.with_traceback(None)
        offset = batch.base_offset + self._index if batch.base_offset >= 0 else -1
        timestamp_ms = batch.append_time_ms
        if timestamp_ms < 0:
            timestamp_ms = batch.builder.time_of(self._index)
        return RecordMetadata(batch.queue.topic, batch.queue.partition, offset, timestamp_ms)

    @named
    def exception(self) -> QuorateError | None:
        """Return why the record was not acknowledged; None if it was acknowledged.

        Raises asyncio.InvalidStateError if the outcome is not known yet.
        """
        return self._error_in(self._ended())

    @checked
    def add_done_callback(
        self,
        callback: Annotated[Callable[[Delivery], object], CALLBACK],
        *,
        context: Annotated[Context | None, Object(Context)] = None,
    ) -> None:
        """Call `callback` in the event loop when the outcome is known.

        If it is known already, the call comes in the next turn.
        """
        self._owner.check()
        batch = self._observed()
        context = context or copy_context()
        if batch.done:
            asyncio.get_running_loop().call_soon(callback, self, context=context)
            return
        added = _Callback(self, callback, context)
        self._callbacks = [*(self._callbacks or ()), added]
        batch.callbacks[added] = None

    @checked
    def remove_done_callback(
        self, callback: Annotated[Callable[[Delivery], object], CALLBACK]
    ) -> int:
        """Remove a callback. Return how many times it had been added."""
        removed = [one for one in self._callbacks or () if one.callback == callback]
        for one in removed:
            self._current().callbacks.pop(one, None)
        self._callbacks = [one for one in self._callbacks or () if one not in removed] or None
        return len(removed)

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        if not self._batch.done or self._batch.parts:
            self._owner.check()
            while not self._observed().done:
                yield from _end_of(self._batch).__await__()
        return self.result()

    def _error_in(self, batch: Batch) -> QuorateError | None:
        """Return why this record was not acknowledged.

        The broker writes a whole batch or nothing of it. So a record can fail because of another
        record, which its error must name.
        """
        error = batch.error
        if error is None or batch.is_whole:
            return error
        if not error.refused_records or self._index in error.refused_records:
            return error
        other = type(error)(
            f"record {self._index} of its batch was not written, because the broker refused "
            f"another record of the same batch, and so the whole batch: {error}"
        )
        other.refused_records = error.refused_records
        return other

    def _current(self) -> Batch:
        """Return the batch that has the record now, which is a part if the batch was split."""
        batch = self._batch
        if batch.parts:
            batch, self._index = batch.holder(self._index)
            self._batch = batch
        return batch

    def _ended(self) -> Batch:
        batch = self._batch
        if not batch.done or batch.parts:
            batch = self._observed()
            if not batch.done:
                raise asyncio.InvalidStateError("the record is not acknowledged yet")
        return batch

    def _observed(self) -> Batch:
        """Return the batch, and note in it that the caller asked for this record's outcome."""
        batch = self._current()
        if not batch.done:
            if batch.observed is None:
                batch.observed = set()
            batch.observed.update(range(batch.count) if batch.is_whole else (self._index,))
        return batch

    def _batch_done(self, told: _Callback) -> None:
        batch = self._current()
        # the batch was split: wait for the record's part
        if not batch.done:
            batch.callbacks[told] = None
            return
        self._callbacks = [one for one in self._callbacks or () if one is not told] or None
        asyncio.get_running_loop().call_soon(told.callback, self, context=told.context)


@dataclass(slots=True, eq=False)
class _Callback:
    """A user's callback. The batch calls it when the batch has its outcome."""

    delivery: Delivery
    callback: Callable[[Delivery], object]
    context: Context

    def __call__(self) -> None:
        self.delivery._batch_done(self)


class Deliveries(Sequence[Delivery]):
    """The deliveries of the records of a bulk, in order. Each is made when it is asked for.

    Each record has its place in a batch.
    """

    __slots__ = ("_bulk", "_made", "_owner")

    def __init__(self, bulk: Bulk, owner: Owner) -> None:
        self._bulk = bulk
        self._owner = owner
        self._made: dict[int, Delivery] = {}

    def __len__(self) -> int:
        return self._bulk.count

    @overload
    def __getitem__(self, index: int) -> Delivery: ...

    @overload
    def __getitem__(self, index: slice) -> list[Delivery]: ...

    def __getitem__(self, index: int | slice) -> Delivery | list[Delivery]:
        if isinstance(index, slice):
            return [self._one(place) for place in range(*index.indices(len(self)))]
        return self._one(range(len(self))[index])

    def _one(self, index: int) -> Delivery:
        found = self._made.get(index)
        if found is None:
            place = self._bulk.place(index)
            assert isinstance(place, tuple), "no record of this bulk was skipped"
            found = self._made[index] = Delivery(*place, self._owner)
        return found


def count_undelivered(batch: Batch) -> int:
    """Log a batch that failed. Return the number of its records whose outcome no task asked for."""
    unobserved = batch.count - len(batch.observed or ())
    if batch.error is None or not unobserved:
        return 0
    log.error(
        "%d records for %s-%d were not delivered, and no caller awaits them: %s",
        unobserved,
        batch.queue.topic,
        batch.queue.partition,
        batch.error,
    )
    return unobserved


async def until_done(batch: Batch) -> None:
    """Wait until a batch has its outcome, and the parts into which it was split have theirs."""
    if not batch.done:
        await _end_of(batch)
    for part in batch.parts:
        await until_done(part)


async def _end_of(batch: Batch) -> None:
    """Wait until a batch has its outcome. Each waiter has a future, so each can be cancelled alone.

    Raises DeliveryTimeoutError at END_GRACE_S after the batch's deadline, because then the sender
    is broken.
    """
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    wake = partial(_resolve, waiter)
    batch.callbacks[wake] = None
    timer = loop.call_at(batch.deadline + END_GRACE_S, wake)
    try:
        await waiter
    finally:
        timer.cancel()
        batch.callbacks.pop(wake, None)
    if not batch.done:
        raise DeliveryTimeoutError(
            f"{batch.count} records for {batch.queue.topic}-{batch.queue.partition} were not "
            "acknowledged in time, and may have been written"
        )


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
