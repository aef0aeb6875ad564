"""Places replicas: first on different racks, then on different hosts, along a ring of brokers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: How many partitions of a topic are compared, to find out how it was placed.
PARTITIONS_COMPARED = 8


@dataclass(frozen=True, slots=True)
class Place:
    """The fields of a broker that placement needs. All brokers without a rack share one rack."""

    broker_id: int
    rack: str
    host: str


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
    places: Sequence[Place], partitions: int, replication_factor: int, start: int, shift: int
) -> list[list[int]]:
    """Return the brokers of each partition, the preferred leader first.

    The leader of partition i is at position start + i of the ring. Its followers are chosen
    clockwise, beginning 1 + `shift` positions after the leader. Asserts
    1 <= replication_factor <= number of brokers.
    """
    circle = ring(places)
    assert 1 <= replication_factor <= len(circle), "no more replicas than brokers"
    # Take the shift modulo the number of other brokers. Otherwise a follower could get the leader's
    # own position.
    skip = 1 + shift % max(1, len(circle) - 1)
    # Choose the followers once for each position of a leader: they depend on nothing else.
    assignments = []
    for position in range(min(len(circle), start % len(circle) + partitions)):
        chosen = fill([circle[position]], circle, position + skip, replication_factor)
        assignments.append([broker.broker_id for broker in chosen])
    return [list(assignments[(start + index) % len(circle)]) for index in range(partitions)]


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
    position = next((i for i, one in enumerate(circle) if one.broker_id == last[0]), None)
    if position is None:
        return None
    # With one replica, and with racks, several shifts give the same brokers. The partitions before
    # the last one tell which shift it was.
    shifts = range(max(1, len(circle) - 1) if len(last) > 1 else 1)
    matching = {shift: _matches(circle, position, shift, placed) for shift in shifts}
    best = max(matching, key=lambda shift: matching[shift])
    return (position + 1, best) if matching[best] else None


def _matches(
    circle: Sequence[Place], position: int, shift: int, placed: Sequence[Sequence[int]]
) -> int:
    """Return how many partitions, from the last one backwards, lie as this shift places them."""
    for back, ids in enumerate(placed[: -PARTITIONS_COMPARED - 1 : -1]):
        at = (position - back) % len(circle)
        chosen = fill([circle[at]], circle, at + 1 + shift, len(ids))
        if [one.broker_id for one in chosen] != list(ids):
            return back
    return min(len(placed), PARTITIONS_COMPARED)


def fill(
    chosen: Sequence[Place], circle: Sequence[Place], position: int, count: int
) -> list[Place]:
    """Return `chosen` and further brokers, up to `count`, searched clockwise from `position`.

    The next broker is one on an unused rack; if there is none, on an unused host; if there is none,
    any unused broker.
    """
    found = list(chosen)
    clockwise = [circle[(position + step) % len(circle)] for step in range(len(circle))]
    while len(found) < count:
        candidate = _next(found, clockwise)
        if candidate is None:
            break
        found.append(candidate)
    return found


def _next(found: Sequence[Place], clockwise: Sequence[Place]) -> Place | None:
    ids = {place.broker_id for place in found}
    racks = {place.rack for place in found}
    hosts = {place.host for place in found}
    unused = [place for place in clockwise if place.broker_id not in ids]
    for place in unused:
        if place.rack not in racks:
            return place
    for place in unused:
        if place.host not in hosts:
            return place
    return unused[0] if unused else None
