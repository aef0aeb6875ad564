"""The consumer as users see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    Collection,
    Iterable,
    Sequence,
)
from types import TracebackType
from typing import Annotated, NoReturn, Self

from quorate.aio.owner import Owner
from quorate.cluster.cluster import Cluster
from quorate.consumer.assignment import Assignment
from quorate.consumer.fetch_stream import FetchConfig
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.offset_lookup import TIMEOUT_S
from quorate.consumer.partition_state import UNKNOWN, PartitionState, Reset
from quorate.consumer.pending_positions import PendingPositions
from quorate.consumer.queries import ConsumerQueries
from quorate.consumer.record_reader import RecordReader
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import (
    ClosedError,
    InvalidRequestError,
    RequestTimedOutError,
    UnsupportedError,
)
from quorate.model import AnyRecord, TopicPartition
from quorate.serializers import decoder
from quorate.settings import (
    BYTES_MAX,
    CLIENT_ID,
    INT32_MAX,
    OFFSET,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    TOPIC,
    Coder,
    Flag,
    Names,
    NotThereYet,
    Number,
    OneOf,
    Partition,
    Partitions,
    Pattern,
    Text,
    Whole,
    checked,
)

#: So many records may be read from the buffer before other tasks get their turn.
RECORDS_BETWEEN_YIELDS = 512
POLICIES: dict[str, Reset] = {"earliest": "earliest", "latest": "latest", "none": "none"}
ALL: frozenset[TopicPartition] = frozenset()

#: What all names of groups say until there are any.
GROUPS = NotThereYet(
    "needs consumer groups, which are not there yet: leave it None and use assign() or "
    "subscribe(), which then reads every partition",
    UnsupportedError,
)


class Consumer(ConsumerQueries):
    """Read records from topics, in order within each partition.

    Iterate it (``async for record in consumer``) or call ``getone``/``getmany``. Positional
    arguments are topics to subscribe to. ``auto_offset_reset`` says where a partition without a
    position begins: "earliest", "latest", or "none" (OffsetOutOfRangeError). Where a log was cut
    below the position, "earliest" and "latest" read on from there, and "none" raises
    LogTruncatedError. Only committed records are seen.
    """

    @checked
    def __init__(
        self,
        *topics: Annotated[str, TOPIC],
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        group_id: Annotated[str | None, GROUPS] = None,
        group_instance_id: Annotated[str | None, GROUPS] = None,
        client_id: Annotated[str, CLIENT_ID] = "quorate-python",
        client_rack: Annotated[str | None, Text("where this program runs")] = None,
        auto_offset_reset: Annotated[str, OneOf(tuple(POLICIES), "where to begin")] = "latest",
        enable_auto_commit: Annotated[bool, Flag("with a group")] = True,
        auto_commit_interval_ms: Annotated[int, TIMEOUT_MS] = 5000,
        max_poll_records: Annotated[int, Whole(1, INT32_MAX, "of one getmany()")] = 500,
        fetch_min_bytes: Annotated[int, Whole(0, INT32_MAX, "worth an answer at once")] = 1,
        fetch_max_bytes: Annotated[int, BYTES_MAX] = 16777216,
        fetch_max_wait_ms: Annotated[int, TIMEOUT_MS] = 500,
        max_partition_fetch_bytes: Annotated[int, BYTES_MAX] = 1048576,
        session_timeout_ms: Annotated[int, TIMEOUT_MS] = 45000,
        max_poll_interval_ms: Annotated[int, TIMEOUT_MS] = 300000,
        assignor: object | None = None,
        isolation_level: Annotated[
            str, OneOf(("read_uncommitted", "read_committed"), "which records are seen")
        ] = "read_uncommitted",
        key_deserializer: Annotated[object | None, Coder("deserialize")] = None,
        value_deserializer: Annotated[object | None, Coder("deserialize")] = None,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        self._bootstrap = bootstrap_servers
        self._client_id = client_id
        self._max_poll_records = max_poll_records
        self._config = FetchConfig(
            min_bytes=fetch_min_bytes,
            max_bytes=fetch_max_bytes,
            max_wait_ms=fetch_max_wait_ms,
            max_partition_bytes=max_partition_fetch_bytes,
            client_rack=client_rack or "",
            policy=POLICIES[auto_offset_reset],
        )
        self._reader = RecordReader(decoder(key_deserializer), decoder(value_deserializer))
        self._subscription = Subscription(POLICIES[auto_offset_reset])
        self._assignment = Assignment(self._subscription, self._assigned)
        if topics:
            self._assignment.subscribe(topics, None)
        self._owner = Owner("consumer")
        self._cluster: Cluster | None = None
        self._fetcher: Fetcher | None = None
        self._read_since_yield = 0
        self._starting = asyncio.Lock()
        self._stopped: asyncio.Event | None = None

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, subscribe, and fix the positions: what is acknowledged afterwards is read.

        A partition that has no leader by then is not waited for; its position is looked up once it
        has one. QuorumUnavailableError if nobody answers, UnknownTopicError.
        """
        self._owner.bind()
        async with self._starting:
            self._check_not_stopped()
            if self._cluster is None:
                await self._start(
                    Cluster(self._bootstrap, client_id=self._client_id, owner=self._owner)
                )

    async def _start(self, cluster: Cluster) -> None:
        try:
            self._assignment.prepare(cluster)
            await cluster.start()
            for topic in self._assignment.topics:
                await cluster.topic(topic)
            self._check_not_stopped()  # meanwhile
            self._cluster = cluster
            self._fetcher = Fetcher(
                cluster,
                self._subscription,
                self._config,
                self._reader,
                self._assignment.look_again,
            )
            self._assignment.follow(cluster)
            self._fetcher.start()
            await self._settle(list(self._subscription.states.values()))
        except BaseException:
            self._assignment.leave()
            if self._fetcher is not None:
                await self._fetcher.stop()
            await cluster.stop()
            self._cluster = self._fetcher = None
            raise

    async def stop(self) -> None:
        """Close; safe to call twice, and while it starts."""
        self._owner.check()
        if self._stopped is not None:
            await self._stopped.wait()
            return
        self._stopped = asyncio.Event()
        try:
            if self._cluster is not None and self._fetcher is not None:
                self._fetcher.arrived.ring()
                await self._fetcher.stop()
                await self._cluster.stop()
                await self._owner.end_all()
        finally:
            self._stopped.set()

    def _check_not_stopped(self) -> None:
        if self._stopped is not None:
            raise ClosedError("this consumer was stopped; make a new one")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- reading ---------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyRecord:
        if self._stopped is not None:
            raise StopAsyncIteration
        try:
            return await self.getone()
        except ClosedError:
            if self._stopped is not None:
                raise StopAsyncIteration from None
            raise

    async def getone(self) -> AnyRecord:
        """Return the next record; wait for it.

        Raises DeserializationError, CorruptRecordError, OffsetOutOfRangeError, LogTruncatedError:
        each of one partition, which is read on from the same position afterwards, in its turn.
        """
        while True:
            if self._read_since_yield >= RECORDS_BETWEEN_YIELDS:
                await self._let_others_run()
                self._running_fetcher().asked_for(ALL)
            fetcher = self._running_fetcher()
            record = fetcher.reading.take_one()
            if record is not None:
                self._read_since_yield += 1
                return record
            fetcher.asked_for(ALL)
            await self._wait(None)

    @checked
    async def getmany(
        self,
        *partitions: Annotated[TopicPartition, Partition()],
        timeout_ms: Annotated[float, Number(0, INT32_MAX, "wait for the first")] = 0,
        max_records: Annotated[int | None, Whole(1, INT32_MAX, "of one answer")] = None,
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """Return up to max_records (max_poll_records) of what is there, by partition.

        Waits up to timeout_ms for the first. Names of partitions limit it to these. Raises what
        getone raises, unless there are records: these come first.
        """
        limit = self._max_poll_records if max_records is None else max_records
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        only = frozenset(partitions)
        while True:
            if self._read_since_yield >= RECORDS_BETWEEN_YIELDS:
                await self._let_others_run()
            fetcher = self._running_fetcher()
            fetcher.asked_for(only)
            found = fetcher.reading.take(only, limit)
            if found:
                self._read_since_yield += sum(map(len, found.values()))
                return found
            left = deadline - loop.time()
            if left <= 0:
                fetcher.found_nothing()
                await asyncio.sleep(0)  # a loop of polls must not stop the fetching
                return {}
            await self._wait(left)

    async def _let_others_run(self) -> None:
        """A loop of reads that never finds the buffer empty must not stop the event loop."""
        self._read_since_yield = 0
        await asyncio.sleep(0)

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait until there may be something to read; None: for as long as the user does."""
        fetcher = self._running_fetcher()
        fetcher.found_nothing()
        with contextlib.suppress(RequestTimedOutError):
            await self._owner.wait(
                fetcher.arrived.next_ring(), timeout_s=timeout_s, late=RequestTimedOutError
            )

    def _check_running(self) -> None:
        self._owner.check_alive()
        if self._stopped is not None or self._fetcher is None:
            raise ClosedError("this consumer is not running; call start() or use `async with`")
        error, self._assignment.listener_error = self._assignment.listener_error, None
        if error is not None:
            raise error

    # -- what to read ----------------------------------------------------------------------------

    @checked
    def subscribe(
        self,
        topics: Annotated[Sequence[str], Names(what="topics")] = (),
        pattern: Annotated[str | None, Pattern()] = None,
        listener: object | None = None,
    ) -> PendingPositions:
        """Read all partitions of these topics, or of every topic whose whole name matches.

        Partitions and matching topics that appear later are read from their beginning. The
        listener's on_partitions_assigned(list) and on_partitions_revoked(list) are called if it
        has them; they must be plain functions, and what they raise comes out of the next read.
        On a started consumer, await the call to have the positions fixed.
        """
        self._owner.check()
        self._assignment.subscribe(topics, pattern, listener)
        return PendingPositions(self._settle_all)

    def unsubscribe(self) -> None:
        """Read nothing."""
        self._owner.check()
        self._assignment.unsubscribe()

    @checked
    def assign(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> PendingPositions:
        """Read exactly these partitions; those that stay keep their positions.

        UnknownTopicError if a topic that is known has no such partition. On a started consumer,
        await the call to have the positions fixed.
        """
        self._owner.check()
        self._assignment.assign(partitions)
        return PendingPositions(self._settle_all)

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that are read."""
        return frozenset(self._subscription.states)

    def _assigned(self, change: Change) -> None:
        if self._fetcher is not None:
            self._fetcher.assigned(change)
            self._fetcher.arrived.ring()  # a listener may have raised

    async def _settle_all(self) -> None:
        await self._assignment.known()
        await self._settle(list(self._subscription.states.values()))

    async def _settle(self, states: Collection[PartitionState]) -> None:
        if self._fetcher is not None:
            await self._fetcher.offsets.settle(states)

    # -- positions -------------------------------------------------------------------------------

    @checked
    def seek(
        self,
        partition: Annotated[TopicPartition, Partition()],
        offset: Annotated[int, OFFSET],
        leader_epoch: Annotated[int | None, Whole(0, INT32_MAX, "of the record before")] = None,
    ) -> None:
        """Read on from `offset`, 0 or more.

        `leader_epoch` is that of the last record that was read before it, if it is known: then
        LogTruncatedError (or auto_offset_reset) tells if that record is not in the log any more.
        """
        state = self._state(partition)
        state.seek(offset, UNKNOWN if leader_epoch is None else leader_epoch)
        self._changed(state)

    @checked
    def seek_to_beginning(
        self, *partitions: Annotated[TopicPartition, Partition()]
    ) -> PendingPositions:
        """Read on from the first record held; of all assigned partitions if none is named."""
        states = self._states(partitions)
        for state in states:
            self._seek_to("earliest", state)
        return PendingPositions(lambda: self._settle(states))

    @checked
    def seek_to_end(self, *partitions: Annotated[TopicPartition, Partition()]) -> PendingPositions:
        """Read on from the high watermark of now; of all assigned partitions if none is named.

        Awaited, it returns when that is fixed: all that is acknowledged afterwards is read, and
        nothing that was acknowledged before the call. Not awaited, it takes the high watermark as
        the leader told it last: so nothing that is acknowledged after the call is missed either.
        """
        states = self._states(partitions)
        for state in states:
            if not state.seek_to_known_end():
                state.seek_to("latest")
            self._changed(state)
        return PendingPositions(lambda: self._settle_at_end(states))

    @checked
    async def position(self, partition: Annotated[TopicPartition, Partition()]) -> int:
        """Return the offset of the next record, looking it up if it is not known yet.

        RequestTimedOutError if its leader does not tell.
        """
        state = self._state(partition)
        if state.position == UNKNOWN:
            await self._running_fetcher().offsets.settle([state], leaderless_wait_s=TIMEOUT_S)
            state = self._state(partition)
            if state.error is not None:
                error, state.error = state.error, None
                self._changed(state)
                raise error
        return state.position

    @checked
    def pause(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read nothing of these until resume()."""
        for state in [self._state(partition) for partition in partitions]:
            state.paused = True
            self._changed(state)

    @checked
    def resume(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read on."""
        for state in [self._state(partition) for partition in partitions]:
            state.paused = False
            self._changed(state)

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused."""
        return frozenset(k for k, state in self._subscription.states.items() if state.paused)

    @checked
    def highwater(self, partition: Annotated[TopicPartition, Partition()]) -> int | None:
        """Return the high watermark as the last fetch told it, None before the first."""
        mark = self._state(partition).high_watermark
        return None if mark == UNKNOWN else mark

    async def lag(self) -> dict[TopicPartition, int]:
        """Return how many offsets each assigned partition is behind its high watermark."""
        ends = await self.end_offsets(self.assignment())
        return {key: max(0, ends[key] - await self.position(key)) for key in sorted(ends)}

    async def commit(self, offsets: object | None = None) -> NoReturn:
        """Not there yet: committed offsets come with groups."""
        raise UnsupportedError("commit() needs a consumer group, and groups are not there yet")

    async def committed(self, partition: TopicPartition) -> NoReturn:
        """Not there yet: committed offsets come with groups."""
        raise UnsupportedError("committed() needs a consumer group, and groups are not there yet")

    def _seek_to(self, reset: Reset, state: PartitionState) -> None:
        state.seek_to(reset)
        self._changed(state)

    async def _settle_at_end(self, states: Collection[PartitionState]) -> None:
        for state in states:
            if not state.needs_offset:
                self._seek_to("latest", state)
        await self._settle(states)

    def _states(self, partitions: Sequence[TopicPartition]) -> list[PartitionState]:
        self._owner.check()
        return [self._state(one) for one in partitions or tuple(self._subscription.states)]

    def _state(self, partition: TopicPartition) -> PartitionState:
        state = self._subscription.states.get(TopicPartition._make(partition))
        if state is None:
            raise InvalidRequestError(
                f"{partition[0]}-{partition[1]} is not assigned to this consumer; assigned are "
                f"{sorted(self._subscription.states)}"
            )
        return state

    def _changed(self, state: PartitionState) -> None:
        if self._fetcher is not None and self._stopped is None:
            self._fetcher.changed(state)

    def _running_fetcher(self) -> Fetcher:
        self._check_running()
        assert self._fetcher is not None
        return self._fetcher
