"""Finds the positions in partitions that a consumer of a group begins to read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from quorate.aio.backoff import Backoff
from quorate.aio.bell import Bell
from quorate.aio.clock import Deadline
from quorate.cluster.cluster import Cluster
from quorate.cluster.group_offsets import GroupOffsets
from quorate.cluster.leader_stream import BACKOFF_MAX_MS, BACKOFF_MS
from quorate.cluster.parts import Part, Parts
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.group.commits import Commits, part_of
from quorate.consumer.group.starts import reset_of
from quorate.consumer.partition_state import PartitionState
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import QuorateError, RequestTimedOutError
from quorate.model import CommittedOffset, TopicPartition

log = logging.getLogger(__name__)

#: Longest wait of one question for committed offsets.
FETCH_TIMEOUT_MS = 5_000
#: Longest wait until first positions are known, before the partitions are read.
FIRST_POSITIONS_S = 1.0


class Committed(NamedTuple):
    """What the group has committed for the partitions that a consumer gets."""

    offsets: Mapping[Part, CommittedOffset]
    #: Topic id -> number of the topic's partitions when the group first committed one of them. Only
    #: with "latest", and of topics with a partition for which nothing is committed.
    first_counts: Mapping[bytes, int]


NOTHING = Committed({}, {})


class Placement:
    """The positions of one consumer in the partitions that it gets."""

    def __init__(
        self,
        cluster: Cluster,
        fetcher: Fetcher,
        subscription: Subscription,
        offsets: GroupOffsets,
        commits: Commits,
    ) -> None:
        self._cluster = cluster
        self._fetcher = fetcher
        self._subscription = subscription
        self._offsets = offsets
        self._commits = commits
        #: Topic id -> number of its partitions when this consumer subscribed; 0: it came later.
        self.first_counts: dict[bytes, int] = {}
        self._placed = Bell()

    def names(self, parts: Parts) -> dict[Part, TopicPartition]:
        """Return the names of partitions. Those that the client does not know yet are left out."""
        wanted = {part.topic_id for part in parts}
        topics = {
            topic.topic_id: topic
            for topic in self._cluster.topics.values()
            if topic.topic_id in wanted
        }
        return {
            part: TopicPartition(topics[part.topic_id].name, part.partition)
            for part in parts
            if part.topic_id in topics and part.partition < len(topics[part.topic_id].partitions)
        }

    # -- what the group gives ----------------------------------------------------------------------

    async def committed(
        self, parts: Collection[Part], is_wanted: Callable[[], bool]
    ) -> Committed | None:
        """Return what is committed. Ask while it is wanted; None: it is not any more.

        Raises the refusal of the coordinator.
        """
        backoff = Backoff(BACKOFF_MS, BACKOFF_MAX_MS, self._cluster.chance)
        while is_wanted():
            try:
                deadline = Deadline(FETCH_TIMEOUT_MS)
                found = await self._offsets.fetch(parts, deadline)
                if self._subscription.policy != "latest":
                    return Committed(found, {})
                topic_ids = {part.topic_id for part in parts if part not in found}
                every = self._parts_of(topic_ids)
                return Committed(found, await self._offsets.fetch_first_counts(every, deadline))
            except RequestTimedOutError as error:
                log.warning("the committed offsets are not known yet: %s", error)
                await backoff.wait()
        return None

    def _parts_of(self, topic_ids: Collection[bytes]) -> set[Part]:
        return {
            Part(topic.topic_id, number)
            for topic in self._cluster.topics.values()
            if topic.topic_id in topic_ids
            for number in topic.numbers
        }

    def begin(self, names: Mapping[Part, TopicPartition], committed: Committed) -> Change:
        """Assign partitions, held, with their positions. Return the change."""
        policy = self._subscription.policy
        change = Change([], [])
        for part, key in names.items():
            reset = policy
            if part not in committed.offsets:
                reset = reset_of(part, policy, self.first_counts, committed.first_counts)
            one = self._subscription.take(key, part.topic_id, reset)
            change.removed.extend(one.removed)
            for state in one.added:
                state.is_held = True
                self._seek(state, committed.offsets.get(part))
                change.added.append(state)
        self._fetcher.assigned(change)
        return change

    async def first_positions(self, states: Collection[PartitionState]) -> None:
        """Commit the first positions in partitions of which nothing was committed, with "latest".

        Otherwise the next owner would begin at the end that the log has then, and miss what is
        written in between.
        """
        fresh = [state for state in states if state.needs_offset]
        if not fresh or self._subscription.policy != "latest" or not self._commits.is_automatic:
            return
        with contextlib.suppress(TimeoutError, QuorateError):
            async with asyncio.timeout(FIRST_POSITIONS_S):
                await self._fetcher.offsets.settle(fresh)
                await self._commits.commit_finished([one.topic_partition for one in fresh])

    # -- what the application assigns --------------------------------------------------------------

    def place(self, states: Collection[PartitionState]) -> None:
        """Look up the committed offsets of partitions that assign() named."""
        placed = [state for state in states if state.is_placing]
        if placed:
            versions = [state.version for state in placed]
            self._cluster.owner.spawn(self._place(placed, versions), "committed-offsets")

    async def _place(self, states: list[PartitionState], versions: list[int]) -> None:
        def is_wanted() -> bool:
            return any(
                self._subscription.states.get(state.topic_partition) is state for state in states
            )

        error: QuorateError | None = None
        committed: Committed | None = None
        try:
            for topic in {state.topic_partition.topic for state in states}:
                await self._cluster.topic(topic)
            for state in states:
                state.topic_id = state.topic_id or self._topic_id(state)
            committed = await self.committed([part_of(state) for state in states], is_wanted)
        except QuorateError as raised:
            error = raised
        for state, version in zip(states, versions, strict=True):
            state.is_placing = False
            if state.version == version and state.needs_offset:
                state.error = error
                self._seek(state, (committed or NOTHING).offsets.get(part_of(state)))
            self._fetcher.changed(state)
        self._placed.ring()

    def _topic_id(self, state: PartitionState) -> bytes:
        topic = self._cluster.topics.get(state.topic_partition.topic)
        return b"" if topic is None else topic.topic_id

    async def placed(self, states: Collection[PartitionState]) -> None:
        """Wait until the committed offsets of these partitions are known or refused."""
        while any(state.is_placing for state in states):
            await self._cluster.owner.wait(
                self._placed.next_ring(),
                timeout_s=FETCH_TIMEOUT_MS / 1000,
                late=lambda: RequestTimedOutError("the committed offsets are not known yet"),
            )

    def _seek(self, state: PartitionState, offset: CommittedOffset | None) -> None:
        if offset is not None:
            state.seek(offset.offset, offset.leader_epoch)
            self._commits.is_committed(part_of(state), offset.offset)
