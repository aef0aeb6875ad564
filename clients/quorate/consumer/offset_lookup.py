"""Asks the leaders for offsets: for positions that are not known yet, and for the user.

A slow leader does not get the same question again: it still works on the first one, and each
repetition would make it slower. A question ends without an answer at its deadline, or when other
brokers lead all its partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import nsmallest
from typing import NamedTuple

from quorate.aio.backoff import backoff_ms
from quorate.aio.bell import Bell
from quorate.aio.clock import Deadline
from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import BACKOFF_MAX_MS, BACKOFF_MS
from quorate.cluster.leaders import by_leader
from quorate.consumer.partition_state import UNKNOWN, PartitionState
from quorate.consumer.subscription import Subscription
from quorate.errors import (
    NotLeaderError,
    OffsetOutOfRangeError,
    QuorateError,
    RequestTimedOutError,
    from_wire,
)
from quorate.model import TopicPartition
from quorate.net.methods import LIST_OFFSETS
from quorate.v1.common_pb2 import ErrorCode
from quorate.v1.records_pb2 import (
    ListedOffset,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
)

log = logging.getLogger(__name__)

EARLIEST, LATEST = -2, -1
#: Longest wait for an answer, and until all positions are known.
TIMEOUT_S = 30.0
#: After this time without an answer, check whether another broker leads.
SILENCE_S = 1.0
#: Longest wait for the position in a partition without a leader.
LEADERLESS_WAIT_S = 5.0
#: The most partitions in one request.
PARTITIONS_MAX = 1000
#: The most lookups at one broker at the same time.
LOOKUPS_MAX = 4
#: The most partitions that an error names.
NAMED_MAX = 10


class Listed(NamedTuple):
    """The answer of one leader. A partition that is in neither field must be asked for again."""

    found: dict[TopicPartition, ListedOffset]
    refused: dict[TopicPartition, QuorateError]


class OffsetLookup:
    """The lookups of one consumer. The rule about slow leaders stands at the top of the module.

    `endpoint_of` returns the endpoint of a partition's leader, or "". `changed` is called with each
    partition whose position was found or refused.
    """

    def __init__(
        self,
        cluster: Cluster,
        subscription: Subscription,
        endpoint_of: Callable[[PartitionState], str],
        changed: Callable[[PartitionState], None],
    ) -> None:
        self._cluster = cluster
        self._subscription = subscription
        self._endpoint_of = endpoint_of
        self._changed = changed
        #: Partition without a position -> its version when the lookup under way began; None: there
        #: is no lookup.
        self._wanted: dict[PartitionState, int | None] = {}
        self._lookups: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._searched: dict[str, None] = {}
        self._is_planned = False
        self._is_stopped = False
        self._settled = Bell()

    def stop(self) -> None:
        """Begin no more lookups."""
        self._is_stopped = True

    # -- positions that are not known ------------------------------------------------------------

    def want(self, state: PartitionState) -> None:
        """Look up the position in this partition soon."""
        self._wanted.setdefault(state, None)
        self.look_soon()

    def look_soon(self) -> None:
        """Ask in the next turn of the loop.

        Call it when a leader or the wanted positions have changed.
        """
        if self._wanted and not self._is_planned and not self._is_stopped:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._look)

    async def settle(
        self,
        states: Collection[PartitionState],
        *,
        leaderless_wait_s: float = LEADERLESS_WAIT_S,
    ) -> None:
        """Wait until each of these positions is known or refused.

        The wait for a partition without a leader is short. Raises RequestTimedOutError.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadlines = (started + leaderless_wait_s, started + TIMEOUT_S)
        while unknown := [state for state in states if self._is_sought(state)]:
            now = loop.time()
            if now >= deadlines[1]:
                raise RequestTimedOutError(
                    f"the positions in {_names_of(unknown)} were not known within "
                    f"{TIMEOUT_S:.0f} s; their leaders do not answer"
                )
            if now >= deadlines[0] and not any(map(self._endpoint_of, unknown)):
                log.warning("no leader tells the positions in %s yet", _names_of(unknown))
                return
            left = min(one for one in deadlines if one > now) - now
            with contextlib.suppress(RequestTimedOutError):
                await self._cluster.owner.wait(
                    self._settled.next_ring(), timeout_s=max(left, 0.001), late=_late
                )

    def _is_sought(self, state: PartitionState) -> bool:
        known = self._subscription.states.get(state.topic_partition)
        return known is state and state.needs_offset

    def _look(self) -> None:
        self._is_planned = False
        if self._is_stopped or self._cluster.owner.failure is not None:
            return
        groups: dict[str, list[PartitionState]] = {}
        for state, asked in list(self._wanted.items()):
            if not self._is_sought(state):
                del self._wanted[state]
            elif state.reset == "none":
                self._refuse(state, _no_position(state.topic_partition))
            elif asked != state.version:
                endpoint = self._endpoint_of(state)
                if endpoint:
                    groups.setdefault(endpoint, []).append(state)
                elif state.topic_partition.topic not in self._cluster.topics:
                    self._search(state.topic_partition.topic)
        for endpoint, states in groups.items():
            if self._lookups[endpoint] < LOOKUPS_MAX:
                self._begin(endpoint, states[:PARTITIONS_MAX])
        self._settled.ring()

    def _begin(self, endpoint: str, states: list[PartitionState]) -> None:
        for state in states:
            self._wanted[state] = state.version
        self._lookups[endpoint] += 1
        self._cluster.owner.spawn(self._look_up(endpoint, states), f"offsets-{endpoint}")

    async def _look_up(self, endpoint: str, states: list[PartitionState]) -> None:
        versions = {state.topic_partition: state.version for state in states}
        times = {
            state.topic_partition: EARLIEST if state.reset == "earliest" else LATEST
            for state in states
        }
        listed = Listed({}, {})
        try:
            listed = await self._ask(endpoint, times, Deadline(TIMEOUT_S * 1000))
        except QuorateError as error:
            if not error.retriable:
                listed = Listed({}, dict.fromkeys(times, error))
        finally:
            self._lookups[endpoint] -= 1
        for state in states:
            key = state.topic_partition
            answer, refused = listed.found.get(key), listed.refused.get(key)
            if answer is not None:
                # The epoch is that of the record before the position. Before the earliest position
                # there is no record, so the epoch is unknown.
                epoch = answer.leader_epoch if times[key] == LATEST else UNKNOWN
                state.found(answer.offset, epoch, versions[key])
                if answer.HasField("high_watermark"):
                    state.high_watermark = answer.high_watermark
            elif refused is not None and state.version == versions[key]:
                state.error = refused
            self._changed(state)
            if self._wanted.get(state) == versions[key]:
                self._wanted[state] = None
        self._go_on(endpoint, answered=bool(listed.found or listed.refused))

    def _go_on(self, endpoint: str, *, answered: bool) -> None:
        """Ask for the rest: at once after an answer, otherwise after a growing wait."""
        if answered:
            del self._failures[endpoint]
            self.look_soon()
            return
        self._cluster.request_refresh()
        self._failures[endpoint] += 1
        delay_ms = backoff_ms(self._failures[endpoint], BACKOFF_MS, BACKOFF_MAX_MS)
        asyncio.get_running_loop().call_later(delay_ms / 1000, self.look_soon)

    def _refuse(self, state: PartitionState, error: QuorateError) -> None:
        self._wanted.pop(state, None)
        state.error = error
        self._changed(state)

    def _search(self, topic: str) -> None:
        """Ask the cluster for a topic that is not known yet."""
        if topic not in self._searched:
            self._searched[topic] = None
            self._cluster.owner.spawn(self._find_topic(topic), f"topic-{topic}")

    async def _find_topic(self, topic: str) -> None:
        try:
            await self._cluster.topic(topic)
        except QuorateError as error:
            for state in [one for one in self._wanted if one.topic_partition.topic == topic]:
                self._refuse(state, error)
        finally:
            self._searched.pop(topic, None)
        self.look_soon()

    # -- what a user asks ------------------------------------------------------------------------

    async def list_offsets(
        self, wanted: Mapping[TopicPartition, int], *, timeout_s: float = TIMEOUT_S
    ) -> dict[TopicPartition, ListedOffset]:
        """Ask the leaders for offsets by time (-2: earliest, -1: latest) until all have answered.

        Raises UnknownTopicError, RequestTimedOutError.
        """
        deadline = Deadline(timeout_s * 1000)
        found: dict[TopicPartition, ListedOffset] = {}
        last: QuorateError | None = None
        while len(found) < len(wanted):
            missing = {key: time for key, time in wanted.items() if key not in found}
            if deadline.has_passed:
                raise RequestTimedOutError(
                    f"the offsets of {_names(missing)} were not known within {timeout_s:.0f} s "
                    f"(last: {last or self._hindrance(missing) or 'no leader'})"
                )
            groups = await by_leader(self._cluster, missing)
            answers = await asyncio.gather(
                *(self._ask(endpoint, group, deadline) for endpoint, group in groups.items()),
                return_exceptions=True,
            )
            for answer in answers:
                if isinstance(answer, Listed):
                    found.update(answer.found)
                    for error in answer.refused.values():
                        raise error
                elif isinstance(answer, QuorateError) and answer.retriable:
                    last = answer
                else:
                    raise answer
            if len(found) < len(wanted):
                self._cluster.request_refresh()
                await asyncio.sleep(BACKOFF_MS / 1000)
        return found

    def _hindrance(self, keys: Iterable[TopicPartition]) -> QuorateError | None:
        """Return why a leader of these partitions cannot be reached; None if no reason is known."""
        views = (self._cluster.partition(*key) for key in keys)
        return next((view.hindrance for view in views if view and view.hindrance), None)

    # -- one leader ------------------------------------------------------------------------------

    async def _ask(
        self, endpoint: str, times: Mapping[TopicPartition, int], deadline: Deadline
    ) -> Listed:
        """Ask one leader, in as many requests as necessary. Raises the errors of the network."""
        keys = list(times)
        listed = Listed({}, {})
        for start in range(0, len(keys), PARTITIONS_MAX):
            part = {key: times[key] for key in keys[start : start + PARTITIONS_MAX]}
            request, asked = self._request(part)
            response = await self._call(endpoint, request, part, deadline)
            for one in response.partitions:
                key = asked.get((one.topic_id, one.partition))
                if key is not None:
                    self._take(key, one, listed)
        return listed

    def _request(
        self, times: Mapping[TopicPartition, int]
    ) -> tuple[ListOffsetsRequest, dict[tuple[bytes, int], TopicPartition]]:
        request = ListOffsetsRequest()
        asked: dict[tuple[bytes, int], TopicPartition] = {}
        for key, time in times.items():
            topic = self._cluster.topics.get(key.topic)
            if topic is None or key.partition >= len(topic.partitions):
                # the topic was deleted just now: the caller asks again
                continue
            asked[topic.topic_id, key.partition] = key
            request.partitions.append(
                ListOffsetsPartition(
                    topic_id=topic.topic_id,
                    partition=key.partition,
                    timestamp_ms=time,
                    leader_epoch=topic.partitions[key.partition].leader_epoch,
                )
            )
        return request, asked

    async def _call(
        self,
        endpoint: str,
        request: ListOffsetsRequest,
        keys: Collection[TopicPartition],
        deadline: Deadline,
    ) -> ListOffsetsResponse:
        """Wait for the answer while this broker leads one of the partitions."""
        connection = self._cluster.connection(endpoint, "control")
        call = asyncio.ensure_future(
            connection.unary(LIST_OFFSETS, request, timeout_ms=max(1, deadline.left_ms))
        )
        try:
            while True:
                await asyncio.wait([call], timeout=SILENCE_S)
                if call.done():
                    return call.result()
                self._cluster.request_refresh()
                if not any(self._leads(endpoint, key) for key in keys):
                    self._cluster.avoid(endpoint)
                    raise NotLeaderError(f"{endpoint} did not answer, and others lead by now")
        finally:
            call.cancel()

    def _leads(self, endpoint: str, key: TopicPartition) -> bool:
        view = self._cluster.partition(*key)
        return view is not None and view.leader >= 0 and view.endpoint == endpoint

    def _take(self, key: TopicPartition, one: ListedOffset, listed: Listed) -> None:
        if one.error.code == ErrorCode.ERROR_CODE_NONE:
            listed.found[key] = one
            return
        self._cluster.learn(key.topic, key.partition, one.leader)
        error = from_wire(one.error)
        if not error.retriable:
            listed.refused[key] = error


def _late() -> RequestTimedOutError:
    return RequestTimedOutError("no news of positions")


def _no_position(key: TopicPartition) -> OffsetOutOfRangeError:
    return OffsetOutOfRangeError(
        f"{key.topic}-{key.partition} has no position, and auto_offset_reset is "
        '"none"; seek() to one'
    )


def _names_of(states: Collection[PartitionState]) -> str:
    return _names([one.topic_partition for one in states])


def _names(keys: Collection[TopicPartition]) -> str:
    """Return the names of the first ten partitions, and the number of the others."""
    first = ", ".join(f"{one.topic}-{one.partition}" for one in nsmallest(NAMED_MAX, keys))
    rest = len(keys) - NAMED_MAX
    return f"{first} and {rest} more" if rest > 0 else first
