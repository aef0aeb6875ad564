"""Plans which replicas move so that brokers have equal shares. It asks and moves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import pairwise

from quorate import TopicPartition
from quorate_quorum.controller.decisions.placement import Place, spread


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker. One that is drained shall keep nothing, one that is not alive gets nothing."""

    id: int
    rack: str = ""
    host: str = ""
    drained: bool = False
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """What a broker has: replicas, partitions of which it is the preferred leader, bytes of logs.

    `size` is None if that of a partition is not known: no broker with its replica answers.
    """

    replicas: int
    preferred_leaders: int
    size: int | None


@dataclass(slots=True)
class Plan:
    """The targets of a plan, and what the brokers have before and after it."""

    targets: dict[TopicPartition, list[int]] = field(default_factory=dict)
    #: The replicas from which the plan was made, of each partition in `targets`.
    expected: dict[TopicPartition, tuple[int, ...]] = field(default_factory=dict)
    #: The brokers that may get replicas.
    takers: list[int] = field(default_factory=list)
    before: dict[int, Share] = field(default_factory=dict)
    after: dict[int, Share] = field(default_factory=dict)
    #: The bytes that brokers copy as far as known, how many replicas that is, and of how many of
    #: them the size is not known.
    moved_bytes: int = 0
    moved_replicas: int = 0
    moved_of_unknown_size: int = 0
    #: The replicas that stay on drained brokers, because no other broker can take them.
    kept: int = 0


def skew(
    brokers: Iterable[int], shares: Mapping[int, Share], name: str
) -> tuple[int | None, int | None]:
    """Return what the broker with the fewest and the one with the most have, of one field.

    >>> skew([1, 2], {1: Share(4, 0, 0), 2: Share(9, 3, None)}, "replicas")
    (4, 9)
    >>> skew([1, 2], {1: Share(4, 0, 0), 2: Share(9, 3, None)}, "size")
    (None, None)
    """
    values = [getattr(shares[b], name) for b in brokers if b in shares]
    if None in values:
        return None, None
    return min(values, default=0), max(values, default=0)


def together(shares: Iterable[Share]) -> Share:
    """Return the sum of shares."""
    every = list(shares)
    return Share(
        sum(one.replicas for one in every),
        sum(one.preferred_leaders for one in every),
        _sum(one.size for one in every),
    )


def _sum(sizes: Iterable[int | None]) -> int | None:
    """Return the sum of sizes; None if one of them is not known."""
    every = list(sizes)
    known = [one for one in every if one is not None]
    return sum(known) if len(known) == len(every) else None


