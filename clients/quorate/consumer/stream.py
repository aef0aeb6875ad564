"""The fetch stream to one broker: carries out what its session (session.py) asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quorate.consumer.deserialization import whole_batches
from quorate.consumer.positions import UNKNOWN
from quorate.consumer.session import Asked, FetchSession
from quorate.errors import (
    CorruptRecordError,
    DeadlineExceededError,
    LogTruncatedError,
    OffsetOutOfRangeError,
    OverloadedError,
    PeerError,
    QuorateError,
    StreamBrokenError,
    from_wire,
)
from quorate.net.methods import FETCH
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import FetchedPartition, FetchHeader, FetchPartition, FetchRequest

if TYPE_CHECKING:
    from quorate.cluster.cluster import Cluster
    from quorate.consumer.buffer import Buffer
    from quorate.consumer.positions import PartitionState, Reset
    from quorate.net.frame import Frame

log = logging.getLogger(__name__)

BACKOFF_S = 0.03
BACKOFF_MAX_S = 0.5
STALL_S = 1.0  # silent for so long beyond fetch_max_wait_ms: somebody else may lead by now
BREAK_AFTER_S = 5.0
#: Partitions of one stream, before the broker says that there is room for fewer.
SESSION_PARTITIONS_MAX = 10_000
#: A broker that ends so many streams in a row for what we ask will not have it: the user is told.
REFUSALS_MAX = 5
REFUSALS = ("INVALID_ARGUMENT", "UNIMPLEMENTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """The bounds of a consumer's fetches."""

    min_bytes: int
    max_bytes: int
    max_wait_ms: int
    max_partition_bytes: int
    client_rack: str
    policy: Reset


