"""One Fetch stream, which is one fetch session: it takes requests, and answers them in order.

A partition stays in the session until a request forgets it. The answer to a request covers the
partitions of this request and of earlier ones. A request that has partitions ends the wait of the
request before it.

After an answer with records of a partition, the partition is not read again until a request names
it again, or until a request comes that the client can only have sent after it got this answer. So
two requests in flight never read a record twice, and a client that has dropped an answer gets the
records again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, nullcontext
from typing import Any, NamedTuple

from quorate.errors import InvalidRequestError, NetworkError, OverloadedError, QuorateError
from quorate.net.frame import Frame
from quorate.net.network import Peer
from quorate.v1.records_pb2 import (
    Divergence,
    FetchedPartition,
    FetchHeader,
    FetchPartition,
    FetchRequest,
)
from quorate_broker.listeners.grpc.answers import Hints, error_of
from quorate_broker.operations.fetch import Fetch, Look, Position, Wanted
from quorate_broker.operations.partitions import refuse_duplicates
from quorate_broker.operations.read_replicas import Reader
from quorate_broker.replica.fetched import HERE, Fetched
from quorate_broker.replica.leader_replica import DivergedError
from quorate_broker.replica.replica import Key
from quorate_quorum.node.config import BrokerConfig

#: Partitions of one request that are set or forgotten in one turn of the loop.
CHANGES_IN_A_ROW_MAX = 250
#: The most partitions for which the session has no room and the client has no answer yet.
REFUSED_MAX = 10_000


class _Owed(NamedTuple):
    """A request without an answer."""

    request_id: int
    names: bool
    wanted: Wanted


class FetchStream:
    """The state of one stream. The service owns the stream and closes it."""

    def __init__(self, fetch: Fetch, peer: Peer, hints: Hints, config: BrokerConfig) -> None:
        self._fetch = fetch
        self._session = fetch.session(peer.principal, Reader(listener=peer.listener))
        self._hints = hints
        self._partitions_max = config.fetch_session_partitions_max
        #: The most requests in flight. Further requests are not read yet.
        self._owed_max = config.fetch_in_flight_max
        #: Partitions that are not read again yet -> number of the request whose answer had their
        #: records.
        self._sent: OrderedDict[Key, int] = OrderedDict()
        #: Partitions that found no room -> (number of the request that named them, offset).
        self._refused: dict[Key, tuple[int, int]] = {}
        self._owed: list[_Owed] = []
        self._arrived = 0
        self._last_request_id = -1
        self._reading = True
        self._stopping = False
        self._failure: QuorateError | None = None
        self._answered = asyncio.Event()

    async def read(self, requests: AsyncIterator[FetchRequest]) -> None:
        """Take requests until the client ends its side, or sends an impossible request."""
        closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
        try:
            async with closing:
                async for request in requests:
                    await self._take(request)
                    while len(self._owed) >= self._owed_max:
                        self._answered.clear()
                        await self._answered.wait()
        except NetworkError:
            pass
        except QuorateError as error:
            self._failure = error
        finally:
            self._reading = False
            self._session.changed.set()

    async def next_answer(self) -> Frame[FetchHeader] | None:
        """Wait until the oldest request must be answered. Return the answer; None at the end.

        Raises InvalidRequestError for an impossible request, after the answers to earlier requests.
        """
        changed = self._session.changed
        while not self._owed:
            if not self._reading or self._stopping:
                if self._failure is not None:
                    raise self._failure
                return None
            changed.clear()
            await changed.wait()
        owed = self._owed[0]
        looks = await self._session.collect(owed.wanted, self._is_hurried)
        answer = self._frame(owed, looks)
        self._owed.pop(0)
        self._answered.set()
        return answer

    def stop(self) -> None:
        """Answer the waiting requests at once, and end the stream."""
        self._stopping = True
        self._session.changed.set()

    def close(self) -> None:
        """Forget every partition."""
        self._session.close()

    # Requests

    async def _take(self, request: FetchRequest) -> None:
        if request.request_id <= self._last_request_id:
            raise InvalidRequestError(
                f"request_id must grow on a stream: {request.request_id} after "
                f"{self._last_request_id}"
            )
        self._last_request_id = request.request_id
        if self._stopping:
            return
        if request.client_rack and not self._arrived:
            self._session.reader = self._session.reader._replace(rack=request.client_rack)
        self._arrived += 1
        # If an answer is being made now, it is for an earlier request. It leaves out the partitions
        # of this request.
        for index, forgotten in enumerate(request.forgotten, 1):
            key = (forgotten.topic_id, forgotten.partition)
            self._session.forget(key)
            self._sent.pop(key, None)
            await _let_others_run(index)
        refuse_duplicates((n.topic_id, n.partition) for n in request.partitions)
        for index, named in enumerate(request.partitions, 1):
            self._name(named)
            await _let_others_run(index)
        self._session.look_at_failing()
        self._repeat_unmoved()
        wanted = self._fetch.wanted(
            self._arrived, request.min_bytes, request.max_bytes, request.max_wait_ms
        )
        self._owed.append(_Owed(request.request_id, bool(request.partitions), wanted))
        self._session.changed.set()

    def _name(self, named: FetchPartition) -> None:
        key = (named.topic_id, named.partition)
        if len(self._session) >= self._partitions_max and key not in self._session:
            self._refuse(key, named.fetch_offset)
            return
        self._session.name(
            key,
            named.fetch_offset,
            leader_epoch=named.leader_epoch,
            bytes_max=named.max_bytes,
            last_epoch=named.last_fetched_epoch if named.HasField("last_fetched_epoch") else -1,
            was_corrupt=named.was_corrupt,
            stays_here=named.stays_here,
            named_by=self._arrived,
        )
        self._sent.pop(key, None)

    def _refuse(self, key: Key, offset: int) -> None:
        """Refuse one partition in the answer to this request. The other partitions are served."""
        if len(self._refused) >= REFUSED_MAX:
            raise InvalidRequestError(
                f"a fetch session holds at most {self._partitions_max} partitions, "
                f"and {REFUSED_MAX} more were named: open another stream"
            )
        self._refused[key] = (self._arrived, offset)

    def _repeat_unmoved(self) -> None:
        """Read partitions again that no request has named since the answer with their records.

        The number of requests in flight is bounded by `_owed_max`. So a request that is this many
        requests later was sent after the client got the answer.
        """
        while self._sent:
            key, number = next(iter(self._sent.items()))
            if number > self._arrived - self._owed_max:
                return
            del self._sent[key]
            self._session.put_in_turn(key)

    # Answers

    def _is_hurried(self) -> bool:
        """Return whether to answer at once. The reasons are:

        * the stream ends;
        * a later request has partitions;
        * a partition without room in the session must be refused.
        """
        return self._stopping or bool(self._refused) or any(one.names for one in self._owed[1:])

    def _frame(self, owed: _Owed, looks: Mapping[Key, Look]) -> Frame[FetchHeader]:
        header = FetchHeader(request_id=owed.request_id)
        pieces: list[bytes] = []
        for key, look in looks.items():
            position, found = look.position, look.found
            if isinstance(found, QuorateError):
                header.partitions.append(self._failed(position, found))
                continue
            if found.batches:
                pieces.append(found.batches)
                self._sent[key] = owed.wanted.number
            header.partitions.append(_fetched(position, found))
        header.partitions.extend(self._refusals(owed.wanted.number))
        return Frame(header, tuple(pieces))

    def _refusals(self, number: int) -> list[FetchedPartition]:
        told = [(key, of) for key, of in self._refused.items() if of[0] <= number]
        for key, _ in told:
            del self._refused[key]
        return [_no_room(key, of[1], self._partitions_max) for key, of in told]

    def _failed(self, position: Position, error: QuorateError) -> FetchedPartition:
        return FetchedPartition(
            topic_id=position.topic_id,
            partition=position.partition,
            error=error_of(error),
            high_watermark=-1,
            log_start_offset=-1,
            leader=self._hints.of(error),
            fetch_offset=position.offset,
            divergence=Divergence(
                epoch=error.divergence.epoch, end_offset=error.divergence.end_offset
            )
            if isinstance(error, DivergedError)
            else None,
        )


def _no_room(key: Key, offset: int, allowed: int) -> FetchedPartition:
    error = OverloadedError(
        f"a fetch session holds at most {allowed} partitions: open another stream for the rest"
    )
    return FetchedPartition(
        topic_id=key[0],
        partition=key[1],
        error=error_of(error),
        high_watermark=-1,
        log_start_offset=-1,
        fetch_offset=offset,
    )


async def _let_others_run(index: int) -> None:
    if index % CHANGES_IN_A_ROW_MAX == 0:
        await asyncio.sleep(0)


def _fetched(position: Position, found: Fetched) -> FetchedPartition:
    return FetchedPartition(
        topic_id=position.topic_id,
        partition=position.partition,
        high_watermark=found.high_watermark,
        log_start_offset=found.log_start_offset,
        size=len(found.batches),
        fetch_offset=position.offset,
        has_gaps=found.has_gaps,
        read_replica=None if found.read_replica == HERE else found.read_replica,
    )
