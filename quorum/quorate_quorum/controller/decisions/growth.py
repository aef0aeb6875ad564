"""Gives a topic more partitions, a bounded number of events in each turn of the event loop.

Unlike a topic that is created, a growing topic is in use, so each new partition is visible at once.
If a controller stops in between, the topic keeps the partitions that it has got. The caller learns
that the outcome is unknown, and asks again: the next controller adds the ones that are missing.
"""

from __future__ import annotations

from quorate.errors import (
    InvalidPartitionsError,
    InvalidRequestError,
    NotEnoughReplicasError,
    PolicyViolationError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import PARTITIONS_MAX
from quorate_quorum.controller.decisions.new_partitions import (
    EVENTS_MAX,
    NewPartitions,
    check_assignments,
)
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.placement import Place, next_position, place
from quorate_quorum.controller.decisions.topics import places_of, too_few
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev


class Growth:
    """One CreatePartitions request. It names the number of partitions that the topic shall have.

    A request is safe to repeat if it says how many partitions the caller knew before
    (`known_count`). If the topic has reached the wanted number since, the request has been carried
    out. Without a known number, or if it is the wanted number itself, that is an error.
    """

    def __init__(
        self, request: admin.CreatePartitionsRequest, *, events_max: int = EVENTS_MAX
    ) -> None:
        #: The answer. It is complete when the response of `next` is True.
        self.response = admin.CreatePartitionsResponse()
        self._request = request
        self._events_max = events_max
        #: The topic that the first turn has found; None before the first turn.
        self._topic_id: bytes | None = None
        #: The number of the partition to which the first of the given assignments belongs.
        self._assigned_from = request.known_count
        #: The brokers of the partitions from this one on, as long as these are the live brokers.
        self._places: list[Place] = []
        self._planned_from = 0
        self._planned: list[list[int]] = []

    def fits_in_a_turn(self, image: MetadataImage) -> bool:
        """Return whether the first call of `next` decides the whole request."""
        topic = image.topic_named(self._request.topic)
        if topic is None or self._request.validate_only:
            return True
        missing = self._request.count - len(topic.partitions)
        return missing <= self._events_max or self._request.count > PARTITIONS_MAX

    def next(self, image: MetadataImage, context: Context) -> Outcome[bool]:
        """Decide the next part of the request. Response: whether it was the last part.

        The caller proposes the events. If it can't, it must not call `next` again.
        """
        try:
            topic = self._topic(image)
            events = self._events(image, context, topic)
        except QuorateError as error:
            self.response.error.CopyFrom(to_wire(error))
            return Outcome((), True)
        count = len(topic.partitions) + len(events)
        self.response.topic_id = topic.id
        self.response.num_partitions = self._request.count
        if self._request.validate_only:
            return Outcome((), True)
        return Outcome(tuple(events), count >= self._request.count)

    def _topic(self, image: MetadataImage) -> TopicImage:
        """Return the topic. Raise an error if it is gone or, in the first turn, can't grow."""
        name = self._request.topic
        if self._topic_id is not None:
            topic = image.topics.get(self._topic_id)
            if topic is None:
                raise UnknownTopicError(f"topic {name!r} was deleted while it grew")
            return topic
        topic = image.topic_named(name)
        if topic is None:
            raise UnknownTopicError(f"no topic {name!r}")
        if topic.is_internal:
            raise PolicyViolationError(
                f"topic {name!r} is Quorate's own: its number of partitions,"
                f" {len(topic.partitions)}, is fixed, and can't become {self._request.count}"
            )
        self._check_count(topic)
        if not self._request.known_count:
            self._assigned_from = len(topic.partitions)
        self._check_assignments(image, topic)
        self._topic_id = topic.id
        return topic

    def _check_count(self, topic: TopicImage) -> None:
        name, now, count = topic.name, len(topic.partitions), self._request.count
        known = self._request.known_count
        if not 0 <= known <= now:
            raise InvalidRequestError(
                f"topic {name!r} has {now} partitions, and known_count is {known}; it must be 0 to"
                f" {now}: look again how many there are"
            )
        is_repeated = count == now and 0 < known < count
        if not now < count <= PARTITIONS_MAX and not is_repeated:
            allowed = (
                f"ask for {now + 1} to {PARTITIONS_MAX}"
                if now < PARTITIONS_MAX
                else "a topic can't have more"
            )
            raise InvalidPartitionsError(
                f"topic {name!r} has {now} partitions, and {count} were asked for: the number can"
                f" only grow; {allowed}"
            )

    def _check_assignments(self, image: MetadataImage, topic: TopicImage) -> None:
        given = [list(one.replicas) for one in self._request.assignments]
        if not given:
            return
        new = self._request.count - self._assigned_from
        if len(given) != new:
            raise InvalidPartitionsError(
                f"topic {topic.name!r} has {self._assigned_from} partitions, and"
                f" {self._request.count} were asked for: that is {new} more, but {len(given)} are"
                " assigned"
            )
        check_assignments(image, given, _factor(topic), self._assigned_from)

    def _events(
        self, image: MetadataImage, context: Context, topic: TopicImage
    ) -> list[ev.MetadataEvent]:
        first = len(topic.partitions)
        count = min(self._request.count - first, self._events_max)
        if count <= 0:
            return []  # others have given the topic these partitions meanwhile
        if self._request.assignments:
            given = self._request.assignments[first - self._assigned_from :]
            assignments = [list(one.replicas) for one in given[:count]]
        else:
            assignments = self._placed(image, topic, count)
        partitions = NewPartitions(image, context, Cause(ev.CAUSE_KIND_TOPIC_GROWN))
        return [
            partitions.event(topic.id, index, assignment)
            for index, assignment in enumerate(assignments, first)
        ]

    def _placed(self, image: MetadataImage, topic: TopicImage, count: int) -> list[list[int]]:
        """Return the brokers of the next partitions: the placement of the topic goes on."""
        factor, places = _factor(topic), places_of(image)
        if factor > len(places):
            raise NotEnoughReplicasError(
                f"topic {topic.name!r} has {len(topic.partitions)} partitions; each further one"
                f" needs {factor} live brokers, and {too_few(image)}"
            )
        first = len(topic.partitions)
        if self._planned_from + len(self._planned) < self._request.count or self._places != places:
            placed = [partition.broker_ids for partition in topic.partitions]
            position = next_position(places, placed) or (
                image.partitions_created,
                image.topics_created,
            )
            missing = self._request.count - first
            self._places, self._planned_from = places, first
            self._planned = place(places, missing, factor, *position, placed)
        planned = self._planned[first - self._planned_from :]
        return planned[:count]


def _factor(topic: TopicImage) -> int:
    """Return how many replicas each partition of the topic shall have."""
    partition = topic.partitions[0]
    return len(partition.replicas) - len(partition.removing)
