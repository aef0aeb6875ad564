"""The uniform assignor: equal shares, and as few partitions as possible change hands.

If all members subscribe to the same topics, their shares differ by one at most, and no more
partitions move than that needs. Otherwise no partition could go to a member that has two fewer.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from quorate_broker.groups.assignors.values import (
    Assignment,
    PartitionSet,
    TaskMember,
    TaskTopic,
    in_order,
)
from quorate_broker.groups.records.values import Partition

#: The racks in which a partition has replicas.
RacksOf = Callable[[Partition], frozenset[str]]
NO_RACKS: frozenset[str] = frozenset()


def assign(members: Sequence[TaskMember], topics: Sequence[TaskTopic]) -> Assignment:
    """Return who gets which partitions."""
    return assign_near(members, topics, lambda _: NO_RACKS)


def assign_near(
    members: Sequence[TaskMember], topics: Sequence[TaskTopic], racks_of: RacksOf
) -> Assignment:
    """Return who gets which partitions; of equal shares, rather those of the member's rack."""
    ordered = in_order(members)
    if len({member.topic_ids for member in ordered}) <= 1:
        shares: list[Iterable[Partition]] = Quotas(ordered, topics, racks_of).assign()
    else:
        shares = Balance(ordered, topics, racks_of).assign()
    return {one.member_id: PartitionSet(share) for one, share in zip(ordered, shares, strict=True)}


def subscribed(members: Sequence[TaskMember], topics: Sequence[TaskTopic]) -> list[Partition]:
    """Return the partitions that some member subscribes to, in order."""
    wanted: frozenset[bytes] = frozenset().union(*(member.topic_ids for member in members))
    return [
        (topic.topic_id, number)
        for topic in sorted(topics, key=lambda topic: topic.name)
        if topic.topic_id in wanted
        for number in range(topic.partitions)
    ]


def still_held(
    members: Sequence[TaskMember], partitions: Sequence[Partition]
) -> dict[Partition, int]:
    """Return which member has which partition by the last assignment, and still subscribes to it.

    A member is given by its place in `members`.
    """
    wanted = set(partitions)
    return {
        partition: at
        for at, member in enumerate(members)
        for partition in member.assigned
        if partition in wanted and partition[0] in member.topic_ids
    }