class BrokerStream:
    """See the module.

    `changed` is called with each partition that an answer said something of, `no_room` with one
    that the broker's session has no room for.
    """

    def __init__(
        self,
        cluster: Cluster,
        endpoint: str,
        config: FetchConfig,
        buffer: Buffer,
        changed: Callable[[PartitionState], None],
        no_room: Callable[[PartitionState], None],
    ) -> None:
        self.endpoint = endpoint
        #: Partitions that the broker takes on this stream, as far as we know.
        self.partitions_max = SESSION_PARTITIONS_MAX
        self.session = FetchSession(config.max_partition_bytes)
        self._cluster = cluster
        self._config = config
        self._buffer = buffer
        self._changed = changed
        self._no_room = no_room
        self._wake = asyncio.Event()
        self._asked_at = 0.0
        self._is_first = True
        self._is_cut = False
        self._breaks = 0
        self._reader: asyncio.Task[QuorateError] | None = None
        self._task = cluster.owner.spawn(self._stream_for_good(), f"fetch-{endpoint}")

    def wake(self) -> None:
        """There may be something to ask for."""
        self._wake.set()

    def touch(self, state: PartitionState) -> None:
        """Something happened to a partition that is fetched here."""
        self.session.touch(state)
        self._wake.set()

    async def stop(self) -> None:
        """End the stream."""
        await self._cluster.owner.end(self._task)

    def tick(self, now: float) -> bool:
        """Break a stream that is silent too long; return whether it is silent already."""
        if not self.session.awaits_answer:
            return False
        silence = now - self._asked_at - self._config.max_wait_ms / 1000
        if silence >= BREAK_AFTER_S or (silence >= STALL_S and not len(self.session)):
            self._cluster.avoid(self.endpoint)
            self._is_cut = True
            if self._reader is not None:
                self._cluster.owner.cancel(self._reader)
        return silence >= STALL_S

    # -- the stream ------------------------------------------------------------------------------

    async def _stream_for_good(self) -> None:
        while True:
            self._wake.clear()
            first = self._next_request()
            if first is None:
                await self._wake.wait()
                continue
            error = await self._one_stream(first)
            log.debug("the fetch stream of %s ended: %s", self.endpoint, error)
            self.session.restart()
            self._breaks += 1
            if isinstance(error, PeerError) and error.status in REFUSALS:
                self._refused(error)
            self._cluster.request_refresh()
            await asyncio.sleep(min(BACKOFF_S * 2 ** min(self._breaks - 1, 4), BACKOFF_MAX_S))

    def _refused(self, error: PeerError) -> None:
        if self._breaks >= REFUSALS_MAX:
            self._breaks = 0
            for state in self.session.members():
                state.error = error
                self._changed(state)

    async def _one_stream(self, first: Asked) -> QuorateError:
        self._is_first = True
        owner = self._cluster.owner
        reader = self._reader = owner.spawn(self._read(first), f"fetched-{self.endpoint}")
        try:
            await asyncio.wait([reader])
        finally:
            self._reader = None
            await owner.end(reader)
        if reader.cancelled():
            return DeadlineExceededError(f"{self.endpoint} was silent")
        return reader.result()

    async def _read(self, first: Asked) -> QuorateError:
        """Take answers until the stream ends; return why it did."""
        connection = self._cluster.connection(self.endpoint)
        try:
            async with aclosing(connection.stream(FETCH, self._requests(first))) as frames:
                async for frame in frames:
                    self._breaks = 0
                    self._take(frame)
                    self._wake.set()
        except QuorateError as error:
            return error
        return StreamBrokenError(f"{self.endpoint} ended the stream")

    async def _requests(self, first: Asked) -> AsyncIterator[FetchRequest]:
        yield self._encoded(first)
        while True:
            self._wake.clear()
            asked = self._next_request()
            if asked is not None:
                yield self._encoded(asked)
            else:
                await self._wake.wait()

    def _next_request(self) -> Asked | None:
        return None if self._buffer.is_full else self.session.next_request()

    def _encoded(self, asked: Asked) -> FetchRequest:
        self._asked_at = asyncio.get_running_loop().time()
        config = self._config
        request = FetchRequest(
            request_id=asked.request_id,
            max_wait_ms=config.max_wait_ms,
            min_bytes=config.min_bytes,
            max_bytes=config.max_bytes,
            client_id=self._cluster.client_id if self._is_first else "",
            client_rack=config.client_rack if self._is_first else "",
        )
        self._is_first = False
        for topic_id, partition in asked.forgotten:
            request.forgotten.append(FetchPartition(topic_id=topic_id, partition=partition))
        for state in asked.named:
            view = self._cluster.partition(*state.topic_partition)
            request.partitions.append(
                FetchPartition(
                    topic_id=state.topic_id,
                    partition=state.topic_partition.partition,
                    fetch_offset=state.fetch_offset,
                    leader_epoch=view.leader_epoch if view is not None else -1,
                    max_bytes=config.max_partition_bytes,
                    last_fetched_epoch=state.fetch_epoch if state.fetch_epoch >= 0 else None,
                    was_corrupt=state.fetch_offset == state.corrupt_at,
                )
            )
        return request

    # -- answers ---------------------------------------------------------------------------------

    def _take(self, frame: Frame[FetchHeader]) -> None:
        request_id = frame.header.request_id
        self.session.answered(request_id)
        self._asked_at = asyncio.get_running_loop().time()
        payload = frame.payload
        position = 0
        for part in frame.header.partitions:
            data = payload[position : position + part.size]
            position += part.size
            state = self.session.awaits(
                request_id, part.topic_id, part.partition, part.fetch_offset
            )
            if state is None:
                continue  # sought elsewhere, or the same bytes came by an earlier request
            if part.error.code != ErrorCode.ERROR_CODE_NONE:
                self._failed(state, part)
                continue
            state.high_watermark = part.high_watermark
            state.log_start_offset = part.log_start_offset
            if data:
                # A small part is copied: as a view it would keep the whole answer in memory for
                # as long as it is not read.
                keeps_frame = 2 * len(data) >= len(payload)
                self._fetched(state, data if keeps_frame else memoryview(bytes(data)))

    def _fetched(self, state: PartitionState, data: memoryview) -> None:
        try:
            batches, size = whole_batches(data, state.fetch_offset)
        except CorruptRecordError as error:
            state.error = error
            state.corrupt_at = state.fetch_offset  # the next request tells the leader
            state.fetch_again()
        else:
            state.fetched(batches, size)
        self._changed(state)

    def _failed(self, state: PartitionState, part: FetchedPartition) -> None:
        error = from_wire(part.error)
        state.version += 1  # name it anew, and be told again
        if isinstance(error, LogTruncatedError):
            self._truncated(state, part)
        elif isinstance(error, OffsetOutOfRangeError):
            self._out_of_range(state, error)
        elif isinstance(error, OverloadedError):
            self._no_room(state)
        elif not error.retriable:
            state.error = error
        elif not self._cluster.learn(*state.topic_partition, part.leader):
            self._cluster.request_refresh()
            self._back_off(state)
        self._changed(state)

    def _truncated(self, state: PartitionState, part: FetchedPartition) -> None:
        """The leader's log is not the one that was read (KIP-320).

        What is held was fetched from the other log: it is dropped first, and the question asked
        again of what the user has read.
        """
        if state.position != state.fetch_offset:
            state.fetch_again()
            return
        position = state.position
        safe_offset = state.safe_offset(part.divergence.epoch, part.divergence.end_offset)
        topic, partition = state.topic_partition
        if self._config.policy == "none":
            state.error = LogTruncatedError(
                f"the log of {topic}-{partition} was cut: what was read from offset {safe_offset} "
                f"on, up to {position}, is gone, and other records have its place or will have; "
                f'seek to {safe_offset} to read them (auto_offset_reset is "none")',
                safe_offset=safe_offset,
            )
            return
        log.warning(
            "the log of %s-%d was cut below the position %d: records that were read are gone, "
            "reading goes on from %d (%s)",
            topic,
            partition,
            position,
            safe_offset,
            part.error.message,
        )
        state.seek(safe_offset)

    def _out_of_range(self, state: PartitionState, error: QuorateError) -> None:
        if state.held_bytes:
            self._back_off(state)  # first let the user have what was fetched before
        elif self._config.policy == "none":
            state.error = error
        else:
            log.warning(
                "the position %d in %s-%d does not exist any more: reading goes on from %s (%s)",
                state.position,
                *state.topic_partition,
                self._config.policy,
                error,
            )
            state.seek_to(self._config.policy)

    def _back_off(self, state: PartitionState) -> None:
        state.is_backing_off = True
        asyncio.get_running_loop().call_later(BACKOFF_S, self._retry, state)

    def _retry(self, state: PartitionState) -> None:
        state.is_backing_off = False
        if state.fetch_offset != UNKNOWN:
            self._changed(state)
