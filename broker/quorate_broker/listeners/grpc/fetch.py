"""One Fetch stream, which is the fetch session: what is read for it, and when it is answered.

A partition stays in the session until it is forgotten. Requests are answered in their order,
each for what it and those before it named; one that names partitions ends the wait of the one
before it. The client moves positions, nobody else: a partition that was answered with records is
out of turn until a request names it again, or until a request comes that can only have been sent
when the answer was there. So two requests in flight never read a record twice, and a client that
dropped an answer gets it again. Partitions take turns; only those that something happened to are
looked at, and no step costs as much as the session is large.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from quorate.errors import InvalidRequestError, NetworkError, OverloadedError, QuorateError
from quorate.net.frame import Frame
from quorate.v1.records_pb2 import Divergence, FetchedPartition, FetchHeader
from quorate_broker.listeners.grpc.answers import error_of
from quorate_broker.operations.partitions import locate, refuse_duplicates
from quorate_broker.replica.leader_replica import DivergedError
from quorate_broker.replica.waiters import hint_of
from quorate_quorum.node.authorizer import Caller, Operation, Required, ResourceType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quorate.v1.records_pb2 import FetchPartition, FetchRequest
    from quorate_broker.replica.partition import Fetched, Partition
    from quorate_broker.replicas import Replicas
    from quorate_quorum.node.config import BrokerConfig

Key = tuple[bytes, int]

REQUIRED: Final = Required(Operation.READ, ResourceType.TOPIC)

#: Partitions of one session that are looked at before others have their turn of the loop.
LOOKS_IN_A_ROW_MAX = 64
#: Partitions that are named or forgotten before others have their turn.
CHANGES_IN_A_ROW_MAX = 250
#: While fewer than min_bytes are there, the log is not read again more often than this.
LOOK_INTERVAL_MS = 10
#: Partitions that one answer tells of.
TOLD_MAX = 1000
#: Partitions without room in the session that wait to be told so.
REFUSED_MAX = 10_000


@dataclass(slots=True)
class _Position:
    """A partition of the session; `version` grows with every change that the client makes."""

    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int
    bytes_max: int
    last_epoch: int = -1
    version: int = 0
    #: The request that named it last, by number of arrival: answers to earlier ones leave it out.
    named_by: int = 0
    #: Records were sent from this position: out of turn.
    is_sent: bool = False
    told_error: int = 0
    told_high_watermark: int = -1
    told_log_start: int = -1
    watched: Partition | None = None
    unwatch: Callable[[], None] | None = None

    def stop_watching(self) -> None:
        if self.unwatch is not None:
            self.unwatch()
        self.watched = self.unwatch = None


@dataclass(slots=True)
class _Look:
    """What one look at one partition found, from the position that `version` names."""

    position: _Position
    version: int
    found: Fetched | QuorateError

    @property
    def is_current(self) -> bool:
        return self.position.version == self.version

    @property
    def size(self) -> int:
        return 0 if isinstance(self.found, QuorateError) else len(self.found.batches)

    @property
    def is_news(self) -> bool:
        """An error or a new log start that the client does not know yet."""
        if isinstance(self.found, QuorateError):
            return self.found.code != self.position.told_error
        told = self.position.told_log_start
        return told >= 0 and told != self.found.log_start_offset

    @property
    def has_new_bound(self) -> bool:
        if isinstance(self.found, QuorateError):
            return False
        return (self.found.high_watermark, self.found.log_start_offset) != (
            self.position.told_high_watermark,
            self.position.told_log_start,
        )


@dataclass(slots=True)
class _Answer:
    """The answer that is being made: the looks that are worth telling, and what they come to."""

    looks: dict[Key, _Look] = field(default_factory=dict)
    size: int = 0
    news: int = 0

    def add(self, key: Key, look: _Look) -> None:
        self.looks[key] = look
        self.size += look.size
        self.news += look.is_news

    def drop(self, key: Key) -> None:
        look = self.looks.pop(key, None)
        if look is not None:
            self.size -= look.size
            self.news -= look.is_news


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request that is not answered yet; `number` counts them as they arrive."""

    number: int
    request_id: int
    names: bool
    min_bytes: int
    max_bytes: int
    wait_ms: int


