"""Fetch: a session decides which records one consumer gets from many partitions, and when.

A session has the consumer's position in each partition. Partitions take turns. A round of reading
covers only the partitions that have changed, so its cost does not grow with the session. Only the
consumer moves a position. After an answer with records, the partition is not read again until the
consumer sets its position again, or the gRPC listener calls `put_in_turn`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from quorate.aio.clock import loop_ms
from quorate.errors import QuorateError
from quorate.net.principal import Principal
from quorate_broker.operations.partitions import locate
from quorate_broker.operations.read_replicas import Reader, read_replica
from quorate_broker.replica.fetched import HERE, Fetched
from quorate_broker.replica.follower_reads import FollowerReads
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final = Required(Operation.READ, ResourceType.TOPIC)
#: Partitions of one session that are read in one turn of the loop.
LOOKS_IN_A_ROW_MAX = 64
#: The least time between two reads of the log while an answer has fewer than min_bytes.
LOOK_INTERVAL_MS = 10
#: The most partitions in one answer.
TOLD_MAX = 1000


@dataclass(slots=True)
class Position:
    """The consumer's position in one partition, and what the consumer was told of the partition."""

    topic_id: bytes
    partition: int
    offset: int = 0
    leader_epoch: int = -1
    bytes_max: int = 0
    last_epoch: int = -1
    #: Grows with every change by the consumer. A read at an older version is dropped.
    version: int = 0
    #: The number of the last request that set this position. Answers to earlier requests leave the
    #: partition out.
    named_by: int = 0
    #: The leader reads for this position, even if the consumer's rack has a replica.
    stays_here: bool = False
    #: Records were sent from this position, or the consumer was sent to another replica. The
    #: partition is not read again until the consumer asks.
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

    def was_told(self, found: Fetched | QuorateError) -> None:
        """Remember what the consumer knows now, so that later answers have only news."""
        if isinstance(found, QuorateError):
            self.told_error = found.code
            return
        self.is_sent = self.is_sent or bool(found.batches) or found.read_replica != HERE
        self.told_high_watermark = found.high_watermark
        self.told_log_start = found.log_start_offset


@dataclass(slots=True)
class Look:
    """The result of one read of a partition, made when its position had this `version`."""

    position: Position
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
        """Whether the consumer must be told at once.

        The read found an error or a log start that the consumer does not know yet, or another
        replica from which it should read.
        """
        if isinstance(self.found, QuorateError):
            return self.found.code != self.position.told_error
        if self.is_elsewhere:
            return True
        told = self.position.told_log_start
        return told >= 0 and told != self.found.log_start_offset

    @property
    def is_elsewhere(self) -> bool:
        """Whether the consumer should read from another replica."""
        return not isinstance(self.found, QuorateError) and self.found.read_replica != HERE

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
    """The answer that is being made: the reads in it, and their totals."""

    looks: dict[Key, Look] = field(default_factory=dict)
    size: int = 0
    news: int = 0

    def add(self, key: Key, look: Look) -> None:
        self.looks[key] = look
        self.size += look.size
        self.news += look.is_news

    def drop(self, key: Key) -> None:
        look = self.looks.pop(key, None)
        if look is not None:
            self.size -= look.size
            self.news -= look.is_news


class Wanted(NamedTuple):
    """The limits of one request. `number` is its place in the order of arrival."""

    number: int
    min_bytes: int
    max_bytes: int
    wait_ms: int


class Fetch:
    """The fetch operation, for all consumers of a broker."""

    def __init__(self, replicas: Replicas, config: BrokerConfig, authorizer: Authorizer) -> None:
        self._replicas = replicas
        self._config = config
        self._authorizer = authorizer

    def session(self, principal: Principal, reader: Reader) -> FetchSession:
        """Return a session for one consumer on one stream."""
        return FetchSession(self._replicas, Caller(principal, self._authorizer), reader)

    def wanted(self, number: int, min_bytes: int, max_bytes: int, wait_ms: int) -> Wanted:
        """Return the limits of a request, reduced to the broker's bounds."""
        max_bytes = min(max_bytes, self._config.fetch_max_bytes)
        wait_ms = min(wait_ms, self._config.fetch_wait_max_ms)
        return Wanted(number, min(min_bytes, max_bytes), max_bytes, wait_ms)


