"""Creates topics, a bounded number of events in each turn of the event loop.

Each topic of a request has its own result, so a request may be split between topics. A topic with
more events than one turn allows is split, too. Its Topic event says how many Partition events
follow, and the topic is hidden (forming) until the last of them. If a controller stops in between,
the next one removes the forming topic. The caller got an OutcomeUnknownError, and asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quorate.errors import (
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    NotEnoughReplicasError,
    OverloadedError,
    QuorateError,
    TopicExistsError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import (
    PARTITIONS_MAX,
    ClusterConfig,
    check_config,
    fixed_at_creation,
    min_isr_warnings,
)
from quorate_quorum.controller.decisions.new_partitions import (
    EVENTS_MAX,
    NewPartitions,
    check_assignments,
)
from quorate_quorum.controller.decisions.outcome import BATCH_BYTES_MAX, Context, Outcome, size_of
from quorate_quorum.controller.decisions.placement import place
from quorate_quorum.controller.decisions.topics import (
    TOPICS_PER_REQUEST_MAX,
    places_of,
    replication_factor,
    too_few,
)
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.topic_names import check_name
from quorate_quorum.metadata.topics import ID_BYTES
from quorate_quorum.v1 import events_pb2 as ev

#: Reserved for each event, because the measured event may have smaller numbers than others.
_SLACK_BYTES = 8


@dataclass(slots=True)
class _Wanted:
    """A topic that passed all checks, and how much of it is made."""

    id: bytes
    name: str
    configs: dict[str, str]
    assignments: list[list[int]]
    result: admin.CreatedTopic
    #: The bytes of all events of the topic.
    size: int = 0
    #: The number of partitions that are made; None: not even the Topic event is made.
    made: int | None = None

    @property
    def left(self) -> int:
        """The number of events that are not made yet."""
        if self.made is None:
            return 1 + len(self.configs) + len(self.assignments)
        return len(self.assignments) - self.made


@dataclass(slots=True)
class _Turn:
    """The decisions of one turn of the event loop."""

    image: MetadataImage
    context: Context
    partitions: NewPartitions
    events: list[ev.MetadataEvent] = field(default_factory=list)


class Creation:
    """One CreateTopics request.

    With `internal` the cluster itself asks, and the names may be its own. A repeated request
    with the same topic id gets the first result. If fewer brokers are unfenced than a topic needs
    replicas, the topic fails with NOT_ENOUGH_REPLICAS, which is retriable.
    """

    def __init__(
        self,
        request: admin.CreateTopicsRequest,
        *,
        internal: bool = False,
        events_max: int = EVENTS_MAX,
    ) -> None:
        #: The results so far. They are complete when the response of `next` is True.
        self.response = admin.CreateTopicsResponse()
        self._request = request
        self._internal = internal
        self._events_max = events_max
        self._asked = 0
        self._wanted: _Wanted | None = None
        self._size = 0
        #: By name: the ids of the topics made so far (of the checked ones, if the request only
        #: validates).
        self._names: dict[str, bytes] = {}
        self._results: dict[bytes, admin.CreatedTopic] = {}
        self._ahead = (0, 0)

    def fits_in_a_turn(self, image: MetadataImage) -> bool:
        """Return whether the first call of `next` decides the whole request."""
        default = ClusterConfig.of(image.configs).num_partitions
        inherited = len(fixed_at_creation(image.configs))
        events = 0
        for new in self._request.topics:
            partitions = default if new.num_partitions == -1 else new.num_partitions
            # one Topic event, the given configs, the configs copied from the cluster, the
            # partitions
            events += 1 + len(new.configs) + inherited + max(partitions, len(new.assignments))
        return events <= self._events_max

    def next(self, image: MetadataImage, context: Context) -> Outcome[bool]:
        """Decide the next part of the request. Response: whether it was the last part.

        The caller proposes the events. If it can't, it must not call `next` again.
        """
        turn = _Turn(
            image, context, NewPartitions(image, context, Cause(ev.CAUSE_KIND_TOPIC_CREATED))
        )
        # Bound the refused topics, too: they make no event, but take time.
        most = self._asked + self._events_max
        while len(turn.events) < self._events_max:
            if self._wanted is None and (self._asked == most or not self._take_next(turn)):
                break
            if self._wanted is not None and not self._make(turn, self._wanted):
                self._put_back(self._wanted)
                break
        is_done = self._wanted is None and self._asked == len(self._request.topics)
        if self._request.validate_only:
            return Outcome((), is_done)
        # Start anew: the next image has the topics and partitions of this turn.
        self._ahead = (0, 0)
        return Outcome(tuple(turn.events), is_done)

    def _take_next(self, turn: _Turn) -> bool:
        """Check the next topic of the request. Return False if there is none."""
        if self._asked == len(self._request.topics):
            return False
        new = self._request.topics[self._asked]
        self._asked += 1
        result = self.response.topics.add(name=new.name, topic_id=new.topic_id)
        try:
            if self._asked > TOPICS_PER_REQUEST_MAX:
                raise InvalidRequestError(
                    f"one request creates at most {TOPICS_PER_REQUEST_MAX} topics"
                )
            self._wanted = self._checked(turn, new, result)
            # If the result was copied from the same topic id, it has warnings already.
            del result.warnings[:]
            if self._wanted is not None:
                replicas = len(self._wanted.assignments[0])
                result.warnings.extend(min_isr_warnings(self._wanted.configs, replicas))
        except QuorateError as error:
            result.error.CopyFrom(to_wire(error))
        return True

    def _put_back(self, wanted: _Wanted) -> None:
        """Let the next turn check the topic again, because its name may be taken by that time."""
        self._asked -= 1
        del self.response.topics[-1]
        self._size -= wanted.size
        self._wanted = None

    def _checked(
        self, turn: _Turn, new: admin.NewTopic, result: admin.CreatedTopic
    ) -> _Wanted | None:
        """Return the topic to make; None if an earlier request with its topic id has made it."""
        image = turn.image
        topic_id = new.topic_id or turn.context.new_id()
        if len(topic_id) != ID_BYTES:
            raise InvalidRequestError(f"a topic id has {ID_BYTES} bytes, not {len(topic_id)}")
        if self._was_made(image, topic_id, new.name, result):
            return None
        check_name(new.name, internal=self._internal)
        if new.name in image.topic_ids or new.name in self._names:
            raise TopicExistsError(
                f"topic {new.name!r} exists already: choose another name, or delete that one first"
            )
        if any(one.topic.name == new.name for one in image.sorted_forming()):
            raise OverloadedError(f"a topic {new.name!r} is just being made: ask again")
        configs = _configs(image, new.configs)
        topics, partitions = self._ahead
        assignments = (
            _explicit(image, new)
            if new.assignments
            else _placed(image, new, image.topics_created + topics, partitions)
        )
        wanted = _Wanted(topic_id, new.name, configs, assignments, result)
        self._check_size(turn, wanted)
        return wanted

    def _was_made(
        self, image: MetadataImage, topic_id: bytes, name: str, result: admin.CreatedTopic
    ) -> bool:
        if topic_id in image.forming:
            raise OverloadedError(f"topic {name!r} is just being made: ask again")
        topic = image.topics.get(topic_id)
        earlier = self._results.get(topic_id)
        if topic is None and earlier is None:
            return False
        known = earlier.name if topic is None and earlier is not None else ""
        known = known if topic is None else topic.name
        if known != name:
            raise InvalidRequestError(f"that topic id belongs to topic {known!r}")
        if topic is not None:
            _describe(result, topic_id, len(topic.partitions), len(topic.partitions[0].replicas))
        elif earlier is not None:
            result.CopyFrom(earlier)
        return True

    def _check_size(self, turn: _Turn, wanted: _Wanted) -> None:
        """Raise InvalidRequestError if the events of one request would be too large.

        The estimate for a topic is its number of partitions times the size of its last event.
        """
        last = len(wanted.assignments) - 1
        sample = turn.partitions.event(wanted.id, last, wanted.assignments[last], is_sample=True)
        size = (size_of(sample) + _SLACK_BYTES) * len(wanted.assignments)
        size += sum(map(size_of, _heads(wanted, turn.context.now_ms)))
        if self._size + size > BATCH_BYTES_MAX - 1024:
            raise InvalidRequestError(
                f"one request may make {BATCH_BYTES_MAX} bytes of metadata; create fewer topics"
                " or partitions at a time"
            )
        wanted.size = size
        self._size += size

    def _make(self, turn: _Turn, wanted: _Wanted) -> bool:
        """Make the topic, or a part of it. Return False if it must wait for the next turn."""
        room = self._events_max - len(turn.events)
        is_large = wanted.made is not None or wanted.left > self._events_max
        if not is_large and wanted.left > room:
            return False  # wait: the next turn has room for the whole topic
        events = (
            _heads(wanted, turn.context.now_ms, forming=is_large) if wanted.made is None else []
        )
        first = wanted.made or 0
        end = min(len(wanted.assignments), max(first + 1, first + room - len(events)))
        try:
            events += [
                turn.partitions.event(wanted.id, index, wanted.assignments[index])
                for index in range(first, end)
            ]
        except NotEnoughReplicasError as error:
            self._give_up(turn, wanted, error)
            return True
        turn.events += events
        topics, partitions = self._ahead
        self._ahead = topics + (wanted.made is None), partitions + end - first
        wanted.made = end
        if end == len(wanted.assignments):
            self._finish(wanted)
        return True

    def _finish(self, wanted: _Wanted) -> None:
        _describe(wanted.result, wanted.id, len(wanted.assignments), len(wanted.assignments[0]))
        self._names[wanted.name] = wanted.id
        self._results[wanted.id] = wanted.result
        self._wanted = None

    def _give_up(self, turn: _Turn, wanted: _Wanted, error: QuorateError) -> None:
        wanted.result.error.CopyFrom(to_wire(error))
        if wanted.made is not None:
            turn.events.append(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=wanted.id)))
        self._wanted = None


def abandon(image: MetadataImage, context: Context) -> Outcome[int]:
    """Remove the topics that are still forming. Response: the number of topics removed."""
    del context
    events = [
        ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=forming.topic.id))
        for forming in image.sorted_forming()
    ]
    return Outcome(tuple(events), len(events))


def _heads(wanted: _Wanted, now_ms: int, *, forming: bool = True) -> list[ev.MetadataEvent]:
    """Return the events that come before a topic's Partition events: Topic and Config."""
    follow = len(wanted.assignments) if forming else 0
    topic = ev.Topic(topic_id=wanted.id, name=wanted.name, partitions=follow, created_ms=now_ms)
    return [
        ev.MetadataEvent(topic=topic),
        *(
            ev.MetadataEvent(config=ev.Config(topic_id=wanted.id, name=name, value=value))
            for name, value in wanted.configs.items()
        ),
    ]


