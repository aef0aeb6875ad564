"""Plans which replicas move so that brokers have equal shares. It asks and moves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from quorate import TopicPartition


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
    """What a broker has: replicas, partitions that it leads if all is well, bytes of its logs."""

    replicas: int
    leaders: int
    size: int


@dataclass(slots=True)
class Plan:
    """The targets of a plan, and what the brokers have before and after it."""

    targets: dict[TopicPartition, list[int]] = field(default_factory=dict)
    #: The replicas from which the plan was made, of each partition in `targets`.
    expected: dict[TopicPartition, tuple[int, ...]] = field(default_factory=dict)
    before: dict[int, Share] = field(default_factory=dict)
    after: dict[int, Share] = field(default_factory=dict)
    #: The bytes that brokers copy, and how many replicas that is.
    moved_bytes: int = 0
    moved_replicas: int = 0


class Planner:
    """Moves replicas, one after another, from brokers with many to brokers with few.

    A move never lowers the number of racks of a partition, nor then that of its hosts. At the end
    the numbers of replicas of two brokers differ by one at most, as far as racks allow. Then the
    preferred leaders are spread by another order of replicas, which copies nothing.
    """

    def __init__(
        self,
        brokers: Iterable[Broker],
        replicas: Mapping[TopicPartition, Sequence[int]],
        sizes: Mapping[TopicPartition, int],
    ) -> None:
        self._brokers = {one.id: one for one in brokers}
        self._first = {key: tuple(ids) for key, ids in replicas.items()}
        self._now = {key: list(ids) for key, ids in replicas.items()}
        self._sizes = sizes
        self._takers = sorted(b.id for b in self._brokers.values() if b.alive and not b.drained)
        self._counts = Counter(dict.fromkeys(self._takers, 0))
        self._on: dict[int, set[TopicPartition]] = {b: set() for b in self._brokers}
        for key, ids in self._now.items():
            for broker_id in ids:
                self._counts[broker_id] += 1
                self._on.setdefault(broker_id, set()).add(key)

    def plan(self) -> Plan:
        """Return the plan. The same cluster gives the same plan."""
        before = self._shares()
        self._empty_drained()
        self._level()
        self._spread_leaders()
        return self._planned(before)

    def _planned(self, before: dict[int, Share]) -> Plan:
        plan = Plan(before=before, after=self._shares())
        for key in sorted(self._now):
            if tuple(self._now[key]) != self._first[key]:
                plan.targets[key] = self._now[key]
                plan.expected[key] = self._first[key]
                added = len(set(self._now[key]) - set(self._first[key]))
                plan.moved_replicas += added
                plan.moved_bytes += added * self._sizes.get(key, 0)
        return plan

    def with_factor(self, topic: str, factor: int) -> Plan:
        """Return a plan that gives each partition of a topic so many replicas.

        Added replicas go to racks and hosts that the partition does not have yet, and to the
        brokers with the fewest. Those that are not alive go first; the preferred leader stays.
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
                f"{key.topic}/{key.partition} has replicas on brokers {ids}, and no other broker is"
                f" alive and not drained: it can't have {factor}"
            )
        chosen = max(free, key=lambda b: (self._spread([*ids, b]), -self._counts[b], -b))
        ids.append(chosen)
        self._counts[chosen] += 1
        self._on[chosen].add(key)

    def _drop(self, key: TopicPartition) -> None:
        ids = self._now[key]

        def worth_keeping(broker_id: int) -> tuple[bool, tuple[int, int], int, int]:
            left = [b for b in ids if b != broker_id]
            # the fewer racks are left without it, the more it is worth
            racks, hosts = self._spread(left)
            is_taker = broker_id in self._takers
            return is_taker, (-racks, -hosts), -self._counts[broker_id], -ids.index(broker_id)

        gone = min(ids[1:], key=worth_keeping)
        ids.remove(gone)
        self._counts[gone] -= 1
        self._on[gone].discard(key)

    def _empty_drained(self) -> None:
        for broker_id in sorted(self._brokers):
            if self._brokers[broker_id].drained:
                for key in sorted(self._on[broker_id]):
                    for taker in self._by_count():
                        if self._may_move(key, broker_id, taker):
                            self._move(key, broker_id, taker)
                            break

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
        ways = [key for key in self._on[giver] if self._may_move(key, giver, taker)]
        if not ways:
            return False
        self._move(min(ways, key=lambda key: (self._sizes.get(key, 0), key)), giver, taker)
        return True

    def _spread_leaders(self) -> None:
        leads = Counter(dict.fromkeys(self._takers, 0))
        leads.update(ids[0] for ids in self._now.values())
        moved = True
        while moved:
            moved = False
            for giver in sorted(leads, key=lambda b: (-leads[b], b)):
                way = self._leader_way(giver, leads)
                if way is not None:
                    key, taker = way
                    ids = self._now[key]
                    place = ids.index(taker)
                    ids[0], ids[place] = ids[place], ids[0]
                    leads[giver] -= 1
                    leads[taker] += 1
                    moved = True
                    break

    def _leader_way(self, giver: int, leads: Counter[int]) -> tuple[TopicPartition, int] | None:
        """Return a partition that `giver` leads, and who may lead it with two leaders fewer."""
        best: tuple[int, TopicPartition, int] | None = None
        for key in self._on.get(giver, ()):
            ids = self._now[key]
            if ids[0] != giver:
                continue
            for taker in ids[1:]:
                if taker in self._takers and leads[giver] - leads[taker] >= 2:
                    found = (leads[taker], key, taker)
                    best = found if best is None else min(best, found)
        return None if best is None else (best[1], best[2])

    def _by_count(self) -> list[int]:
        """Return the brokers that may take replicas, that with the fewest first."""
        return sorted(self._takers, key=lambda b: (self._counts[b], b))

    def _may_move(self, key: TopicPartition, giver: int, taker: int) -> bool:
        ids = self._now[key]
        if taker in ids or giver not in ids:
            return False
        after = [taker if b == giver else b for b in ids]
        return self._spread(after) >= self._spread(ids)

    def _spread(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return the numbers of different racks and of different hosts."""
        known = [self._brokers[b] for b in ids if b in self._brokers]
        return len({b.rack for b in known}), len({(b.rack, b.host) for b in known})

    def _move(self, key: TopicPartition, giver: int, taker: int) -> None:
        ids = self._now[key]
        ids[ids.index(giver)] = taker
        self._counts[giver] -= 1
        self._counts[taker] += 1
        self._on[giver].discard(key)
        self._on[taker].add(key)

    def _shares(self) -> dict[int, Share]:
        leads = Counter(ids[0] for ids in self._now.values())
        sizes: Counter[int] = Counter()
        for key, ids in self._now.items():
            for broker_id in ids:
                sizes[broker_id] += self._sizes.get(key, 0)
        return {
            b: Share(self._counts[b], leads[b], sizes[b])
            for b in sorted({*self._brokers, *self._counts})
        }
