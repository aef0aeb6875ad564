"""The fetch stream to one broker: sends the requests of its session, and takes the answers.

fetch_session.py decides what to ask. In this module an answer becomes batches in the buffer,
another position, or an error that the user's next read raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from quorate import errors
from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import BACKOFF_MS, LeaderStream
from quorate.consumer.buffer import Buffer
from quorate.consumer.corruption import Corruptions
from quorate.consumer.fetch_session import Asked, FetchSession
from quorate.consumer.fetched_batches import whole_batches
from quorate.consumer.partition_state import UNKNOWN, PartitionState, Reset
from quorate.consumer.read_replicas import ReadReplicas
from quorate.net.frame import Frame
from quorate.net.methods import FETCH
from quorate.settings import INT32_MAX
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import FetchedPartition, FetchHeader, FetchPartition, FetchRequest

log = logging.getLogger(__name__)

#: If a broker is silent for this long beyond fetch_max_wait_ms, it may have lost its leadership:
#: the client asks for metadata.
STALL_S = 1.0
#: If a broker is silent for this long beyond fetch_max_wait_ms, its stream is cut.
SILENCE_MAX_S = 5.0
#: The most partitions of one stream, until the broker says that it has room for fewer.
SESSION_PARTITIONS_MAX = 10_000
#: After the broker has ended this many streams in a row because of their requests, the user gets an
#: error.
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


class FetchStream(LeaderStream[FetchRequest, Frame[FetchHeader]]):
    """One fetch stream to one broker, and the partitions that are fetched on it.

    `changed` is called with each partition that an answer has changed. `no_room` is called with
    each partition for which the broker's session has no room.
    """

    def __init__(
        self,
        cluster: Cluster,
        endpoint: str,
        config: FetchConfig,
        buffer: Buffer,
        corruptions: Corruptions,
        read_replicas: ReadReplicas,
        changed: Callable[[PartitionState], None],
        no_room: Callable[[PartitionState], None],
    ) -> None:
        super().__init__(cluster, endpoint, FETCH, "fetch")
        #: The most partitions that the broker takes on this stream, as far as this client knows.
        self.partitions_max = SESSION_PARTITIONS_MAX
        self.session = FetchSession(config.max_partition_bytes)
        self._config = config
        self._buffer = buffer
        self._corruptions = corruptions
        self._read_replicas = read_replicas
        self._changed = changed
        self._no_room = no_room
        #: The first request of the next stream, until it is sent; None: no stream must be opened.
        self._first: Asked | None = None
        self._asked_at = 0.0
        self._refusals = 0

    @property
    def is_unused(self) -> bool:
        """Whether no partition is fetched on this stream."""
        return not len(self.session)

    def touch(self, state: PartitionState) -> None:
        """Note that a partition of this stream has changed: the next request covers it."""
        self.session.touch(state)
        self.wake()

    def tick(self, now: float) -> bool:
        """Cut the stream if it is silent for too long. Return whether the broker is silent."""
        if not self.session.awaits_answer:
            return False
        silence = now - self._asked_at - self._config.max_wait_ms / 1000
        if silence >= SILENCE_MAX_S or (silence >= STALL_S and self.is_unused):
            self.cluster.avoid(self.endpoint)
            self.cut(errors.DeadlineExceededError(f"{self.endpoint} was silent"))
        return silence >= STALL_S

    def broke(self, error: errors.QuorateError) -> None:
        self._first = None
        self.session.restart()
        for state in self.session.members():
            self._read_replicas.refused(state)
        if not isinstance(error, errors.PeerError) or error.status not in REFUSALS:
            return
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            self._refusals = 0
            for state in self.session.members():
                state.error = error
                self._changed(state)

    # -- requests --------------------------------------------------------------------------------

    def has_work(self) -> bool:
        if self._first is None and not self._buffer.is_full:
            self._first = self.session.next_request()
        return self._first is not None

    def next_request(self) -> FetchRequest | None:
        asked, self._first = self._first, None
        if asked is None and not self._buffer.is_full:
            asked = self.session.next_request()
        return None if asked is None else self._encoded(asked)

    def _encoded(self, asked: Asked) -> FetchRequest:
        self._asked_at = asyncio.get_running_loop().time()
        config = self._config
        request = FetchRequest(
            request_id=asked.request_id,
            max_wait_ms=config.max_wait_ms,
            min_bytes=config.min_bytes,
            max_bytes=config.max_bytes,
            client_id=self.cluster.client_id if self.is_first_request else "",
            client_rack=config.client_rack if self.is_first_request else "",
        )
        for topic_id, partition in asked.forgotten:
            request.forgotten.append(FetchPartition(topic_id=topic_id, partition=partition))
        for state in asked.named:
            view = self.cluster.partition(*state.topic_partition)
            state.asked_epoch = INT32_MAX if view is None else view.leader_epoch
            request.partitions.append(
                FetchPartition(
                    topic_id=state.topic_id,
                    partition=state.topic_partition.partition,
                    fetch_offset=state.fetch_offset,
                    leader_epoch=view.leader_epoch if view is not None else -1,
                    max_bytes=config.max_partition_bytes,
                    last_fetched_epoch=state.fetch_epoch if state.fetch_epoch >= 0 else None,
                    was_corrupt=state.was_corrupt,
                    stays_here=self._read_replicas.stays(state),
                )
            )
        return request

    # -- answers ---------------------------------------------------------------------------------

    def take(self, answer: Frame[FetchHeader]) -> None:
        self._refusals = 0
        request_id = answer.header.request_id
        self.session.answered(request_id)
        self._asked_at = asyncio.get_running_loop().time()
        payload = answer.payload
        position = 0
        for part in answer.header.partitions:
            data = payload[position : position + part.size]
            position += part.size
            state = self.session.awaits(
                request_id, part.topic_id, part.partition, part.fetch_offset
            )
            if state is None:
                # ignore this part: a seek came in between, or an earlier answer had the same bytes
                continue
            state.answered_by = self.endpoint
            if part.error.code != ErrorCode.ERROR_CODE_NONE:
                self._failed(state, part)
                continue
            if part.HasField("read_replica"):
                self._read_replicas.sent(state, part.read_replica)
                continue
            state.high_watermark = part.high_watermark
            state.log_start_offset = part.log_start_offset
            if data:
                # Copy a small part. A view would keep the whole answer in memory until the user has
                # read the part.
                keeps_frame = 2 * len(data) >= len(payload)
                data = data if keeps_frame else memoryview(bytes(data))
                self._fetched(state, data, gaps=part.has_gaps)

    def _fetched(self, state: PartitionState, data: memoryview, *, gaps: bool) -> None:
        try:
            batches, size = whole_batches(
                data, state.fetch_offset, leader_epoch=state.asked_epoch, gaps=gaps
            )
        except errors.CorruptRecordError as error:
            # a new version: the next request tells the broker of the corrupt batch
            state.version += 1
            state.error = self._corruptions.found(state, state.fetch_offset, error)
        else:
            state.fetched(batches, size)
        self._changed(state)

    def _failed(self, state: PartitionState, part: FetchedPartition) -> None:
        error = errors.from_wire(part.error)
        if self._read_replicas.refused(state):
            # only the leader knows what is wrong with the partition, if something is
            self.cluster.learn(*state.topic_partition, part.leader)
            self._changed(state)
            return
        # a new version puts the partition into the next request, so the broker answers for it again
        state.version += 1
        if isinstance(error, errors.LogTruncatedError):
            self._truncated(state, part)
        elif isinstance(error, errors.OffsetOutOfRangeError):
            self._out_of_range(state, error)
        elif isinstance(error, errors.OverloadedError):
            self._no_room(state)
        elif isinstance(error, errors.CorruptRecordError):
            state.error = self._corruptions.found(state, state.fetch_offset, error)
        elif not error.retriable:
            state.error = error
        elif not self.cluster.learn(*state.topic_partition, part.leader):
            self.cluster.request_refresh()
            self._back_off(state)
        self._changed(state)

    def _truncated(self, state: PartitionState, part: FetchedPartition) -> None:
        """React to the answer of a leader whose log differs from the one that was read (KIP-320).

        Held records come from the log that was read, so they are dropped first, and the next fetch
        begins at the user's position. If the leader refuses that position, too, its log was cut
        below the position.
        """
        if state.position != state.fetch_offset:
            state.fetch_again()
            return
        position = state.position
        safe_offset = state.safe_offset(part.divergence.epoch, part.divergence.end_offset)
        topic, partition = state.topic_partition
        if self._config.policy == "none":
            state.error = errors.LogTruncatedError(
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

    def _out_of_range(self, state: PartitionState, error: errors.QuorateError) -> None:
        if state.held_bytes:
            # try again later: the user first reads the records that were fetched before
            self._back_off(state)
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
        asyncio.get_running_loop().call_later(BACKOFF_MS / 1000, self._retry, state)

    def _retry(self, state: PartitionState) -> None:
        state.is_backing_off = False
        if state.fetch_offset != UNKNOWN:
            self._changed(state)