def _describe(result: admin.CreatedTopic, topic_id: bytes, partitions: int, factor: int) -> None:
    result.topic_id = topic_id
    result.num_partitions = partitions
    result.replication_factor = factor


def _configs(image: MetadataImage, given: Mapping[str, str]) -> dict[str, str]:
    """Return a new topic's own values: the given ones, and copies of the cluster's fixed ones."""
    configs = {name: check_config(name, given[name], of_topic=True) for name in sorted(given)}
    return configs | {
        name: value
        for name, value in fixed_at_creation(image.configs).items()
        if name not in configs
    }


def _explicit(image: MetadataImage, new: admin.NewTopic) -> list[list[int]]:
    assignments = [list(given.replicas) for given in new.assignments]
    _check_partitions(len(assignments))
    if new.num_partitions not in (-1, 0, len(assignments)):
        raise InvalidPartitionsError(
            f"num_partitions is {new.num_partitions}, but {len(assignments)} are assigned"
        )
    factor = len(assignments[0])
    if new.replication_factor not in (-1, 0, factor):
        raise InvalidReplicationFactorError(
            f"replication_factor is {new.replication_factor}, but {factor} replicas are assigned"
        )
    check_assignments(image, assignments, factor)
    return assignments


def _placed(
    image: MetadataImage, new: admin.NewTopic, topics_created: int, ahead: int
) -> list[list[int]]:
    """Return the brokers of each partition, the preferred leader first.

    `ahead`: the number of partitions that this turn has made, and that `image` lacks.
    """
    partitions = new.num_partitions
    if partitions == -1:
        partitions = ClusterConfig.of(image.configs).num_partitions
    _check_partitions(partitions)
    factor = replication_factor(image, new.replication_factor)
    places = places_of(image)
    if factor > len(places):
        raise NotEnoughReplicasError(
            f"replication_factor {factor} needs as many live brokers, and {too_few(image)}"
        )
    start = (image.partitions_created + ahead) % len(places)
    return place(places, partitions, factor, start, topics_created)


def _check_partitions(partitions: int) -> None:
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise InvalidPartitionsError(
            f"num_partitions must be 1 to {PARTITIONS_MAX} (-1: the cluster's default), not"
            f" {partitions}"
        )
