"""The consumer as users see it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from quorate.aio.clock import Deadline
from quorate.aio.owner import Owner
from quorate.cluster.cluster import Cluster
from quorate.consumer.fetch_stream import FetchConfig
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.partition_state import Reset
from quorate.consumer.positions import ConsumerPositions
from quorate.consumer.record_reader import RecordReader
from quorate.errors import ClosedError, UnsupportedError
from quorate.model import AnyRecord, TopicPartition
from quorate.serializers import decoder
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
    NotThereYet,
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

#: The rule for all arguments about groups, until consumer groups exist.
GROUPS = NotThereYet(
    "needs consumer groups, which are not there yet: leave it None and use assign() or "
    "subscribe(), which then reads every partition",
    UnsupportedError,
)


class Consumer(ConsumerPositions):
    """Reads records from topics, in order within each partition.

    Iterate it (``async for record in consumer``) or call ``getone``/``getmany``. Positional
    arguments are topics to subscribe to. ``auto_offset_reset`` says where a partition without a
    position begins: "earliest", "latest", or "none" (OffsetOutOfRangeError). If a log was cut below
    the position, "earliest" and "latest" continue at the cut, and "none" raises LogTruncatedError.
    Only committed records are read.
    """

    _what: ClassVar[str] = "consumer"

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
        super().__init__(bootstrap_servers, client_id, POLICIES[auto_offset_reset])
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
        """Close the consumer. It is safe to call this twice, and while the consumer starts."""
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
                self._reader,
                self._assignment.look_again,
            )
            self._assignment.follow(cluster)
            self._fetcher.start()
            await self._settle(list(self._subscription.states.values()))
        except BaseException:
            self._assignment.leave()
            await self._end()
            self._cluster = self._fetcher = None
            raise

    async def _end(self) -> None:
        if self._fetcher is not None:
            self._fetcher.arrived.ring()
            await self._fetcher.stop()

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
        """Return the next record. Wait until there is one.

        Raises DeserializationError, CorruptRecordError, OffsetOutOfRangeError or LogTruncatedError.
        Each concerns one partition. Later reads continue in this partition, at its turn, from the
        same position.
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
            await fetcher.wait(None)

    @checked
    async def getmany(
        self,
        *partitions: Annotated[TopicPartition, Partition()],
        timeout_ms: Annotated[float, Number(0, INT32_MAX, "wait for the first")] = 0,
        max_records: Annotated[int | None, Whole(1, INT32_MAX, "of one answer")] = None,
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """Return up to max_records (None: max_poll_records) available records, by partition.

        Waits up to timeout_ms for the first record. If partitions are given, returns records of
        these alone. Raises the errors of getone, but first returns the records before them.
        """
        limit = self._max_poll_records if max_records is None else max_records
        deadline = Deadline(timeout_ms)
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
            if deadline.has_passed:
                fetcher.found_nothing()
                # yield: otherwise a loop of polls would keep the fetching from its work
                await asyncio.sleep(0)
                return {}
            await fetcher.wait(deadline.left_s)

    async def _let_others_run(self) -> None:
        """Yield once. Reads that never find the buffer empty would block the event loop."""
        self._read_since_yield = 0
        await asyncio.sleep(0)
