"""REPLICA_FETCH, the leader's side: one session per follower's stream, all partitions in it.

The session lives with the stream. A request names only partitions with a new position: each is
an acknowledgement, judged by Partition.follower_fetch, and leave to send what follows. What was
sent is not sent again, and nothing after it, until the follower names the partition again; so at
most one chunk of each partition is under way, and a follower that is slow with one of them holds
up no other. Bytes go from the log into the frame as they are.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from quorate.aio.clock import loop_ms
from quorate.errors import (
    FencedError,
    NetworkError,
    NotLeaderError,
    QuorateError,
    UnknownBrokerError,
    WrongClusterError,
    to_wire,
)
from quorate.net.frame import Frame
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.replica.leader import ReplicaStream
from quorate_broker.v1.replica_pb2 import ReplicaFetched, ReplicaFetchHeader
from quorate_quorum.node.authorizer import ALLOW_ALL, CLUSTER_ACTION, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from quorate.net.network import Handler, Method, Peer
    from quorate_broker.replica.partition import Partition
    from quorate_broker.replicas.replicas import Key, Replicas
    from quorate_broker.v1.replica_pb2 import (
        ReplicaFetchPartition,
        ReplicaFetchRequest,
        ReplicaOpen,
    )
    from quorate_quorum.node.authorizer import Authorizer, Required

log_line = structlog.get_logger(__name__)

#: A frame is sent when so much is ready: messages of this size cost least per byte.
FRAME_BYTES = 1 << 20
#: A partition's share of a turn, however many have something.
CHUNK_BYTES_MIN = 64 << 10
#: A higher high watermark without batches waits so long for batches to ride with.
HIGH_WATERMARK_LINGER_MS = 5
#: Asked for by nobody, whatever the request says.
WAIT_MS_MIN, WAIT_MS_MAX = 10, 5_000
READS_MAX = 64  # of one session, at the same time
#: Refusals and divergences that the follower has not taken yet; no request is read beyond them.
ANSWERS_MAX = 20_000


@dataclass(slots=True)
class _Position:
    """Where a follower stands in one partition; replaced when it is named again."""

    partition: Partition
    leader_epoch: int
    offset: int
    #: What the follower knows, by its own word or by ours.
    high_watermark: int
    log_start_offset: int
    unwatch: Callable[[], None]
    #: Batches are being read or were sent: nothing more until it is named again.
    is_sent: bool = False
    bytes_out: int = 0


REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {REPLICA_FETCH: CLUSTER_ACTION}


class ReplicaService:
    """See the module."""

    required = REQUIRED

    def __init__(self, replicas: Replicas, authorizer: Authorizer = ALLOW_ALL) -> None:
        self._replicas = replicas
        self._authorizer = authorizer
        #: The session of each follower; a newer stream replaces the older one.
        self._sessions: dict[int, ReplicaSession] = {}
        self._stopping = False

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {REPLICA_FETCH: self.fetch}

    def stop(self) -> None:
        """End every stream; followers go where the image sends them."""
        self._stopping = True
        for session in self._sessions.values():
            session.stop()

    async def fetch(
        self, requests: AsyncIterator[ReplicaFetchRequest], peer: Peer
    ) -> AsyncGenerator[Frame[ReplicaFetchHeader], None]:
        caller = Caller(peer.principal, self._authorizer)
        session = ReplicaSession(self._replicas, caller, self._enter)
        if self._stopping:
            session.stop()
        reader = asyncio.create_task(session.read(requests), name="replica stream")
        try:
            while (frame := await session.next_frame()) is not None:
                yield frame
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            await session.close()
            if session.stream and self._sessions.get(session.stream.replica_id) is session:
                del self._sessions[session.stream.replica_id]
        if not reader.cancelled():
            reader.result()  # a reader ends by itself only at the stream's end or in a defect

    def _enter(self, session: ReplicaSession, stream: ReplicaStream) -> None:
        """Let a stream in; it ends the one that it replaces. FencedError if it is the older."""
        other = self._sessions.get(stream.replica_id)
        if other is not None and other.stream is not None:
            if not other.stream.is_older_than(stream):
                raise FencedError(
                    f"stream {stream.stream_number} of broker {stream.replica_id} was replaced by "
                    f"{other.stream.stream_number}"
                )
            other.stop()
        self._sessions[stream.replica_id] = session


class ReplicaSession:
    """The state of one follower's stream; the service owns it and closes it."""

    def __init__(
        self,
        replicas: Replicas,
        caller: Caller,
        enter: Callable[[ReplicaSession, ReplicaStream], None],
    ) -> None:
        self._replicas = replicas
        self._caller = caller
        self._enter = enter
        self.stream: ReplicaStream | None = None
        self._positions: dict[Key, _Position] = {}
        #: Partitions to look at, in turn; a dict, for it is ordered and holds each once.
        self._due: dict[Key, None] = {}
        #: Answers that go out with the next frame, and those with batches.
        self._answers: list[ReplicaFetched] = []
        self._ready: list[tuple[_Position, ReplicaFetched, bytes]] = []
        self._reads: dict[Key, asyncio.Task[None]] = {}
        #: Bytes read or sent that the follower has not acknowledged.
        self._bytes_out = 0
        self._bytes_max = FRAME_BYTES
        self._wait_ms = WAIT_MS_MAX
        self._request_number = 0
        self._linger_until: float | None = None
        self._failure: QuorateError | None = None
        self._defect: BaseException | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._sent = asyncio.Event()

    async def read(self, requests: AsyncIterator[ReplicaFetchRequest]) -> None:
        """Take requests until the follower ends its side, or is not who it says."""
        closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
        try:
            async with closing:
                async for request in requests:
                    await self._take(request)
                    while len(self._answers) >= ANSWERS_MAX:
                        self._sent.clear()
                        await self._sent.wait()
        except NetworkError:
            pass
        except QuorateError as error:
            self._failure = error
        finally:
            self.stop()

    async def next_frame(self) -> Frame[ReplicaFetchHeader] | None:
        """Return a frame when there is news, or when the follower has waited long enough.

        None at the stream's end; an error of the whole stream is told in its last frame.
        """
        loop = asyncio.get_running_loop()
        silent_until = loop.time() + self._wait_ms / 1000
        while True:
            self._changed.clear()
            if self._ended or self._is_silent(loop.time()):
                return self._last_frame()
            await self._look()
            now = loop.time()
            is_lingering = self._linger_until is not None and now < self._linger_until
            if self._answers or self._ready or (self._linger_until and not is_lingering):
                return self._frame()
            if now >= silent_until:
                return self._frame() if self.stream is not None else None
            wake_at = self._linger_until or silent_until
            timer = loop.call_at(wake_at, self._changed.set)
            await self._changed.wait()
            timer.cancel()
            silent_until = min(silent_until, loop.time() + self._wait_ms / 1000)

    def stop(self) -> None:
        """End the stream."""
        self._ended = True
        self._changed.set()

    async def close(self) -> None:
        """Let go of every partition and end the reads."""
        self._ended = True
        for key in list(self._positions):
            self._forget(key)
        tasks = list(self._reads.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # what requests say

    async def _take(self, request: ReplicaFetchRequest) -> None:
        self._caller.check(REQUIRED[REPLICA_FETCH])
        now_ms = loop_ms()
        stream = self.stream
        if stream is None:
            stream = self._open(request.open, now_ms)
        self._check_registration(stream)
        stream.last_request_ms = now_ms
        self._request_number = request.request_number
        most = self._replicas.config.replica_queued_max_bytes
        self._bytes_max = max(min(request.max_bytes, most), FRAME_BYTES)
        self._wait_ms = min(max(request.max_wait_ms, WAIT_MS_MIN), WAIT_MS_MAX)
        for forgotten in request.forgotten:
            key = (forgotten.topic_id, forgotten.partition)
            self._forget(key)
            partition = self._replicas.find(*key)
            if partition is not None:
                partition.follower_left(stream)
        for count, named in enumerate(request.partitions, 1):
            self._name(stream, named, now_ms)
            if count % PARTITIONS_A_TURN == 0:
                self._changed.set()
                await asyncio.sleep(0)
        self._changed.set()

    def _open(self, opened: ReplicaOpen, now_ms: int) -> ReplicaStream:
        ours = self._replicas.cluster_id
        if opened.cluster_id != ours:
            raise WrongClusterError(f"cluster {opened.cluster_id!r} was asked, this is {ours!r}")
        stream = ReplicaStream(
            opened.replica_id,
            opened.broker_epoch,
            opened.incarnation,
            opened.stream_number,
            now_ms,
        )
        self._check_registration(stream)
        self._enter(self, stream)
        self.stream = stream
        return stream

    def _check_registration(self, stream: ReplicaStream) -> None:
        """Only the registration of now may fetch (KIP-903, K14)."""
        broker = self._replicas.image.brokers.get(stream.replica_id)
        if broker is None or broker.epoch < stream.broker_epoch:
            raise UnknownBrokerError(
                f"broker {stream.replica_id} with broker_epoch {stream.broker_epoch} is not known "
                "here yet; retry"
            )
        if (broker.epoch, broker.incarnation) != (stream.broker_epoch, stream.incarnation):
            raise FencedError(
                f"broker {stream.replica_id}: broker_epoch {stream.broker_epoch} was replaced by "
                f"{broker.epoch}"
            )

    def _name(self, stream: ReplicaStream, named: ReplicaFetchPartition, now_ms: int) -> None:
        """Take a position; what is wrong with it is the answer."""
        key = (named.topic_id, named.partition)
        self._forget(key)
        try:
            partition = self._replicas.get(*key)
            diverging = partition.follower_fetch(stream, named, now_ms)
        except QuorateError as error:
            self._refuse(named, error)
            return
        if diverging is not None:
            answer = _answer(partition, named.leader_epoch, named.fetch_offset)
            answer.diverging.CopyFrom(diverging)
            self._answers.append(answer)
            return
        self._positions[key] = _Position(
            partition,
            named.leader_epoch,
            named.fetch_offset,
            named.high_watermark,
            named.log_start_offset,
            partition.watch_end(lambda: self._wake(key)),
        )
        self._due[key] = None

    def _refuse(self, named: ReplicaFetchPartition, error: QuorateError) -> None:
        partition = self._replicas.find(named.topic_id, named.partition)
        self._answers.append(
            ReplicaFetched(
                topic_id=named.topic_id,
                partition=named.partition,
                error=to_wire(error),
                leader_epoch=named.leader_epoch,
                base_offset=named.fetch_offset,
                log_start_offset=-1 if partition is None else partition.log_start_offset,
            )
        )

    def _forget(self, key: Key) -> None:
        position = self._positions.pop(key, None)
        if position is not None:
            position.unwatch()
            self._bytes_out -= position.bytes_out
            self._due.pop(key, None)

    # what is sent

    def _wake(self, key: Key) -> None:
        self._due[key] = None
        self._changed.set()

    async def _look(self) -> None:
        """Look at the partitions to which something happened, some in each turn of the loop."""
        share = max(CHUNK_BYTES_MIN, min(FRAME_BYTES, self._bytes_max // max(1, len(self._due))))
        for count, key in enumerate(list(self._due), 1):
            if count % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
            position = self._positions.get(key)
            if position is None or position.is_sent:
                self._due.pop(key, None)
            elif self._lost(key, position):
                continue
            elif position.partition.log_end_offset > position.offset:
                if self._bytes_out >= 2 * self._bytes_max or len(self._reads) >= READS_MAX:
                    continue  # stays due: there is room again when the follower acknowledges
                self._due.pop(key, None)
                self._start_read(key, position, share)
            elif self._has_new_bounds(position):
                if self._linger_until is None:
                    now = asyncio.get_running_loop().time()
                    self._linger_until = now + HIGH_WATERMARK_LINGER_MS / 1000
            else:
                self._due.pop(key, None)

    def _lost(self, key: Key, position: _Position) -> bool:
        """Tell the follower if we no longer lead as it thinks."""
        partition = position.partition
        if partition.is_leader and partition.leader_epoch == position.leader_epoch:
            return False
        self._forget(key)
        answer = _answer(partition, position.leader_epoch, position.offset)
        text = f"{partition.name}: leader {partition.leader}, leader_epoch {partition.leader_epoch}"
        answer.error.CopyFrom(to_wire(NotLeaderError(text)))
        self._answers.append(answer)
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
        task = asyncio.create_task(self._read(key, position, bytes_max), name="replica read")
        task.add_done_callback(self._read_ended)
        self._reads[key] = task

    def _read_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._defect = task.exception()
            self.stop()

    async def _read(self, key: Key, position: _Position, bytes_max: int) -> None:
        """Read what follows a position; a cold disk delays this partition only."""
        partition = position.partition
        try:
            batches = await partition.read_for_follower(
                position.offset, leader_epoch=position.leader_epoch, bytes_max=bytes_max
            )
        except QuorateError as error:
            batches = b""
            if self._positions.get(key) is position:
                self._forget(key)
                answer = _answer(partition, position.leader_epoch, position.offset)
                answer.error.CopyFrom(to_wire(error))
                self._answers.append(answer)
        finally:
            self._reads.pop(key, None)
            self._changed.set()
        if self._positions.get(key) is not position:
            return
        if not batches:
            position.is_sent = False
            self._due[key] = None  # removed under the read: the next look tells more
            return
        position.bytes_out = len(batches)
        self._bytes_out += len(batches)
        answer = _answer(partition, position.leader_epoch, position.offset)
        answer.size = len(batches)
        self._ready.append((position, answer, batches))

    def _frame(self) -> Frame[ReplicaFetchHeader]:
        """Return what is ready as one frame of about FRAME_BYTES."""
        header = ReplicaFetchHeader(request_number=self._request_number)
        header.partitions.extend(self._answers)
        self._answers.clear()
        self._sent.set()
        pieces: list[bytes] = []
        size = taken = 0
        for position, answer, batches in self._ready:
            if self._positions.get((answer.topic_id, answer.partition)) is not position:
                taken += 1  # named again, or forgotten, since it was read
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
        """Add the high watermarks that wait for a frame to ride with."""
        self._linger_until = None
        for key in list(self._due):
            position = self._positions.get(key)
            if position is None or position.is_sent or not self._has_new_bounds(position):
                continue
            header.partitions.append(
                _answer(position.partition, position.leader_epoch, position.offset)
            )
            position.high_watermark = min(position.partition.high_watermark, position.offset)
            position.log_start_offset = position.partition.log_start_offset

    def _last_frame(self) -> Frame[ReplicaFetchHeader] | None:
        failure, self._failure = self._failure, None
        self._ended = True
        if self._defect is not None:
            raise self._defect
        if failure is None:
            return None
        log_line.info("replica stream refused", reason=str(failure), repeats=True)
        return Frame(ReplicaFetchHeader(error=to_wire(failure)))

    def _is_silent(self, now: float) -> bool:
        """A stream without a request for the lag time is as if broken."""
        stream = self.stream
        return stream is not None and now * 1000 - stream.last_request_ms > self._replicas.lag_ms


def _answer(partition: Partition, leader_epoch: int, offset: int) -> ReplicaFetched:
    return ReplicaFetched(
        topic_id=partition.topic_id,
        partition=partition.partition,
        leader_epoch=leader_epoch,
        base_offset=offset,
        high_watermark=partition.high_watermark,
        log_start_offset=partition.log_start_offset,
    )
