"""The positions of one follower in its partitions, and the frames that are sent to it.

A position acknowledges all records below it, and permits the leader to send the next chunk of the
partition. After a chunk the leader waits for the follower's new position. So at most one chunk of
each partition is under way, and a partition that is slow on the follower does not delay the others.
The bytes of the log go into the frame unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from quorate.aio.tasks import Tasks
from quorate.errors import NotLeaderError, QuorateError, to_wire
from quorate.net.frame import Frame
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.replica.leader import ReplicaStream
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.v1.replica_pb2 import ReplicaFetched, ReplicaFetchHeader, ReplicaFetchPartition

#: The size of a frame. Messages of this size cost least per byte.
FRAME_BYTES = 1 << 20
#: The smallest chunk of a partition, however many partitions have something to send.
CHUNK_BYTES_MIN = 64 << 10
#: A new high watermark waits this long for a frame with batches. Then it is sent alone.
HIGH_WATERMARK_LINGER_MS = 5
#: The most reads of one session at the same time.
READS_MAX = 64


@dataclass(slots=True)
class _Position:
    """A follower's position in one partition. The follower's next position replaces it."""

    partition: Partition
    leader: LeaderReplica
    offset: int
    #: The high watermark and the log's start that the follower knows: from its own request, or
    #: because this leader sent them.
    high_watermark: int
    log_start_offset: int
    unwatch: Callable[[], None]
    #: Batches are being read or were sent. No more is read until the follower sends a new position.
    is_sent: bool = False
    bytes_out: int = 0


class FollowerPositions:
    """The partitions of one follower's stream.

    If a bug ends a read, `failed` is called with the exception. `changed` is set when a position or
    a partition has changed. `taken` is set when a frame has taken the answers that were ready.
    """

    def __init__(self, replicas: Replicas, failed: Callable[[BaseException], None]) -> None:
        self._replicas = replicas
        self.changed = asyncio.Event()
        self.taken = asyncio.Event()
        #: The number of bytes for which the follower has room.
        self.bytes_max = FRAME_BYTES
        #: Until this time high watermarks wait for a frame with batches. Then they are sent alone.
        #: None: no high watermark waits.
        self.linger_until: float | None = None
        #: Refusals and divergences for the next frame.
        self.answers: list[ReplicaFetched] = []
        self._positions: dict[Key, _Position] = {}
        #: Partitions to check, in turn. A dict has an order, and each key once.
        self._due: dict[Key, None] = {}
        #: Answers with batches for the next frames.
        self._ready: list[tuple[_Position, ReplicaFetched, bytes]] = []
        self._reads = Tasks(lambda _, defect: failed(defect))
        #: Bytes that were read or sent, and that the follower has not acknowledged.
        self._bytes_out = 0

    async def close(self) -> None:
        """Forget every partition, and end the reads."""
        for key in list(self._positions):
            self.forget(key)
        await self._reads.end_all()

    # requests of the follower

    def name(self, stream: ReplicaStream, named: ReplicaFetchPartition, now_ms: int) -> None:
        """Take a new position. If it is refused or diverges, add an answer that says so."""
        key = (named.topic_id, named.partition)
        self.forget(key)
        try:
            partition = self._replicas.get(*key)
            leader = partition.as_leader()
            diverging = leader.follower_fetch(stream, named, now_ms)
        except QuorateError as error:
            self._refuse(named, error)
            return
        if diverging is not None:
            answer = _answer(partition, named.leader_epoch, named.fetch_offset)
            answer.diverging.CopyFrom(diverging)
            self.answers.append(answer)
            return
        self._positions[key] = _Position(
            partition,
            leader,
            named.fetch_offset,
            named.high_watermark,
            named.log_start_offset,
            partition.replica_watches.add(lambda: self._wake(key)),
        )
        self._due[key] = None

    def _refuse(self, named: ReplicaFetchPartition, error: QuorateError) -> None:
        partition = self._replicas.find(named.topic_id, named.partition)
        self.answers.append(
            ReplicaFetched(
                topic_id=named.topic_id,
                partition=named.partition,
                error=to_wire(error),
                leader_epoch=named.leader_epoch,
                base_offset=named.fetch_offset,
                log_start_offset=-1 if partition is None else partition.log_start_offset,
            )
        )

    def forget(self, key: Key) -> None:
        position = self._positions.pop(key, None)
        if position is not None:
            position.unwatch()
            self._bytes_out -= position.bytes_out
            self._due.pop(key, None)

    # frames to the follower

    def is_due(self, now: float) -> bool:
        """Return whether a frame is due: for an answer, or because a high watermark has waited."""
        has_lingered = self.linger_until is not None and now >= self.linger_until
        return bool(self.answers or self._ready) or has_lingered

    def _wake(self, key: Key) -> None:
        self._due[key] = None
        self.changed.set()

    async def look(self) -> None:
        """Check the partitions that are due, some of them in each turn of the loop."""
        share = max(CHUNK_BYTES_MIN, min(FRAME_BYTES, self.bytes_max // max(1, len(self._due))))
        for count, key in enumerate(list(self._due), 1):
            if count % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
            position = self._positions.get(key)
            if position is None or position.is_sent:
                self._due.pop(key, None)
            elif self._lost(key, position):
                continue
            elif position.partition.log_end_offset > position.offset:
                if self._bytes_out >= 2 * self.bytes_max or len(self._reads) >= READS_MAX:
                    # the partition stays due: an acknowledgement or the end of a read makes room
                    continue
                self._due.pop(key, None)
                self._start_read(key, position, share)
            elif self._has_new_bounds(position):
                if self.linger_until is None:
                    now = asyncio.get_running_loop().time()
                    self.linger_until = now + HIGH_WATERMARK_LINGER_MS / 1000
            else:
                self._due.pop(key, None)

    def _lost(self, key: Key, position: _Position) -> bool:
        """Return whether the leader that took the position has lost its leadership.

        If so, forget the position and tell the follower.
        """
        partition = position.partition
        if not position.leader.is_over:
            return False
        self.forget(key)
        answer = _answer(partition, position.leader.leader_epoch, position.offset)
        text = f"{partition.name}: leader {partition.leader}, leader_epoch {partition.leader_epoch}"
        answer.error.CopyFrom(to_wire(NotLeaderError(text)))
        self.answers.append(answer)
        return True

    def _has_new_bounds(self, position: _Position) -> bool:
        partition = position.partition
        known = min(partition.high_watermark, position.offset)
        return (
            known > position.high_watermark
            or partition.log_start_offset > position.log_start_offset
        )

    def _start_read(self, key: Key, position: _Position, bytes_max: int) -> None:
        position.is_sent = True
        read = self._reads.spawn(self._read(key, position, bytes_max), "replica read")
        # Set `changed` only when the read has ended. Otherwise a partition that waits because of
        # READS_MAX would find no room, and would not be checked again.
        read.add_done_callback(lambda _: self.changed.set())

    async def _read(self, key: Key, position: _Position, bytes_max: int) -> None:
        """Read the batches at a position. A slow disk delays only this partition."""
        partition = position.partition
        try:
            batches = await position.leader.read_for_follower(position.offset, bytes_max=bytes_max)
        except QuorateError as error:
            batches = b""
            if self._positions.get(key) is position:
                self.forget(key)
                answer = _answer(partition, position.leader.leader_epoch, position.offset)
                answer.error.CopyFrom(to_wire(error))
                self.answers.append(answer)
        if self._positions.get(key) is not position:
            return
        if not batches:
            position.is_sent = False
            # nothing was read: check the partition again, which finds the reason
            self._due[key] = None
            return
        position.bytes_out = len(batches)
        self._bytes_out += len(batches)
        answer = _answer(partition, position.leader.leader_epoch, position.offset)
        answer.size = len(batches)
        self._ready.append((position, answer, batches))

    def frame(self, request_number: int) -> Frame[ReplicaFetchHeader]:
        """Return the answers that are ready, as one frame of about FRAME_BYTES."""
        header = ReplicaFetchHeader(request_number=request_number)
        header.partitions.extend(self.answers)
        self.answers.clear()
        self.taken.set()
        pieces: list[bytes] = []
        size = taken = 0
        for position, answer, batches in self._ready:
            if self._positions.get((answer.topic_id, answer.partition)) is not position:
                # drop it: after the read, a new position came or the partition was forgotten
                taken += 1
                continue
            if size and size + len(batches) > FRAME_BYTES:
                break
            size += len(batches)
            taken += 1
            header.partitions.append(answer)
            pieces.append(batches)
        del self._ready[:taken]
        self._add_bounds(header)
        return Frame(header, tuple(pieces))

    def _add_bounds(self, header: ReplicaFetchHeader) -> None:
        """Add the high watermarks that wait for a frame."""
        self.linger_until = None
        for key in list(self._due):
            position = self._positions.get(key)
            if position is None or position.is_sent or not self._has_new_bounds(position):
                continue
            header.partitions.append(
                _answer(position.partition, position.leader.leader_epoch, position.offset)
            )
            position.high_watermark = min(position.partition.high_watermark, position.offset)
            position.log_start_offset = position.partition.log_start_offset


def _answer(partition: Partition, leader_epoch: int, offset: int) -> ReplicaFetched:
    return ReplicaFetched(
        topic_id=partition.topic_id,
        partition=partition.partition,
        leader_epoch=leader_epoch,
        base_offset=offset,
        high_watermark=partition.high_watermark,
        log_start_offset=partition.log_start_offset,
        has_gaps=partition.log.compaction.has_gaps,
    )
