"""The outcome of one record, for the thread that sent it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Protocol, TypeVar

from quorate.aio.bell import Bell
from quorate.argument_names import named
from quorate.errors import QuorateError
from quorate.model import RecordMetadata
from quorate.producer import delivery as asynchronous
from quorate.producer.bulk import Bulk
from quorate.producer.producer import Producer
from quorate.settings import CALLBACK, Number, checked
from quorate.sync.background import Background

T = TypeVar("T")

TIMEOUT_S: Final = Number(0, 10**9, "the longest wait")


class Origin(Protocol):
    """The producer of a delivery."""

    _background: Background
    _client: Producer[Any, Any]
    #: Rings in the loop when records were put into the producer's buffer.
    _sent_more: Bell

    def _run(self, call: Callable[[], Awaitable[T]]) -> T: ...


class Delivery:
    """The outcome of one record. Ask it later, or drop it.

    After OutcomeUnknownError the record may have been written. A delivery cannot be cancelled,
    because a sent record cannot be taken back.
    """

    __slots__ = ("_bulk", "_found", "_index", "_producer")

    def __init__(self, producer: Origin, bulk: Bulk, index: int) -> None:
        self._producer = producer
        self._bulk = bulk
        self._index = index
        #: The delivery of the asynchronous producer, or why there is none; None: not asked yet.
        self._found: asynchronous.Delivery | QuorateError | None = None

    @named
    def done(self) -> bool:
        """Return whether the record was acknowledged or has failed."""
        if self._is_known():
            return True
        if self._of_loop() is None or self._producer._background.is_here():
            return False
        return self._producer._run(self._ask_done)

    @checked
    def result(self, timeout_s: Annotated[float | None, TIMEOUT_S] = None) -> RecordMetadata:
        """Wait for the outcome, and return where the record was written.

        Raises the QuorateError that says why the record was not acknowledged, and TimeoutError if
        the outcome is not known after `timeout_s`; None: at the latest after the producer's
        delivery_timeout_ms.
        """
        if self._is_known():
            return self._outcome()
        self._ask()
        return self._producer._run(lambda: self._wait(timeout_s))

    @checked
    def exception(
        self, timeout_s: Annotated[float | None, TIMEOUT_S] = None
    ) -> QuorateError | None:
        """Wait for the outcome. Return why the record was not acknowledged; None if it was."""
        try:
            self.result(timeout_s)
        except QuorateError as error:
            return error
        return None

    @checked
    def add_done_callback(
        self, callback: Annotated[Callable[[Delivery], object], CALLBACK]
    ) -> None:
        """Call `callback` in the background thread when the outcome is known.

        The callback must not block: it holds up all blocking clients of the process. It may ask
        this delivery for its outcome, and may send further records; while the buffer is full, that
        raises OverloadedError at once.
        """
        self._ask()
        self._producer._background.loop.call_soon_threadsafe(self._call_back, callback)

    def _of_loop(self) -> asynchronous.Delivery | QuorateError | None:
        """Return the delivery of the asynchronous producer, or why there is none.

        None: the loop has not put the record into its buffer yet.
        """
        if self._found is None:
            place = self._bulk.place(self._index)
            if isinstance(place, tuple):
                self._found = asynchronous.Delivery(*place, self._producer._client._owner)
            else:
                self._found = place
        return self._found

    def _ask(self) -> None:
        """Let a failure of the record not count as one that the program does not ask for."""
        if self._of_loop() is None:
            self._bulk.asked.add(self._index)

    def _is_known(self) -> bool:
        """Return whether the outcome is known. Outside of the loop's thread, False may be late."""
        found = self._of_loop()
        if isinstance(found, asynchronous.Delivery):
            return found.is_over or (self._producer._background.is_here() and found.done())
        return found is not None

    def _outcome(self) -> RecordMetadata:
        found = self._of_loop()
        assert found is not None
        if isinstance(found, QuorateError):
            raise found.with_traceback(None)
        return found.result()

    # -- in the loop

    async def _ask_done(self) -> bool:
        return self._is_known()

    def _call_back(self, callback: Callable[[Delivery], object]) -> None:
        found = self._of_loop()
        if isinstance(found, asynchronous.Delivery):
            found.add_done_callback(lambda _: callback(self))
        elif found is not None:
            self._producer._background.loop.call_soon(callback, self)
        else:
            moved = self._producer._sent_more.next_ring()
            moved.add_done_callback(lambda _: self._call_back(callback))

    async def _wait(self, timeout_s: float | None) -> RecordMetadata:
        async with asyncio.timeout(timeout_s):
            while self._of_loop() is None:
                await self._producer._sent_more.next_ring()
            found = self._of_loop()
            if isinstance(found, asynchronous.Delivery):
                return await found
            return self._outcome()
