"""The produce stream to one broker: requests drawn when the wire takes them, answers given back.

Stands below the sender, which owns the streams and says what an answer means for a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from quorate.errors import (
    DeadlineExceededError,
    QuorateError,
    StreamBrokenError,
    from_wire,
)
from quorate.net.frame import Frame
from quorate.net.methods import PRODUCE
from quorate.producer.accumulator import REQUEST_BYTES_MAX, Accumulator
from quorate.producer.partition_queue import Batch, PartitionQueue
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import ProduceHeader, ProducePartition, ProduceResult

if TYPE_CHECKING:
    from quorate.cluster.cluster import Cluster

#: Per broker, of which it has shown no sign of having read them; those under min ISR do not count.
UNREAD_REQUESTS_MAX = 5
UNREAD_S = 0.1  # after so long a request counts as read, or one stuck partition stops the others
BACKOFF_S = 0.03
BACKOFF_MAX_S = 0.5
STALL_S = 0.4  # a broker that is silent so long may have lost its leadership: look again
UINT32_MAX = (1 << 32) - 1
ANSWER_GRACE_S = 1.0  # a broker that is alive says itself that a request timed out


class StreamOwner(Protocol):
    """What a stream needs of the sender."""

    cluster: Cluster
    accumulator: Accumulator
    acks: int
    request_timeout_ms: int

    def endpoint_of(self, queue: PartitionQueue) -> str: ...
    def settle(
        self, batch: Batch, error: QuorateError | None, result: ProduceResult, endpoint: str
    ) -> None: ...
    def lost(
        self, batch: Batch, error: QuorateError, *, backoff_s: float | None = None
    ) -> None: ...
    def wake(self) -> None: ...
    def refresh(self) -> None: ...


class BrokerStream:
    """The produce stream to one broker, opened while there is something to send."""

    def __init__(self, sender: StreamOwner, endpoint: str) -> None:
        self.sender = sender
        self.accumulator = sender.accumulator
        self.endpoint = endpoint
        self._wake = asyncio.Event()
        self._requests: dict[int, list[Batch | None]] = {}
        #: Requests that nothing proves to be read; an answer proves it for all before it.
        self._unread: dict[int, float] = {}
        self._sent_at: dict[int, float] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._breaks = 0
        self._cut = False
        self._is_first = True
        self._reader: asyncio.Task[None] | None = None
        self._task = sender.cluster.owner.spawn(self._stream_for_good(), f"produce-{endpoint}")

    @property
    def is_idle(self) -> bool:
        """Nothing is in flight."""
        return not self._requests

    def wake(self) -> None:
        """Something may be ready to be sent."""
        self._wake.set()

    def wake_for_linger(self) -> None:
        """A batch was opened: look at it when its linger ends, or now if nothing is in flight."""
        if not self._unread or self.accumulator.flushes or self._reader is None:
            self._wake.set()
        elif self._timer is None or self._timer.when() < asyncio.get_running_loop().time():
            self._set_timer(self.accumulator.config.linger_s)

    async def stop(self) -> None:
        """End the stream; what is in flight is not answered any more."""
        self.leave()
        await self.sender.cluster.owner.end(self._task)

    def leave(self) -> None:
        """End the stream, without waiting for it."""
        if self._timer is not None:
            self._timer.cancel()
        self.sender.cluster.owner.cancel(self._task)

    def tick(self, now: float) -> bool:
        """Take back what another broker leads by now; break a stream that is silent too long.

        Returns whether the broker is silent for a while already.
        """
        if not self._sent_at:
            return False
        silence = now - next(iter(self._sent_at.values()))
        if silence < STALL_S:
            return False
        if self._unread:
            self.sender.cluster.avoid(self.endpoint)
        for batches in self._requests.values():
            for index, batch in enumerate(batches):
                if batch is None or batch.done:
                    continue
                endpoint = self.sender.endpoint_of(batch.queue)
                if endpoint and endpoint != self.endpoint:
                    batches[index] = None  # its answer, should it still come, is not for us
                    self.sender.lost(batch, StreamBrokenError("another broker leads"), backoff_s=0)
        silence_max = self.sender.request_timeout_ms / 1000 + ANSWER_GRACE_S
        if silence >= silence_max or not any(
            batch is not None for batches in self._requests.values() for batch in batches
        ):
            self._cut = True
            if self._reader is not None:
                self._reader.cancel()
        return True

    async def _stream_for_good(self) -> None:
        while True:
            self._wake.clear()
            if not self._has_work():
                await self._wake.wait()
                continue
            error = await self._one_stream()
            self._lose_all(error)
            self.sender.wake()  # what came back may be for another broker
            self._breaks += 1
            self.sender.refresh()
            await asyncio.sleep(min(BACKOFF_S * 2 ** min(self._breaks - 1, 4), BACKOFF_MAX_S))

    async def _one_stream(self) -> QuorateError:
        """Live with one stream until it ends; return why it did."""
        self._cut = False
        self._reader = asyncio.create_task(self._read(), name=f"quorate-produced-{self.endpoint}")
        try:
            await self._reader
        except QuorateError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cut or (task is not None and task.cancelling()):
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
                raise
            return DeadlineExceededError(
                f"{self.endpoint} did not answer within {self.sender.request_timeout_ms} ms"
            )
        finally:
            self._reader = None
        return StreamBrokenError(f"{self.endpoint} ended the stream")

    async def _read(self) -> None:
        self._is_first = True
        connection = self.sender.cluster.connection(self.endpoint)
        async with aclosing(connection.stream(PRODUCE, self._requests_to_send())) as answers:
            async for response in answers:
                self._breaks = 0
                heard = max((one.request_id for one in response.results), default=0)
                self._unread = {one: at for one, at in self._unread.items() if one > heard}
                for result in response.results:
                    self._settle(result)
                self._wake.set()

    def _settle(self, result: ProduceResult) -> None:
        batches = self._requests.get(result.request_id)
        if batches is None or result.index >= len(batches):
            return
        batch = batches[result.index]
        batches[result.index] = None
        if not any(one is not None for one in batches):
            del self._requests[result.request_id]
            del self._sent_at[result.request_id]
        if batch is None or batch.done:
            return
        failed = result.error.code != ErrorCode.ERROR_CODE_NONE
        error = from_wire(result.error) if failed else None
        self.sender.settle(batch, error, result, self.endpoint)

    def _lose_all(self, error: QuorateError) -> None:
        requests, self._requests = self._requests, {}
        self._sent_at = {}
        self._unread = {}
        for batches in requests.values():
            for batch in batches:
                if batch is not None:
                    self.sender.lost(batch, error)

    def _is_ours(self, queue: PartitionQueue) -> bool:
        return self.sender.endpoint_of(queue) == self.endpoint

    def _has_work(self) -> bool:
        return any(self._is_ours(queue) for queue in self.accumulator.waiting())

    async def _requests_to_send(self) -> AsyncIterator[Frame[ProduceHeader]]:
        while True:
            frame = self._next_request()
            if frame is not None:
                yield frame
                continue
            self._wake.clear()
            await self._wake.wait()

    def _next_request(self) -> Frame[ProduceHeader] | None:
        now = asyncio.get_running_loop().time()
        self._unread = {one: at for one, at in self._unread.items() if now < at + UNREAD_S}
        if len(self._unread) >= UNREAD_REQUESTS_MAX:
            self._set_timer(next(iter(self._unread.values())) + UNREAD_S - now)
            return None
        batches = self.accumulator.drain(
            now,
            self._is_ours,
            bytes_max=REQUEST_BYTES_MAX,
            may_linger=bool(self._unread),
            carrier=self,
        )
        if not batches:
            self._wake_later(now)
            return None
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._requests[request_id] = list(batches)
        self._sent_at[request_id] = now
        self._unread[request_id] = now
        return self._frame(request_id, batches, now)

    def _frame(self, request_id: int, batches: list[Batch], now: float) -> Frame[ProduceHeader]:
        header = ProduceHeader(
            request_id=request_id,
            acks=self.sender.acks,
            timeout_ms=self.sender.request_timeout_ms,
            client_id=self.sender.cluster.client_id if self._is_first else "",
        )
        self._is_first = False
        pieces: list[bytes] = []
        for batch in batches:
            assert batch.encoded is not None
            queue = batch.queue
            view = self.sender.cluster.partition(queue.topic, queue.partition)
            header.partitions.append(
                ProducePartition(
                    topic_id=queue.topic_id,
                    partition=queue.partition,
                    leader_epoch=view.leader_epoch if view is not None else -1,
                    size=len(batch.encoded),
                    in_doubt_ms=in_doubt_ms(batch, now),
                )
            )
            pieces.append(batch.encoded)
        return Frame(header, pieces)

    def _wake_later(self, now: float) -> None:
        ends = self.accumulator.linger_ends(now, self._is_ours)
        if ends is not None:
            self._set_timer(ends - now)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds, 0.001), self._wake.set)


def in_doubt_ms(batch: Batch, now: float) -> int:
    """Return how long ago a batch was sent first, if that may have written it; else 0."""
    if not batch.is_uncertain:
        return 0
    return min(int((now - batch.first_sent_at) * 1000) + 1, UINT32_MAX)
