"""What drives the accumulator: one produce stream per broker, and what to do when one breaks.

The accumulator decides what is sent, in which order, and again; this module waits. A stream's
requests are drawn from the accumulator when the wire takes them, so a slow broker fills batches
instead of queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from quorate.errors import (
    DeadlineExceededError,
    NotLeaderError,
    OutOfOrderSequenceError,
    QuorateError,
    StreamBrokenError,
    UnknownProducerIdError,
    UnknownServerError,
    UnknownTopicError,
    from_wire,
    raise_if_error,
)
from quorate.frame import Frame
from quorate.methods import INIT_PRODUCER_ID, PRODUCE
from quorate.producer.accumulator import Accumulator, Batch, PartitionQueue, ProducerIdentity
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import (
    InitProducerIdRequest,
    ProduceHeader,
    ProducePartition,
    ProduceResult,
)

if TYPE_CHECKING:
    from quorate.cluster import Cluster

log = structlog.get_logger(__name__)

REQUEST_BYTES_MAX = 1 << 20
REQUESTS_IN_FLIGHT_MAX = 5  # per broker; batches per partition have a bound of their own
BACKOFF_S = 0.03
BACKOFF_MAX_S = 0.5
TICK_S = 0.1
STALL_S = 0.4  # a broker that is silent so long may have lost its leadership: look again
REFRESH_EVERY_S = 0.1


class Sender:
    """All produce streams of one producer."""

    def __init__(
        self, cluster: Cluster, accumulator: Accumulator, *, acks: int, request_timeout_ms: int
    ) -> None:
        self.cluster = cluster
        self.accumulator = accumulator
        self.acks = acks
        self.request_timeout_ms = request_timeout_ms
        self._streams: dict[str, BrokerStream] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._identity: asyncio.Task[None] | None = None
        self._refreshed_at = -1.0
        #: Why nothing can be sent any more; None while all is well.
        self.failure: QuorateError | None = None
        cluster.on_change(self.wake)

    def start(self) -> None:
        """Begin to send."""
        self._ticker = asyncio.create_task(self._tick(), name="quorate-producer-tick")

    async def stop(self) -> None:
        """End every stream."""
        tasks = [task for task in (self._ticker, self._identity) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in list(self._streams.values()):
            await stream.stop()
        self._streams.clear()

    def fail(self, error: QuorateError) -> None:
        """Fail what is buffered and all that comes: a bug of ours, not of the cluster's."""
        self.failure = error
        self.accumulator.fail_all(error)

    def wake(self) -> None:
        """Something may be ready to be sent."""
        if self.accumulator.config.idempotent and self.accumulator.identity is None:
            self._ask_identity()
        homeless = False
        for queue in self.accumulator.waiting():
            endpoint = self.endpoint_of(queue)
            if not endpoint:
                homeless = True
            elif endpoint not in self._streams:
                self._streams[endpoint] = BrokerStream(self, endpoint)
        for stream in self._streams.values():
            stream.wake()
        if homeless:
            self.refresh()

    def endpoint_of(self, queue: PartitionQueue) -> str:
        """Return where the leader of a queue's partition listens; empty if nobody leads."""
        view = self.cluster.partition(queue.topic, queue.partition)
        return view.endpoint if view is not None and view.leader >= 0 else ""

    def refresh(self) -> None:
        """Look for leaders again, not more often than every REFRESH_EVERY_S."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at >= REFRESH_EVERY_S:
            self._refreshed_at = now
            self.cluster.request_refresh()

    def settle(self, batch: Batch, error: QuorateError | None, result: ProduceResult) -> None:
        """Carry out what a broker answered for a batch."""
        if error is None:
            self.accumulator.succeeded(batch, result.base_offset, result.log_append_time_ms)
            return
        queue = batch.queue
        knows_leader = result.HasField("leader") and self.cluster.learn(
            queue.topic, queue.partition, result.leader
        )
        self.lost(batch, error, backoff_s=0.0 if knows_leader else None)
        if error.stale_metadata and not knows_leader:
            self.refresh()

    def lost(self, batch: Batch, error: QuorateError, *, backoff_s: float | None = None) -> None:
        """Send a batch again, or fail it, as its error says."""
        if batch.done:
            return
        if not self._is_worth_a_retry(batch, error):
            self.accumulator.failed(batch, error)
            return
        if backoff_s is None:
            backoff_s = min(BACKOFF_S * 2 ** min(batch.attempts - 1, 5), BACKOFF_MAX_S)
        now = asyncio.get_running_loop().time()
        self.accumulator.retry(batch, error, now, backoff_s)

    def _is_worth_a_retry(self, batch: Batch, error: QuorateError) -> bool:
        if self.acks == 0 and not isinstance(error, NotLeaderError):
            return False  # at most once
        if isinstance(error, UnknownTopicError):
            topic = self.cluster.topics.get(batch.queue.topic)
            return topic is not None and topic.topic_id == batch.queue.topic_id
        if isinstance(error, OutOfOrderSequenceError | UnknownProducerIdError):
            return self.accumulator.config.idempotent and batch.base_sequence >= 0
        return error.retriable

    def _ask_identity(self) -> None:
        if self._identity is None or self._identity.done():
            self._identity = asyncio.create_task(self._get_identity(), name="quorate-producer-id")

    async def _get_identity(self) -> None:
        while True:
            try:
                response = await self.cluster.ask_any(
                    INIT_PRODUCER_ID,
                    InitProducerIdRequest(producer_id=-1, producer_epoch=-1),
                    timeout_ms=min(self.request_timeout_ms, 2000),
                )
                raise_if_error(response.error)
            except QuorateError as error:
                log.debug("no producer id yet", error=str(error))
                await asyncio.sleep(BACKOFF_S)
            else:
                self.accumulator.identity = ProducerIdentity(
                    response.producer_id, response.producer_epoch
                )
                self.wake()
                return

    async def _tick(self) -> None:
        """Expire what is late, and look again for leaders while somebody is silent."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            self.accumulator.expire(now)
            stalled = False
            for endpoint, stream in list(self._streams.items()):
                stalled |= stream.tick(now)
                if stream.is_idle and endpoint not in self.cluster.brokers.values():
                    del self._streams[endpoint]
                    await stream.stop()
            if stalled:
                self.refresh()
            self.wake()


