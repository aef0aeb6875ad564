"""The consumer as users see it."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, NoReturn, Self

from quorate.cluster import Cluster
from quorate.consumer.fetcher import EARLIEST, LATEST, FetchConfig, Fetcher
from quorate.consumer.subscription import UNKNOWN, PartitionState, Reset, Subscription
from quorate.errors import (
    ClosedError,
    InvalidRequestError,
    UnknownTopicError,
    UnsupportedError,
)
from quorate.model import AnyRecord, OffsetAndTimestamp, Record, TopicPartition
from quorate.owner import Owner
from quorate.record.batch import check, records, split
from quorate.serializers import decoder
from quorate.settings import (
    BYTES_MAX,
    CLIENT_ID,
    INT32_MAX,
    OFFSET,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    TIMESTAMP_MS,
    TOPIC,
    ByPartition,
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
TURNS_BETWEEN_YIELDS = 512
LISTENER_CALLS = ("on_partitions_revoked", "on_partitions_assigned")
POLICIES: dict[str, Reset] = {"earliest": "earliest", "latest": "latest", "none": "none"}

#: What all names of groups say until there are any.
GROUPS = NotThereYet(
    "needs consumer groups, which are not there yet: leave it None and use assign() or "
    "subscribe(), which then reads every partition",
    UnsupportedError,
)


class Consumer:
    """Read records from topics, in order within each partition.

    Iterate it (``async for record in consumer``) or call ``getone``/``getmany``. Positional
    arguments are topics to subscribe to. ``auto_offset_reset`` says where a partition without a
    position begins: "earliest", "latest", or "none" (OffsetOutOfRangeError). Only committed
    records are seen.
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
        )
        self._decode_key = decoder(key_deserializer)
        self._decode_value = decoder(value_deserializer)
        self._subscription = Subscription(POLICIES[auto_offset_reset])
        self._topics: tuple[str, ...] = topics
        self._pattern: re.Pattern[str] | None = None
        self._manual = False
        self._seen_topics = False
        self._listener: Any = None
        self._owner = Owner("consumer")
        self._cluster: Cluster | None = None
        self._fetcher: Fetcher | None = None
        self._current: PartitionState | None = None
        self._assigned: tuple[TopicPartition, ...] = ()
        self._subscribed_at = 0
        self._listener_error: Exception | None = None
        self._turns = 0
        self._closed = False

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and, with topics, subscribe; QuorumUnavailableError if nobody answers."""
        self._owner.bind()
        if self._closed:
            raise ClosedError("this consumer was stopped; make a new one")
        if self._cluster is not None:
            return
        cluster = Cluster(self._bootstrap, client_id=self._client_id, owner=self._owner)
        try:
            cluster.all_topics = self._pattern is not None
            cluster.want(self._topics)
            await cluster.start()
            for topic in self._topics:
                await cluster.topic(topic)
        except BaseException:
            await cluster.stop()
            raise
        self._cluster = cluster
        self._fetcher = Fetcher(cluster, self._subscription, self._config)
        cluster.on_change(self._topics_changed)
        if self._manual:
            self.assign(self._assigned)
        self._topics_changed()
        self._fetcher.start()
        self._fetcher.wake()

    async def stop(self) -> None:
        """Close; safe to call twice."""
        self._owner.check()
        if self._closed or self._cluster is None or self._fetcher is None:
            self._closed = True
            return
        self._closed = True
        self._fetcher.arrived.set()
        await self._fetcher.stop()
        await self._cluster.stop()
        await self._owner.end_all()

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
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self.getone()
        except ClosedError:
            if self._closed:
                raise StopAsyncIteration from None
            raise

    async def getone(self) -> AnyRecord:
        """Return the next record; wait for it."""
        while True:
            self._turns += 1
            if not self._turns % TURNS_BETWEEN_YIELDS:
                await asyncio.sleep(0)
            record = self._next()
            if record is not None:
                return record
            await self._wait()

    @checked
    async def getmany(
        self,
        *partitions: Annotated[TopicPartition, Partition()],
        timeout_ms: Annotated[float, Number(0, INT32_MAX, "wait for the first")] = 0,
        max_records: Annotated[int | None, Whole(1, INT32_MAX, "of one answer")] = None,
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """Return up to max_records (max_poll_records) of what is there, by partition.

        Waits up to timeout_ms for the first. Names of partitions limit it to these.
        """
        limit = self._max_poll_records if max_records is None else max_records
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        only = frozenset(partitions)
        while True:
            found = self._take_many(only, limit)
            left = deadline - loop.time()
            if found or left <= 0:
                if not found:
                    await asyncio.sleep(0)  # a loop of polls must not stop the fetching
                return found
            try:
                async with asyncio.timeout(left):
                    await self._wait()
            except TimeoutError:
                return {}

    def _take_many(
        self, only: frozenset[TopicPartition], limit: int
    ) -> dict[TopicPartition, list[AnyRecord]]:
        found: dict[TopicPartition, list[AnyRecord]] = {}
        while limit > 0:
            try:
                record = self._next(only, may_raise=not found)
            except Exception:
                if found:
                    break  # first what was read before it; then it is met again
                raise
            if record is None:
                break
            assert self._current is not None
            found.setdefault(self._current.topic_partition, []).append(record)
            limit -= 1
        return found

    def _next(
        self, only: frozenset[TopicPartition] = frozenset(), *, may_raise: bool = True
    ) -> AnyRecord | None:
        """Return the next record that is here, None if there is none."""
        self._check_running()
        while True:
            state = self._current
            if (
                state is not None
                and state.reading is not None
                and not state.paused
                and (not only or state.topic_partition in only)
            ):
                try:
                    record = next(state.reading, None)
                except Exception:
                    # Nothing is skipped in silence: the same record is next again.
                    state.seek(state.position)
                    self._wake()
                    raise
                if record is not None:
                    state.position = record.offset + 1
                    return record
                self._finish(state)
            elif not self._open_next(only, may_raise):
                return None

    def _finish(self, state: PartitionState) -> None:
        """All of a partition's taken bytes were read: the position is behind them."""
        state.reading = None
        if not state.buffered:
            state.position = state.fetch_offset
        self._subscription.had_turn(state)
        self._wake()

    def _open_next(self, only: frozenset[TopicPartition], may_raise: bool) -> bool:
        for state in self._subscription.turns():
            if only and state.topic_partition not in only:
                continue
            if state.reading is None:
                payload = state.take()
                if payload is not None:
                    state.reading = self._decode(state, payload)
            if state.reading is not None:
                self._current = state
                return True
            if state.error is not None and may_raise:
                error, state.error = state.error, None
                raise error
        return False

    def _decode(self, state: PartitionState, payload: memoryview) -> Iterator[AnyRecord]:
        topic, partition = state.topic_partition
        decode_key, decode_value = self._decode_key, self._decode_value
        position = state.position
        offset = position
        try:
            for _, batch in split(payload):
                header = check(batch)
                if header.end_offset <= position or header.is_control:
                    continue
                offset = max(position, header.base_offset)
                timestamp_type, leader_epoch = header.timestamp_type, header.leader_epoch
                for raw in records(batch):
                    offset = raw.offset
                    if offset < position:
                        continue
                    key, value = raw.key, raw.value
                    if decode_key is not None and key is not None:
                        key = decode_key(topic, key)
                    if decode_value is not None and value is not None:
                        value = decode_value(topic, value)
                    yield Record(
                        topic,
                        partition,
                        offset,
                        raw.timestamp_ms,
                        timestamp_type,
                        key,
                        value,
                        raw.headers,
                        leader_epoch,
                    )
        except Exception as error:
            state.position = max(state.position, offset)
            error.add_note(
                f"in {topic}-{partition} at offset {state.position}, which is read again next; "
                f"seek() to {state.position + 1} to go on behind it"
            )
            raise

    async def _wait(self) -> None:
        self._check_running()
        assert self._fetcher is not None
        self._fetcher.arrived.clear()
        self._fetcher.wake()
        await self._fetcher.arrived.wait()

    def _check_running(self) -> None:
        self._owner.check()
        if self._closed or self._fetcher is None:
            raise ClosedError("this consumer is not running; call start() or use `async with`")
        if self._fetcher.failure is not None:
            raise self._fetcher.failure
        if self._listener_error is not None:
            error, self._listener_error = self._listener_error, None
            raise error

    # -- what to read ----------------------------------------------------------------------------

    @checked
    def subscribe(
        self,
        topics: Annotated[Sequence[str], Names(what="topics")] = (),
        pattern: Annotated[str | None, Pattern()] = None,
        listener: object | None = None,
    ) -> None:
        """Read all partitions of these topics, or of every topic whose whole name matches.

        Partitions and matching topics that appear later are read from their beginning. The
        listener's on_partitions_assigned(list) and on_partitions_revoked(list) are called if it
        has them; they must be plain functions, and what they raise comes out of the next read.
        """
        if bool(topics) == (pattern is not None):
            raise ValueError("subscribe takes topics or a pattern, one of them")
        for name in LISTENER_CALLS:
            if inspect.iscoroutinefunction(getattr(listener, name, None)):
                raise TypeError(f"the listener's {name} must be a plain function, not async")
        self._manual = False
        self._seen_topics = False
        self._topics = tuple(topics)
        self._pattern = None if pattern is None else re.compile(pattern)
        self._listener = listener
        if self._cluster is not None:
            self._cluster.all_topics = self._pattern is not None
            self._cluster.want(self._topics)
            self._subscribed_at = self._cluster.asked
            self._cluster.request_refresh()
            self._topics_changed()

    def unsubscribe(self) -> None:
        """Read nothing."""
        self._topics, self._pattern, self._manual = (), None, False
        self._assign({}, late=False)

    @checked
    def assign(self, partitions: Annotated[Iterable[TopicPartition], Partitions()]) -> None:
        """Read exactly these partitions; those that stay keep their positions.

        UnknownTopicError if a topic that is known has no such partition.
        """
        self._manual = True
        self._topics, self._pattern = (), None
        self._assigned = tuple(map(TopicPartition._make, partitions))
        if self._cluster is None:
            return  # start() takes it up
        wanted = {}
        for key in self._assigned:
            cluster = self._running_cluster()
            cluster.want((key.topic,))
            topic = cluster.topics.get(key.topic)
            if topic is not None and not 0 <= key.partition < len(topic.partitions):
                raise UnknownTopicError(
                    f"topic {key.topic!r} has partitions 0 to {len(topic.partitions) - 1}, "
                    f"and no partition {key.partition}"
                )
            # A topic that is not known yet gets its id when the next look at the cluster tells.
            wanted[key] = topic.topic_id if topic is not None else b""
        self._assign(wanted, late=False)
        if any(not topic_id for topic_id in wanted.values()):
            self._running_cluster().request_refresh()

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that are read."""
        return frozenset(self._subscription.states)

    def _topics_changed(self) -> None:
        cluster = self._cluster
        if cluster is None:
            return
        if self._manual:
            self._name_topics(cluster)
            return
        names = [
            name
            for name in sorted(cluster.topics)
            if name in self._topics
            or (
                self._pattern is not None
                and not cluster.topics[name].is_internal
                and self._pattern.fullmatch(name) is not None
            )
        ]
        wanted = {
            TopicPartition(name, number): cluster.topics[name].topic_id
            for name in names
            for number in cluster.topics[name].numbers
        }
        self._assign(wanted, late=self._seen_topics)
        # From the first answer on that was asked for with this subscription, all else is new.
        self._seen_topics = self._seen_topics or cluster.answered > self._subscribed_at

    def _name_topics(self, cluster: Cluster) -> None:
        """Give assigned partitions the topic id that was not known at assign().

        A topic that was deleted and made again is read from its beginning.
        """
        wanted = {}
        for key, state in self._subscription.states.items():
            topic = cluster.topics.get(key.topic)
            if topic is not None and not state.topic_id:
                state.topic_id = topic.topic_id
            wanted[key] = topic.topic_id if topic is not None else state.topic_id
        self._assign(wanted, late=True)

    def _assign(self, wanted: dict[TopicPartition, bytes], *, late: bool) -> None:
        before = set(self._subscription.states)
        if not self._subscription.assign(wanted.items(), late=late):
            return
        revoked = [key for key in sorted(before) if key not in wanted]
        assigned = [key for key in wanted if key not in before]
        for name, keys in zip(LISTENER_CALLS, (revoked, assigned), strict=True):
            call = getattr(self._listener, name, None)
            if call is not None and keys:
                try:
                    call(keys)
                except Exception as error:  # we may be in a task of ours: the next read tells
                    self._listener_error = error
                    if self._fetcher is not None:
                        self._fetcher.arrived.set()
        self._wake()

    # -- positions -------------------------------------------------------------------------------

    @checked
    def seek(
        self, partition: Annotated[TopicPartition, Partition()], offset: Annotated[int, OFFSET]
    ) -> None:
        """Read on from `offset`, 0 or more."""
        self._state(partition).seek(offset)
        self._wake()

    @checked
    def seek_to_beginning(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read on from the first record held; of all assigned partitions if none is named."""
        self._seek_to("earliest", partitions)

    @checked
    def seek_to_end(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read on from the high watermark of now; of all assigned partitions if none is named."""
        self._seek_to("latest", partitions)

    @checked
    async def position(self, partition: Annotated[TopicPartition, Partition()]) -> int:
        """Return the offset of the next record, looking it up if it is not known yet."""
        while (state := self._state(partition)).position == UNKNOWN:
            if state.error is not None:
                error, state.error = state.error, None
                raise error
            await self._wait()
        return state.position

    @checked
    def pause(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read nothing of these until resume()."""
        for partition in partitions:
            self._state(partition).paused = True

    @checked
    def resume(self, *partitions: Annotated[TopicPartition, Partition()]) -> None:
        """Read on."""
        for partition in partitions:
            self._state(partition).paused = False
        self._wake()

    def paused(self) -> frozenset[TopicPartition]:
        """Return the partitions that are paused."""
        return frozenset(k for k, state in self._subscription.states.items() if state.paused)

    @checked
    def highwater(self, partition: Annotated[TopicPartition, Partition()]) -> int | None:
        """Return the high watermark as the last fetch told it, None before the first."""
        mark = self._state(partition).high_watermark
        return None if mark == UNKNOWN else mark

    @checked
    async def beginning_offsets(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> dict[TopicPartition, int]:
        """Return the first offset held, of each."""
        return await self._offsets(partitions, EARLIEST)

    @checked
    async def end_offsets(
        self, partitions: Annotated[Iterable[TopicPartition], Partitions()]
    ) -> dict[TopicPartition, int]:
        """Return the high watermark, of each."""
        return await self._offsets(partitions, LATEST)

    @checked
    async def offsets_for_times(
        self, timestamps: Annotated[Mapping[TopicPartition, int], ByPartition(TIMESTAMP_MS)]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Return the first record at or after each time (ms since 1970), None if there is none."""
        listed = await self._running_fetcher().list_offsets(dict(timestamps))
        return {
            key: OffsetAndTimestamp(one.offset, one.timestamp_ms) if one.offset >= 0 else None
            for key, one in listed.items()
        }

    async def lag(self) -> dict[TopicPartition, int]:
        """Return how many offsets each assigned partition is behind its high watermark."""
        ends = await self.end_offsets(self.assignment())
        return {key: max(0, ends[key] - await self.position(key)) for key in sorted(ends)}

    @checked
    async def partitions_for(self, topic: Annotated[str, TOPIC]) -> set[int]:
        """Return the numbers of a topic's partitions."""
        return set((await self._running_cluster().topic(topic)).numbers)

    async def commit(self, offsets: object | None = None) -> NoReturn:
        """Not there yet: committed offsets come with groups."""
        raise UnsupportedError("commit() needs a consumer group, and groups are not there yet")

    async def committed(self, partition: TopicPartition) -> NoReturn:
        """Not there yet: committed offsets come with groups."""
        raise UnsupportedError("committed() needs a consumer group, and groups are not there yet")

    async def _offsets(
        self, partitions: Iterable[TopicPartition], time: int
    ) -> dict[TopicPartition, int]:
        wanted = dict.fromkeys(partitions, time)
        listed = await self._running_fetcher().list_offsets(wanted)
        return {key: listed[key].offset for key in wanted}

    def _seek_to(self, reset: Reset, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions or tuple(self._subscription.states):
            self._state(partition).seek_to(reset)
        self._wake()

    def _state(self, partition: TopicPartition) -> PartitionState:
        state = self._subscription.states.get(TopicPartition._make(partition))
        if state is None:
            raise InvalidRequestError(
                f"{partition[0]}-{partition[1]} is not assigned to this consumer; assigned are "
                f"{sorted(self._subscription.states)}"
            )
        return state

    def _running_cluster(self) -> Cluster:
        self._check_running()
        assert self._cluster is not None
        return self._cluster

    def _running_fetcher(self) -> Fetcher:
        self._check_running()
        assert self._fetcher is not None
        return self._fetcher

    def _wake(self) -> None:
        if self._fetcher is not None and not self._closed:
            self._fetcher.wake()