class Planner:
    """Moves replicas, one after another, from brokers with many to brokers with few.

    First drained brokers are emptied, each replica to where it is as far apart from the others as
    can be. Then a partition gets more racks and hosts if it can have them. No later move lowers
    these numbers, nor how evenly its racks share its replicas. At the end the numbers of replicas
    of two brokers differ by one at most, as far as racks and hosts allow. Then the preferred
    leaders are spread by another order of replicas, which copies nothing. `in_sync`: the replicas
    that surely have all records; without it all do. `offline`: those that can't serve, because
    their broker or their log directory is away.

    A plan costs little more than twice as much for twice as many partitions: no step looks at all.
    """

    def __init__(
        self,
        brokers: Iterable[Broker],
        replicas: Mapping[TopicPartition, Sequence[int]],
        sizes: Mapping[TopicPartition, int],
        in_sync: Mapping[TopicPartition, Collection[int]] | None = None,
        offline: Mapping[TopicPartition, Collection[int]] | None = None,
    ) -> None:
        self._brokers = {one.id: one for one in brokers}
        self._first = {key: tuple(ids) for key, ids in replicas.items()}
        self._now = {key: list(ids) for key, ids in replicas.items()}
        self._sizes = sizes
        self._in_sync = replicas if in_sync is None else in_sync
        self._offline = offline or {}
        self._places = {b.id: Place(b.id, b.rack, b.host) for b in self._brokers.values()}
        self._takers = sorted(b.id for b in self._brokers.values() if b.alive and not b.drained)
        self._counts = Counter(dict.fromkeys(self._takers, 0))
        self._on: dict[int, set[TopicPartition]] = {b: set() for b in self._brokers}
        for key, ids in self._now.items():
            for broker_id in ids:
                self._counts[broker_id] += 1
                self._on.setdefault(broker_id, set()).add(key)
        #: By giver and taker: a heap of what may move, with what may not move any more.
        self._ways: dict[tuple[int, int], list[tuple[int, TopicPartition]]] = {}
        #: By number of replicas: a bound that no spread of so many exceeds.
        self._spread_max: dict[int, tuple[int, int, int]] = {}

    def plan(self) -> Plan:
        """Return the plan. The same cluster gives the same plan."""
        before = self._shares()
        self._empty_drained()
        self._move_apart()
        self._level()
        while self._move_apart():  # a move for equal shares may have opened a way
            self._level()
        leads = Counter(dict.fromkeys(self._takers, 0))
        leads.update(ids[0] for ids in self._now.values())
        _Leaders(self._now, leads, self._takers).level()
        return self._planned(before)

    def _planned(self, before: dict[int, Share]) -> Plan:
        drained = [b.id for b in self._brokers.values() if b.drained]
        kept = sum(len(self._on[b]) for b in drained)
        plan = Plan(takers=self._takers, before=before, after=self._shares(), kept=kept)
        for key in sorted(self._now):
            if tuple(self._now[key]) != self._first[key]:
                plan.targets[key] = self._now[key]
                plan.expected[key] = self._first[key]
                added = len(set(self._now[key]) - set(self._first[key]))
                plan.moved_replicas += added
                plan.moved_bytes += added * self._sizes.get(key, 0)
                plan.moved_of_unknown_size += 0 if key in self._sizes else added
        return plan

    def with_factor(self, topic: str, factor: int) -> Plan:
        """Return a plan that gives each partition of a topic so many replicas.

        Added replicas go to racks and hosts that the partition does not have yet, and to the
        brokers with the fewest. Replicas that are offline or on drained brokers go first, then
        those without which the partition is as far apart. The preferred leader stays if it is in
        sync and alive; in any case one replica in sync stays.
        Raises ValueError if fewer brokers may take replicas.
        """
        before = self._shares()
        for key in sorted(self._now):
            if key.topic == topic:
                while len(self._now[key]) > factor:
                    self._drop(key)
                while len(self._now[key]) < factor:
                    self._add(key, factor)
        return self._planned(before)

    def _add(self, key: TopicPartition, factor: int) -> None:
        ids = self._now[key]
        free = [b for b in self._by_count() if b not in ids]
        if not free:
            raise ValueError(
                f"{key.topic}/{key.partition} has replicas on brokers {list(self._first[key])}, and"
                f" brokers {self._takers} are alive and not drained: it can't have {factor}"
            )
        chosen = max(free, key=lambda b: (self._spread([*ids, b]), -self._counts[b], -b))
        ids.append(chosen)
        self._counts[chosen] += 1
        self._on[chosen].add(key)

    def _drop(self, key: TopicPartition) -> None:
        ids, in_sync = self._now[key], self._in_sync.get(key, ())
        serving = [b for b in self._takers if b not in self._offline.get(key, ())]
        # The last replica that is in sync stays: the others may lack acknowledged records.
        may_go = [b for b in ids if any(other in in_sync for other in ids if other != b)]

        def worth_keeping(broker_id: int) -> tuple[object, ...]:
            # the fewer racks are left without it, the more it is worth
            racks, hosts, evenness = self._spread([b for b in ids if b != broker_id])
            place, is_in_sync = ids.index(broker_id), broker_id in in_sync
            costs = (-racks, -hosts, -evenness)
            is_preferred = place == 0 and is_in_sync
            order = (is_in_sync, -self._counts[broker_id], -place)
            return (broker_id in serving, is_preferred, costs, *order)

        gone = min(may_go or ids[1:], key=worth_keeping)
        ids.remove(gone)
        self._counts[gone] -= 1
        self._on[gone].discard(key)

    def _move_apart(self) -> bool:
        """Move replicas to racks and hosts that their partitions lack. Return whether any moved."""
        moved = False
        for key in sorted(self._now):
            while (way := self._way_apart(key)) is not None:
                self._move(key, *way)
                moved = True
        return moved

    def _way_apart(self, key: TopicPartition) -> tuple[int, int] | None:
        """Return the broker that gives a replica and the one that takes it, so that it is apart."""
        ids = self._now[key]
        now = best = self._spread(ids)
        if now[0] == len(ids) or now >= self._most_apart(len(ids)):
            return None
        takers = [b for b in self._by_count() if b not in ids]
        found: tuple[int, int] | None = None
        for giver in sorted(ids, key=lambda b: (-self._counts[b], b)):
            for taker in takers:
                after = self._spread([taker if b == giver else b for b in ids])
                if after > best:
                    best, found = after, (giver, taker)
        return found

    def _most_apart(self, count: int) -> tuple[int, int, int]:
        """Return a bound of the spread of so many replicas on the brokers that there are."""
        if count not in self._spread_max:
            racks = len({one.rack for one in self._places.values()})
            hosts = len({(one.rack, one.host) for one in self._places.values()})
            each, more = divmod(count, max(1, racks))
            evenness = -(more * (each + 1) ** 2 + (racks - more) * each**2)
            self._spread_max[count] = min(count, racks), min(count, hosts), evenness
        return self._spread_max[count]

    def _empty_drained(self) -> None:
        for broker_id in sorted(self._brokers):
            if self._brokers[broker_id].drained:
                for key in sorted(self._on[broker_id]):
                    taker = self._taker_for(key, broker_id)
                    if taker is not None:
                        self._move(key, broker_id, taker)

    def _taker_for(self, key: TopicPartition, giver: int) -> int | None:
        """Return the broker on which a replica is farthest apart; of several that with the fewest.

        The drained broker may have been the last of its rack: its replica goes to another one.
        """
        ids = self._now[key]
        takers = [b for b in self._by_count() if b not in ids]
        others = [b for b in ids if b != giver]
        return max(takers, key=lambda taker: self._spread([*others, taker]), default=None)

    def _level(self) -> None:
        moved = True
        while moved:
            moved = False
            order = self._by_count()
            for giver in reversed(order):
                if any(self._take_from(giver, taker) for taker in order):
                    moved = True
                    break

    def _take_from(self, giver: int, taker: int) -> bool:
        """Move the smallest replica that may go from one to another. False: there is none."""
        if self._counts[giver] - self._counts[taker] < 2:
            return False
        ways = self._ways_between(giver, taker)
        while ways:
            _, key = heappop(ways)
            if self._may_move(key, giver, taker):
                self._move(key, giver, taker)
                return True
        return False

    def _ways_between(self, giver: int, taker: int) -> list[tuple[int, TopicPartition]]:
        """Return the heap of the replicas that may go from one broker to another, by size.

        It is made once. A move changes what may go for its partition alone (`_move`).
        """
        ways = self._ways.get((giver, taker))
        if ways is None:
            on = (key for key in self._on[giver] if self._may_move(key, giver, taker))
            ways = self._ways[giver, taker] = [self._way(key) for key in on]
            heapify(ways)
        return ways

    def _way(self, key: TopicPartition) -> tuple[int, TopicPartition]:
        return self._sizes.get(key, 0), key

    def _by_count(self) -> list[int]:
        """Return the brokers that may take replicas, that with the fewest first."""
        return sorted(self._takers, key=lambda b: (self._counts[b], b))

    def _may_move(self, key: TopicPartition, giver: int, taker: int) -> bool:
        ids = self._now[key]
        if taker in ids or giver not in ids:
            return False
        after = [taker if b == giver else b for b in ids]
        return self._spread(after) >= self._spread(ids)

    def _spread(self, ids: Sequence[int]) -> tuple[int, int, int]:
        return spread(self._places[b] for b in ids if b in self._places)

    def _move(self, key: TopicPartition, giver: int, taker: int) -> None:
        ids = self._now[key]
        ids[ids.index(giver)] = taker
        self._counts[giver] -= 1
        self._counts[taker] += 1
        self._on[giver].discard(key)
        self._on[taker].add(key)
        for one in ids:
            for other in self._takers:
                ways = self._ways.get((one, other))
                if ways is not None and self._may_move(key, one, other):
                    heappush(ways, self._way(key))

    def _shares(self) -> dict[int, Share]:
        leads = Counter(ids[0] for ids in self._now.values())
        sizes: dict[int, list[int | None]] = {}
        for key, ids in self._now.items():
            for broker_id in ids:
                sizes.setdefault(broker_id, []).append(self._sizes.get(key))
        return {
            b: Share(self._counts[b], leads[b], _sum(sizes.get(b, ())))
            for b in sorted({*self._brokers, *self._counts})
        }


