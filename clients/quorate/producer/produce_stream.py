"""The produce stream to one broker: fills requests with batches, and matches answers to batches.

The sender decides what an answer means for a batch.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import LeaderStream
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
from quorate.settings import UINT32_MAX
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import (
    ProduceHeader,
    ProducePartition,
    ProduceResponse,
    ProduceResult,
)

#: Most requests to one broker that it may not have read yet. Batches that the broker has read, and
#: that wait for their replicas, do not count.
UNREAD_REQUESTS_MAX = 5
#: After this time a request counts as read, even without an answer. The answer may be held up by
#: one stuck partition, and this must not stop the other partitions.
UNREAD_S = 0.1
#: After this silence the broker may have lost its leadership, so the client asks for metadata.
STALL_S = 0.4
#: A living broker itself reports the timeout of a request, within this time after the timeout.
ANSWER_GRACE_S = 1.0


class StreamOwner(Protocol):
    """The part of the sender that a stream uses."""

    cluster: Cluster
    accumulator: Accumulator
    acks: int
    request_timeout_ms: int

    def settle(
        self, batch: Batch, error: QuorateError | None, result: ProduceResult, endpoint: str
    ) -> None: ...
    def lost(self, batch: Batch, error: QuorateError, *, wait_ms: float | None = None) -> None: ...
    def wake(self) -> None: ...


class ProduceStream(LeaderStream[Frame[ProduceHeader], ProduceResponse]):
    """The produce stream to one broker. It is opened when there is a batch for this broker."""

    def __init__(self, sender: StreamOwner, endpoint: str) -> None:
        super().__init__(sender.cluster, endpoint, PRODUCE, "produce")
        self.sender = sender
        self.accumulator = sender.accumulator
        #: Request id -> its batches; None instead of a batch that is answered. A request is removed
        #: when all its batches are answered.
        self._in_flight: dict[int, list[Batch | None]] = {}
        #: Request id -> time of sending, for requests that the broker may not have read. An answer
        #: proves that the broker has read all requests up to the answered one.
        self._unread: dict[int, float] = {}
        self._sent_at: dict[int, float] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_unused(self) -> bool:
        """Whether no request waits for an answer."""
        return not self._in_flight

    def wake_for_linger(self) -> None:
        """Wake the stream at the end of a new batch's linger.

        If the broker has read all requests, wake it at once.
        """
        if not self._unread or self.accumulator.flushes or not self.is_open:
            self.wake()
        elif self._timer is None or self._timer.when() < asyncio.get_running_loop().time():
            self._set_timer(self.accumulator.config.linger_s)

    def tick(self, now: float) -> bool:
        """Take back batches that another broker leads now.

        Cut the stream if it is silent for too long. Returns whether the broker is silent.
        """
        if not self._sent_at:
            return False
        silence = now - next(iter(self._sent_at.values()))
        if silence < STALL_S:
            return False
        if self._unread:
            self.cluster.avoid(self.endpoint)
        for batches in self._in_flight.values():
            self._take_back_moved(batches)
        silence_max = self.sender.request_timeout_ms / 1000 + ANSWER_GRACE_S
        if silence >= silence_max or not any(
            batch is not None for batches in self._in_flight.values() for batch in batches
        ):
            timeout_ms = self.sender.request_timeout_ms
            self.cut(
                DeadlineExceededError(f"{self.endpoint} did not answer within {timeout_ms} ms")
            )
        return True

    def _take_back_moved(self, batches: list[Batch | None]) -> None:
        for index, batch in enumerate(batches):
            if batch is None or batch.done:
                continue
            endpoint = endpoint_of(self.cluster, batch.queue)
            if endpoint and endpoint != self.endpoint:
                # forget the batch: an answer that still comes for it is ignored
                batches[index] = None
                self.sender.lost(batch, StreamBrokenError("another broker leads"), wait_ms=0)

    # -- answers ---------------------------------------------------------------------------------

    def take(self, answer: ProduceResponse) -> None:
        heard = max((one.request_id for one in answer.results), default=0)
        self._unread = {one: at for one, at in self._unread.items() if one > heard}
        for result in answer.results:
            self._settle(result)

    def _settle(self, result: ProduceResult) -> None:
        batches = self._in_flight.get(result.request_id)
        if batches is None or result.index >= len(batches):
            return
        batch = batches[result.index]
        batches[result.index] = None
        if not any(one is not None for one in batches):
            del self._in_flight[result.request_id]
            del self._sent_at[result.request_id]
        if batch is None or batch.done:
            return
        failed = result.error.code != ErrorCode.ERROR_CODE_NONE
        error = from_wire(result.error) if failed else None
        self.sender.settle(batch, error, result, self.endpoint)

    def broke(self, error: QuorateError) -> None:
        requests, self._in_flight = self._in_flight, {}
        self._sent_at = {}
        self._unread = {}
        for batches in requests.values():
            for batch in batches:
                if batch is not None:
                    self.sender.lost(batch, error)
        # the batches that came back may be for another broker
        self.sender.wake()

    # -- requests --------------------------------------------------------------------------------

    def _is_ours(self, queue: PartitionQueue) -> bool:
        return endpoint_of(self.cluster, queue) == self.endpoint

    def has_work(self) -> bool:
        return any(self._is_ours(queue) for queue in self.accumulator.waiting())

    def next_request(self) -> Frame[ProduceHeader] | None:
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
        self._in_flight[request_id] = list(batches)
        self._sent_at[request_id] = now
        self._unread[request_id] = now
        return self._frame(request_id, batches, now)

    def _frame(self, request_id: int, batches: list[Batch], now: float) -> Frame[ProduceHeader]:
        header = ProduceHeader(
            request_id=request_id,
            acks=self.sender.acks,
            timeout_ms=self.sender.request_timeout_ms,
            client_id=self.cluster.client_id if self.is_first_request else "",
        )
        pieces: list[bytes] = []
        for batch in batches:
            assert batch.encoded is not None
            queue = batch.queue
            view = self.cluster.partition(queue.topic, queue.partition)
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
        self._timer = loop.call_later(max(seconds, 0.001), self.wake)


def endpoint_of(cluster: Cluster, queue: PartitionQueue) -> str:
    """Return the endpoint of the leader of a queue's partition; empty if there is none."""
    return cluster.leader_endpoint(queue.topic, queue.topic_id, queue.partition)


def in_doubt_ms(batch: Batch, now: float) -> int:
    """Return the milliseconds since a batch was first sent; 0 if no attempt may have written it."""
    if not batch.is_uncertain:
        return 0
    return min(int((now - batch.first_sent_at) * 1000) + 1, UINT32_MAX)
