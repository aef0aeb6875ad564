"""Drains brokers: a drained broker gets no new replicas, and leads only where no other can.

A drain marks the broker (`cordoned`). Then it hands each of its leaderships to the other member of
the ISR that leads the fewest partitions, a few in each turn of the event loop. With `replicas`, it
also reassigns each partition that has a replica on the broker: another broker takes its place.
Nothing is undone if the controller changes in between: the mark stays, and the same call goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from quorate.errors import (
    InvalidReplicaAssignmentError,
    QuorateError,
    UnknownBrokerError,
    UnsupportedError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.brokers import broker_changed
from quorate_quorum.controller.decisions.free_space import DirectoryChoice
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.partitions import moved, steps
from quorate_quorum.controller.decisions.placement import Place, fill, ring
from quorate_quorum.controller.decisions.reassignment import reassigned
from quorate_quorum.controller.decisions.topics import place_of, places_of
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.node.features import DRAINED_BROKERS, METADATA_VERSION
from quorate_quorum.v1 import events_pb2 as ev

#: The most partitions that one turn of the event loop looks at, and the most that it changes.
LOOKED_MAX: Final = 1_000
CHANGED_MAX: Final = 50
#: The most partitions that an answer names as left.
LEFT_MAX: Final = 1_000


def cordon(
    image: MetadataImage, broker_id: int, *, cordoned: bool
) -> Outcome[admin.DrainBrokerResponse]:
    """Mark a broker as drained, or take the mark away. It is safe to repeat.

    Refused with UNKNOWN_BROKER if the broker is not registered, and with UNSUPPORTED while the
    metadata.version in force does not have the mark.
    """
    broker = image.brokers.get(broker_id)
    level = image.features.get(METADATA_VERSION)
    error: QuorateError | None = None
    if broker is None:
        error = UnknownBrokerError(
            f"broker {broker_id} is not registered; {sorted(image.brokers)} are"
        )
    elif cordoned and level is not None and level < DRAINED_BROKERS:
        error = UnsupportedError(
            f"broker {broker_id} can't be drained: the cluster is at metadata.version {level}, and"
            f" nodes of that version do not know drained brokers ({DRAINED_BROKERS} does). When all"
            f" nodes run this release: `quorate cluster features --upgrade {DRAINED_BROKERS}`"
        )
    if error is not None:
        return Outcome((), admin.DrainBrokerResponse(error=to_wire(error)))
    assert broker is not None
    changes = () if broker.cordoned == cordoned else (broker_changed(broker, cordoned=cordoned),)
    return Outcome(changes, admin.DrainBrokerResponse(was_drained=broker.cordoned))


@dataclass(slots=True)
class Drain:
    """The changes of partitions of one drain: `next`, until its response is True.

    The broker is marked before. `response` counts what was moved, and names what was left.
    """

    broker_id: int
    replicas: bool
    #: The throttle of the reassignments that the drain begins (see PartitionImage). With 0, a
    #: reassignment whose target it changes keeps its own.
    throttle: int = 0
    response: admin.DrainBrokerResponse = field(default_factory=admin.DrainBrokerResponse)
    _left: Iterator[tuple[bytes, int]] | None = None
    #: By broker: how many partitions it leads, of those that the drain has passed.
    _leads: Counter[int] = field(default_factory=Counter)

    def next(self, image: MetadataImage, context: Context) -> Outcome[bool]:
        """Decide the next partitions. Response: whether these were the last ones."""
        if self._left is None:
            self._left = _every_partition(image)
        choice = DirectoryChoice(image, context.free_space)
        circle = ring(places_of(image))
        counts = Counter({one.broker_id: image.replicas_on(one.broker_id) for one in circle})
        events: list[ev.MetadataEvent] = []
        for looked, (topic_id, index) in enumerate(self._left, 1):
            topic, old = image.topics.get(topic_id), image.partition(topic_id, index)
            if topic is not None and old is not None and self.broker_id in old.broker_ids:
                events += self._moved(image, topic, index, old, circle, counts, choice)
            elif old is not None:
                self._leads[old.leader] += 1
            if looked == LOOKED_MAX or len(events) >= CHANGED_MAX:
                return Outcome(tuple(events), False)
        return Outcome(tuple(events), True)

    def _moved(
        self,
        image: MetadataImage,
        topic: TopicImage,
        index: int,
        old: PartitionImage,
        circle: list[Place],
        counts: Counter[int],
        choice: DirectoryChoice,
    ) -> list[ev.MetadataEvent]:
        states = [old]
        if old.leader == self.broker_id:
            able = [
                b
                for b in old.broker_ids
                if b in old.isr and b != self.broker_id and image.is_eligible(old, b)
            ]
            undrained = [b for b in able if not image.brokers[b].cordoned]
            if undrained:
                leader = min(undrained, key=self._leads.__getitem__)
                because = (Cause(ev.CAUSE_KIND_BROKER_DRAINED, self.broker_id),)
                states.append(moved(image, topic, old, isr=old.isr, leader=leader, because=because))
                self.response.leaders_moved += 1
            elif not self.replicas:
                self._leave(topic, index, _why_it_leads(old, self.broker_id, able))
        is_being_moved = self.replicas
        if self.replicas and self.broker_id in old.target:
            try:
                # each replica goes on from where the last one went, so that all brokers get some
                start = index + self.response.replicas_moved
                target = _target_without(image, states[-1], self.broker_id, start, circle, counts)
                cause = Cause(ev.CAUSE_KIND_REPLICAS_DRAINED, self.broker_id)
                throttle = self.throttle or old.throttle
                states += reassigned(image, topic, states[-1], target, choice, cause, throttle)[1:]
                counts.update(b for b in target if b not in old.broker_ids)
                self.response.replicas_moved += 1
            except QuorateError as error:
                is_being_moved = False
                self._leave(topic, index, str(error))
        if is_being_moved and (stuck := _why_not_copied(image, topic, index, old)):
            self._leave(topic, index, stuck)
        self._leads[states[-1].leader] += 1
        return steps(topic.id, index, states)

    def _leave(self, topic: TopicImage, index: int, why: str) -> None:
        self.response.left_count += 1
        if len(self.response.left) < LEFT_MAX:
            self.response.left.add(topic=topic.name, partition=index, reason=why)


def _why_not_copied(
    image: MetadataImage, topic: TopicImage, index: int, partition: PartitionImage
) -> str | None:
    """Return why the move of a partition does not begin to copy, and what to do; None if it does.

    Without a leader nothing is copied. An election gives it one, if a replica is live that may
    lead: a member of ISR or ELR; if there is none, a replica that was there before the move.
    """
    if partition.leader != NO_LEADER:
        return None
    able = {*partition.isr, *partition.elr} or set(partition.broker_ids) - set(partition.adding)
    if any(image.is_live(partition, broker_id) for broker_id in able):
        return None
    return (
        f"it has no leader, so nothing is copied: only brokers {sorted(able)} may have all records,"
        " and none of them is alive with its log; bring one back, or give the records up:"
        f" `quorate partition elect {topic.name}/{index} --unclean --accept-loss`"
    )


def _why_it_leads(partition: PartitionImage, broker_id: int, able: Sequence[int]) -> str:
    """Return why a drained broker goes on leading. `able`: the others that may lead."""
    if able:  # two drained brokers would hand it to and fro
        return "the other replicas that may lead are on drained brokers, too"
    if len(partition.replicas) == 1:
        return f"it has one replica: use `quorate cluster drain {broker_id} --replicas`"
    return "no other replica is in the ISR and may lead"


def _target_without(
    image: MetadataImage,
    partition: PartitionImage,
    broker_id: int,
    start: int,
    circle: list[Place],
    counts: Mapping[int, int],
) -> list[int]:
    """Return the target with another broker in the place of this one, on a rack of its own if any.

    `counts`: how many replicas each broker has. Among brokers that would do as well, one with the
    fewest is chosen.

    Raises InvalidReplicaAssignmentError if no broker can take the replica.
    """
    target = list(partition.target)
    others = [b for b in target if b != broker_id]
    chosen = [place_of(image.brokers[b]) for b in others]
    found = fill(chosen, circle, start, len(target), counts) if circle else chosen
    if len(found) < len(target):
        able = [place.broker_id for place in circle]
        has = (
            f"the partition has one on each of {able}" if able else "all others are drained or gone"
        )
        raise InvalidReplicaAssignmentError(
            f"no other live broker can take the replica: {has}; undrain or add a broker, or lower"
            f" the replication factor"
        )
    target[target.index(broker_id)] = found[-1].broker_id
    return target


def _every_partition(image: MetadataImage) -> Iterator[tuple[bytes, int]]:
    for name in sorted(image.topic_ids):
        topic = image.topic_named(name)
        if topic is not None:
            for index in range(len(topic.partitions)):
                yield topic.id, index