class BrokerStream:
    """The produce stream to one broker, opened while there is something to send."""

    def __init__(self, sender: Sender, endpoint: str) -> None:
        self.sender = sender
        self.accumulator = sender.accumulator
        self.endpoint = endpoint
        self._wake = asyncio.Event()
        self._requests: dict[int, list[Batch | None]] = {}
        self._sent_at: dict[int, float] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._breaks = 0
        self._cut = False
        self._is_first = True
        self._reader: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run(), name=f"quorate-produce-{endpoint}")

    @property
    def is_idle(self) -> bool:
        """Nothing is in flight."""
        return not self._requests

    def wake(self) -> None:
        """Something may be ready to be sent."""
        self._wake.set()

    async def stop(self) -> None:
        """End the stream; what is in flight is not answered any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def tick(self, now: float) -> bool:
        """Take back what another broker leads by now; break a stream that is silent too long.

        Returns whether the broker is silent for a while already.
        """
        if not self._sent_at:
            return False
        silence = now - next(iter(self._sent_at.values()))
        if silence < STALL_S:
            return False
        for batches in self._requests.values():
            for index, batch in enumerate(batches):
                if batch is None or batch.done:
                    continue
                endpoint = self.sender.endpoint_of(batch.queue)
                if endpoint and endpoint != self.endpoint:
                    batches[index] = None  # its answer, should it still come, is not for us
                    self.sender.lost(batch, StreamBrokenError("another broker leads"), backoff_s=0)
        if silence * 1000 >= self.sender.request_timeout_ms or not any(
            batch is not None for batches in self._requests.values() for batch in batches
        ):
            self._cut = True
            if self._reader is not None:
                self._reader.cancel()
        return True

    async def _run(self) -> None:
        try:
            await self._stream_for_good()
        except Exception as error:
            log.exception("the producer failed", broker=self.endpoint)
            self.sender.fail(UnknownServerError(f"the producer failed: {error!r}"))

    async def _stream_for_good(self) -> None:
        while True:
            await self._wake.wait()
            if not self._has_work():
                self._wake.clear()
                continue
            error = await self._one_stream()
            self._lose_all(error)
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
            if not self._cut:
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
        self.sender.settle(batch, from_wire(result.error) if failed else None, result)

    def _lose_all(self, error: QuorateError) -> None:
        requests, self._requests = self._requests, {}
        self._sent_at = {}
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
        if len(self._requests) >= REQUESTS_IN_FLIGHT_MAX:
            return None
        now = asyncio.get_running_loop().time()
        batches = self.accumulator.drain(
            now,
            self._is_ours,
            bytes_max=REQUEST_BYTES_MAX,
            may_linger=bool(self._requests),
        )
        if not batches:
            self._wake_later(now)
            return None
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._requests[request_id] = list(batches)
        self._sent_at[request_id] = now
        return self._frame(request_id, batches)

    def _frame(self, request_id: int, batches: list[Batch]) -> Frame[ProduceHeader]:
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
                )
            )
            pieces.append(batch.encoded)
        return Frame(header, pieces)

    def _wake_later(self, now: float) -> None:
        ends = self.accumulator.linger_ends(now, self._is_ours)
        if ends is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(ends - now, 0.001), self._wake.set)