class _Leaders:
    """Spreads the preferred leaders by the order of replicas.

    A leadership may go on a way over several brokers: A gives one to B, and B another one to C. So
    at the end, of two brokers between which there is a way, none leads two partitions more.
    """

    def __init__(
        self,
        replicas: dict[TopicPartition, list[int]],
        leads: Counter[int],
        takers: Collection[int],
    ) -> None:
        self._replicas = replicas
        self._leads = leads
        self._takers = set(takers)
        #: By leader and follower: the partitions whose leadership may go from one to the other, and
        #: a heap of them, in which are also some that went.
        self._ways: dict[int, dict[int, set[TopicPartition]]] = {}
        self._heaps: dict[tuple[int, int], list[TopicPartition]] = {}
        for key in sorted(replicas):
            self._enter(key)

    def level(self) -> None:
        """Change the order of replicas until no way makes the shares more equal."""
        while (way := self._best_way()) is not None:
            for giver, taker in pairwise(way):
                self._hand_over(self._first(giver, taker), taker)

    def _first(self, giver: int, taker: int) -> TopicPartition:
        heap, ways = self._heaps[giver, taker], self._ways[giver][taker]
        while heap[0] not in ways:
            heappop(heap)
        return heap[0]

    def _best_way(self) -> list[int] | None:
        for giver in sorted(self._leads, key=lambda b: (-self._leads[b], b)):
            before: dict[int, int | None] = {giver: None}
            queue = [giver]
            for broker_id in queue:
                for taker in sorted(self._ways.get(broker_id, ())):
                    if taker not in before:
                        before[taker] = broker_id
                        queue.append(taker)
            last = min(queue, key=lambda b: self._leads[b])
            if self._leads[giver] - self._leads[last] >= 2:
                way = [last]
                while (previous := before[way[-1]]) is not None:
                    way.append(previous)
                return way[::-1]
        return None

    def _enter(self, key: TopicPartition) -> None:
        leader, *followers = self._replicas[key]
        for follower in self._takers.intersection(followers):
            self._ways.setdefault(leader, {}).setdefault(follower, set()).add(key)
            heappush(self._heaps.setdefault((leader, follower), []), key)

    def _hand_over(self, key: TopicPartition, taker: int) -> None:
        ids = self._replicas[key]
        giver, place = ids[0], ids.index(taker)
        for follower, keys in list(self._ways[giver].items()):
            keys.discard(key)
            if not keys:
                del self._ways[giver][follower]
        ids[0], ids[place] = taker, giver
        self._leads[giver] -= 1
        self._leads[taker] += 1
        self._enter(key)
