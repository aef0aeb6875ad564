"""Between voters: the machine's messages as protobuf, over the network seam.

`Transport` is the calling side (one control connection a peer, one fetch stream to the leader),
`RaftService` the called one. Neither decides anything: what comes in becomes an event, with the
number of the attempt or session that it belongs to, and the machine knows which are stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import structlog

from quorate.errors import (
    CorruptRecordError,
    DeadlineExceededError,
    InvalidRequestError,
    NetworkError,
    OverloadedError,
    PeerRefusedError,
    QuorateError,
    UnsupportedError,
    WrongClusterError,
    to_wire,
)
from quorate.frame import Frame
from quorate.network import Connection, Handler, Method, Network, Peer
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_quorum.log.snapshot import SnapshotId
from quorate_quorum.methods import (
    BEGIN_EPOCH,
    DESCRIBE_NODE,
    END_EPOCH,
    FETCH_SNAPSHOT,
    RAFT_FETCH,
    VOTE,
)
from quorate_quorum.node.features import Known
from quorate_quorum.node.features import from_wire as from_wire_features
from quorate_quorum.node.features import to_wire as to_wire_features
from quorate_quorum.raft.callers import Asked
from quorate_quorum.raft.messages import (
    BeginEpochRequest,
    BeginEpochRequested,
    Call,
    DivergingEpoch,
    EndEpochRequest,
    EndEpochRequested,
    EpochAnswered,
    EpochResponse,
    Event,
    Fetch,
    FetchAbandoned,
    FetchAnswered,
    FetchBroken,
    FetchReceived,
    FetchReply,
    FetchRequest,
    FetchResponse,
    History,
    Refusal,
    ReplicaKey,
    StreamKey,
    VoteAnswered,
    VoteRequest,
    VoteRequested,
    VoteResponse,
)
from quorate_quorum.raft.storage import parse_batches
from quorate_quorum.v1 import raft_pb2

log = structlog.get_logger(__name__)

#: Calls under way to one voter; more are dropped, for the machine repeats what matters.
CALLS_PER_PEER_MAX = 8
CONNECTIONS_MAX = 64
FETCH_STREAMS_MAX = 256
#: Fetches that the machine wants sent and the wire has not taken; one is the rule.
FETCHES_WAITING_MAX = 8
ENDPOINT_LENGTH_MAX = 300

_CODES: dict[Refusal, ErrorCode.ValueType] = {
    Refusal.FENCED_EPOCH: ErrorCode.ERROR_CODE_FENCED_LEADER_EPOCH,
    Refusal.NOT_LEADER: ErrorCode.ERROR_CODE_NOT_CONTROLLER,
    Refusal.OLD_STREAM: ErrorCode.ERROR_CODE_FENCED,
    Refusal.INVALID: ErrorCode.ERROR_CODE_INVALID_REQUEST,
    Refusal.OVERLOADED: ErrorCode.ERROR_CODE_OVERLOADED,
}
_REFUSALS = {code: refusal for refusal, code in _CODES.items()}


def to_history(history: History) -> raft_pb2.History:
    """Return the wire's form."""
    return raft_pb2.History(
        cluster_id=history.cluster_id,
        quorum_generation=history.quorum_generation,
        bootstrap_hash=history.bootstrap_hash,
    )


def check_history(ours: History, theirs: raft_pb2.History) -> None:
    """Raise WrongClusterError unless a peer is of our history."""
    other = History(theirs.cluster_id, theirs.quorum_generation, theirs.bootstrap_hash)
    refusal = ours.refusal_of(other)
    if refusal is not None:
        raise WrongClusterError(refusal)


def _error(refusal: Refusal | None) -> Error:
    return Error() if refusal is None else Error(code=_CODES[refusal], message=refusal.value)


def _refusal(error: Error) -> Refusal | None:
    if error.code == ErrorCode.ERROR_CODE_NONE:
        return None
    return _REFUSALS.get(error.code, Refusal.INVALID)


def _fetch_request(request: FetchRequest) -> raft_pb2.RaftFetchRequest:
    return raft_pb2.RaftFetchRequest(
        epoch=request.epoch,
        fetch_offset=request.fetch_offset,
        last_fetched_epoch=request.last_fetched_epoch,
        log_start_offset=request.log_start_offset,
        high_watermark=request.high_watermark,
        round=request.round,
    )