class Quotas:
    """Equal subscriptions: every member has room for its quota, and some for one more."""

    def __init__(
        self, members: Sequence[TaskMember], topics: Sequence[TaskTopic], racks_of: RacksOf
    ) -> None:
        self._racks = [member.rack for member in members]
        self._partitions = subscribed(members, topics)
        self._holders = still_held(members, self._partitions)
        self._racks_of = racks_of
        self._quota, self._extra = divmod(len(self._partitions), max(1, len(members)))
        self._shares: list[list[Partition]] = [[] for _ in members]
        self._given: set[Partition] = set()

    def assign(self) -> list[Iterable[Partition]]:
        """Keep what is near, bring near what can be, keep the rest, give out what is left."""
        held = [one for one in self._partitions if one in self._holders]
        self._keep(one for one in held if self._racks[self._holders[one]] in self._racks_of(one))
        self._bring_near()
        self._keep(one for one in held if one not in self._given)
        self._fill(one for one in self._partitions if one not in self._given)
        return [*self._shares]

    def _has_room(self, at: int) -> bool:
        size = len(self._shares[at])
        return size < self._quota or (size == self._quota and self._extra > 0)

    def _give(self, partition: Partition, at: int) -> None:
        self._extra -= len(self._shares[at]) == self._quota
        self._shares[at].append(partition)
        self._given.add(partition)

    def _keep(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if self._has_room(self._holders[partition]):
                self._give(partition, self._holders[partition])

    def _bring_near(self) -> None:
        """Give partitions to members in their racks, those with the fewest racks first."""
        queues: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for at, rack in enumerate(self._racks):
            heapq.heappush(queues[rack], (len(self._shares[at]), at))
        rest = [one for one in self._partitions if one not in self._given and self._racks_of(one)]
        for partition in sorted(rest, key=lambda one: len(self._racks_of(one))):
            heads = [queues[rack][0] for rack in self._racks_of(partition) if queues.get(rack)]
            if not heads or not self._has_room(min(heads)[1]):
                continue
            _, at = min(heads)
            self._give(partition, at)
            heapq.heapreplace(queues[self._racks[at]], (len(self._shares[at]), at))

    def _fill(self, partitions: Iterable[Partition]) -> None:
        """Fill the quotas, then give one more to those that have room for it."""
        rest = iter([*partitions])
        for at, share in enumerate(self._shares):
            while len(share) < self._quota:
                self._give(next(rest), at)
        with_room = (at for at in range(len(self._shares)) if self._has_room(at))
        for partition, at in zip(rest, with_room, strict=False):
            self._give(partition, at)


class Balance:
    """Different subscriptions: start from what is held, and move what makes shares more equal.

    Members with equal subscriptions are of one kind, and each kind knows its least loaded member.
    So a move costs the kinds that subscribe to a topic, not all members that do.
    """

    def __init__(
        self, members: Sequence[TaskMember], topics: Sequence[TaskTopic], racks_of: RacksOf
    ) -> None:
        self._racks = [member.rack for member in members]
        self._partitions = subscribed(members, topics)
        self._holders = still_held(members, self._partitions)
        self._racks_of = racks_of
        kinds: dict[frozenset[bytes], Kind] = {}
        for at, member in enumerate(members):
            kinds.setdefault(member.topic_ids, Kind()).add(at)
        self._kind_of = [kinds[member.topic_ids] for member in members]
        self._kinds: defaultdict[bytes, list[Kind]] = defaultdict(list)
        for topic_ids, kind in kinds.items():
            for topic_id in topic_ids:
                self._kinds[topic_id].append(kind)
        #: By member and topic; new partitions last, so that they move on first.
        self._shares: list[defaultdict[bytes, list[Partition]]] = [
            defaultdict(list) for _ in members
        ]

    def assign(self) -> list[Iterable[Partition]]:
        """Keep all that is held, give out the rest, then move until no move helps."""
        for partition in self._partitions:
            if partition in self._holders:
                self._give(partition, self._holders[partition])
        rest = [one for one in self._partitions if one not in self._holders]
        subscribers = {
            topic_id: sum(len(kind.sizes) for kind in kinds)
            for topic_id, kinds in self._kinds.items()
        }
        for partition in sorted(rest, key=lambda one: subscribers[one[0]]):
            self._give(partition, self._nearest(partition))
        # A move makes the sum of the squares of the sizes smaller, so this ends.
        while sum(self._relieve(at) for at in range(len(self._shares))):
            pass
        return [[one for share in topics.values() for one in share] for topics in self._shares]

    def _give(self, partition: Partition, at: int) -> None:
        self._shares[at][partition[0]].append(partition)
        self._kind_of[at].grow(at, 1)

    def _least_loaded(self, topic_id: bytes) -> tuple[int, int]:
        """Return the size of the smallest share of a subscriber, and whose it is."""
        least: tuple[int, int] = min(map(attrgetter("least"), self._kinds[topic_id]))
        return least

    def _nearest(self, partition: Partition) -> int:
        """Return a least loaded member, if there is one in a rack of the partition that one."""
        size, best = self._least_loaded(partition[0])
        racks = self._racks_of(partition)
        if not racks or self._racks[best] in racks:
            return best
        near = (
            at
            for kind in self._kinds[partition[0]]
            for at, other in kind.sizes.items()
            if other == size and self._racks[at] in racks
        )
        return min(near, default=best)

    def _relieve(self, at: int) -> int:
        """Move partitions of a member to members that have at least two fewer; return how many."""
        moved, kind = 0, self._kind_of[at]
        for topic_id, share in self._shares[at].items():
            while share:
                size, other = self._least_loaded(topic_id)
                if kind.sizes[at] < size + 2:
                    break
                self._give(share.pop(), other)
                kind.grow(at, -1)
                moved += 1
        return moved


class Kind:
    """Members with equal subscriptions, and the size of the share of each."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        #: The size of the smallest share, and the first member that has it.
        self.least = (0, 0)
        #: Sizes that were, with their members. What differs from `sizes` counts no more; the first
        #: one counts.
        self._heap: list[tuple[int, int]] = []

    def add(self, at: int) -> None:
        """Add a member without a share. Call it in the order of the members."""
        self.sizes[at] = 0
        self._heap.append((0, at))
        self.least = self._heap[0]

    def grow(self, at: int, by: int) -> None:
        """Note that a share has grown."""
        heap, sizes = self._heap, self.sizes
        sizes[at] += by
        heapq.heappush(heap, (sizes[at], at))
        while sizes[heap[0][1]] != heap[0][0]:
            heapq.heappop(heap)
        self.least = heap[0]
