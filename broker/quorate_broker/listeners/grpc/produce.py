"""One Produce stream: it takes frames, and returns results when they are ready.

The stream puts the batches of each frame into their partitions' queues before it reads the next
frame. So the order in a partition is the order on the stream. All results that are ready are sent
in one response.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext
from typing import Any

from quorate.errors import InvalidRequestError, NetworkError, QuorateError
from quorate.net.frame import Frame
from quorate.net.network import Peer
from quorate.v1.records_pb2 import ProduceHeader, ProduceResult
from quorate_broker.listeners.grpc.answers import Hints, error_of
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.operations.produce import Produce
from quorate_broker.replica.produce_queue import Produced
from quorate_quorum.node.config import BrokerConfig

#: The most results in one response.
RESPONSE_RESULTS_MAX = 4_096

#: Identifies a batch on its stream: the id of its request, and its index in this request.
BatchTag = tuple[int, int]


class ProduceStream:
    """The state of one stream. The service owns the stream and closes it."""

    def __init__(self, produce: Produce, peer: Peer, hints: Hints, config: BrokerConfig) -> None:
        self._produce = produce
        self._session = produce.session(peer.principal, self._completed)
        self._hints = hints
        #: The most results that may wait for the client. Above this bound no frame is read.
        self._results_max = config.stream_results_max
        self._ready: deque[ProduceResult] = deque()
        self._last_request_id = -1
        self._reading = True
        self._is_open = True
        self._failure: QuorateError | None = None
        #: Set when next_results must check the state of the stream again.
        self._changed = asyncio.Event()
        #: Set when results were taken, so that the reader may continue.
        self._taken = asyncio.Event()

    async def read(self, requests: AsyncIterator[Frame[ProduceHeader]]) -> None:
        """Take requests until the client ends its side, or the framing of a request is wrong."""
        closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
        try:
            async with closing:
                async for frame in requests:
                    await self._take(frame)
                    await self._room()
        except NetworkError:
            # the client is gone; the broker still appends the batches that it has read
            pass
        except QuorateError as error:
            self._failure = error
        finally:
            self.stop()

    async def next_results(self) -> list[ProduceResult]:
        """Wait for results. Return those that are ready; an empty list at the stream's end.

        Raises InvalidRequestError, after all results, if the framing of a request was wrong.
        """
        while not self._ready:
            if not self._reading and not self._session.waiting:
                if self._failure is not None:
                    raise self._failure
                return []
            self._changed.clear()
            await self._changed.wait()
        count = min(len(self._ready), RESPONSE_RESULTS_MAX)
        taken = [self._ready.popleft() for _ in range(count)]
        self._taken.set()
        return taken

    def stop(self) -> None:
        """Take no more batches. next_results ends when every accepted batch has its result."""
        self._reading = False
        self._session.stop()
        self._changed.set()

    def close(self) -> None:
        """Drop the results, because the client has gone. Accepted batches are still appended."""
        self._ready.clear()
        self._is_open = False

    async def _room(self) -> None:
        await self._session.room()
        while len(self._ready) >= self._results_max:
            self._taken.clear()
            await self._taken.wait()

    async def _take(self, frame: Frame[ProduceHeader]) -> None:
        """Give each batch of a request to its partition, in the order of the request."""
        header, payload = frame.header, frame.payload
        self._check_framing(header, len(payload))
        request_id, acks, timeout_ms = header.request_id, header.acks, header.timeout_ms
        named: dict[tuple[bytes, int], None] = {}
        position = 0
        for index, wanted in enumerate(header.partitions):
            batch = payload[position : position + wanted.size]
            position += wanted.size
            key = (wanted.topic_id, wanted.partition)
            if key in named:
                error = InvalidRequestError(
                    f"partition {wanted.partition} is named twice in one request; "
                    "a request carries at most one batch a partition"
                )
                self._completed((request_id, index), error)
                continue
            named[key] = None
            self._session.start(
                (request_id, index),
                *key,
                batch,
                leader_epoch=wanted.leader_epoch,
                acks=acks,
                timeout_ms=timeout_ms,
                in_doubt_ms=wanted.in_doubt_ms,
            )
            if len(named) % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)

    def _check_framing(self, header: ProduceHeader, payload_bytes: int) -> None:
        if header.request_id <= self._last_request_id:
            raise InvalidRequestError(
                f"request_id must grow on a stream: {header.request_id} after "
                f"{self._last_request_id}"
            )
        self._last_request_id = header.request_id
        self._produce.check_count(len(header.partitions))
        named_bytes = sum(wanted.size for wanted in header.partitions)
        if named_bytes != payload_bytes:
            raise InvalidRequestError(
                f"a request's partitions name {named_bytes} bytes, its payload has {payload_bytes}"
            )

    def _completed(self, tag: BatchTag, outcome: Produced | QuorateError) -> None:
        if self._is_open:
            self._ready.append(self._result(tag, outcome))
            self._changed.set()

    def _result(self, tag: BatchTag, outcome: Produced | QuorateError) -> ProduceResult:
        request_id, index = tag
        if isinstance(outcome, QuorateError):
            return ProduceResult(
                request_id=request_id,
                index=index,
                error=error_of(outcome),
                base_offset=-1,
                log_append_time_ms=-1,
                log_start_offset=-1,
                leader=self._hints.of(outcome),
            )
        return ProduceResult(
            request_id=request_id,
            index=index,
            base_offset=outcome.base_offset,
            log_append_time_ms=outcome.log_append_time_ms,
            log_start_offset=outcome.log_start_offset,
        )
