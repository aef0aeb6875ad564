"""Fetches the assigned partitions ahead of the user: streams to the brokers, lookups of offsets.

Call `changed` after every change of a partition's state. A change may give the reader a turn, or
cause another fetch or a lookup. The cost of `changed` does not depend on the number of partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from quorate.aio.bell import Bell
from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import LeaderStreams
from quorate.consumer.buffer import Buffer
from quorate.consumer.buffered_records import BufferedRecords
from quorate.consumer.chunk_reader import Deserializers
from quorate.consumer.corruption import Corruptions
from quorate.consumer.fetch_stream import FetchConfig, FetchStream
from quorate.consumer.offset_lookup import OffsetLookup
from quorate.consumer.partition_state import PartitionState
from quorate.consumer.read_replicas import ReadReplicas
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import QuorateError, RequestTimedOutError
from quorate.model import TopicPartition

TICK_S = 0.1
#: Pause between two requests for new topics and partitions.
LOOK_INTERVAL_S = 2.0


class Fetcher:
    """All fetch streams and lookups of one consumer."""

    def __init__(
        self,
        cluster: Cluster,
        subscription: Subscription,
        config: FetchConfig,
        deserializers: Deserializers,
        look_again: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self._subscription = subscription
        self._config = config
        self._look_again = look_again
        self.buffer = Buffer(2 * config.max_bytes)
        self._corruptions = Corruptions(cluster, self.changed)
        self.reading = BufferedRecords(
            self.buffer, subscription, deserializers, self._corruptions, self.had_turn
        )
        self.offsets = OffsetLookup(cluster, subscription, self.endpoint_of, self.changed)
        #: Rings when there may be something to read.
        self.arrived = Bell()
        self._streams: LeaderStreams[FetchStream] = LeaderStreams(cluster)
        self._read_replicas = ReadReplicas(
            cluster, asyncio.get_running_loop().time, self._place_again
        )
        self._homes: dict[PartitionState, FetchStream] = {}
        self._homeless: dict[PartitionState, None] = {}
        self._is_placing = False
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fetch, and follow changes of leaders."""
        owner = self.cluster.owner
        self.cluster.on_change(self._leaders_changed)
        owner.on_failure(self._failed)
        self._ticker = owner.spawn(self._tick(), "consumer-tick")

    async def stop(self) -> None:
        """End every stream."""
        self.offsets.stop()
        try:
            await self.cluster.owner.end(self._ticker)
        finally:
            # also if this stop is cancelled, as in a start that is cancelled twice
            await self._streams.stop()

    # -- what follows from a change ---------------------------------------------------------------

    def changed(self, state: PartitionState) -> None:
        """React to a change of a partition's position, buffer, error or pause."""
        was_full = self.buffer.is_full
        self.buffer.changed(state)
        self._follow(state, was_full)
        if state.is_readable:
            self.arrived.ring()

    def had_turn(self, state: PartitionState) -> None:
        """Let other partitions be next, because the user has read from this one."""
        was_full = self.buffer.is_full
        self.buffer.had_turn(state)
        self._follow(state, was_full)

    def asked_for(self, only: Collection[TopicPartition]) -> None:
        """Note that the user reads these partitions now; an empty `only` means all."""
        for state in self.buffer.asked_for(only):
            self._follow(state, was_full=False)

    def found_nothing(self) -> None:
        """React to a read that found nothing."""
        for state in self.buffer.found_nothing():
            self._follow(state, was_full=True)

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until there may be something to read. Call it after a read that found nothing.

        With a timeout of None the wait has no limit.
        """
        self.found_nothing()
        with contextlib.suppress(RequestTimedOutError):
            await self.cluster.owner.wait(
                self.arrived.next_ring(), timeout_s=timeout_s, late=RequestTimedOutError
            )

    def assigned(self, change: Change) -> None:
        """Take over a change of the assigned partitions."""
        for state in change.removed:
            self._leave_home(state)
            self._homeless.pop(state, None)
            self._read_replicas.forget(state)
            self.changed(state)
        for state in change.added:
            self._place(state)
            self.changed(state)

    def _follow(self, state: PartitionState, was_full: bool) -> None:
        home = self._homes.get(state)
        if home is not None:
            home.touch(state)
        if state.needs_offset:
            self.offsets.want(state)
        if was_full and not self.buffer.is_full:
            self._streams.wake()

    def _failed(self, error: QuorateError) -> None:
        self.arrived.ring()

    # -- which broker ----------------------------------------------------------------------------

    def endpoint_of(self, state: PartitionState) -> str:
        """Return the endpoint of a partition's leader; empty if there is none."""
        topic, partition = state.topic_partition
        return self.cluster.leader_endpoint(topic, state.topic_id, partition)

    def _leaders_changed(self) -> None:
        """Find all leaders again, once for all changes in this turn of the loop."""
        if not self._is_placing:
            self._is_placing = True
            asyncio.get_running_loop().call_soon(self._place_all)

    def _place_all(self) -> None:
        self._is_placing = False
        if self.cluster.owner.failure is not None:
            return
        for state in self._subscription.states.values():
            self._place(state)
        self.offsets.look_soon()

    def _place(self, state: PartitionState) -> None:
        endpoint = self._read_replicas.endpoint_of(state) or self.endpoint_of(state)
        home = self._homes.get(state)
        if home is not None and home.endpoint == endpoint:
            return
        self._leave_home(state)
        if not endpoint:
            self._homeless[state] = None
            return
        self._homeless.pop(state, None)
        home = self._homes[state] = self._stream_with_room(endpoint)
        home.session.add(state)
        home.wake()

    def _place_again(self, state: PartitionState) -> None:
        """Place a partition whose broker may be another one, and fetch it again."""
        self._place(state)
        home = self._homes.get(state)
        if home is not None:
            home.touch(state)

    def _leave_home(self, state: PartitionState) -> None:
        home = self._homes.pop(state, None)
        if home is not None:
            home.session.remove(state)
            home.wake()

    def _stream_with_room(self, endpoint: str) -> FetchStream:
        for stream in self._streams.to(endpoint):
            if len(stream.session) < stream.partitions_max:
                return stream
        return self._streams.add(
            FetchStream(
                self.cluster,
                endpoint,
                self._config,
                self.buffer,
                self._corruptions,
                self._read_replicas,
                self.changed,
                self._no_room,
            )
        )

    def _no_room(self, state: PartitionState) -> None:
        """Fetch a partition on another stream, because the broker has no more room on this one."""
        full = self._homes[state]
        self._leave_home(state)
        full.partitions_max = max(1, len(full.session))
        self._place(state)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            if now - looked_at >= LOOK_INTERVAL_S:
                looked_at = now
                self._look_again()
                self._read_replicas.tick()
            if self._streams.tick(now) or self._homeless:
                self.cluster.request_refresh()
