"""Alters configs of a topic, of a broker, or of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from quorate.errors import (
    InvalidRequestError,
    PolicyViolationError,
    QuorateError,
    UnknownBrokerError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.configs import (
    check_config,
    min_isr_warnings,
    refusal_of,
    spec_of,
    spec_of_broker,
)
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.partitions import moved
from quorate_quorum.metadata.aspect import event_of
from quorate_quorum.metadata.brokers import CHANGE
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import Key, partition_changed
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev

CONFIGS_PER_REQUEST_MAX: Final = 1_000
#: The most partitions that one turn of the event loop looks at, and the most that it changes.
LOOKED_MAX: Final = 1_000
CHANGED_MAX: Final = 50
MIN_ISR: Final = "min.insync.replicas"
#: The configs of an internal topic that stay as they were made. With another value, records that
#: the cluster needs would be deleted, or the cluster's own appends would be refused.
FIXED_ON_INTERNAL: Final = frozenset(
    (
        "cleanup.policy",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.type",
        "unclean.leader.election.enable",
    )
)


@dataclass(slots=True)
class ConfigChange:
    """A request that sets and removes configs, all or none: `next`, until its response is True.

    A lower min.insync.replicas may make an ISR large enough to commit. Then the members of the ELR
    would lack the records that the ISR commits from then on, so the ELR is emptied. This comes
    first, a few partitions in each turn, and the configs are last: if the log ended after the
    configs alone, an ELR would stay whose members lack what the ISR commits.

    `proposed` must see each batch that is proposed between the turns. Another decision may fill the
    ELR of a partition that was looked at before, because the old config is still in force: it is
    looked at again. Another change of min.insync.replicas begins the looks anew.
    """

    request: admin.AlterConfigsRequest
    looked_max: int = LOOKED_MAX
    changed_max: int = CHANGED_MAX
    response: admin.AlterConfigsResponse = field(default_factory=admin.AlterConfigsResponse)
    _left: Iterator[Key] | None = None
    #: The topics that were there when the looks began.
    _topics: frozenset[bytes] = frozenset()
    #: The partitions that have changed since the looks began: a set, and the newest comes first.
    _again: dict[Key, None] = field(default_factory=dict)

    def next(self, image: MetadataImage, _context: Context) -> Outcome[bool]:
        """Decide the next part. Response: whether it was the last one, with the configs."""
        try:
            changes = _changes(image, self.request)
        except QuorateError as error:
            self.response = admin.AlterConfigsResponse(error=to_wire(error))
            return Outcome((), True)
        self._warn(image)
        if self.request.validate_only:
            return Outcome((), True)
        if not any(event.config.name == MIN_ISR for event in changes):
            return Outcome(tuple(changes), True)
        after = replayed(image, changes)
        if self._left is None:
            self._left = self._partitions(image)
        events: list[ev.MetadataEvent] = []
        for looked, key in enumerate(self._left, 1):
            events += _voided(after, key)
            if looked == self.looked_max or len(events) == self.changed_max:
                return Outcome(tuple(events), False)
        return Outcome((*events, *changes), True)

    def proposed(self, events: Sequence[ev.MetadataEvent]) -> None:
        """Take in a batch that was proposed, by this or by another decision."""
        for event in events:
            if event.HasField("partition_change"):
                change = event.partition_change
                self._again[change.topic_id, change.partition] = None
            elif self._may_count_here(event.config):
                self._left = None

    def _may_count_here(self, config: ev.Config) -> bool:
        """Return whether a config is one on which the looks depend.

        A topic that was created since they began has no ELR, or its partitions have changed.
        """
        is_known = not config.topic_id or config.topic_id in self._topics
        return config.name == MIN_ISR and is_known

    def _warn(self, image: MetadataImage) -> None:
        topic = image.topic_named(self.request.topic) if self.request.topic else None
        if topic is not None and self._left is None:
            del self.response.warnings[:]
            replicas = len(topic.partitions[0].replicas)
            self.response.warnings.extend(min_isr_warnings(self.request.set, replicas))

    def _partitions(self, image: MetadataImage) -> Iterator[Key]:
        """Yield the partitions for which the config counts, then those that have changed since."""
        self._again.clear()
        if self.request.topic:
            self._topics = frozenset((image.topic_ids[self.request.topic],))
        else:
            self._topics = frozenset((*image.topics, *image.forming))
        for topic_id in sorted(self._topics):
            topic = image.seen_or_forming(topic_id)
            if topic is not None and (self.request.topic or MIN_ISR not in topic.configs):
                yield from ((topic_id, index) for index in range(len(topic.partitions)))
        while self._again:
            yield self._again.popitem()[0]


def _voided(after: MetadataImage, key: Key) -> list[ev.MetadataEvent]:
    """Return the event that empties the ELR of a partition whose ISR will be large enough.

    `after`: the image after the change of the config.
    """
    topic = after.seen_or_forming(key[0])
    if topic is None or key[1] >= len(topic.partitions):
        return []
    old = topic.partitions[key[1]]
    if not old.elr:
        return []
    because = (Cause(ev.CAUSE_KIND_MIN_ISR_CHANGED),)
    new = moved(after, topic, old, isr=old.isr, leader=old.leader, because=because)
    return [] if new is old else [partition_changed(topic.id, key[1], old, new)]


def _changes(image: MetadataImage, request: admin.AlterConfigsRequest) -> list[ev.MetadataEvent]:
    """Return the events that change what is not yet as it was asked. Raises QuorateErrors."""
    if request.HasField("broker_id"):
        return _broker_config_events(image, request)
    return _config_events(image, request)


def _config_events(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> list[ev.MetadataEvent]:
    topic = image.topic_named(request.topic) if request.topic else None
    if request.topic and topic is None:
        raise UnknownTopicError(f"no topic {request.topic!r}")
    _check_count(request)
    topic_id, now = (b"", image.configs) if topic is None else (topic.id, topic.configs)
    wanted: dict[str, str | None] = {}
    for name in request.remove:
        spec_of(name, of_topic=topic is not None)
        if name in wanted:
            raise InvalidRequestError(f"{name} is removed twice in one request")
        wanted[name] = None
    for name in sorted(request.set):
        if name in wanted:
            raise InvalidRequestError(f"{name} is both set and removed")
        wanted[name] = check_config(name, request.set[name], of_topic=topic is not None)
    if topic is not None and (refusal := refusal_of(now, wanted)):
        raise PolicyViolationError(refusal)
    if topic is not None and topic.is_internal:
        _check_internal(topic, wanted)
    events = []
    for name, value in wanted.items():
        if value != now.get(name):
            config = ev.Config(topic_id=topic_id, name=name)
            if value is not None:
                config.value = value
            events.append(ev.MetadataEvent(config=config))
    return events


def _broker_config_events(
    image: MetadataImage, request: admin.AlterConfigsRequest
) -> list[ev.MetadataEvent]:
    _check_count(request)
    if request.topic:
        raise InvalidRequestError("a request names a topic or a broker, not both")
    broker = image.brokers.get(request.broker_id)
    if broker is None:
        raise UnknownBrokerError(
            f"broker {request.broker_id} is not registered; {sorted(image.brokers)} are"
        )
    wanted = dict(broker.configs)
    for name in request.remove:
        spec_of_broker(name)
        wanted.pop(name, None)
    for name in sorted(request.set):
        spec = spec_of_broker(name)
        wanted[name] = spec.shown(spec.parsed(request.set[name]))
    new = replace(broker, configs=tuple(sorted(wanted.items())))
    if new == broker:
        return []
    change = CHANGE.change(broker, new, broker_id=broker.id, broker_epoch=broker.epoch)
    return [event_of(broker_change=change)]


def _check_count(request: admin.AlterConfigsRequest) -> None:
    count = len(request.set) + len(request.remove)
    if count > CONFIGS_PER_REQUEST_MAX:
        raise InvalidRequestError(
            f"a request names {count} configs; {CONFIGS_PER_REQUEST_MAX} are allowed"
        )


def _check_internal(topic: TopicImage, wanted: Mapping[str, str | None]) -> None:
    """Raise PolicyViolationError for a config without which an internal topic cannot work."""
    refused = sorted(FIXED_ON_INTERNAL.intersection(wanted))
    if refused:
        raise PolicyViolationError(
            f"topic {topic.name!r} is Quorate's own, and {', '.join(refused)} of it cannot be"
            " altered: its records would be lost or refused; its other configs can"
        )
