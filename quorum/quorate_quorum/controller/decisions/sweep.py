"""Applies a changed state of a broker to its partitions: ISRs shrink, or other replicas lead.

The event about the broker is first in the log. Then an event follows for each of its partitions, a
few in each turn of the event loop, because one broker may lead ten thousand. The image shows the
work that is left: for example, a fenced broker still leads a partition. A new controller sweeps for
all brokers, so it completes the sweeps of the last controller. A broker that came back is unfenced
only after the sweep for it has ended: before that, its new run could lead in an epoch in which its
former run led.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from quorate_quorum.controller.decisions.free_space import DirectoryChoice, FreeSpace
from quorate_quorum.controller.decisions.partitions import adapted, completed, elect, steps
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, Key, PartitionImage, partition_changed
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev

#: The most partitions that one slice checks, and the most that it changes: a few milliseconds of
#: work.
LOOKED_MAX = 2_000
CHANGED_MAX = 50


def swept(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    broker_id: int,
    choice: DirectoryChoice,
) -> PartitionImage:
    """Return the next state of a partition, given the state of one of its brokers."""
    new = adapted(image, topic, old, broker_id, choice)
    return elect(image, topic, old) if new is old else new


@dataclass(frozen=True, slots=True)
class _Place:
    """The position of the sweep. While it has work, it walks over all partitions, lap after lap."""

    lap: int
    #: The ids of the topics of this lap, in order.
    topics: Sequence[bytes]
    at: int = 0
    partition: int = 0

    @property
    def position(self) -> tuple[int, bytes, int]:
        """The position in a form that can be compared between laps whose topics differ."""
        if self.at == len(self.topics):
            return self.lap + 1, b"", 0
        return self.lap, self.topics[self.at] if self.at or self.partition else b"", self.partition

    @property
    def is_lap_over(self) -> bool:
        return self.at == len(self.topics)


@dataclass(frozen=True, slots=True)
class _Look:
    """The sweep for one broker. It ends one lap after the position at which it began (`since`)."""

    since: tuple[int, bytes, int] | None = None
    has_changed: bool = False

    def is_over(self, position: tuple[int, bytes, int]) -> bool:
        if self.since is None:
            return False
        lap, topic_id, partition = self.since
        return position >= (lap + 1, topic_id, partition)


@dataclass(slots=True)
class Slice:
    """One part of the sweep. It takes effect when `took` reports that it was proposed."""

    #: Chooses the directories of replicas whose directory is gone.
    choice: DirectoryChoice
    events: list[ev.MetadataEvent] = field(default_factory=list)
    #: The partitions that this slice checked and that have no leader.
    leaderless: list[Key] = field(default_factory=list)
    place: _Place | None = None
    looks: dict[int, _Look] = field(default_factory=dict)


class Sweep:
    """The sweep of one reign. Every image passed in is the pending one."""

    def __init__(self, *, looked_max: int = LOOKED_MAX, changed_max: int = CHANGED_MAX) -> None:
        self._looked_max = looked_max
        self._changed_max = changed_max
        self._place: _Place | None = None
        self._looks: dict[int, _Look] = {}

    @property
    def is_busy(self) -> bool:
        """Whether partitions are left to check."""
        return bool(self._looks)

    def is_swept(self, broker_id: int) -> bool:
        """Whether all partitions have been checked since the broker's state last changed."""
        return broker_id not in self._looks

    def begin(self, broker_ids: Iterable[int]) -> None:
        """Sweep for these brokers, beginning at the current position.

        Called when a broker's state has changed, or an earlier controller may not have completed
        the sweep for it.
        """
        for broker_id in broker_ids:
            self._looks[broker_id] = _Look()

    def next(self, image: MetadataImage, free_space: FreeSpace) -> Slice:
        """Return the next slice.

        Until `took` is called, each call returns the same slice, computed for the given image. Only
        the directories of replicas whose directory is gone may be others.
        """
        place = self._place or _lap(image, 0)
        if any(look.since is None for look in self._looks.values()):
            place = _renewed(image, place)
        part = Slice(DirectoryChoice(image, free_space), place=place, looks=dict(self._looks))
        assert part.place is not None
        for broker_id, look in self._looks.items():
            if look.since is None:
                part.looks[broker_id] = replace(look, since=part.place.position)
        left = self._looked_max
        while left > 0 and len(part.events) < self._changed_max:
            place = part.place
            if all(look.is_over(place.position) for look in part.looks.values()):
                break
            if place.is_lap_over:
                part.place = _lap(image, place.lap + 1)
                if part.events:
                    break  # `image` lacks these changes, and the next lap would change them again
                left -= 1
                continue
            left -= 1 + self._look_at(image, part, place, left)
        return part

    def took(self, part: Slice) -> dict[int, bool]:
        """Take over a slice that was proposed.

        Return the brokers whose sweep the slice ends, each with True if a partition has changed.
        """
        assert part.place is not None
        done = {b: k.has_changed for b, k in part.looks.items() if k.is_over(part.place.position)}
        self._looks = {b: look for b, look in part.looks.items() if b not in done}
        self._place = part.place if self._looks else None
        return done

    def _look_at(self, image: MetadataImage, part: Slice, place: _Place, most: int) -> int:
        """Check partitions of one topic, and move the place on. Return how many were checked."""
        topic = image.seen_or_forming(place.topics[place.at])
        index = place.partition
        end = 0 if topic is None else min(len(topic.partitions), index + most)
        while topic is not None and index < end and len(part.events) < self._changed_max:
            state = topic.partitions[index]
            for broker_id in state.broker_ids:
                if broker_id in part.looks:
                    state = _changed(image, topic, index, state, broker_id, part)
            # An election may have given the lead to the only target of a reassignment.
            ended = completed(image, topic, state)
            part.events.extend(steps(topic.id, index, [state, ended]))
            state = ended
            if state.leader == NO_LEADER:
                part.leaderless.append((topic.id, index))
            index += 1
        is_whole = topic is None or index >= len(topic.partitions)
        part.place = (
            replace(place, at=place.at + 1, partition=0)
            if is_whole
            else replace(place, partition=index)
        )
        return index - place.partition


def _changed(
    image: MetadataImage,
    topic: TopicImage,
    index: int,
    old: PartitionImage,
    broker_id: int,
    part: Slice,
) -> PartitionImage:
    new = swept(image, topic, old, broker_id, part.choice)
    if new is not old:
        part.events.append(partition_changed(topic.id, index, old, new))
        part.looks[broker_id] = replace(part.looks[broker_id], has_changed=True)
    return new


def _lap(image: MetadataImage, number: int) -> _Place:
    return _Place(number, sorted([*image.topics, *image.forming]))


def _renewed(image: MetadataImage, place: _Place) -> _Place:
    """Return the same position in a lap over the topics of `image`.

    A topic that was created during the lap may have replicas on a broker whose state has changed
    since then, so the lap must visit that topic.
    """
    if place.is_lap_over:
        return place
    now, current = _lap(image, place.lap), place.topics[place.at]
    at = bisect_left(now.topics, current)
    is_there = at < len(now.topics) and now.topics[at] == current
    return replace(now, at=at, partition=place.partition if is_there else 0)
