"""What a consumer commits: on demand, at intervals, and before it gives partitions back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any

from quorate.aio.bell import Bell
from quorate.aio.clock import Deadline
from quorate.cluster.group_offsets import Committer, GroupOffsets
from quorate.cluster.parts import Part
from quorate.consumer.group.hands import Hands
from quorate.consumer.partition_state import UNKNOWN, PartitionState
from quorate.consumer.subscription import Subscription
from quorate.errors import QuorateError
from quorate.model import OffsetAndMetadata, TopicPartition

log = logging.getLogger(__name__)

#: Longest time of a commit that the application asks for.
COMMIT_TIMEOUT_MS = 30_000
#: Longest time of an automatic commit.
AUTO_COMMIT_TIMEOUT_MS = 5_000
#: How long partitions that are to be given back wait until the application has come back from their
#: records. The next owner reads again what it has not come back from.
COME_BACK_MS = 100

Offsets = Mapping[TopicPartition, OffsetAndMetadata]


def part_of(state: PartitionState) -> Part:
    """Return the partition of a state, by its topic's id."""
    return Part(state.topic_id, state.topic_partition.partition)


class Commits:
    """The commits of one consumer. `committer` names the member, and is kept up to date outside."""

    def __init__(
        self,
        subscription: Subscription,
        offsets: GroupOffsets,
        committer: Committer,
        *,
        is_automatic: bool,
    ) -> None:
        self.hands = Hands()
        self.is_automatic = is_automatic
        self._subscription = subscription
        self._offsets = offsets
        self._committer = committer
        self._committed: dict[Part, int] = {}
        self._came_back = Bell()
        #: Whether partitions wait for the application: the bell would cost each read time.
        self._is_awaited = False

    # -- the application ---------------------------------------------------------------------------

    def came_back(self, asker: asyncio.Task[Any]) -> None:
        """Note that a task of the application asks for records again."""
        self.hands.came_back(asker)
        if self._is_awaited:
            self._came_back.ring()

    async def commit(
        self,
        offsets: Offsets | None,
        only: asyncio.Task[Any] | None = None,
    ) -> None:
        """Commit these offsets; None: the positions in all assigned partitions.

        `only`: with None, the records of this task alone count as done. What other tasks have in
        hand is left out.
        """
        if offsets is None:
            self.hands.settle(only)
            self._came_back.ring()
            wanted = self.finished()
        else:
            wanted = {
                part_of(self._subscription.states[key]): value for key, value in offsets.items()
            }
        await self._carry_out(wanted, Deadline(COMMIT_TIMEOUT_MS))

    # -- automatic ---------------------------------------------------------------------------------

    def finished(
        self, keys: Collection[TopicPartition] | None = None
    ) -> dict[Part, OffsetAndMetadata]:
        """Return the offsets up to which the application is done, of these or all partitions."""
        firsts = self.hands.firsts()
        states = self._subscription.states
        found: dict[Part, OffsetAndMetadata] = {}
        for key in states if keys is None else keys:
            state = states.get(key)
            if state is None or state.position == UNKNOWN or not state.topic_id:
                continue
            first = firsts.get(key)
            if first is not None and first < state.position:
                found[part_of(state)] = OffsetAndMetadata(first)
            else:
                found[part_of(state)] = OffsetAndMetadata(
                    state.position, leader_epoch=state.position_epoch
                )
        return found

    def is_committed(self, part: Part, offset: int) -> None:
        """Note what the coordinator has for a partition, so that it is not committed again."""
        self._committed[part] = offset

    def renew(self) -> None:
        """Let the next automatic commit name all offsets, so that they do not expire."""
        self._committed.clear()

    async def commit_finished(self, keys: Collection[TopicPartition] | None = None) -> None:
        """Commit what the application is done with and what is not committed yet.

        An error is logged: the next commit tries again.
        """
        wanted = {
            part: value
            for part, value in self.finished(keys).items()
            if self._committed.get(part) != value.offset
        }
        try:
            await self._carry_out(wanted, Deadline(AUTO_COMMIT_TIMEOUT_MS))
        except QuorateError as error:
            log.warning("an automatic commit of %d partitions failed: %s", len(wanted), error)

    async def wait_for_return(self, keys: Collection[TopicPartition]) -> None:
        """Wait for a moment until the application is done with the records of these partitions."""
        self._is_awaited = True
        try:
            async with asyncio.timeout(COME_BACK_MS / 1000):
                while self.hands.holds(keys):
                    await self._came_back.next_ring()
        except TimeoutError:
            return
        finally:
            self._is_awaited = False

    def forget(self, states: Collection[PartitionState]) -> None:
        """Forget partitions that the consumer has no more."""
        self.hands.forget([state.topic_partition for state in states])
        for state in states:
            self._committed.pop(part_of(state), None)

    async def _carry_out(
        self, wanted: Mapping[Part, OffsetAndMetadata], deadline: Deadline
    ) -> None:
        if not wanted:
            return
        try:
            await self._offsets.commit(wanted, self._committer, deadline)
        except BaseException:
            # Also after a cancellation: the coordinator may have these offsets or the ones before.
            for part in wanted:
                self._committed.pop(part, None)
            raise
        for part, value in wanted.items():
            self._committed[part] = value.offset
