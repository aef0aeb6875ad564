"""Serves the requests of peers: converts each to an event, and the machine's answer to a response.

The service decides only which peers may ask: it refuses a peer of another history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from quorate.errors import (
    InvalidRequestError,
    OverloadedError,
    QuorateError,
    to_wire,
)
from quorate.net.frame import Frame
from quorate.net.network import Handler, Method, Peer
from quorate_quorum.methods import (
    BEGIN_EPOCH,
    DESCRIBE_NODE,
    END_EPOCH,
    FETCH_SNAPSHOT,
    RAFT_FETCH,
    VOTE,
)
from quorate_quorum.node.authorizer import (
    CLUSTER_ACTION,
    DESCRIBE_CLUSTER,
    Authorizer,
    Caller,
    Required,
)
from quorate_quorum.node.features import from_wire as from_wire_features
from quorate_quorum.raft.driver.answers import Answers
from quorate_quorum.raft.driver.callers import Asked
from quorate_quorum.raft.driver.wire import (
    check_history,
    from_begin_epoch,
    from_end_epoch,
    from_fetch,
    from_vote,
    to_epoch_answer,
    to_fetch_header,
    to_vote_answer,
)
from quorate_quorum.raft.machine.events import (
    BeginEpochRequested,
    EndEpochRequested,
    FetchAbandoned,
    FetchReceived,
    VoteRequested,
)
from quorate_quorum.raft.machine.messages import (
    StreamKey,
)
from quorate_quorum.raft.machine.ready import FetchReply
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1 import raft_pb2

FETCH_STREAMS_MAX = 256
ENDPOINT_LENGTH_MAX = 300


REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {
    VOTE: CLUSTER_ACTION,
    BEGIN_EPOCH: CLUSTER_ACTION,
    END_EPOCH: CLUSTER_ACTION,
    RAFT_FETCH: CLUSTER_ACTION,
    FETCH_SNAPSHOT: CLUSTER_ACTION,
    DESCRIBE_NODE: DESCRIBE_CLUSTER,
}


class RaftService:
    """The gRPC service `Raft` of one node, over Answers."""

    required = REQUIRED

    def __init__(self, answers: Answers, authorizer: Authorizer) -> None:
        self._answers = answers
        self._authorizer = authorizer
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
        """Answer a candidate's request for this node's vote."""
        request = from_vote(message)
        try:
            self._check(VOTE, peer, message.history)
            if len(request.candidate.directory_id) != 16:
                raise InvalidRequestError("candidate_directory_id must have 16 bytes")
            answer = await self._answers.ask(lambda caller: VoteRequested(request, caller))
        except QuorateError as error:
            return raft_pb2.VoteResponse(error=to_wire(error), leader_id=-1)
        return to_vote_answer(answer)

    async def begin_epoch(
        self, message: raft_pb2.BeginEpochRequest, peer: Peer
    ) -> raft_pb2.BeginEpochResponse:
        """Pass the machine a new leader's announcement of its epoch, and return the answer."""
        request = from_begin_epoch(message)
        try:
            self._check(BEGIN_EPOCH, peer, message.history)
            answer = await self._answers.ask(lambda caller: BeginEpochRequested(request, caller))
        except QuorateError as error:
            return raft_pb2.BeginEpochResponse(error=to_wire(error), leader_id=-1)
        return to_epoch_answer(raft_pb2.BeginEpochResponse, answer)

    async def end_epoch(
        self, message: raft_pb2.EndEpochRequest, peer: Peer
    ) -> raft_pb2.EndEpochResponse:
        """Pass the machine a leader's notice that it ends its epoch, and return the answer."""
        request = from_end_epoch(message)
        try:
            self._check(END_EPOCH, peer, message.history)
            answer = await self._answers.ask(lambda caller: EndEpochRequested(request, caller))
        except QuorateError as error:
            return raft_pb2.EndEpochResponse(error=to_wire(error), leader_id=-1)
        return to_epoch_answer(raft_pb2.EndEpochResponse, answer)

    async def fetch(
        self, requests: AsyncIterator[raft_pb2.RaftFetchRequest], peer: Peer
    ) -> AsyncIterator[Frame[raft_pb2.RaftFetchHeader]]:
        """Answer one replica's fetches, one after the other, until its stream ends."""
        stream: StreamKey | None = None
        endpoint = ""
        self._streams += 1
        try:
            async for message in requests:
                try:
                    self._check(RAFT_FETCH, peer)
                    if stream is None:
                        stream = self._admit(message)
                        endpoint = message.open.endpoint[:ENDPOINT_LENGTH_MAX]
                    asked = self._answers.asking(_fetch_received(stream, message, endpoint))
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
                self._answers.step(FetchAbandoned(stream))

    def _admit(self, message: raft_pb2.RaftFetchRequest) -> StreamKey:
        if self._streams > FETCH_STREAMS_MAX:
            raise OverloadedError(f"{FETCH_STREAMS_MAX} fetch streams are open already")
        opened = message.open
        check_history(self._answers.peers.history, opened.history)
        if len(opened.directory_id) != 16 or not 0 < len(opened.incarnation) <= 64:
            raise InvalidRequestError("a fetch stream opens with directory_id and incarnation")
        replica = ReplicaKey(opened.replica_id, opened.directory_id)
        self._answers.peers.learn_features(replica, from_wire_features(opened.features))
        return StreamKey(replica, opened.incarnation, opened.stream_number)

    async def _next_frame(self, asked: Asked) -> Frame[raft_pb2.RaftFetchHeader] | None:
        """Return the next answer to a fetch; None if the stream must end without an answer."""
        try:
            reply: FetchReply = await asked.answer()
            payload = await self._answers.payload(reply)
        except QuorateError as error:
            return _fetch_error(error)
        if payload is None:
            return None
        return Frame(to_fetch_header(reply.response), (payload,) if payload else ())

    async def fetch_snapshot(
        self, message: raft_pb2.FetchSnapshotRequest, peer: Peer
    ) -> raft_pb2.FetchSnapshotResponse:
        """Return a chunk of a snapshot, if this node leads in the caller's epoch."""
        snapshot = SnapshotId(message.snapshot.offset, message.snapshot.epoch)
        try:
            self._check(FETCH_SNAPSHOT, peer, message.history)
            self._answers.check_leads(message.epoch)
            size, chunk = await self._answers.read_snapshot(
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
        """Return this node's identity, its leader and the ends of its log."""
        try:
            self._check(DESCRIBE_NODE, peer)
        except QuorateError as error:
            return raft_pb2.DescribeNodeResponse(error=to_wire(error), leader_id=-1)
        return self._answers.describe_node()

    def _check(
        self, method: Method[Any, Any], peer: Peer, history: raft_pb2.History | None = None
    ) -> None:
        """Raise unless the peer may call the method, and has this history (None: not checked)."""
        Caller(peer.principal, self._authorizer).check(REQUIRED[method])
        if history is not None:
            check_history(self._answers.peers.history, history)


def _fetch_error(error: QuorateError) -> Frame[raft_pb2.RaftFetchHeader]:
    return Frame(raft_pb2.RaftFetchHeader(error=to_wire(error), leader_id=-1))


def _fetch_received(
    stream: StreamKey, message: raft_pb2.RaftFetchRequest, endpoint: str
) -> Callable[[int], FetchReceived]:
    """Return a function that takes a caller's number and returns the FetchReceived event."""
    request = from_fetch(message)
    return lambda caller: FetchReceived(stream, request, caller, endpoint)
