"""The leader's side of replication (REPLICA_FETCH): one session for the stream of each follower.

A session exists as long as its stream, and has all partitions of the follower. A request has only
partitions with a new position. LeaderReplica.follower_fetch checks a position;
follower_positions.py decides what to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, nullcontext
from typing import Any, Final

import structlog

from quorate.aio.beside import beside
from quorate.aio.clock import loop_ms
from quorate.errors import (
    FencedError,
    NetworkError,
    QuorateError,
    UnknownBrokerError,
    WrongClusterError,
    to_wire,
)
from quorate.net.frame import Frame
from quorate.net.network import Handler, Method, Peer
from quorate_broker.methods import REPLICA_FETCH
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.replica.leader import ReplicaStream
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.replication.follower_positions import Copy, FollowerPositions
from quorate_broker.replication.stream_credit import room_of_a_stream
from quorate_broker.replication.throttle import Throttle
from quorate_broker.v1.replica_pb2 import (
    ReplicaFetchHeader,
    ReplicaFetchRequest,
    ReplicaOpen,
)
from quorate_quorum.node.authorizer import ALLOW_ALL, CLUSTER_ACTION, Authorizer, Caller, Required

log_line = structlog.get_logger(__name__)

#: Bounds of a request's max_wait_ms: after this time a frame is sent even without news. A value
#: outside of the bounds is changed to the nearest bound.
WAIT_MS_MIN, WAIT_MS_MAX = 10, 5_000
#: The most refusals and divergences that wait for a frame. Above this bound no request is read.
ANSWERS_MAX = 20_000
#: The time from a follower's leaving of a partition to the proposal of an ISR without it. In an
#: election, followers that hear of it first leave the old leader. It would propose ISRs without
#: them for all its partitions, and the controller would refuse each.
LEFT_MS = 50


REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {REPLICA_FETCH: CLUSTER_ACTION}


class ReplicaService:
    """The service of REPLICA_FETCH: see the module. It is a RoleListener of Replicas."""

    required = REQUIRED

    def __init__(self, replicas: Replicas, authorizer: Authorizer = ALLOW_ALL) -> None:
        self._replicas = replicas
        self._authorizer = authorizer
        #: Of all streams.
        self.throttle: Throttle[Copy] = Throttle("leader", replicas)
        #: Follower's broker id -> its session. A newer stream of the same follower replaces the
        #: older one.
        self._sessions: dict[int, ReplicaSession] = {}
        self._stopping = False

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {REPLICA_FETCH: self.fetch}

    def stop(self) -> None:
        """End every stream. The followers then ask the leaders in their images."""
        self._stopping = True
        for session in self._sessions.values():
            session.stop()

    # RoleListener

    def role_changed(self, partition: Partition) -> None:
        """Take the followers' positions that came before this broker's role."""
        for session in self._sessions.values():
            session.role_changed(partition)

    def removed(self, partition: Partition) -> None:
        """Do nothing, because the sessions look at the partition when they are woken."""

    def isr_wanted(self, partition: Partition) -> None:
        """Do nothing, because the ISR keeper checks the ISR."""

    def isr_unsettled(self, partition: Partition) -> None:
        """Do nothing, for the same reason."""

    # streams

    async def fetch(
        self, requests: AsyncIterator[ReplicaFetchRequest], peer: Peer
    ) -> AsyncGenerator[Frame[ReplicaFetchHeader], None]:
        caller = Caller(peer.principal, self._authorizer)
        session = ReplicaSession(self._replicas, caller, self)
        if self._stopping:
            session.stop()
        try:
            async with beside(session.read(requests), "replica stream"):
                while (frame := await session.next_frame()) is not None:
                    yield frame
        finally:
            await session.close()
            if session.stream and self._sessions.get(session.stream.replica_id) is session:
                del self._sessions[session.stream.replica_id]

    # for the sessions

    @property
    def streams(self) -> int:
        """The number of followers that have a stream."""
        return len(self._sessions)

    @property
    def bytes_out(self) -> int:
        """The bytes that were read for followers and that they have not acknowledged."""
        return sum(session.bytes_out for session in self._sessions.values())

    def enter(self, session: ReplicaSession, stream: ReplicaStream) -> None:
        """Accept a stream, and end the older one that it replaces.

        Raises FencedError if this stream is the older one.
        """
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
    """The state of one follower's stream. The service owns the session and closes it."""

    def __init__(
        self,
        replicas: Replicas,
        caller: Caller,
        service: ReplicaService,
    ) -> None:
        self._replicas = replicas
        self._caller = caller
        self._service = service
        self.stream: ReplicaStream | None = None
        self._positions = FollowerPositions(replicas, service.throttle, self._broke)
        self._wait_ms = WAIT_MS_MAX
        self._request_number = 0
        self._failure: QuorateError | None = None
        self._defect: BaseException | None = None
        self._ended = False

    async def read(self, requests: AsyncIterator[ReplicaFetchRequest]) -> None:
        """Take requests until the follower ends its side, or until a request is refused."""
        closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
        try:
            async with closing:
                async for request in requests:
                    await self._take(request)
                    while len(self._positions.answers) >= ANSWERS_MAX:
                        self._positions.taken.clear()
                        await self._positions.taken.wait()
        except NetworkError:
            pass
        except QuorateError as error:
            self._failure = error
        finally:
            self.stop()

    async def next_frame(self) -> Frame[ReplicaFetchHeader] | None:
        """Wait for news, or until the follower has waited long enough. Then return a frame.

        Returns None at the stream's end. The last frame has the error of the whole stream, if there
        is one.
        """
        loop = asyncio.get_running_loop()
        positions = self._positions
        silent_until = loop.time() + self._wait_ms / 1000
        while True:
            positions.changed.clear()
            if self._ended or self._is_silent(loop.time()):
                return self._last_frame()
            positions.refuse_late(loop_ms())
            await positions.look()
            now = loop.time()
            if positions.is_due(now):
                return positions.frame(self._request_number)
            if now >= silent_until:
                return positions.frame(self._request_number) if self.stream is not None else None
            timer = loop.call_at(positions.linger_until or silent_until, positions.changed.set)
            await positions.changed.wait()
            timer.cancel()
            silent_until = min(silent_until, loop.time() + self._wait_ms / 1000)

    @property
    def bytes_out(self) -> int:
        """The bytes that were read for this follower and that it has not acknowledged."""
        return self._positions.credit.bytes_out

    def stop(self) -> None:
        """End the stream."""
        self._ended = True
        self._positions.changed.set()

    async def close(self) -> None:
        """Forget every partition, and end the reads."""
        self._ended = True
        await self._positions.close()

    def _broke(self, defect: BaseException) -> None:
        self._defect = defect
        self.stop()

    # requests

    def role_changed(self, partition: Partition) -> None:
        """Take the follower's position that came before this broker's role, if there is one."""
        if self.stream is None or partition.key not in self._positions.early:
            return
        try:
            self._check_registration(self.stream)
        except QuorateError:
            return  # the next request ends the stream
        self._positions.take_early(self.stream, partition.key)

    async def _take(self, request: ReplicaFetchRequest) -> None:
        self._caller.check(REQUIRED[REPLICA_FETCH])
        now_ms = loop_ms()
        stream = self.stream
        if stream is None:
            stream = self._open(request.open, now_ms)
        self._check_registration(stream)
        stream.last_request_ms = now_ms
        self._request_number = request.request_number
        queued = self._replicas.config.replica_queued_max_bytes
        most = room_of_a_stream(queued, self._service.streams)
        self._positions.credit.set_bytes_max(min(request.max_bytes, most))
        self._wait_ms = min(max(request.max_wait_ms, WAIT_MS_MIN), WAIT_MS_MAX)
        for forgotten in request.forgotten:
            key = (forgotten.topic_id, forgotten.partition)
            self._positions.forget(key)
            partition = self._replicas.find(*key)
            if partition is not None and isinstance(partition.role, LeaderReplica):
                self._follower_left(partition, partition.role, stream)
        for count, named in enumerate(request.partitions, 1):
            self._positions.name(stream, named, now_ms)
            if count % PARTITIONS_A_TURN == 0:
                self._positions.changed.set()
                await asyncio.sleep(0)
        self._positions.changed.set()

    def _follower_left(
        self, partition: Partition, leader: LeaderReplica, stream: ReplicaStream
    ) -> None:
        """Note that the follower's stream goes on without this partition: it must leave the ISR.

        The ISR is checked in a moment, unless the reign is over by then: see LEFT_MS.
        """

        def look() -> None:
            if not leader.is_over:
                partition.isr_wanted()

        if leader.machine.follower_left(stream):
            asyncio.get_running_loop().call_later(LEFT_MS / 1000, look)

    def _open(self, opened: ReplicaOpen, now_ms: int) -> ReplicaStream:
        ours = self._replicas.registration.cluster_id
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
        self._service.enter(self, stream)
        self.stream = stream
        return stream

    def _check_registration(self, stream: ReplicaStream) -> None:
        """Raise an error unless the stream belongs to the broker's present registration (KIP-903).

        An older run of the broker would acknowledge records that its disk may have lost since.
        """
        broker = self._replicas.image.brokers.get(stream.replica_id)
        if broker is None or broker.epoch < stream.broker_epoch:
            found = "none" if broker is None else f"broker_epoch {broker.epoch}"
            raise UnknownBrokerError(
                f"broker {stream.replica_id} with broker_epoch {stream.broker_epoch} is not known "
                f"here yet; its registration here: {found}; retry"
            )
        if broker.epoch != stream.broker_epoch:
            raise FencedError(
                f"broker {stream.replica_id}: broker_epoch {stream.broker_epoch} was replaced by "
                f"{broker.epoch}: register again"
            )
        if broker.incarnation != stream.incarnation:
            raise FencedError(
                f"broker {stream.replica_id}: broker_epoch {broker.epoch} is of the process "
                f"{broker.incarnation.hex()}, and {stream.incarnation.hex()} asks: give each "
                "broker a node.id of its own"
            )

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
        """Return whether no request came for the lag time. Then the stream counts as broken."""
        stream = self.stream
        return stream is not None and now * 1000 - stream.last_request_ms > self._replicas.lag_ms
