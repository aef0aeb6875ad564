"""The positions of one follower in its partitions, and the frames that are sent to it.

A position acknowledges all records below it, and permits the leader to send the next chunk of the
partition. After a chunk the leader waits for the follower's new position. So at most one chunk of
each partition is under way, and a partition that is slow on the follower does not delay the others.
StreamCredit decides when a chunk is read, how large it is, and which chunk is sent first. The bytes
of the log go into the frame unchanged. A partition that a throttle holds waits beside the others,
and takes no room from them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate.errors import NotLeaderError, QuorateError, UnknownLeaderEpochError, to_wire
from quorate.net.frame import Frame
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.replica.leader import ReplicaStream
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.replication.stream_credit import FRAME_BYTES, Chunk, StreamCredit
from quorate_broker.replication.throttle import Throttle
from quorate_broker.v1.replica_pb2 import ReplicaFetched, ReplicaFetchHeader, ReplicaFetchPartition
from quorate_quorum.metadata.partitions import PartitionImage

#: One partition to one follower: the follower's broker id, and the partition.
Copy = tuple[int, Key]
Failed = Callable[[BaseException], None]
#: A new high watermark waits this long for a frame with batches. Then it is sent alone.
HIGH_WATERMARK_LINGER_MS = 5
#: The most positions that wait for this broker's role, and the longest wait. Then they are refused.
EARLY_MAX, EARLY_MS_MAX = 20_000, 1_000


@dataclass(slots=True)
class _Position:
    """A follower's position in one partition. The follower's next position replaces it."""

    replica_id: int
    partition: Partition
    leader: LeaderReplica
    offset: int
    #: The high watermark and the log's start that the follower knows: from its own request, or
    #: because this leader sent them.
    high_watermark: int
    log_start_offset: int
    unwatch: Callable[[], None]
    #: The most bytes that the follower's throttle allows, and then this broker's, too; None: any.
    bytes_max: int | None = None
    allowed: int | None = None
    #: The batches that are read or were sent. No more is read until the follower sends a new
    #: position.
    chunk: Chunk | None = None
    #: Chunk.batch_max of the partition's last chunk.
    batch_max: int = 0

    @property
    def is_in_sync(self) -> bool:
        """Whether the high watermark waits for this follower, or may soon."""
        return self.leader.machine.waits_for(self.replica_id)

    @property
    def copy(self) -> Copy:
        return self.replica_id, self.partition.key

    def may_read(self, throttle: Throttle[Copy], wake: Callable[[], None]) -> bool:
        """Return whether there is more to read, and no throttle holds it, here or at the follower.

        If this broker's holds it, `wake` is called at its turn. The follower sends a new position.
        """
        if self.partition.log_end_offset <= self.offset:
            return False
        if self.is_in_sync:
            # The high watermark waits for it, whatever its own image says of the ISR.
            throttle.leave(self.copy)
            self.allowed = None
            return True
        if self.bytes_max == 0:
            return False
        size = FRAME_BYTES if self.bytes_max is None else self.bytes_max
        allowed = throttle.ask(self.copy, self.partition, self.replica_id, size, wake)
        self.allowed = self.bytes_max if allowed is None else allowed
        return self.allowed != 0

    @property
    def has_new_bounds(self) -> bool:
        partition = self.partition
        known = min(partition.high_watermark, self.offset)
        return known > self.high_watermark or partition.log_start_offset > self.log_start_offset


@dataclass(slots=True)
class _Ready:
    """An answer with batches, for one of the next frames."""

    position: _Position
    chunk: Chunk
    answer: ReplicaFetched
    batches: bytes


class _ReadyAnswers:
    """The answers with batches for the next frames: of in-sync followers, and of others."""

    def __init__(self, credit: StreamCredit, is_current: Callable[[_Ready], bool]) -> None:
        self._credit = credit
        self._is_current = is_current
        #: By is_in_sync.
        self._ready: dict[bool, deque[_Ready]] = {True: deque(), False: deque()}

    def __bool__(self) -> bool:
        return any(self._ready.values())

    def add(self, answer: _Ready) -> None:
        self._ready[answer.chunk.is_in_sync].append(answer)

    def take(self, header: ReplicaFetchHeader) -> list[bytes]:
        """Add the answers of the next frame to its header, and return their batches."""
        first = {kind: self._first_size(ready) for kind, ready in self._ready.items()}
        is_in_sync = not self._credit.is_catch_up_next(first[True], first[False])
        pieces: list[bytes] = []
        size, now_ms = 0, loop_ms()
        ready = self._ready[is_in_sync]
        while (next_size := self._first_size(ready)) and (
            not size or size + next_size <= FRAME_BYTES
        ):
            found = ready.popleft()
            self._credit.taken(found.chunk, both_wait=first[not is_in_sync] > 0)
            self._credit.sent(found.chunk, now_ms)
            size += next_size
            header.partitions.append(found.answer)
            pieces.append(found.batches)
        return pieces

    def _first_size(self, ready: deque[_Ready]) -> int:
        """Return the size of the first answer; 0: there is none. Drop those that came too late."""
        while ready:
            if self._is_current(ready[0]):
                return len(ready[0].batches)
            self._credit.drop(ready.popleft().chunk)
        return 0


class FollowerPositions:
    """The partitions of one follower's stream.

    If a bug ends a read, `failed` is called with the exception. `changed` is set when a position or
    a partition has changed. `taken` is set when a frame has taken the answers that were ready.
    """

    def __init__(self, replicas: Replicas, throttle: Throttle[Copy], failed: Failed) -> None:
        self._replicas = replicas
        self._throttle = throttle
        self.changed = asyncio.Event()
        self.taken = asyncio.Event()
        self.credit = StreamCredit(FRAME_BYTES)
        #: Until this time high watermarks wait for a frame with batches. Then they are sent alone.
        #: None: no high watermark waits.
        self.linger_until: float | None = None
        #: Refusals and divergences for the next frame.
        self.answers: list[ReplicaFetched] = []
        self._positions: dict[Key, _Position] = {}
        #: Positions under a leader_epoch that this broker does not lead in yet, and when they came,
        #: oldest first. The follower's image is newer than the one that is carried out here.
        #: Refused, the follower would wait and ask again, and records would be committed later.
        self.early: dict[Key, tuple[ReplicaFetchPartition, int]] = {}
        #: Partitions to check, in turn. A dict has an order, and each key once.
        self._due: dict[Key, None] = {}
        #: Partitions with records that wait for room, in turn, by is_in_sync.
        self._behind: dict[bool, dict[Key, None]] = {True: {}, False: {}}
        #: Partitions whose new high watermark or log start waits for a frame.
        self._news: dict[Key, None] = {}
        self._ready = _ReadyAnswers(self.credit, self._is_current)
        self._reads = Tasks(lambda _, defect: failed(defect))

    async def close(self) -> None:
        """Forget every partition, and end the reads."""
        self.early.clear()
        for key in list(self._positions):
            self.forget(key)
        await self._reads.end_all()

    # requests of the follower

    def name(self, stream: ReplicaStream, named: ReplicaFetchPartition, now_ms: int) -> None:
        """Take a new position. If it is refused or diverges, add an answer that says so."""
        key = (named.topic_id, named.partition)
        self._acknowledge(key, named.fetch_offset, now_ms)
        last = self._positions.get(key)
        self.forget(key)
        try:
            partition = self._replicas.get(*key)
            leader = partition.as_leader()
            diverging = leader.follower_fetch(stream, named, now_ms)
        except QuorateError as error:
            if len(self.early) < EARLY_MAX and self._is_early(named):
                self.early[key] = named, now_ms
            else:
                self._refuse(named, error)
            return
        if diverging is not None:
            answer = _answer(partition, named.leader_epoch, named.fetch_offset)
            answer.diverging.CopyFrom(diverging)
            self.answers.append(answer)
            return
        self._positions[key] = _Position(
            stream.replica_id,
            partition,
            leader,
            named.fetch_offset,
            named.high_watermark,
            named.log_start_offset,
            partition.replica_watches.add(lambda: self._wake(key)),
            named.bytes_max if named.HasField("bytes_max") else None,
            batch_max=0 if last is None else last.batch_max,
        )
        self._due[key] = None

    def _is_early(self, named: ReplicaFetchPartition) -> bool:
        """Return whether this broker may lead in the follower's leader_epoch in a moment."""
        key = (named.topic_id, named.partition)
        partition = self._replicas.find(*key)
        if partition is not None:
            is_next = named.leader_epoch > partition.leader_epoch
            begins = partition.role is None and named.leader_epoch == partition.leader_epoch
            return partition.offline is None and (is_next or begins)
        state = self._replicas.image.partition(*key)
        if state is None or named.leader_epoch > state.leader_epoch:
            return True
        is_placed = state.directory_of(self._replicas.broker_id) is not None
        return is_placed and key not in self._replicas.unopened

    def take_early(self, stream: ReplicaStream, key: Key) -> None:
        """Take the position that came before this broker's role."""
        self.name(stream, *self.early.pop(key))
        self.changed.set()

    def refuse_late(self, now_ms: int) -> None:
        """Refuse the positions that have waited too long for this broker's role."""
        while self.early:
            key, (named, since_ms) = next(iter(self.early.items()))
            if now_ms < since_ms + EARLY_MS_MAX:
                return
            del self.early[key]
            self._refuse(named, _never_known(named, self._replicas.image.partition(*key)))

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

    def _acknowledge(self, key: Key, offset: int, now_ms: int) -> None:
        position = self._positions.get(key)
        if position is None or position.chunk is None or offset <= position.offset:
            return
        if position.chunk.is_sent:
            self.credit.acknowledged(position.chunk, now_ms)
            position.chunk = None

    def forget(self, key: Key) -> None:
        self.early.pop(key, None)
        position = self._positions.pop(key, None)
        if position is None:
            return
        position.unwatch()
        self._throttle.leave(position.copy)
        for keys in (self._due, self._news, *self._behind.values()):
            keys.pop(key, None)
        if position.chunk is not None and position.chunk.is_sent:
            # a chunk that was not sent yet counts until its bytes are dropped: see _read and frame
            self.credit.drop(position.chunk)

    # frames to the follower

    def is_due(self, now: float) -> bool:
        """Return whether a frame is due: for an answer, or because a high watermark has waited."""
        has_lingered = self.linger_until is not None and now >= self.linger_until
        return bool(self.answers or self._ready) or has_lingered

    def _wake(self, key: Key) -> None:
        self._due[key] = None
        self.changed.set()

    async def look(self) -> None:
        """Check the partitions that are due, some of them in each turn of the loop. Read more."""
        for count, key in enumerate(list(self._due), 1):
            if count % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
            self._due.pop(key, None)
            position = self._positions.get(key)
            if position is None:
                continue
            if position.chunk is not None:
                if not position.is_in_sync:
                    self.credit.left_isr(position.chunk)
            elif not self._lost(key, position):
                self._check(key, position)
        now_ms = loop_ms()
        self.credit.move_late(now_ms)
        for is_in_sync in (True, False):
            self._read_more(is_in_sync, now_ms)

    def _check(self, key: Key, position: _Position) -> None:
        is_in_sync = position.is_in_sync
        self._behind[not is_in_sync].pop(key, None)
        if position.may_read(self._throttle, lambda: self._wake(key)):
            self._behind[is_in_sync].setdefault(key)
            return
        self._behind[is_in_sync].pop(key, None)
        if position.has_new_bounds:
            self._news[key] = None
            if self.linger_until is None:
                now = asyncio.get_running_loop().time()
                self.linger_until = now + HIGH_WATERMARK_LINGER_MS / 1000

    def _read_more(self, is_in_sync: bool, now_ms: int) -> None:
        """Read partitions of one kind, in turn, as long as there is room."""
        behind = self._behind[is_in_sync]
        while behind:
            key = next(iter(behind))
            position = self._positions[key]
            chunk = self.credit.begin(
                is_in_sync=is_in_sync,
                waiting=len(behind),
                now_ms=now_ms,
                batch_max=position.batch_max,
            )
            if chunk is None:
                return
            del behind[key]
            self._start_read(key, position, chunk)

    def _lost(self, key: Key, position: _Position) -> bool:
        """Return whether the leader that took the position has lost its leadership.

        If so, forget the position and tell the follower.
        """
        partition = position.partition
        if not position.leader.is_over:
            return False
        text = f"{partition.name}: leader {partition.leader}, leader_epoch {partition.leader_epoch}"
        self._end(key, position, NotLeaderError(text))
        return True

    def _end(self, key: Key, position: _Position, error: QuorateError) -> None:
        self.forget(key)
        answer = _answer(position.partition, position.leader.leader_epoch, position.offset)
        answer.error.CopyFrom(to_wire(error))
        self.answers.append(answer)

    def _start_read(self, key: Key, position: _Position, chunk: Chunk) -> None:
        position.chunk = chunk
        read = self._reads.spawn(self._read(key, position, chunk), "replica read")
        # set `changed` only when the read has ended, and so has made room for another one
        read.add_done_callback(lambda _: self.changed.set())

    async def _read(self, key: Key, position: _Position, chunk: Chunk) -> None:
        """Read the batches at a position. A slow disk delays only this partition."""
        batches = b""
        bytes_max = min(chunk.read_max, position.allowed or chunk.read_max)
        try:
            batches = await position.leader.read_for_follower(position.offset, bytes_max=bytes_max)
        except QuorateError as error:
            if self._positions.get(key) is position:
                self._end(key, position, error)
        finally:
            self.credit.read(chunk, len(batches))
            position.batch_max = chunk.batch_max
        if self._positions.get(key) is not position:
            self.credit.drop(chunk)
            return
        if not batches:
            self.credit.drop(chunk)
            position.chunk = None
            # nothing was read: check the partition again, which finds the reason
            self._due[key] = None
            return
        self._throttle.used(position.copy, len(batches))
        answer = _answer(position.partition, position.leader.leader_epoch, position.offset)
        answer.size = len(batches)
        self._ready.add(_Ready(position, chunk, answer, batches))

    def _is_current(self, found: _Ready) -> bool:
        """Whether no new position has come since the read, and the partition is not forgotten."""
        key = (found.answer.topic_id, found.answer.partition)
        return self._positions.get(key) is found.position

    def frame(self, request_number: int) -> Frame[ReplicaFetchHeader]:
        """Return the answers that are ready, as one frame of about FRAME_BYTES.

        The batches of one frame are all of one kind: the follower gets a frame as a whole, so
        in-sync batches would wait for the others.
        """
        header = ReplicaFetchHeader(request_number=request_number)
        header.partitions.extend(self.answers)
        self.answers.clear()
        self.taken.set()
        pieces = self._ready.take(header)
        self._add_bounds(header)
        return Frame(header, tuple(pieces))

    def _add_bounds(self, header: ReplicaFetchHeader) -> None:
        """Add the high watermarks and log starts that wait for a frame."""
        self.linger_until = None
        for key in self._news:
            position = self._positions[key]
            if position.chunk is not None or not position.has_new_bounds:
                continue
            header.partitions.append(
                _answer(position.partition, position.leader.leader_epoch, position.offset)
            )
            position.high_watermark = min(position.partition.high_watermark, position.offset)
            position.log_start_offset = position.partition.log_start_offset
        self._news.clear()


def _never_known(
    named: ReplicaFetchPartition, state: PartitionImage | None
) -> UnknownLeaderEpochError:
    known = "no such partition is known here"
    if state is not None:
        known = f"{state.leader_epoch} is known here, led by broker {state.leader}"
    text = f"leader_epoch {named.leader_epoch} of {named.topic_id.hex()}-{named.partition}"
    return UnknownLeaderEpochError(f"{text} was given, and {known}; retry")


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
