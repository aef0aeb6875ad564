"""What drives a subscription: one fetch stream per broker, kept ahead of the reader.

The stream is the fetch session: a partition stays in it, at the offset last named, until it is
forgotten. So each request names the partitions whose offset moved, and forgets those that are
not wanted now (paused, buffered enough, led by another broker).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from quorate.cluster import Cluster
from quorate.consumer.subscription import UNKNOWN, PartitionState, Subscription
from quorate.errors import (
    CorruptRecordError,
    DeadlineExceededError,
    OffsetOutOfRangeError,
    QuorateError,
    RequestTimedOutError,
    StreamBrokenError,
    UnknownTopicError,
    from_wire,
    raise_if_error,
)
from quorate.frame import Frame
from quorate.methods import FETCH, LIST_OFFSETS
from quorate.model import TopicPartition
from quorate.record.batch import complete_prefix, split
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import (
    FetchedPartition,
    FetchHeader,
    FetchPartition,
    FetchRequest,
    ListedOffset,
    ListOffsetsPartition,
    ListOffsetsRequest,
)

log = structlog.get_logger(__name__)

BACKOFF_S = 0.03
BACKOFF_MAX_S = 0.5
TICK_S = 0.1
STALL_S = 1.0  # silent for so long beyond fetch_max_wait_ms: somebody else may lead by now
BREAK_AFTER_S = 5.0
EARLIEST, LATEST = -2, -1
REQUESTS_IN_FLIGHT_MAX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """The bounds of a consumer's fetches."""

    min_bytes: int
    max_bytes: int
    max_wait_ms: int
    max_partition_bytes: int
    client_rack: str
    request_timeout_ms: int = 30000


