"""One Produce stream: frames in, batches into their partitions, results out as they get ready.

Each batch enters its partition's queue in the turn of the loop in which its frame was read, so
the order within a partition is the order on the stream. Results are gathered per turn of the
loop into one response. What bounds a stream is bytes that are not yet appended, never requests
that are not yet answered: a partition under min ISR holds back nobody else. The end of a stream
cancels nothing: what was appended lives on, only nobody hears of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Final

from quorate.errors import (
    InvalidRequestError,
    NetworkError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    StoppingError,
    UnknownServerError,
)
from quorate.v1.records_pb2 import ProduceResult
from quorate_broker.listeners.grpc.answers import error_of
from quorate_broker.operations.partitions import PARTITIONS_A_TURN, check_count, locate
from quorate_broker.replica.waiters import hint_of
from quorate_quorum.node.authorizer import Caller, Operation, Required, ResourceType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quorate.net.frame import Frame
    from quorate.v1.records_pb2 import ProduceHeader, ProducePartition
    from quorate_broker.replica.partition import Produced
    from quorate_broker.replicas import Replicas
    from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final = Required(Operation.WRITE, ResourceType.TOPIC)
ACKS = (-1, 0, 1)
#: Results in one response.
RESPONSE_RESULTS_MAX = 4_096


class ByteBudget:
    """Bytes that a broker has read from its producers and not yet appended."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self, size: int) -> None:
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size
        if self.held < self.bytes_max:
            while self._waiting:
                waiter = self._waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)

    async def room(self) -> None:
        """Wait until fewer bytes than the bound are held."""
        while self.held >= self.bytes_max:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter


