"""Calls the other voters: a control connection to each, and a fetch stream to the leader.

The transport decides nothing. An answer becomes an event with the number of its attempt or session;
by this number the machine ignores stale answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog

from quorate.errors import (
    CorruptRecordError,
    DeadlineExceededError,
    InvalidRequestError,
    NetworkError,
    PeerRefusedError,
    QuorateError,
    UnsupportedError,
)
from quorate.net.network import Connection, Network
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_quorum.methods import (
    BEGIN_EPOCH,
    END_EPOCH,
    RAFT_FETCH,
    VOTE,
)
from quorate_quorum.node.features import Known
from quorate_quorum.node.features import to_wire as to_wire_features
from quorate_quorum.node.history import History
from quorate_quorum.raft.driver.wire import (
    KNOWN,
    from_epoch_answer,
    from_fetch_answer,
    from_vote_answer,
    to_begin_epoch,
    to_end_epoch,
    to_fetch,
    to_history,
    to_vote,
)
from quorate_quorum.raft.machine.events import (
    EpochAnswered,
    Event,
    FetchAnswered,
    FetchBroken,
    VoteAnswered,
)
from quorate_quorum.raft.machine.messages import BeginEpochRequest, VoteRequest
from quorate_quorum.raft.machine.ready import Call, Fetch
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.v1 import raft_pb2

log = structlog.get_logger(__name__)

#: The most calls under way to one voter. Further calls are dropped: the machine repeats those that
#: matter.
CALLS_PER_PEER_MAX = 8
CONNECTIONS_MAX = 64
#: The most fetches that wait to be sent on a stream. Usually there is one.
FETCHES_WAITING_MAX = 8


@dataclass(eq=False)
class Transport:
    """Carries out the Calls and Fetches of one node's machine."""

    _network: Network
    _me: ReplicaKey
    _incarnation: bytes
    _endpoint: str
    _history: History
    _features: Known
    _call_timeout_ms: int
    _step: Callable[[Event], None]
    _spawn: Callable[[Any, str], asyncio.Task[None]]
    _connections: dict[str, Connection] = field(default_factory=dict)
    _calls: dict[int, list[asyncio.Task[None]]] = field(default_factory=dict)
    _session: _Session | None = None
    _closing: list[asyncio.Task[None]] = field(default_factory=list)

    def call(self, call: Call) -> None:
        """Send a request. Its answer comes back as an event; a failure gives no event."""
        running = [task for task in self._calls.get(call.to.id, []) if not task.done()]
        if len(running) < CALLS_PER_PEER_MAX:
            running.append(self._spawn(self._carry_out(call), f"raft call to {call.to.id}"))
        self._calls[call.to.id] = running

    def fetch(self, fetch: Fetch) -> None:
        """Send a fetch on the stream of its session. Open the stream if the session is new."""
        if self._session is None or self._session.number != fetch.session:
            self.keep_session(0)
            session = _Session(fetch.session)
            request = to_fetch(fetch.request)
            request.open.CopyFrom(self._open(fetch.session))
            session.put(request)
            self._session = session
            connection = self.connection(fetch.endpoint)
            session.task = self._spawn(
                self._follow(session, connection), f"raft fetch session {fetch.session}"
            )
        else:
            self._session.put(to_fetch(fetch.request))

    def keep_session(self, number: int) -> None:
        """Close the fetch stream, unless it is the stream of this session."""
        if self._session is not None and self._session.number != number:
            session, self._session = self._session, None
            if session.task is not None:
                session.task.cancel()

    async def flush(self, timeout_s: float) -> None:
        """Wait for the calls under way, at most `timeout_s`."""
        tasks = [task for tasks in self._calls.values() for task in tasks if not task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Close the fetch stream and all connections. The node ends the tasks later."""
        self.keep_session(0)
        for connection in self._connections.values():
            await connection.close()
        for task in self._closing:
            await task

    def connection(self, endpoint: str) -> Connection:
        """Return the connection to an endpoint. The connection dials at its first use."""
        connection = self._connections.get(endpoint)
        if connection is None:
            if len(self._connections) >= CONNECTIONS_MAX:
                self.drop(*next(iter(self._connections.items())))
            connection = self._network.connect(endpoint, purpose="control")
            self._connections[endpoint] = connection
        return connection

    def drop(self, endpoint: str, connection: Connection) -> None:
        """Close a connection, if it is the endpoint's present one. The next call dials again."""
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
            features=to_wire_features(self._features),
        )

    async def _follow(self, session: _Session, connection: Connection) -> None:
        refused = False
        try:
            async with aclosing(connection.stream(RAFT_FETCH, session.requests())) as frames:
                async for frame in frames:
                    if self._session is session:
                        self._step(FetchAnswered(session.number, from_fetch_answer(frame)))
        except PeerRefusedError:
            refused = True
        except NetworkError as error:
            log.debug("raft fetch stream broke", session=session.number, error=str(error))
        except (CorruptRecordError, InvalidRequestError, UnsupportedError) as error:
            log.warning("raft fetch answer is damaged", error=str(error), repeats=True)
        self._step(FetchBroken(session.number, refused))

    async def _carry_out(self, call: Call) -> None:
        connection = self.connection(call.to.endpoint)
        voter = call.to.key
        try:
            event = await self._ask(connection, voter, call)
        except DeadlineExceededError:
            # The peer may be gone without a close (a half-open connection). TCP would go on sending
            # to the lost peer for a quarter of an hour, so the next call dials again.
            log.debug("raft call not answered", to=call.to.id)
            self.drop(call.to.endpoint, connection)
        except NetworkError as error:
            log.debug("raft call failed", to=call.to.id, error=str(error))
        except QuorateError as error:
            log.warning("raft call refused", to=call.to.id, error=str(error), repeats=True)
        else:
            if event is not None:
                self._step(event)

    async def _ask(self, connection: Connection, voter: ReplicaKey, call: Call) -> Event | None:
        """Return the answer as an event; None if the voter refuses this node."""
        request, history, timeout_ms = call.request, self._history, self._call_timeout_ms
        if isinstance(request, VoteRequest):
            vote = to_vote(history, request)
            answer = await connection.unary(VOTE, vote, timeout_ms=timeout_ms)
            if answer.error.code == ErrorCode.ERROR_CODE_NONE:
                return VoteAnswered(voter, call.attempt, from_vote_answer(answer))
            self._refuse(voter, answer.error)
            return None
        told: raft_pb2.BeginEpochResponse | raft_pb2.EndEpochResponse
        if isinstance(request, BeginEpochRequest):
            begin = to_begin_epoch(history, request)
            told = await connection.unary(BEGIN_EPOCH, begin, timeout_ms=timeout_ms)
        else:
            end = to_end_epoch(history, request)
            told = await connection.unary(END_EPOCH, end, timeout_ms=timeout_ms)
        if told.error.code in KNOWN:
            return EpochAnswered(voter, from_epoch_answer(told))
        self._refuse(voter, told.error)
        return None

    def _refuse(self, voter: ReplicaKey, error: Error) -> None:
        is_stranger = error.code == ErrorCode.ERROR_CODE_WRONG_CLUSTER
        tell = log.warning if is_stranger else log.debug
        tell("a voter refuses us", voter=voter.id, code=error.code, error=error.message)


class _Session:
    """One fetch stream of this node, and the requests that wait to be sent on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self._waiting: list[raft_pb2.RaftFetchRequest] = []
        self._wake = asyncio.Event()

    def put(self, request: raft_pb2.RaftFetchRequest) -> None:
        """Send a request. If too many wait, the request replaces the newest waiting one."""
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