class FetchSession:
    """The state of one stream; the service owns it and closes it."""

    def __init__(self, replicas: Replicas, caller: Caller, config: BrokerConfig) -> None:
        self._replicas = replicas
        self._caller = caller
        self._config = config
        self._positions: dict[Key, _Position] = {}
        #: Partitions to look at, in turn. Ordered dicts: the first of a dict that is emptied from
        #: its front is found behind all the gaps.
        self._due: OrderedDict[Key, None] = OrderedDict()
        #: Partitions whose last look ended in an error: looked at again with each request.
        self._failing: dict[Key, None] = {}
        #: Partitions that are out of turn, with the number of the request that was answered.
        self._sent: OrderedDict[Key, int] = OrderedDict()
        self._answer = _Answer()
        #: Partitions that found no room: the number of the request that named them, and the offset.
        self._refused: dict[Key, tuple[int, int]] = {}
        self._wanted: list[_Wanted] = []
        self._arrived = 0
        self._last_request_id = -1
        self._reading = True
        self._stopping = False
        self._failure: QuorateError | None = None
        self._changed = asyncio.Event()
        self._answered = asyncio.Event()

    async def read(self, requests: AsyncIterator[FetchRequest]) -> None:
        """Take requests until the client ends its side, or asks for what can't be."""
        closing: Any = aclosing(requests) if hasattr(requests, "aclose") else nullcontext()
        try:
            async with closing:
                async for request in requests:
                    await self._take(request)
                    while len(self._wanted) >= self._config.fetch_in_flight_max:
                        self._answered.clear()
                        await self._answered.wait()
        except NetworkError:
            pass
        except QuorateError as error:
            self._failure = error
        finally:
            self._reading = False
            self._changed.set()

    async def next_answer(self) -> Frame[FetchHeader] | None:
        """Return the answer to the oldest request when it is due; None at the stream's end.

        Raises InvalidRequestError, after the answers still owed, if a request can't be.
        """
        while not self._wanted:
            if not self._reading or self._stopping:
                if self._failure is not None:
                    raise self._failure
                return None
            self._changed.clear()
            await self._changed.wait()
        wanted = self._wanted[0]
        answer = await self._collect(wanted)
        self._wanted.pop(0)
        self._answered.set()
        return answer

    def stop(self) -> None:
        """Answer at once what waits, and end."""
        self._stopping = True
        self._changed.set()

    def close(self) -> None:
        """Let go of every partition."""
        for position in self._positions.values():
            position.stop_watching()
        self._positions.clear()
        self._due.clear()

    # What requests change

    async def _take(self, request: FetchRequest) -> None:
        if request.request_id <= self._last_request_id:
            raise InvalidRequestError(
                f"request_id must grow on a stream: {request.request_id} after "
                f"{self._last_request_id}"
            )
        self._last_request_id = request.request_id
        if self._stopping:
            return
        self._arrived += 1
        # An answer that is made meanwhile is to an earlier request: it leaves out what is named.
        for index, forgotten in enumerate(request.forgotten, 1):
            self._forget((forgotten.topic_id, forgotten.partition))
            await _let_others_run(index)
        refuse_duplicates((n.topic_id, n.partition) for n in request.partitions)
        for index, named in enumerate(request.partitions, 1):
            self._name(named)
            await _let_others_run(index)
        self._due.update(self._failing)
        self._failing.clear()
        self._repeat_unmoved()
        bytes_max = min(request.max_bytes, self._config.fetch_max_bytes)
        self._wanted.append(
            _Wanted(
                self._arrived,
                request.request_id,
                bool(request.partitions),
                min(request.min_bytes, bytes_max),
                bytes_max,
                min(request.max_wait_ms, self._config.fetch_wait_max_ms),
            )
        )
        self._changed.set()

    def _forget(self, key: Key) -> None:
        position = self._positions.pop(key, None)
        if position is not None:
            position.version += 1
            position.stop_watching()
            self._answer.drop(key)
            self._due.pop(key, None)
            self._failing.pop(key, None)
            self._sent.pop(key, None)

    def _name(self, named: FetchPartition) -> None:
        key = (named.topic_id, named.partition)
        position = self._positions.get(key)
        if position is None:
            if len(self._positions) >= self._config.fetch_session_partitions_max:
                self._refuse(key, named.fetch_offset)
                return
            position = self._positions[key] = _Position(named.topic_id, named.partition, 0, 0, 0)
        position.offset = named.fetch_offset
        position.leader_epoch = named.leader_epoch
        position.bytes_max = named.max_bytes
        known = named.HasField("last_fetched_epoch")
        position.last_epoch = named.last_fetched_epoch if known else -1
        partition = self._replicas.find(*key) if named.was_corrupt else None
        if partition is not None:
            partition.damage.suspect(named.fetch_offset)
        self._answer.drop(key)
        position.version += 1
        position.named_by = self._arrived
        position.is_sent = False
        position.told_error = 0
        self._sent.pop(key, None)
        self._due[key] = None

    def _refuse(self, key: Key, offset: int) -> None:
        """Tell, with the answer to this request, that there is no room; the others are served."""
        if len(self._refused) >= REFUSED_MAX:
            most = self._config.fetch_session_partitions_max
            raise InvalidRequestError(
                f"a fetch session holds at most {most} partitions, "
                f"and {REFUSED_MAX} more were named: open another stream"
            )
        self._refused[key] = (self._arrived, offset)

    def _repeat_unmoved(self) -> None:
        """Put back in turn what was sent so long ago that the client has the answer by now.

        It has at most requests_max requests in flight, and leaves the position where it was.
        """
        while self._sent:
            key, number = next(iter(self._sent.items()))
            if number > self._arrived - self._config.fetch_in_flight_max:
                return
            del self._sent[key]
            self._positions[key].is_sent = False
            self._due[key] = None

    # What an answer is made of

    async def _collect(self, wanted: _Wanted) -> Frame[FetchHeader]:
        """Look until there is enough to say, or the client has waited long enough."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wanted.wait_ms / 1000
        answer = self._answer = _Answer()
        while True:
            self._changed.clear()
            is_full = await self._look(answer, wanted)
            is_enough = is_full or 0 < answer.size >= wanted.min_bytes
            left = deadline - loop.time()
            if is_enough or left <= 0 or self._is_hurried or answer.news or self._refused:
                return self._frame(wanted, answer)
            if answer.size:  # not enough: let more come before what grew is read again
                await asyncio.sleep(min(left, LOOK_INTERVAL_MS / 1000))
            await self._wait_until(deadline)

    @property
    def _is_hurried(self) -> bool:
        """The stream ends, or a request waits that named what this answer must leave out."""
        return self._stopping or any(later.names for later in self._wanted[1:])

    async def _wait_until(self, deadline: float) -> None:
        """Wait for a partition to move or the session to change, until the deadline."""
        timer = asyncio.get_running_loop().call_at(deadline, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _look(self, answer: _Answer, wanted: _Wanted) -> bool:
        """Read due partitions in turn; True if records are there that no longer fit."""
        later: list[Key] = []
        try:
            for index in range(1, len(self._due) + 1):
                if index % LOOKS_IN_A_ROW_MAX == 0:
                    await asyncio.sleep(0)  # a look need not wait, and others must run
                if not self._due:
                    return False
                key = self._due.popitem(last=False)[0]
                position = self._positions.get(key)
                if position is None or position.is_sent:
                    continue
                if position.named_by > wanted.number:
                    later.append(key)
                    continue
                answer.drop(key)
                if not await self._look_at(answer, wanted, key, position):
                    self._put_first(key)
                    return True
            return False
        finally:
            for key in reversed(later):
                self._put_first(key)

    def _put_first(self, key: Key) -> None:
        if key in self._positions:
            self._due[key] = None
            self._due.move_to_end(key, last=False)

    async def _look_at(
        self, answer: _Answer, wanted: _Wanted, key: Key, position: _Position
    ) -> bool:
        """Add to the answer what one partition has; False if it has records that do not fit."""
        size = answer.size
        if 0 < size >= wanted.max_bytes or len(answer.looks) >= TOLD_MAX:
            return False
        version = position.version
        found = await self._read_one(key, position, max(wanted.max_bytes - size, 0), size == 0)
        look = _Look(position, version, found)
        if not look.is_current:
            return True
        if isinstance(found, QuorateError):
            self._failing[key] = None
            if look.is_news:
                answer.add(key, look)
            return True
        position.told_error = 0
        if look.size or look.has_new_bound:
            answer.add(key, look)
        return look.size > 0 or size == 0 or position.offset >= found.high_watermark

    async def _read_one(
        self, key: Key, position: _Position, bytes_max: int, is_first: bool
    ) -> Fetched | QuorateError:
        try:
            partition = locate(self._replicas, self._caller, REQUIRED, *key, position.leader_epoch)
            self._watch(key, position, partition)
            return await partition.fetch(
                position.offset,
                bytes_max=min(position.bytes_max, bytes_max),
                leader_epoch=position.leader_epoch,
                last_epoch=position.last_epoch,
                at_least_one=is_first,
            )
        except QuorateError as error:
            return error

    def _watch(self, key: Key, position: _Position, partition: Partition) -> None:
        """Be woken by that partition; what is known by this key may be another one by now."""
        if position.watched is partition:
            return
        position.stop_watching()

        def wake() -> None:
            if self._positions.get(key) is position and not position.is_sent:
                self._due[key] = None
                self._changed.set()

        position.watched = partition
        position.unwatch = partition.watch(wake)

    def _frame(self, wanted: _Wanted, answer: _Answer) -> Frame[FetchHeader]:
        """Return what is worth telling, and remember that it was told."""
        header = FetchHeader(request_id=wanted.request_id)
        pieces: list[bytes] = []
        for key, look in answer.looks.items():
            position, found = look.position, look.found
            if isinstance(found, QuorateError):
                header.partitions.append(_failed(position, found))
                position.told_error = found.code
                continue
            if found.batches:
                pieces.append(found.batches)
                position.is_sent = True
                self._sent[key] = wanted.number
            header.partitions.append(_fetched(position, found))
            position.told_high_watermark = found.high_watermark
            position.told_log_start = found.log_start_offset
        self._answer = _Answer()
        header.partitions.extend(self._refusals(wanted))
        return Frame(header, tuple(pieces))

    def _refusals(self, wanted: _Wanted) -> list[FetchedPartition]:
        told = [(key, of) for key, of in self._refused.items() if of[0] <= wanted.number]
        for key, _ in told:
            del self._refused[key]
        return [_no_room(key, of[1], self._config.fetch_session_partitions_max) for key, of in told]


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


def _failed(position: _Position, error: QuorateError) -> FetchedPartition:
    return FetchedPartition(
        topic_id=position.topic_id,
        partition=position.partition,
        error=error_of(error),
        high_watermark=-1,
        log_start_offset=-1,
        leader=hint_of(error),
        fetch_offset=position.offset,
        divergence=Divergence(epoch=error.divergence.epoch, end_offset=error.divergence.end_offset)
        if isinstance(error, DivergedError)
        else None,
    )


def _fetched(position: _Position, found: Fetched) -> FetchedPartition:
    return FetchedPartition(
        topic_id=position.topic_id,
        partition=position.partition,
        high_watermark=found.high_watermark,
        log_start_offset=found.log_start_offset,
        size=len(found.batches),
        fetch_offset=position.offset,
    )
