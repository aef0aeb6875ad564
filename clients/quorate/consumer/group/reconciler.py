"""Carries out what the membership decides: revoke, tell that partitions are lost, take.

One step at a time, each to its end. So the callbacks of the application never run side by side.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from quorate.aio.bell import Bell
from quorate.cluster.cluster import Cluster
from quorate.cluster.parts import Parts
from quorate.consumer.fetcher import Fetcher
from quorate.consumer.group.commits import Commits, part_of
from quorate.consumer.group.listener import Callback
from quorate.consumer.group.membership import Lose, Membership, Revoke, Take
from quorate.consumer.group.placement import Placement
from quorate.consumer.partition_state import PartitionState
from quorate.consumer.subscription import Change, Subscription
from quorate.errors import QuorateError
from quorate.model import TopicPartition

#: Pause between two looks at the names of new partitions.
NAMES_PAUSE_MS = 200
#: Calls the application's listener for these partitions.
Call = Callable[[Callback, Collection[TopicPartition]], Awaitable[None]]


class Reconciler:
    """The steps of one member.

    `call` awaits a callback of the application; it does not raise. `changed` is called after each
    step.
    """

    def __init__(
        self,
        cluster: Cluster,
        fetcher: Fetcher,
        subscription: Subscription,
        membership: Membership,
        placement: Placement,
        commits: Commits,
        *,
        call: Call,
        changed: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._fetcher = fetcher
        self._subscription = subscription
        self._membership = membership
        self._placement = placement
        self._commits = commits
        self._call, self._changed = call, changed
        #: Ring it when there may be another step.
        self.bell = Bell()
        #: Rings when nothing is left to do.
        self.idle = Bell()

    async def run(self) -> None:
        """Carry out one step after another."""
        while True:
            self.bell.reset()
            step = self._membership.step()
            match step:
                case None:
                    self.idle.ring()
                    await self.bell.wait()
                    continue
                case Revoke(parts):
                    await self._revoke(parts)
                case Lose(parts):
                    await self._lose(parts)
                case Take(parts):
                    await self._take(parts)
            self._changed()

    def hold_all(self) -> None:
        """Give the application no more records: other members may have these partitions."""
        for state in self._subscription.states.values():
            self._hold(state)

    async def _revoke(self, parts: Parts) -> None:
        states = self._states(parts)
        for state in states:
            self._hold(state)
        if self._commits.is_automatic:
            keys = [state.topic_partition for state in states]
            await self._commits.wait_for_return(keys)
            await self._commits.commit_finished(keys)
        # the group may have removed this member in the meantime
        parts &= self._membership.owned
        states = self._states(parts)
        await self._tell("on_partitions_revoked", states)
        self._drop(states)
        self._membership.released(parts)

    async def _lose(self, parts: Parts) -> None:
        states = self._states(parts)
        keys = [state.topic_partition for state in states]
        self._drop(states)
        await self._call("on_partitions_lost", keys)
        self._membership.told_lost(parts)

    async def _take(self, parts: Parts) -> None:
        membership = self._membership
        names = self._placement.names(parts)
        if not names:
            self._cluster.request_refresh()
            await self.bell.wait(NAMES_PAUSE_MS)
            return
        withdrawals = membership.withdrawals
        try:
            committed = await self._placement.committed(
                list(names), lambda: membership.still_given(withdrawals)
            )
        except QuorateError as error:
            membership.fail(error)
            return
        if committed is None or not membership.still_given(withdrawals):
            return  # others may have had a partition meanwhile, and have committed more
        membership.take_up(frozenset(names))
        change = self._placement.begin(dict(sorted(names.items())), committed)
        await self._placement.first_positions(change.added)
        await self._tell("on_partitions_assigned", change.added)
        for state in change.added:
            if part_of(state) in membership.owned:
                state.is_held = False
                self._fetcher.changed(state)

    async def _tell(self, name: Callback, states: Collection[PartitionState]) -> None:
        await self._call(name, [state.topic_partition for state in states])

    def _states(self, parts: Parts) -> list[PartitionState]:
        return [state for state in self._subscription.states.values() if part_of(state) in parts]

    def _hold(self, state: PartitionState) -> None:
        state.is_held = True
        self._fetcher.changed(state)

    def _drop(self, states: Collection[PartitionState]) -> None:
        change = Change([], [])
        for state in states:
            change.removed.extend(self._subscription.drop(state))
        self._commits.forget(change.removed)
        self._fetcher.assigned(change)