class FetchSession:
    """The positions of one consumer.

    `changed` is set when a partition or the session has changed.
    """

    def __init__(self, replicas: Replicas, caller: Caller, reader: Reader) -> None:
        self._replicas = replicas
        self._caller = caller
        #: It may be set before the first partition is named.
        self.reader = reader
        self.changed = asyncio.Event()
        self._positions: dict[Key, Position] = {}
        #: Partitions to read, in the order of their turns. An OrderedDict removes its first key in
        #: constant time. A plain dict would search over all keys that were removed before.
        self._due: OrderedDict[Key, None] = OrderedDict()
        #: Partitions whose last read ended in an error. Each request makes them due again.
        self._failing: dict[Key, None] = {}
        self._answer = _Answer()

    # Changes by the consumer

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, key: Key) -> bool:
        return key in self._positions

    def name(
        self,
        key: Key,
        offset: int,
        *,
        leader_epoch: int,
        bytes_max: int,
        last_epoch: int = -1,
        was_corrupt: bool = False,
        stays_here: bool = False,
        named_by: int = 0,
    ) -> None:
        """Set the position in a partition, and make the partition due.

        `last_epoch` is the epoch of the last record below `offset` that the consumer knows; -1: do
        not compare the logs. `was_corrupt`: the batch that was sent from this position failed its
        CRC. `stays_here`: do not send the consumer to a replica in its rack.
        """
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = Position(*key)
        position.offset = offset
        position.leader_epoch = leader_epoch
        position.bytes_max = bytes_max
        position.last_epoch = last_epoch
        position.stays_here = stays_here
        partition = self._replicas.find(*key) if was_corrupt else None
        if partition is not None and self._caller.may(REQUIRED, partition.topic):
            partition.damage.suspect(offset)
        self._answer.drop(key)
        position.version += 1
        position.named_by = named_by
        position.is_sent = False
        position.told_error = 0
        self._due[key] = None

    def forget(self, key: Key) -> None:
        """Leave a partition out from now on, even from the answer that is being made."""
        position = self._positions.pop(key, None)
        if position is not None:
            position.version += 1
            position.stop_watching()
            self._answer.drop(key)
            self._due.pop(key, None)
            self._failing.pop(key, None)

    def put_in_turn(self, key: Key) -> None:
        """Make a partition due again, at the position from which records were sent."""
        self._positions[key].is_sent = False
        self._due[key] = None

    def look_at_failing(self) -> None:
        """Make due again each partition whose last read ended in an error."""
        self._due.update(self._failing)
        self._failing.clear()

    def close(self) -> None:
        """Forget every partition."""
        for position in self._positions.values():
            position.stop_watching()
        self._positions.clear()
        self._due.clear()

    # Making an answer

    async def collect(self, wanted: Wanted, is_hurried: Callable[[], bool]) -> dict[Key, Look]:
        """Read until the answer has enough, or the consumer has waited long enough.

        Partitions whose position was set by a later request are left out. After each round,
        `is_hurried` returns whether to answer at once with the reads so far. When this method has
        returned, the consumer counts as knowing the results.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wanted.wait_ms / 1000
        answer = self._answer = _Answer()
        while True:
            self.changed.clear()
            is_full = await self._look(answer, wanted)
            is_enough = is_full or 0 < answer.size >= wanted.min_bytes
            left = deadline - loop.time()
            if is_enough or left <= 0 or answer.news or is_hurried():
                break
            # too few bytes: first wait for more, because the next round reads these bytes again
            if answer.size:
                await asyncio.sleep(min(left, LOOK_INTERVAL_MS / 1000))
            await self._wait_until(deadline)
        self._answer = _Answer()
        for look in answer.looks.values():
            look.position.was_told(look.found)
        return answer.looks

    async def _wait_until(self, deadline: float) -> None:
        """Wait until a partition or the session changes, at most until the deadline."""
        timer = asyncio.get_running_loop().call_at(deadline, self.changed.set)
        try:
            await self.changed.wait()
        finally:
            timer.cancel()

    async def _look(self, answer: _Answer, wanted: Wanted) -> bool:
        """Read the due partitions in turn. Return True if there are records that do not fit."""
        later: list[Key] = []
        try:
            for index in range(1, len(self._due) + 1):
                if index % LOOKS_IN_A_ROW_MAX == 0:
                    # let other tasks run, because a read may return without a wait
                    await asyncio.sleep(0)
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

    async def _look_at(self, answer: _Answer, wanted: Wanted, key: Key, position: Position) -> bool:
        """Add the result of reading one partition. Return False if its records do not fit."""
        size = answer.size
        if 0 < size >= wanted.max_bytes or len(answer.looks) >= TOLD_MAX:
            return False
        version = position.version
        found = await self._read_one(key, position, max(wanted.max_bytes - size, 0), size == 0)
        look = Look(position, version, found)
        if not look.is_current:
            return True
        if isinstance(found, QuorateError):
            self._failing[key] = None
            if look.is_news:
                answer.add(key, look)
            return True
        position.told_error = 0
        if look.size or look.is_elsewhere or look.has_new_bound:
            answer.add(key, look)
        return (
            look.is_elsewhere
            or look.size > 0
            or size == 0
            or position.offset >= found.high_watermark
        )

    async def _read_one(
        self, key: Key, position: Position, bytes_max: int, is_first: bool
    ) -> Fetched | QuorateError:
        try:
            partition = locate(self._replicas, self._caller, REQUIRED, *key, position.leader_epoch)
            self._watch(key, position, partition)
            source = source_of(partition, self.reader, position.leader_epoch)
            elsewhere = self._read_replica(source, position)
            if elsewhere != HERE:
                bytes_max, is_first = 0, False
            # the leader checks the position also if the consumer should read elsewhere
            found = await source.fetch(
                position.offset,
                bytes_max=min(position.bytes_max, bytes_max),
                last_epoch=position.last_epoch,
                at_least_one=is_first,
            )
        except QuorateError as error:
            return error
        return found if elsewhere == HERE else found._replace(read_replica=elsewhere)

    def _read_replica(self, source: LeaderReplica | FollowerReads, position: Position) -> int:
        if not self.reader.rack or position.stays_here or not isinstance(source, LeaderReplica):
            return HERE
        image, offset = self._replicas.image, position.offset
        return read_replica(image, source.machine, self.reader, offset, loop_ms())

    def _watch(self, key: Key, position: Position, partition: Partition) -> None:
        """Let a change of a partition wake this session.

        The partition may have another Partition object than before: a new object is made when a
        replica is opened again.
        """
        if position.watched is partition:
            return
        position.stop_watching()

        def wake() -> None:
            if self._positions.get(key) is position and not position.is_sent:
                self._due[key] = None
                self.changed.set()

        position.watched = partition
        position.unwatch = partition.watches.add(wake)


def source_of(
    partition: Partition, reader: Reader, leader_epoch: int
) -> LeaderReplica | FollowerReads:
    """Return what serves a consumer. Raises the errors of Partition.as_leader.

    Only a consumer that names its rack reads from followers. Others, which are here because their
    metadata is old, must find the leader.
    """
    return partition.as_source(leader_epoch) if reader.rack else partition.as_leader(leader_epoch)