class Fetcher:
    """All fetch streams of one consumer."""

    def __init__(self, cluster: Cluster, subscription: Subscription, config: FetchConfig) -> None:
        self.cluster = cluster
        self.subscription = subscription
        self.config = config
        self.arrived = asyncio.Event()
        self._streams: dict[str, BrokerFetches] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._lookup: asyncio.Task[None] | None = None
        self.failure: QuorateError | None = None
        cluster.on_change(self.wake)
        cluster.owner.on_failure(self.fail)

    def start(self) -> None:
        """Begin to fetch."""
        self._ticker = self.cluster.owner.spawn(self._tick(), "consumer-tick")

    async def stop(self) -> None:
        """End every stream."""
        await self.cluster.owner.end(self._ticker, self._lookup)
        for stream in list(self._streams.values()):
            await stream.stop()
        self._streams.clear()

    def wake(self) -> None:
        """Positions, leaders or buffers changed: see what to fetch."""
        states = self.subscription.states.values()
        if any(state.needs_offset for state in states) and (
            self._lookup is None or self._lookup.done()
        ):
            self._lookup = self.cluster.owner.spawn(self._find_offsets(), "offsets")
        for state in states:
            endpoint = self.endpoint_of(state)
            if endpoint and endpoint not in self._streams and not state.needs_offset:
                self._streams[endpoint] = BrokerFetches(self, endpoint)
        for stream in self._streams.values():
            stream.wake()

    def endpoint_of(self, state: PartitionState) -> str:
        """Return where a partition's leader listens; empty if nobody leads."""
        topic = self.cluster.topics.get(state.topic_partition.topic)
        if topic is None or topic.topic_id != state.topic_id:
            return ""
        view = self.cluster.partition(*state.topic_partition)
        return view.endpoint if view is not None and view.leader >= 0 else ""

    def wants(self, state: PartitionState, now: float) -> bool:
        """Whether more of a partition should be fetched now."""
        return (
            not state.paused
            and not state.needs_offset
            and state.error is None
            and state.retry_at <= now
            and state.buffered_bytes < self.config.max_partition_bytes
        )

    def fail(self, error: QuorateError) -> None:
        """Nothing works for this consumer any more: the next read raises it."""
        log.error("the consumer failed", error=str(error), exc_info=error.__cause__)
        self.failure = error
        self.arrived.set()

    # -- offsets ---------------------------------------------------------------------------------

    async def list_offsets(
        self, wanted: dict[TopicPartition, int], *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, ListedOffset]:
        """Ask the leaders for offsets by time (-2 earliest, -1 latest); retries until answered.

        Raises UnknownTopicError, RequestTimedOutError.
        """
        loop = asyncio.get_running_loop()
        timeout_ms = timeout_ms or self.config.request_timeout_ms
        deadline = loop.time() + timeout_ms / 1000
        found: dict[TopicPartition, ListedOffset] = {}
        last: QuorateError | None = None
        while len(found) < len(wanted):
            missing = {key: time for key, time in wanted.items() if key not in found}
            for endpoint, group in (await self._by_leader(missing)).items():
                try:
                    found.update(await self._list_at(endpoint, group))
                except QuorateError as error:
                    if not error.retriable:
                        raise
                    last = error
            if len(found) < len(wanted):
                if loop.time() >= deadline:
                    raise RequestTimedOutError(
                        f"the offsets of {sorted(set(wanted) - set(found))} were not known within "
                        f"{timeout_ms} ms (last: {last or 'no leader'})"
                    )
                self.cluster.request_refresh()
                await asyncio.sleep(BACKOFF_S)
        return found

    async def _by_leader(
        self, wanted: dict[TopicPartition, int]
    ) -> dict[str, dict[TopicPartition, int]]:
        groups: dict[str, dict[TopicPartition, int]] = {}
        for key, time in wanted.items():
            topic = await self.cluster.topic(key.topic)
            if not 0 <= key.partition < len(topic.partitions):
                raise UnknownTopicError(
                    f"topic {key.topic!r} has partitions 0 to {len(topic.partitions) - 1}, "
                    f"and no partition {key.partition}"
                )
            view = topic.partitions[key.partition]
            if view.leader >= 0 and view.endpoint:
                groups.setdefault(view.endpoint, {})[key] = time
        return groups

    async def _list_at(
        self, endpoint: str, group: dict[TopicPartition, int]
    ) -> dict[TopicPartition, ListedOffset]:
        request = ListOffsetsRequest()
        keys = {}
        for key, time in group.items():
            topic = await self.cluster.topic(key.topic)
            keys[topic.topic_id, key.partition] = key
            request.partitions.append(
                ListOffsetsPartition(
                    topic_id=topic.topic_id,
                    partition=key.partition,
                    timestamp_ms=time,
                    leader_epoch=topic.partitions[key.partition].leader_epoch,
                )
            )
        response = await self.cluster.connection(endpoint, "control").unary(
            LIST_OFFSETS, request, timeout_ms=2000
        )
        found = {}
        for listed in response.partitions:
            asked = keys.get((listed.topic_id, listed.partition))
            if asked is None:
                continue
            if listed.error.code == ErrorCode.ERROR_CODE_NONE:
                found[asked] = listed
                continue
            self.cluster.learn(asked.topic, asked.partition, listed.leader)
            error = from_wire(listed.error)
            if not error.retriable:
                raise error
        return found

    async def _find_offsets(self) -> None:
        """Look up where partitions begin; each begins as soon as its own leader has answered."""
        attempts = 0
        while True:
            self._refuse_without_policy()
            states = [s for s in self.subscription.states.values() if s.needs_offset]
            if not states:
                self.wake()
                return
            groups: dict[str, list[PartitionState]] = {}
            for state in states:
                groups.setdefault(self.endpoint_of(state), []).append(state)
            homeless = groups.pop("", [])
            unknown = [s for s in homeless if s.topic_partition.topic not in self.cluster.topics]
            await asyncio.gather(
                *(self._look_up_at(endpoint, group) for endpoint, group in groups.items()),
                *(self._look_for_topic(name) for name in _topics_of(unknown)),
            )
            self.arrived.set()
            if any(state.needs_offset for state in states):
                self.cluster.request_refresh()
                await asyncio.sleep(min(BACKOFF_S * 2**attempts, BACKOFF_MAX_S))
                attempts = min(attempts + 1, 5)
            self.wake()

    def _refuse_without_policy(self) -> None:
        for state in self.subscription.states.values():
            if state.needs_offset and state.reset == "none":
                topic, partition = state.topic_partition
                state.error = OffsetOutOfRangeError(
                    f"{topic}-{partition} has no position, and auto_offset_reset is "
                    '"none"; seek() to one'
                )
                self.arrived.set()

    async def _look_up_at(self, endpoint: str, states: list[PartitionState]) -> None:
        generations = {state.topic_partition: state.generation for state in states}
        wanted = {
            state.topic_partition: EARLIEST if state.reset == "earliest" else LATEST
            for state in states
        }
        try:
            listed = await self._list_at(endpoint, wanted)
        except QuorateError as error:
            if not error.retriable:
                for state in states:
                    state.error = error
            return
        for state in states:
            answer = listed.get(state.topic_partition)
            if answer is not None:
                state.found(answer.offset, generations[state.topic_partition])

    async def _look_for_topic(self, name: str) -> None:
        try:
            await self.cluster.topic(name)
        except QuorateError as error:
            for state in self.subscription.states.values():
                if state.topic_partition.topic == name and state.needs_offset:
                    state.error = error

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            stalled = False
            for endpoint, stream in list(self._streams.items()):
                stalled |= stream.tick(now)
                if stream.is_unused and endpoint not in self.cluster.brokers.values():
                    del self._streams[endpoint]
                    await stream.stop()
            homeless = any(not self.endpoint_of(s) for s in self.subscription.states.values())
            if stalled or homeless:
                self.cluster.request_refresh()
            self.wake()