def _fetch_response(frame: Frame[raft_pb2.RaftFetchHeader]) -> FetchResponse:
    header = frame.header
    diverging = None
    if header.HasField("diverging"):
        diverging = DivergingEpoch(header.diverging.epoch, header.diverging.end_offset)
    return FetchResponse(
        header.epoch,
        header.leader_id,
        header.base_offset,
        header.high_watermark,
        header.log_start_offset,
        header.round,
        parse_batches(frame.payload) if frame.pieces else (),
        diverging,
        _refusal(header.error),
        header.leader_directory_id,
        SnapshotId(header.snapshot.offset, header.snapshot.epoch)
        if header.HasField("snapshot")
        else None,
        header.interim,
    )


def fetch_header(response: FetchResponse) -> raft_pb2.RaftFetchHeader:
    """Return the header of a fetch answer."""
    header = raft_pb2.RaftFetchHeader(
        error=_error(response.refusal),
        epoch=response.epoch,
        leader_id=response.leader_id,
        base_offset=response.base_offset,
        high_watermark=response.high_watermark,
        log_start_offset=response.log_start_offset,
        round=response.round,
        leader_directory_id=response.leader_directory_id,
        interim=response.interim,
    )
    if response.diverging is not None:
        header.diverging.epoch = response.diverging.epoch
        header.diverging.end_offset = response.diverging.end_offset
    if response.snapshot is not None:
        header.snapshot.offset, header.snapshot.epoch = response.snapshot
    return header


def _epoch_response(
    answer: raft_pb2.BeginEpochResponse | raft_pb2.EndEpochResponse,
) -> EpochResponse:
    return EpochResponse(
        answer.epoch, answer.leader_id, leader_directory_id=answer.leader_directory_id
    )


