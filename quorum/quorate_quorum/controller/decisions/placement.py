"""Places replicas: first on different racks, then on different hosts, along a ring of brokers.

The ring alone gives brokers unequal shares where racks have different numbers of brokers. So a
broker is passed over while it has many more replicas than another one that would do as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: How many partitions of a topic are compared, to find out how it was placed.
PARTITIONS_COMPARED = 8
_NONE: Final[Mapping[int, int]] = Counter()


@dataclass(frozen=True, slots=True)
class Place:
    """The fields of a broker that placement needs. All brokers without a rack share one rack.

    A host is known by its rack and its name.
    """

    broker_id: int
    rack: str
    host: str


def spread(places: Iterable[Place]) -> tuple[int, int, int]:
    """Return how well replicas are kept apart: the larger, the better.

    First the number of racks, then that of hosts, then how evenly the racks share the replicas.

    >>> a, b, c, d = (Place(i, "R1" if i < 3 else "R2", "") for i in range(4))
    >>> spread([a, d]) > spread([a, b])
    True
    """
    racks: Counter[str] = Counter()
    hosts = set()
    for place in places:
        racks[place.rack] += 1
        hosts.add((place.rack, place.host))
    return len(racks), len(hosts), -sum(count * count for count in racks.values())


def ring(places: Sequence[Place]) -> list[Place]:
    """Return the brokers in a ring that alternates racks: the first of each rack, the second ...

    >>> [p.broker_id for p in ring([Place(i, "R1" if i < 3 else "R2", "") for i in range(6)])]
    [0, 3, 1, 4, 2, 5]
    """
    racks: dict[str, list[Place]] = {}
    for place in sorted(places, key=lambda place: (place.rack, place.broker_id)):
        racks.setdefault(place.rack, []).append(place)
    longest = max(map(len, racks.values()), default=0)
    return [rack[turn] for turn in range(longest) for rack in racks.values() if turn < len(rack)]


def place(
    places: Sequence[Place],
    partitions: int,
    replication_factor: int,
    start: int,
    shift: int,
    placed: Iterable[Sequence[int]] = (),
) -> list[list[int]]:
    """Return the brokers of each new partition of a topic, the preferred leader first.

    `placed`: the brokers of the partitions that the topic has already. The leader of partition i is
    at position start + i of the ring, or is the next one that leads fewer partitions of the topic.
    Its followers are chosen clockwise, beginning 1 + `shift` positions after the leader. A broker
    gets no further replica while it has `replication_factor` more of the topic than another one
    that would do as well. Asserts 1 <= replication_factor <= number of brokers.
    """
    circle = ring(places)
    assert 1 <= replication_factor <= len(circle), "no more replicas than brokers"
    topic = _Topic(circle, replication_factor, placed)
    position = start % len(circle)
    assignments = []
    for _ in range(partitions):
        fewest = min(topic.leads.values())
        while topic.leads[circle[position].broker_id] > fewest:
            position = (position + 1) % len(circle)
        assignments.append(topic.brokers_of_next(position, shift))
        topic.count(assignments[-1])
        position = (position + 1) % len(circle)
    return assignments


def next_position(
    places: Sequence[Place], placed: Sequence[Sequence[int]]
) -> tuple[int, int] | None:
    """Return the start and shift with which `place` goes on behind a topic's partitions.

    `placed`: the brokers of each partition; the last few of them count. Returns None if no start
    and shift gives the last one, because brokers have come or gone, or it was moved.

    >>> places = [Place(i, "", "") for i in range(4)]
    >>> next_position(places, place(places, 2, 3, start=2, shift=1))
    (4, 1)
    >>> next_position(places, [[9, 1]])
    """
    circle = ring(places)
    last = placed[-1]
    positions = {one.broker_id: position for position, one in enumerate(circle)}
    if last[0] not in positions or len(last) > len(circle):
        return None
    # With one replica, and with racks, several shifts give the same brokers. The partitions before
    # the last one tell which shift it was.
    shifts = list(range(max(1, len(circle) - 1) if len(last) > 1 else 1))
    matching = dict.fromkeys(shifts, 0)
    topic = _Topic(circle, len(last), placed)
    for ids in placed[: -PARTITIONS_COMPARED - 1 : -1]:
        topic.count(ids, by=-1)
        position = positions.get(ids[0])
        if position is None or len(ids) != len(last):
            break
        shifts = [one for one in shifts if topic.brokers_of_next(position, one) == list(ids)]
        if not shifts:
            break
        for shift in shifts:
            matching[shift] += 1
    best = max(matching, key=lambda shift: matching[shift])
    return (positions[last[0]] + 1, best) if matching[best] else None


class _Topic:
    """The partitions of a topic that are placed, and the choice of brokers for the next one."""

    def __init__(
        self, circle: Sequence[Place], replication_factor: int, placed: Iterable[Sequence[int]]
    ) -> None:
        self._circle = circle
        self._factor = replication_factor
        #: By broker: the replicas that it has, and the partitions of which it is the preferred
        #: leader.
        self.replicas = Counter({one.broker_id: 0 for one in circle})
        self.leads = self.replicas.copy()
        #: The brokers next to each other on the ring, by position of the leader and shift.
        self._on_ring: dict[tuple[int, int], list[int]] = {}
        for ids in placed:
            self.count(ids)

    def count(self, ids: Sequence[int], by: int = 1) -> None:
        """Count a partition in; with `by` -1, out again."""
        for broker_id in ids:
            if broker_id in self.replicas:
                self.replicas[broker_id] += by
        if ids[0] in self.leads:
            self.leads[ids[0]] += by

    def brokers_of_next(self, position: int, shift: int) -> list[int]:
        """Return the brokers of the next partition, if the one at this position leads it."""
        # Take the shift modulo the number of other brokers. Otherwise a follower could get the
        # leader's own position.
        begin = position + 1 + shift % max(1, len(self._circle) - 1)
        leader = [self._circle[position]]
        # The next brokers on the ring depend on nothing else. Most of the time they will do.
        if (position, shift) not in self._on_ring:
            found = fill(leader, self._circle, begin, self._factor)
            self._on_ring[position, shift] = [one.broker_id for one in found]
        ids = self._on_ring[position, shift]
        # If all racks are equal, the ring gives a broker so many more for a while.
        slack = self._factor - 1
        most = min(self.replicas.values()) + slack
        if any(self.replicas[one] > most for one in ids[1:]):
            found = fill(leader, self._circle, begin, self._factor, self.replicas, slack)
            while self._hands_one_on(found, slack):
                pass
            return [one.broker_id for one in found]
        return list(ids)

    def _hands_one_on(self, found: list[Place], slack: int) -> bool:
        """Let another broker follow if it has more than `slack` replicas fewer; return if one does.

        `fill` chooses one broker after the other. With more replicas than racks it may put a later
        replica on a rack that could have done without an earlier one. The partition stays as far
        apart as it is.
        """
        now, ids = spread(found), {one.broker_id for one in found}
        for index, giver in enumerate(found[1:], start=1):
            least = self.replicas[giver.broker_id] - slack
            for taker in self._circle:
                if self.replicas[taker.broker_id] >= least or taker.broker_id in ids:
                    continue
                if spread([*found[:index], taker, *found[index + 1 :]]) >= now:
                    found[index] = taker
                    return True
        return False


def fill(
    chosen: Sequence[Place],
    circle: Sequence[Place],
    position: int,
    count: int,
    replicas: Mapping[int, int] = _NONE,
    slack: int = 0,
) -> list[Place]:
    """Return `chosen` and further brokers, up to `count`, searched clockwise from `position`.

    The next broker is one on an unused rack; if there is none, on an unused host; if there is none,
    any unused broker. Among these, the racks with the fewest of the replicas come first.
    `replicas`: how many replicas a broker has. It is passed over if it has more than `slack` more
    than another one that would do as well.
    """
    found = list(chosen)
    clockwise = [circle[(position + step) % len(circle)] for step in range(len(circle))]
    while len(found) < count:
        candidate = _next(found, clockwise, replicas, slack)
        if candidate is None:
            break
        found.append(candidate)
    return found


def _next(
    found: Sequence[Place], clockwise: Sequence[Place], replicas: Mapping[int, int], slack: int
) -> Place | None:
    ids = {place.broker_id for place in found}
    racks = Counter(place.rack for place in found)
    hosts = {(place.rack, place.host) for place in found}
    best: tuple[bool, bool, int] | None = None
    equal: list[Place] = []
    for place in clockwise:
        if place.broker_id in ids:
            continue
        used = racks[place.rack]
        cost = used > 0, (place.rack, place.host) in hosts, used
        if best is None or cost < best:
            best, equal = cost, []
        if cost == best:
            equal.append(place)
    if not equal:
        return None
    most = slack + min(replicas[place.broker_id] for place in equal)
    return next(place for place in equal if replicas[place.broker_id] <= most)
