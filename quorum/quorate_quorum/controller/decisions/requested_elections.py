"""Elections on request: of preferred leaders, and of leaders that may have lost records.

A preferred leader is the first replica of the assignment. It takes over only if it is in the ISR
and may lead, so nothing is lost; while the partition has no leader, a member of the ELR will do. An
election that may lose records needs a partition that has no leader. If a replica can lead without
loss after all, it is elected here. Otherwise LossyElections chooses the replica with the furthest
log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from quorate.errors import (
    ElectionNotNeededError,
    EligibleLeadersNotAvailableError,
    InvalidRequestError,
    PreferredLeaderNotAvailableError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.lossy_elections import can_begin_empty, live_replicas
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.partitions import (
    completed,
    elect,
    leader_among,
    moved,
    steps,
)
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, Key, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev

#: The most partitions that one turn of the event loop looks at, and the most that it changes.
LOOKED_MAX: Final = 1_000
CHANGED_MAX: Final = 50
#: The most partitions in the answer to a request that names none.
ANSWERED_MAX: Final = 10_000

_GONE: Final = (
    "broker {} is alive, and the log directory of its replica is gone: bring the disk back, or name"
    " this partition in the request, which lets the replica begin empty"
)
_FAILED: Final = (
    "broker {} is alive, and the log directory of its replica has failed: mend the disk, or take it"
    " out of log.dirs if its records are lost, and restart the broker"
)


def elect_preferred(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    because: ev.CauseKind.ValueType = ev.CAUSE_KIND_PREFERRED_ASKED,
) -> PartitionImage:
    """Return the next state of a partition: its first replica leads.

    If a drained broker leads, another member of the ISR that may lead takes over. `because`: the
    cause, which is about the preferred replica.

    Raises ElectionNotNeededError or PreferredLeaderNotAvailableError.
    """
    preferred = old.broker_ids[0]
    relieved = _relieved(image, topic, old)
    if relieved is not old:
        return relieved
    if old.leader == preferred:
        raise ElectionNotNeededError(f"the preferred replica, broker {preferred}, leads already")
    broker = image.brokers.get(preferred)
    if broker is not None and broker.cordoned and old.leader != NO_LEADER:
        raise PreferredLeaderNotAvailableError(
            f"the preferred replica, broker {preferred}, is drained:"
            f" `quorate cluster undrain {preferred}` lets it lead again"
        )
    new = elect(image, topic, old, because)
    if new is old and preferred in old.isr and image.is_eligible(old, preferred):
        causes = (Cause(because, preferred),)
        new = moved(image, topic, old, isr=old.isr, leader=preferred, because=causes)
    if new.leader != preferred:
        found = (
            _why_not(image, old, preferred, is_named=True)
            or f"its replica is not in the ISR {list(old.isr)}: `quorate explain` tells why"
        )
        raise PreferredLeaderNotAvailableError(
            f"the preferred replica, broker {preferred}, may not lead: {found}"
        )
    return new


def _relieved(image: MetadataImage, topic: TopicImage, old: PartitionImage) -> PartitionImage:
    """Return the next state of a partition that a drained broker leads and another may lead."""
    leader = image.brokers.get(old.leader)
    if leader is None or not leader.cordoned:
        return old
    # Only a member of the ISR takes over from a leader: one of the ELR may lag, and is not in it.
    chosen = leader_among(image, old, old.isr)
    if chosen == NO_LEADER or image.brokers[chosen].cordoned:
        return old
    because = (Cause(ev.CAUSE_KIND_BROKER_DRAINED, old.leader),)
    return moved(image, topic, old, isr=old.isr, leader=chosen, because=because)


def elect_any(
    image: MetadataImage, topic: TopicImage, old: PartitionImage, *, is_named: bool = True
) -> PartitionImage | None:
    """Return the next state of a partition without a leader; None: only with a possible loss.

    `is_named`: whether the request names the partition. Only then a replica whose directory is gone
    may begin empty: the disk may be about to come back, and a request for all means no such disk.

    Raises ElectionNotNeededError or EligibleLeadersNotAvailableError.
    """
    if old.leader != NO_LEADER:
        raise ElectionNotNeededError(f"broker {old.leader} leads: no election may lose its records")
    new = elect(image, topic, old, ev.CAUSE_KIND_ELECTION_ASKED)
    if new is not old:
        return new
    reasons = [_why_not(image, old, b, is_named=is_named) for b in old.broker_ids]
    if all(reasons):
        raise EligibleLeadersNotAvailableError(
            f"none of the replicas on brokers {list(old.broker_ids)} can lead:"
            f" {'; '.join(one for one in reasons if one)}; mend one of them, and ask again"
        )
    return None


def _why_not(
    image: MetadataImage, partition: PartitionImage, broker_id: int, *, is_named: bool
) -> str | None:
    """Return why a replica can't lead even with a loss, and what to do; None if it can.

    `is_named`: whether one whose directory is gone may begin empty.
    """
    if image.is_eligible(partition, broker_id):
        return None
    broker = image.brokers.get(broker_id)
    if broker is None or broker.fenced:
        return f"broker {broker_id} is not alive: start it"
    if broker.shutting_down:
        return f"broker {broker_id} is shutting down: start it again"
    if can_begin_empty(image, partition, broker_id):
        return None if is_named else _GONE.format(broker_id)
    if broker.directory(partition.directory_of(broker_id) or b"") is not None:
        return _FAILED.format(broker_id)
    return f"broker {broker_id} is alive, and has no log directory that works: give it one"


@dataclass(slots=True)
class RequestedElections:
    """The elections of one request, decided in parts: `next`, until its response is True.

    `response` holds a result for each partition that the request names. If it names none, the
    partitions that need no election are left out.
    """

    request: admin.ElectLeadersRequest
    #: Why preferred replicas are elected.
    because: ev.CauseKind.ValueType = ev.CAUSE_KIND_PREFERRED_ASKED
    response: admin.ElectLeadersResponse = field(default_factory=admin.ElectLeadersResponse)
    #: The partitions that only LossyElections may give a leader, each with its live replicas.
    lossy: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    _left: Iterator[tuple[str, int]] = field(init=False)
    _image: MetadataImage = field(init=False)
    _answered: int = 0

    def __post_init__(self) -> None:
        named = dict.fromkeys(
            (one.topic, index) for one in self.request.topics for index in one.partitions
        )
        if self.request.all_topics and named:
            raise InvalidRequestError("a request names partitions, or asks for all topics")
        self._left = self._every_partition() if self.request.all_topics else iter(named)

    def next(self, image: MetadataImage, _context: Context) -> Outcome[bool]:
        """Decide the next partitions. Response: whether these were the last ones."""
        self._image = image
        events: list[ev.MetadataEvent] = []
        for looked, (name, index) in enumerate(self._left, 1):
            try:
                events.extend(self._decided(image, name, index))
            except ElectionNotNeededError as error:
                if not self.request.all_topics:
                    self._answer(name, index, error)
            except QuorateError as error:
                self._answer(name, index, error)
            if looked == LOOKED_MAX or len(events) == CHANGED_MAX:
                return Outcome(tuple(events), False)
        return Outcome(tuple(events), True)

    def lossy_ended(self, image: MetadataImage) -> None:
        """Answer for the partitions that LossyElections was asked to give a leader."""
        for topic_id, index in self.lossy:
            topic, partition = image.topics.get(topic_id), image.partition(topic_id, index)
            if topic is None or partition is None:
                continue  # deleted meanwhile
            error = None
            may_have_lost = partition.recovered_epoch == partition.leader_epoch
            if partition.leader == NO_LEADER:
                error = EligibleLeadersNotAvailableError(
                    "no replica that is alive has told the end of its log in time, or one that may"
                    " have most records was alive and is not now: ask again"
                )
            self._answer(topic.name, index, error, partition, may_have_lost=may_have_lost)

    def _every_partition(self) -> Iterator[tuple[str, int]]:
        for name in sorted(self._image.topic_ids):
            topic = _topic(self._image, name)
            for index in range(0 if topic is None else len(topic.partitions)):
                yield name, index

    def _decided(self, image: MetadataImage, name: str, index: int) -> Iterator[ev.MetadataEvent]:
        topic = _topic(image, name)
        if topic is None:
            raise UnknownTopicError(f"there is no topic {name[:249]!r}")
        if not 0 <= index < len(topic.partitions):
            raise UnknownTopicError(
                f"topic {name!r} has partitions 0 to {len(topic.partitions) - 1}, and no {index}"
            )
        old = topic.partitions[index]
        new = (
            elect_any(image, topic, old, is_named=not self.request.all_topics)
            if self.request.unclean
            else elect_preferred(image, topic, old, self.because)
        )
        if new is None:
            self.lossy[topic.id, index] = live_replicas(image, old)
            return
        states = [old, new, completed(image, topic, new)]
        self._answer(name, index, None, states[-1])
        yield from steps(topic.id, index, states)

    def _answer(
        self,
        name: str,
        index: int,
        error: QuorateError | None,
        partition: PartitionImage | None = None,
        *,
        may_have_lost: bool = False,
    ) -> None:
        if self.request.all_topics and self._answered == ANSWERED_MAX:
            return
        self._answered += 1
        topics = self.response.topics
        if not topics or topics[-1].topic != name:
            topics.add(topic=name)
        if partition is None and (topic := _topic(self._image, name)) is not None:
            partition = topic.partitions[index] if 0 <= index < len(topic.partitions) else None
        result = topics[-1].partitions.add(
            partition=index, leader=NO_LEADER if partition is None else partition.leader
        )
        if error is not None:
            result.error.CopyFrom(to_wire(error))
        else:
            result.may_have_lost = may_have_lost


def _topic(image: MetadataImage, name: str) -> TopicImage | None:
    topic_id = image.topic_ids.get(name)
    return None if topic_id is None else image.topics.get(topic_id)