class Transport:
    """The calling side."""

    def __init__(
        self,
        network: Network,
        me: ReplicaKey,
        incarnation: bytes,
        endpoint: str,
        history: History,
        features: Known,
        call_timeout_ms: int,
        step: Callable[[Event], None],
        spawn: Callable[[Any, str], asyncio.Task[None]],
    ) -> None:
        self._network = network
        self._me = me
        self._incarnation = incarnation
        self._endpoint = endpoint
        self._history = history
        self._features = to_wire_features(features)
        self._call_timeout_ms = call_timeout_ms
        self._step = step
        self._spawn = spawn
        self._connections: dict[str, Connection] = {}
        self._calls: dict[int, list[asyncio.Task[None]]] = {}
        self._session: _Session | None = None
        self._closing: list[asyncio.Task[None]] = []

    def call(self, call: Call) -> None:
        """Send a request; its answer comes back as an event, its failure is the machine's time."""
        running = [task for task in self._calls.get(call.to.id, []) if not task.done()]
        if len(running) < CALLS_PER_PEER_MAX:
            running.append(self._spawn(self._carry_out(call), f"raft call to {call.to.id}"))
        self._calls[call.to.id] = running

    def fetch(self, fetch: Fetch) -> None:
        """Send a fetch on the stream of its session, opening it if it is new."""
        if self._session is None or self._session.number != fetch.session:
            self.keep_session(0)
            session = _Session(fetch.session)
            request = _fetch_request(fetch.request)
            request.open.CopyFrom(self._open(fetch.session))
            session.put(request)
            self._session = session
            connection = self.connection(fetch.endpoint)
            session.task = self._spawn(
                self._follow(session, connection), f"raft fetch session {fetch.session}"
            )
        else:
            self._session.put(_fetch_request(fetch.request))

    def keep_session(self, number: int) -> None:
        """Close the stream of any other session."""
        if self._session is not None and self._session.number != number:
            session, self._session = self._session, None
            if session.task is not None:
                session.task.cancel()

    async def flush(self, timeout_s: float) -> None:
        """Wait for calls under way, but not for long."""
        tasks = [task for tasks in self._calls.values() for task in tasks if not task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Break what is open; the tasks are the node's."""
        self.keep_session(0)
        for connection in self._connections.values():
            await connection.close()
        for task in self._closing:
            await task

    def connection(self, endpoint: str) -> Connection:
        """Return the connection to that endpoint; it dials when it is used."""
        connection = self._connections.get(endpoint)
        if connection is None:
            if len(self._connections) >= CONNECTIONS_MAX:
                self.drop(*next(iter(self._connections.items())))
            connection = self._network.connect(endpoint, purpose="control")
            self._connections[endpoint] = connection
        return connection

    def drop(self, endpoint: str, connection: Connection) -> None:
        """Let go of a connection, if it is the one of now: the next call dials anew."""
        if self._connections.get(endpoint) is connection:
            del self._connections[endpoint]
            self._closing = [task for task in self._closing if not task.done()]
            self._closing.append(self._spawn(connection.close(), "close a connection"))

    def _open(self, number: int) -> raft_pb2.RaftOpen:
        return raft_pb2.RaftOpen(
            history=to_history(self._history),
            replica_id=self._me.id,
            directory_id=self._me.directory_id,
            incarnation=self._incarnation,
            stream_number=number,
            endpoint=self._endpoint,
            features=self._features,
        )

    async def _follow(self, session: _Session, connection: Connection) -> None:
        refused = False
        try:
            async with aclosing(connection.stream(RAFT_FETCH, session.requests())) as frames:
                async for frame in frames:
                    if self._session is session:
                        self._step(FetchAnswered(session.number, _fetch_response(frame)))
        except PeerRefusedError:
            refused = True
        except NetworkError as error:
            log.debug("raft fetch stream broke", session=session.number, error=str(error))
        except (CorruptRecordError, InvalidRequestError, UnsupportedError) as error:
            log.warning("raft fetch answer is damaged", session=session.number, error=str(error))
        self._step(FetchBroken(session.number, refused))

    async def _carry_out(self, call: Call) -> None:
        connection = self.connection(call.to.endpoint)
        voter = ReplicaKey(call.to.id, call.to.directory_id)
        try:
            event = await self._ask(connection, voter, call)
        except DeadlineExceededError:
            # Its other end may be gone without a word (a half-open connection): TCP would send
            # into it for a quarter of an hour.
            log.debug("raft call not answered", to=call.to.id)
            self.drop(call.to.endpoint, connection)
        except NetworkError as error:
            log.debug("raft call failed", to=call.to.id, error=str(error))
        except QuorateError as error:
            log.warning("raft call refused", to=call.to.id, error=str(error))
        else:
            if event is not None:
                self._step(event)

    async def _ask(self, connection: Connection, voter: ReplicaKey, call: Call) -> Event | None:
        request, timeout_ms = call.request, self._call_timeout_ms
        history = to_history(self._history)
        if isinstance(request, VoteRequest):
            vote = raft_pb2.VoteRequest(
                history=history,
                voter_id=request.voter.id,
                voter_directory_id=request.voter.directory_id,
                candidate_id=request.candidate.id,
                candidate_directory_id=request.candidate.directory_id,
                epoch=request.epoch,
                last_epoch=request.last_epoch,
                log_end_offset=request.log_end_offset,
                pre_vote=request.pre_vote,
                leadership_transfer=request.leadership_transfer,
            )
            answer = await connection.unary(VOTE, vote, timeout_ms=timeout_ms)
            if self._is_refused(voter, answer.error):
                return None
            response = VoteResponse(
                answer.epoch, answer.leader_id, answer.granted, answer.leader_directory_id
            )
            return VoteAnswered(voter, call.attempt, response)
        if isinstance(request, BeginEpochRequest):
            begin = raft_pb2.BeginEpochRequest(
                history=history,
                epoch=request.epoch,
                leader_id=request.leader.id,
                leader_directory_id=request.leader.directory_id,
                endpoint=request.endpoint,
            )
            begun = await connection.unary(BEGIN_EPOCH, begin, timeout_ms=timeout_ms)
            if begun.error.code not in _KNOWN:
                self._refuse(voter, begun.error)
                return None
            return EpochAnswered(voter, _epoch_response(begun))
        end = raft_pb2.EndEpochRequest(
            history=history,
            epoch=request.epoch,
            leader_id=request.leader_id,
            preferred_successors=request.preferred_successors,
            handed_over_for_silence=request.handed_over_for_silence,
        )
        ended = await connection.unary(END_EPOCH, end, timeout_ms=timeout_ms)
        if ended.error.code not in _KNOWN:
            self._refuse(voter, ended.error)
            return None
        return EpochAnswered(voter, _epoch_response(ended))

    def _is_refused(self, voter: ReplicaKey, error: Error) -> bool:
        if error.code == ErrorCode.ERROR_CODE_NONE:
            return False
        self._refuse(voter, error)
        return True

    def _refuse(self, voter: ReplicaKey, error: Error) -> None:
        is_stranger = error.code == ErrorCode.ERROR_CODE_WRONG_CLUSTER
        tell = log.warning if is_stranger else log.debug
        tell("a voter refuses us", voter=voter.id, code=error.code, error=error.message)


#: Errors whose answer still tells epoch and leader.
_KNOWN = (ErrorCode.ERROR_CODE_NONE, *_CODES.values())


class _Session:
    """One fetch stream of ours: what still has to be sent on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self._waiting: list[raft_pb2.RaftFetchRequest] = []
        self._wake = asyncio.Event()

    def put(self, request: raft_pb2.RaftFetchRequest) -> None:
        """Send; where the wire takes nothing, only the newest acknowledgement matters."""
        if len(self._waiting) >= FETCHES_WAITING_MAX:
            self._waiting.pop()
        self._waiting.append(request)
        self._wake.set()

    async def requests(self) -> AsyncIterator[raft_pb2.RaftFetchRequest]:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                yield self._waiting.pop(0)


class Voting(Protocol):
    """What the service needs of the node."""

    @property
    def history(self) -> History: ...
    async def ask(self, event: Callable[[int], Event]) -> Any:
        """Step the event made for a caller's number; return the machine's answer to it."""

    def asking(self, event: Callable[[int], Event]) -> Asked:
        """Step the event made for a caller's number; its answers, as a context."""

    def step(self, event: Event) -> None: ...
    async def payload(self, reply: FetchReply) -> bytes | None:
        """Return the batches of an answer; None if it must not be sent any more."""

    def check_leads(self, epoch: int) -> None:
        """Raise FencedLeaderEpochError or NotControllerError unless leading in that epoch."""

    async def read_snapshot(
        self, snapshot: SnapshotId, position: int, bytes_max: int
    ) -> tuple[int, bytes]: ...
    def learn_features(self, replica: ReplicaKey, known: Known) -> None: ...
    def describe_node(self) -> raft_pb2.DescribeNodeResponse: ...


def _fetch_error(error: QuorateError) -> Frame[raft_pb2.RaftFetchHeader]:
    return Frame(raft_pb2.RaftFetchHeader(error=to_wire(error), leader_id=-1))


def _fetch_received(
    stream: StreamKey, message: raft_pb2.RaftFetchRequest, endpoint: str
) -> Callable[[int], FetchReceived]:
    """Return what makes the event of a caller's number."""
    request = FetchRequest(
        message.epoch,
        message.fetch_offset,
        message.last_fetched_epoch,
        message.log_start_offset,
        message.high_watermark,
        message.round,
    )
    return lambda caller: FetchReceived(stream, request, caller, endpoint)


class RaftService:
    """The called side."""

    def __init__(self, node: Voting) -> None:
        self._node = node
        self._streams = 0

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            VOTE: self.vote,
            BEGIN_EPOCH: self.begin_epoch,
            END_EPOCH: self.end_epoch,
            RAFT_FETCH: self.fetch,
            FETCH_SNAPSHOT: self.fetch_snapshot,
            DESCRIBE_NODE: self.describe,
        }

    async def vote(self, message: raft_pb2.VoteRequest, peer: Peer) -> raft_pb2.VoteResponse:
        """Answer a candidate."""
        request = VoteRequest(
            ReplicaKey(message.voter_id, message.voter_directory_id),
            ReplicaKey(message.candidate_id, message.candidate_directory_id),
            message.epoch,
            message.last_epoch,
            message.log_end_offset,
            message.pre_vote,
            message.leadership_transfer,
        )
        try:
            check_history(self._node.history, message.history)
            if len(message.candidate_directory_id) != 16:
                raise InvalidRequestError("candidate_directory_id must have 16 bytes")
            answer = await self._node.ask(lambda caller: VoteRequested(request, caller))
        except QuorateError as error:
            return raft_pb2.VoteResponse(error=to_wire(error), leader_id=-1)
        return raft_pb2.VoteResponse(
            epoch=answer.epoch,
            leader_id=answer.leader_id,
            granted=answer.granted,
            leader_directory_id=answer.leader_directory_id,
        )

    async def begin_epoch(
        self, message: raft_pb2.BeginEpochRequest, peer: Peer
    ) -> raft_pb2.BeginEpochResponse:
        """Take note of a leader."""
        leader = ReplicaKey(message.leader_id, message.leader_directory_id)
        request = BeginEpochRequest(message.epoch, leader, message.endpoint)
        try:
            check_history(self._node.history, message.history)
            answer = await self._node.ask(lambda caller: BeginEpochRequested(request, caller))
        except QuorateError as error:
            return raft_pb2.BeginEpochResponse(error=to_wire(error), leader_id=-1)
        return raft_pb2.BeginEpochResponse(
            error=_error(answer.refusal),
            epoch=answer.epoch,
            leader_id=answer.leader_id,
            leader_directory_id=answer.leader_directory_id,
        )

    async def end_epoch(
        self, message: raft_pb2.EndEpochRequest, peer: Peer
    ) -> raft_pb2.EndEpochResponse:
        """Take note of a leader's leave."""
        request = EndEpochRequest(
            message.epoch,
            message.leader_id,
            tuple(message.preferred_successors),
            message.handed_over_for_silence,
        )
        try:
            check_history(self._node.history, message.history)
            answer = await self._node.ask(lambda caller: EndEpochRequested(request, caller))
        except QuorateError as error:
            return raft_pb2.EndEpochResponse(error=to_wire(error), leader_id=-1)
        return raft_pb2.EndEpochResponse(
            error=_error(answer.refusal),
            epoch=answer.epoch,
            leader_id=answer.leader_id,
            leader_directory_id=answer.leader_directory_id,
        )

    async def fetch(
        self, requests: AsyncIterator[raft_pb2.RaftFetchRequest], peer: Peer
    ) -> AsyncIterator[Frame[raft_pb2.RaftFetchHeader]]:
        """Answer one replica's fetches, one after the other, until it goes."""
        stream: StreamKey | None = None
        endpoint = ""
        self._streams += 1
        try:
            async for message in requests:
                try:
                    if stream is None:
                        stream = self._admit(message)
                        endpoint = message.open.endpoint[:ENDPOINT_LENGTH_MAX]
                    asked = self._node.asking(_fetch_received(stream, message, endpoint))
                except QuorateError as error:
                    yield _fetch_error(error)
                    return
                with asked:
                    interim = True
                    while interim:
                        frame = await self._next_frame(asked)
                        if frame is None:
                            return
                        yield frame
                        if frame.header.error.code:
                            return
                        interim = frame.header.interim
        finally:
            self._streams -= 1
            if stream is not None:
                self._node.step(FetchAbandoned(stream))

    def _admit(self, message: raft_pb2.RaftFetchRequest) -> StreamKey:
        if self._streams > FETCH_STREAMS_MAX:
            raise OverloadedError(f"{FETCH_STREAMS_MAX} fetch streams are open already")
        opened = message.open
        check_history(self._node.history, opened.history)
        if len(opened.directory_id) != 16 or not 0 < len(opened.incarnation) <= 64:
            raise InvalidRequestError("a fetch stream opens with directory_id and incarnation")
        replica = ReplicaKey(opened.replica_id, opened.directory_id)
        self._node.learn_features(replica, from_wire_features(opened.features))
        return StreamKey(replica, opened.incarnation, opened.stream_number)

    async def _next_frame(self, asked: Asked) -> Frame[raft_pb2.RaftFetchHeader] | None:
        """Return what a fetch is told next; None if nothing more may be said."""
        try:
            reply: FetchReply = await asked.answer()
            payload = await self._node.payload(reply)
        except QuorateError as error:
            return _fetch_error(error)
        if payload is None:
            return None
        return Frame(fetch_header(reply.response), (payload,) if payload else ())

    async def fetch_snapshot(
        self, message: raft_pb2.FetchSnapshotRequest, peer: Peer
    ) -> raft_pb2.FetchSnapshotResponse:
        """Hand out a chunk of a snapshot, as the leader of the caller's epoch."""
        snapshot = SnapshotId(message.snapshot.offset, message.snapshot.epoch)
        try:
            check_history(self._node.history, message.history)
            self._node.check_leads(message.epoch)
            size, chunk = await self._node.read_snapshot(
                snapshot, message.position, message.max_bytes
            )
        except QuorateError as error:
            return raft_pb2.FetchSnapshotResponse(error=to_wire(error))
        return raft_pb2.FetchSnapshotResponse(
            snapshot=message.snapshot, position=message.position, size=size, chunk=chunk
        )

    async def describe(
        self, message: raft_pb2.DescribeNodeRequest, peer: Peer
    ) -> raft_pb2.DescribeNodeResponse:
        """Say what this node is."""
        return self._node.describe_node()