class _Charge:
    """The bytes of one batch, given back once: when it is appended or refused."""

    __slots__ = ("_size", "_stream")

    def __init__(self, stream: ProduceStream, size: int) -> None:
        self._stream = stream
        self._size = size

    def __call__(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._stream.give_back(size)


class ProduceStream:
    """The state of one stream; the service owns it and closes it."""

    def __init__(
        self, replicas: Replicas, caller: Caller, budget: ByteBudget, config: BrokerConfig
    ) -> None:
        self._replicas = replicas
        self._caller = caller
        self._budget = budget
        self._config = config
        self._own_budget = ByteBudget(config.stream_queued_max_bytes)
        self._ready: deque[ProduceResult] = deque()
        self._waiting = 0
        self._last_request_id = -1
        self._reading = True
        self._is_open = True
        self._failure: QuorateError | None = None
        self._changed = asyncio.Event()  # something for next_results to look at
        self._taken = asyncio.Event()  # results were taken: the reader may go on

    async def read(self, requests: AsyncIterator[Frame[ProduceHeader]]) -> None:
        """Take requests until the client ends its side, or one lies about its own framing."""
        closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
        try:
            async with closing:
                async for frame in requests:
                    await self._take(frame)
                    await self._room()
        except NetworkError:
            pass  # the client went away; what it sent is in the partitions' hands
        except QuorateError as error:
            self._failure = error
        finally:
            self._reading = False
            self._changed.set()

    async def next_results(self) -> list[ProduceResult]:
        """Return what got ready, as soon as something is; an empty list at the stream's end.

        Raises InvalidRequestError, after all results, if a request's framing lied.
        """
        while not self._ready:
            if not self._reading and not self._waiting:
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
        """Take no more; next_results ends once every batch that was taken has its result."""
        self._reading = False
        self._changed.set()

    def close(self) -> None:
        """Nobody asks for results any more; the batches that were taken live on."""
        self._ready.clear()
        self._is_open = False

    def give_back(self, size: int) -> None:
        self._own_budget.give_back(size)
        self._budget.give_back(size)

    async def _room(self) -> None:
        await self._own_budget.room()
        await self._budget.room()
        while len(self._ready) >= self._config.stream_results_max:
            self._taken.clear()
            await self._taken.wait()

    async def _take(self, frame: Frame[ProduceHeader]) -> None:
        """Hand each batch of a request to its partition, in the order of the request."""
        header, payload = frame.header, frame.payload
        self._check_framing(header, len(payload))
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
                self._add(header.request_id, index, error)
                continue
            named[key] = None
            self._produce(header, index, wanted, batch)
            if len(named) % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)

    def _check_framing(self, header: ProduceHeader, payload_bytes: int) -> None:
        if header.request_id <= self._last_request_id:
            raise InvalidRequestError(
                f"request_id must grow on a stream: {header.request_id} after "
                f"{self._last_request_id}"
            )
        self._last_request_id = header.request_id
        check_count(len(header.partitions), self._config.request_partitions_max, self._replicas)
        named_bytes = sum(wanted.size for wanted in header.partitions)
        if named_bytes != payload_bytes:
            raise InvalidRequestError(
                f"a request's partitions name {named_bytes} bytes, its payload has {payload_bytes}"
            )

    def _produce(
        self, header: ProduceHeader, index: int, wanted: ProducePartition, batch: memoryview
    ) -> None:
        """Start one batch; its result comes by the future that the partition gives."""
        charge = _Charge(self, len(batch))
        self._own_budget.take(len(batch))
        self._budget.take(len(batch))
        try:
            outcome = self._start(header, wanted, batch, charge)
        except QuorateError as error:
            charge()
            self._add(header.request_id, index, error)
            return
        self._waiting += 1
        request_id = header.request_id

        def done(outcome: asyncio.Future[Produced]) -> None:
            charge()
            self._waiting -= 1
            self._add(request_id, index, _outcome_of(outcome))

        outcome.add_done_callback(done)

    def _start(
        self, header: ProduceHeader, wanted: ProducePartition, batch: memoryview, charge: _Charge
    ) -> asyncio.Future[Produced]:
        if header.acks not in ACKS:
            raise InvalidRequestError(f"acks must be -1 (all), 0 or 1, not {header.acks}")
        if not self._reading:
            raise StoppingError("this broker is stopping: ask the partition's next leader")
        if self._waiting >= self._config.stream_waiting_max:
            raise OverloadedError(
                f"{self._waiting} batches of this stream wait for their outcome; "
                "no more are taken until some are done"
            )
        partition = locate(
            self._replicas,
            self._caller,
            REQUIRED,
            wanted.topic_id,
            wanted.partition,
            wanted.leader_epoch,
        )
        return partition.produce(
            batch,
            leader_epoch=wanted.leader_epoch,
            acks=header.acks,
            timeout_ms=min(header.timeout_ms, self._config.produce_timeout_max_ms),
            in_doubt_ms=wanted.in_doubt_ms,
            appended=charge,
        )

    def _add(self, request_id: int, index: int, outcome: Produced | QuorateError) -> None:
        if not self._is_open:
            return
        self._ready.append(_result(request_id, index, outcome))
        self._changed.set()


def _outcome_of(outcome: asyncio.Future[Produced]) -> Produced | QuorateError:
    if outcome.cancelled():
        return OutcomeUnknownError("the partition was closed before the outcome was known")
    error = outcome.exception()
    if error is None:
        return outcome.result()
    if isinstance(error, QuorateError):
        return error
    return UnknownServerError(f"{type(error).__name__}: {error}")


def _result(request_id: int, index: int, outcome: Produced | QuorateError) -> ProduceResult:
    if isinstance(outcome, QuorateError):
        return ProduceResult(
            request_id=request_id,
            index=index,
            error=error_of(outcome),
            base_offset=-1,
            log_append_time_ms=-1,
            log_start_offset=-1,
            leader=hint_of(outcome),
        )
    return ProduceResult(
        request_id=request_id,
        index=index,
        base_offset=outcome.base_offset,
        log_append_time_ms=outcome.log_append_time_ms,
        log_start_offset=outcome.log_start_offset,
    )