def _topics_of(states: list[PartitionState]) -> dict[str, None]:
    return dict.fromkeys(state.topic_partition.topic for state in states)


class BrokerFetches:
    """The fetch stream to one broker."""

    def __init__(self, fetcher: Fetcher, endpoint: str) -> None:
        self.fetcher = fetcher
        self.endpoint = endpoint
        self._wake = asyncio.Event()
        #: The session: what the broker believes that we want, and from which offset.
        self._session: dict[TopicPartition, tuple[bytes, int, int]] = {}
        #: Requests under way: generation and offset of each partition when it was asked.
        self._asked: dict[int, dict[tuple[bytes, int], tuple[PartitionState, int, int]]] = {}
        self._asked_at = 0.0
        self._next_id = 1
        self._is_first = True
        self._cut = False
        self._breaks = 0
        self._reader: asyncio.Task[None] | None = None
        self._task = fetcher.cluster.owner.spawn(self._stream_for_good(), f"fetch-{endpoint}")

    @property
    def is_unused(self) -> bool:
        """Nothing is asked of this broker."""
        return not self._wanted()

    def wake(self) -> None:
        """What is wanted may have changed."""
        self._wake.set()

    async def stop(self) -> None:
        """End the stream."""
        await self.fetcher.cluster.owner.end(self._task)

    def tick(self, now: float) -> bool:
        """Break a stream that is silent too long; return whether it is silent already."""
        if not self._asked:
            return False
        silence = now - self._asked_at - self.fetcher.config.max_wait_ms / 1000
        if silence >= BREAK_AFTER_S or (silence >= STALL_S and not self._wanted()):
            self.fetcher.cluster.avoid(self.endpoint)
            self._cut = True
            if self._reader is not None:
                self._reader.cancel()
        return silence >= STALL_S

    async def _stream_for_good(self) -> None:
        while True:
            self._wake.clear()
            if not self._wanted():
                await self._wake.wait()
                continue
            error = await self._one_stream()
            log.debug("fetch stream ended", broker=self.endpoint, error=str(error))
            self._breaks += 1
            self.fetcher.cluster.request_refresh()
            await asyncio.sleep(min(BACKOFF_S * 2 ** min(self._breaks - 1, 4), BACKOFF_MAX_S))

    async def _one_stream(self) -> QuorateError:
        self._cut = False
        self._is_first = True
        self._session.clear()
        self._asked.clear()
        self._reader = asyncio.create_task(self._read(), name=f"quorate-fetched-{self.endpoint}")
        try:
            await self._reader
        except QuorateError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cut or (task is not None and task.cancelling()):
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
                raise
            return DeadlineExceededError(f"{self.endpoint} was silent")
        finally:
            self._reader = None
            self._asked.clear()
        return StreamBrokenError(f"{self.endpoint} ended the stream")

    async def _read(self) -> None:
        connection = self.fetcher.cluster.connection(self.endpoint)
        async with aclosing(connection.stream(FETCH, self._requests())) as frames:
            async for frame in frames:
                self._breaks = 0
                self._take(frame)
                self._wake.set()

    def _wanted(self) -> dict[TopicPartition, PartitionState]:
        now = asyncio.get_running_loop().time()
        fetcher = self.fetcher
        if fetcher.subscription.buffered_bytes >= 2 * fetcher.config.max_bytes:
            return {}
        return {
            key: state
            for key, state in fetcher.subscription.states.items()
            if fetcher.wants(state, now) and fetcher.endpoint_of(state) == self.endpoint
        }

    async def _requests(self) -> AsyncIterator[FetchRequest]:
        while True:
            self._wake.clear()
            request = self._next_request()
            if request is not None:
                yield request
            else:
                await self._wake.wait()

    def _next_request(self) -> FetchRequest | None:
        if len(self._asked) >= REQUESTS_IN_FLIGHT_MAX:
            return None
        wanted = self._wanted()
        named = {
            key: state
            for key, state in wanted.items()
            if self._session.get(key) != (state.topic_id, state.fetch_offset, state.generation)
        }
        forgotten = [key for key in self._session if key not in wanted]
        # While a request is under way, another one is sent only to name a partition anew.
        if not wanted and not forgotten:
            return None
        if self._asked and not named:
            return None
        request = self._request(named, forgotten)
        self._asked[request.request_id] = {
            (state.topic_id, key.partition): (state, state.generation, state.fetch_offset)
            for key, state in wanted.items()
        }
        self._asked_at = asyncio.get_running_loop().time()
        return request

    def _request(
        self, named: dict[TopicPartition, PartitionState], forgotten: list[TopicPartition]
    ) -> FetchRequest:
        config = self.fetcher.config
        request = FetchRequest(
            request_id=self._next_id,
            max_wait_ms=config.max_wait_ms,
            min_bytes=config.min_bytes,
            max_bytes=config.max_bytes,
            client_id=self.fetcher.cluster.client_id if self._is_first else "",
            client_rack=config.client_rack if self._is_first else "",
        )
        self._is_first = False
        self._next_id += 1
        for key in forgotten:
            topic_id, _, _ = self._session.pop(key)
            request.forgotten.append(FetchPartition(topic_id=topic_id, partition=key.partition))
        for key, state in named.items():
            before = self._session.get(key)
            if before is not None and before[0] != state.topic_id:
                request.forgotten.append(
                    FetchPartition(topic_id=before[0], partition=key.partition)
                )
            self._session[key] = (state.topic_id, state.fetch_offset, state.generation)
            view = self.fetcher.cluster.partition(*key)
            request.partitions.append(
                FetchPartition(
                    topic_id=state.topic_id,
                    partition=key.partition,
                    fetch_offset=state.fetch_offset,
                    leader_epoch=view.leader_epoch if view is not None else -1,
                    max_bytes=config.max_partition_bytes,
                )
            )
        return request

    def _take(self, frame: Frame[FetchHeader]) -> None:
        asked = self._asked.pop(frame.header.request_id, {})
        self._asked_at = asyncio.get_running_loop().time()
        payload = frame.payload
        position = 0
        for part in frame.header.partitions:
            data = payload[position : position + part.size]
            position += part.size
            found = asked.get((part.topic_id, part.partition))
            if found is None:
                continue
            state, generation, offset = found
            if state.generation != generation or state.fetch_offset != offset:
                continue  # sought elsewhere, or the same bytes came by an earlier request
            if part.error.code != ErrorCode.ERROR_CODE_NONE:
                self._failed(state, part)
                continue
            state.high_watermark = part.high_watermark
            state.log_start_offset = part.log_start_offset
            if data:
                self._fetched(state, data)

    def _fetched(self, state: PartitionState, data: memoryview) -> None:
        try:
            whole = data[: complete_prefix(data)]
            end = state.fetch_offset
            for header, _ in split(whole):
                end = header.end_offset
        except CorruptRecordError as error:
            state.error = error
        else:
            if end > state.fetch_offset:
                state.fetched(whole, end)
        self.fetcher.arrived.set()

    def _failed(self, state: PartitionState, part: FetchedPartition) -> None:
        try:
            raise_if_error(part.error)
        except OffsetOutOfRangeError as error:
            self._out_of_range(state, error)
        except QuorateError as error:
            key = state.topic_partition
            self._session[key] = (state.topic_id, UNKNOWN, state.generation)  # name it anew
            if not error.retriable:
                state.error = error
                self.fetcher.arrived.set()
                return
            if not self.fetcher.cluster.learn(key.topic, key.partition, part.leader):
                state.retry_at = asyncio.get_running_loop().time() + BACKOFF_S
                self.fetcher.cluster.request_refresh()

    def _out_of_range(self, state: PartitionState, error: QuorateError) -> None:
        policy = self.fetcher.subscription.policy
        self._session[state.topic_partition] = (state.topic_id, UNKNOWN, state.generation)
        if state.buffered or state.reading is not None:
            state.retry_at = asyncio.get_running_loop().time() + BACKOFF_S
            return  # first let the user have what was fetched before
        if policy == "none":
            state.error = error
        else:
            log.warning(
                "the position does not exist any more",
                partition=state.topic_partition,
                position=state.position,
                reset_to=policy,
                reason=str(error),
            )
            state.seek_to(policy)
        self.fetcher.arrived.set()
        self.fetcher.wake()
