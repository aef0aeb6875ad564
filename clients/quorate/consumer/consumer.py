"""The consumer as users see it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, ClassVar, Generic, Never, Self

from quorate.aio.clock import Deadline
from quorate.aio.owner import Owner
from quorate.argument_names import takes_no_others, unknown_in
from quorate.cluster.cluster import Cluster
from quorate.consumer.chunk_reader import Deserializers
from quorate.consumer.fetch_stream import FetchConfig
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.group.assignor import Assignor, AssignorRule
from quorate.consumer.group.group import ConsumerGroup, GroupConfig
from quorate.consumer.group.membership import MemberSettings
from quorate.consumer.group_assignment import GroupAssignment
from quorate.consumer.group_calls import ConsumerGroupCalls
from quorate.consumer.partition_state import Reset
from quorate.consumer.schema_lookups import LOOKUP_MAX_S, may_read_again
from quorate.errors import ClosedError, DeserializationError
from quorate.model import KeyOut, Record, TopicPartition, ValueOut
from quorate.serializers import DeserializerOf, decoder
from quorate.settings import (
    BYTES_MAX,
    CLIENT_ID,
    INT32_MAX,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    TOPIC,
    Coder,
    Flag,
    Number,
    OneOf,
    Partition,
    Text,
    Whole,
    checked,
)

#: The most records that are read from the buffer before the consumer yields to other tasks.
RECORDS_BETWEEN_YIELDS = 512
POLICIES: dict[str, Reset] = {"earliest": "earliest", "latest": "latest", "none": "none"}
ALL: frozenset[TopicPartition] = frozenset()

GROUP_ID = Text("the group whose members share the partitions", chars_max=249)
INSTANCE_ID = Text("the name of a member that comes back after a restart", chars_max=249)


class Consumer(ConsumerGroupCalls, Generic[KeyOut, ValueOut]):
    """Reads records from topics, in order within each partition.

    Iterate it (``async for record in consumer``) or call ``getone``/``getmany``. Positional
    arguments are topics to subscribe to. ``auto_offset_reset`` says where a partition without a
    position begins: "earliest", "latest", or "none" (OffsetOutOfRangeError). If a log was cut below
    the position, "earliest" and "latest" continue at the cut, and "none" raises LogTruncatedError.
    Only committed records are read.

    Consumers with the same ``group_id`` share the partitions of the topics that they subscribe to:
    each partition is read by one of them. They begin at the committed offsets of the group. A
    consumer that stops or dies, or whose program does not ask for records for longer than
    ``max_poll_interval_ms``, hands its partitions to the others. With ``enable_auto_commit`` the
    consumer commits every ``auto_commit_interval_ms``, before it gives partitions back, and in
    stop(): always up to the records that the program was given and has come back from, which means
    that it has asked for more since. A ``group_instance_id`` makes a static member: it keeps its
    partitions over a restart within ``session_timeout_ms``. ``assignor`` is the name of an assignor
    of the cluster ("uniform", "rack-uniform", "range"), or a function (see docs/groups.md); None:
    the cluster's default.
    """

    _what: ClassVar[str] = "consumer"

    @checked
    def __init__(
        self,
        *topics: Annotated[str, TOPIC],
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        group_id: Annotated[str | None, GROUP_ID] = None,
        group_instance_id: Annotated[str | None, INSTANCE_ID] = None,
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
        assignor: Annotated[str | Assignor | None, AssignorRule()] = None,
        isolation_level: Annotated[
            str, OneOf(("read_uncommitted", "read_committed"), "which records are seen")
        ] = "read_uncommitted",
        key_deserializer: Annotated[DeserializerOf[KeyOut] | None, Coder("deserialize")] = None,
        value_deserializer: Annotated[DeserializerOf[ValueOut] | None, Coder("deserialize")] = None,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        super().__init__(bootstrap_servers, client_id, POLICIES[auto_offset_reset], group_id)
        if group_id is None and group_instance_id is not None:
            raise ValueError("Consumer: group_instance_id needs a group_id")
        self._max_poll_records = max_poll_records
        self._config = FetchConfig(
            min_bytes=fetch_min_bytes,
            max_bytes=fetch_max_bytes,
            max_wait_ms=fetch_max_wait_ms,
            max_partition_bytes=max_partition_fetch_bytes,
            client_rack=client_rack or "",
            policy=POLICIES[auto_offset_reset],
        )
        self._group_config = GroupConfig(
            member=MemberSettings(
                group_id=group_id or "",
                member_id="",  # chosen in start()
                client_id=client_id,
                instance_id=group_instance_id or "",
                rack=client_rack or "",
                assignor=assignor if isinstance(assignor, str) else "client" if assignor else "",
                session_timeout_ms=session_timeout_ms,
                rebalance_timeout_ms=max_poll_interval_ms,
            ),
            assignor=None if isinstance(assignor, str) else assignor,
            max_poll_interval_ms=max_poll_interval_ms,
            auto_commit_interval_ms=auto_commit_interval_ms if enable_auto_commit else None,
        )
        self._is_done = True
        self._deserializers = Deserializers(decoder(key_deserializer), decoder(value_deserializer))
        self._read_since_yield = 0
        if topics:
            self._assignment.subscribe(topics, None)

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, subscribe, and fix the positions.

        The consumer reads all records that are acknowledged after this call.

        The call waits only a few seconds for a partition without a leader. Its position is looked
        up when it has a leader. Raises QuorumUnavailableError if no broker answers, or
        UnknownTopicError.
        """
        await self._start_once()

    async def stop(self) -> None:
        """Close the consumer. It is safe to call this twice, and while the consumer starts.

        A member of a group commits, if enable_auto_commit is set, gives its partitions back, and
        leaves. The records that the calling task was given last count as done, unless stop() is
        called while an exception is handled, as at the end of ``async with``: the program may have
        failed with these records.
        """
        self._is_done = sys.exception() is None
        await self._stop_once()

    async def _begin(self, cluster: Cluster, owner: Owner) -> None:
        try:
            self._assignment.prepare(cluster)
            await cluster.start()
            for topic in self._assignment.topics:
                await cluster.topic(topic)
            self._check_not_stopped(owner)
            self._cluster = cluster
            self._fetcher = Fetcher(
                cluster,
                self._subscription,
                self._config,
                self._deserializers,
                self._assignment.look_again,
            )
            self._fetcher.start()
            if isinstance(self._assignment, GroupAssignment):
                self._group = self._join(cluster, self._fetcher, self._assignment)
                await self._group.settled()
                self._check_not_stopped(owner)
            else:
                self._assignment.follow(cluster)
            await self._settle(list(self._subscription.states.values()))
        except BaseException:
            try:
                # the listener may have been told of partitions: it is told that they are gone, too
                await self._end()
            finally:
                self._assignment.leave()
                self._cluster = self._fetcher = self._group = None
            raise

    async def _end(self) -> None:
        fetcher = self._fetcher
        if fetcher is None:
            return
        try:
            fetcher.arrived.ring()
            if self._group is not None:
                await self._group.close(is_done=self._is_done)
        finally:
            await fetcher.stop()

    # -- reading ---------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record[KeyOut, ValueOut]:
        if self._stopped is not None:
            raise StopAsyncIteration
        try:
            return await self.getone()
        except ClosedError:
            if self._stopped is not None:
                raise StopAsyncIteration from None
            raise

    @takes_no_others
    async def getone(self, **wrong: Never) -> Record[KeyOut, ValueOut]:
        """Return the next record. Wait until there is one.

        Raises DeserializationError, CorruptRecordError, OffsetOutOfRangeError or LogTruncatedError.
        Each concerns one partition. Later reads continue in this partition, at its turn, from the
        same position.
        """
        if wrong:
            raise unknown_in(Consumer.getone, self, wrong)
        try:
            group = self._group
            if group is not None:
                hands = group.commits.hands
                solo = hands.solo
                if (
                    solo is not None
                    and solo is asyncio.current_task(solo.get_loop())
                    and self._read_since_yield < RECORDS_BETWEEN_YIELDS
                ):
                    try:
                        record = self._running_fetcher().reading.take_one()
                    except BaseException:
                        # it has come back from the record before, though it gets none
                        group.ask()
                        raise
                    if record is not None:
                        self._read_since_yield += 1
                        hands.record = record
                        return record
                return await self._getone_of_group(group)
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
                await fetcher.wait(None)
        except DeserializationError as error:
            if not await may_read_again(error, LOOKUP_MAX_S, self._group):
                raise
        return await self.getone()

    async def _getone_of_group(self, group: ConsumerGroup) -> Record[KeyOut, ValueOut]:
        asker = group.ask()
        while True:
            if self._read_since_yield >= RECORDS_BETWEEN_YIELDS:
                await self._let_others_run()
                self._running_fetcher().asked_for(ALL)
            fetcher = self._running_fetcher()
            group.check()
            allowed = group.may_read(asker, ALL)
            record = None
            if allowed:
                found = fetcher.reading.take(allowed, 1)
                record = next((records[0] for records in found.values()), None)
            elif allowed is not None:
                record = fetcher.reading.take_one()
            if record is not None:
                self._read_since_yield += 1
                group.commits.hands.gave_one(asker, record)
                return record
            fetcher.asked_for(ALL)
            with group.waiting():
                await fetcher.wait(None)

    @checked
    async def getmany(
        self,
        *partitions: Annotated[TopicPartition, Partition()],
        timeout_ms: Annotated[float, Number(0, INT32_MAX, "wait for the first")] = 0,
        max_records: Annotated[int | None, Whole(1, INT32_MAX, "of one answer")] = None,
    ) -> dict[TopicPartition, list[Record[KeyOut, ValueOut]]]:
        """Return up to max_records (None: max_poll_records) available records, by partition.

        Waits up to timeout_ms for the first record. If partitions are given, returns records of
        these alone. Raises the errors of getone, but first returns the records before them.

        In a group, the records of a partition are given to one task of the program at a time. The
        others get the next ones after this task has asked again or ended. So tasks that
        share a consumer keep the order of each key.
        """
        limit = self._max_poll_records if max_records is None else max_records
        deadline = Deadline(timeout_ms)
        only = frozenset(partitions)
        group = self._group
        asker = None if group is None else group.ask()
        while True:
            if self._read_since_yield >= RECORDS_BETWEEN_YIELDS:
                await self._let_others_run()
            fetcher = self._running_fetcher()
            fetcher.asked_for(only)
            allowed: frozenset[TopicPartition] | None = only
            if group is not None and asker is not None:
                group.check()
                allowed = group.may_read(asker, only)
            try:
                found = {} if allowed is None else fetcher.reading.take(allowed, limit)
            except DeserializationError as error:
                if not await may_read_again(error, deadline.left_s, group):
                    return {}
                continue
            if found:
                self._read_since_yield += sum(map(len, found.values()))
                if group is not None and asker is not None:
                    group.gave(asker, found)
                return found
            if deadline.has_passed:
                fetcher.found_nothing()
                # yield: otherwise a loop of polls would keep the fetching from its work
                await asyncio.sleep(0)
                return {}
            with nullcontext() if group is None else group.waiting():
                await fetcher.wait(deadline.left_s)

    async def _let_others_run(self) -> None:
        """Yield once. Reads that never find the buffer empty would block the event loop."""
        self._read_since_yield = 0
        await asyncio.sleep(0)
