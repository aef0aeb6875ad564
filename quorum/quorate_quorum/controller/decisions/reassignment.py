"""Reassignments: the replicas of a partition move to other brokers (KIP-455).

A reassignment adds the missing target replicas, waits until every target is in the ISR, then
removes the others. So at each offset of the metadata log, the ISR holds every acknowledged record.
`partitions.completed` ends a reassignment, in the batch in which the last target enters the ISR.
All of its state is in the partition, so the next controller goes on with it.

A member of ISR or ELR counts only if the image does not tell that it is away, or lost records: the
sweep of its broker may be to come.

The *original* replicas are those that the partition had before: all that are not being added. To
cancel is to make them the target again, in the order that they had. A new request replaces an older
one: replicas that only the older one wanted are dropped at once.

The throttle of a request is a part of the state of each of its partitions, too. It goes with the
last replica that is added: at the end, with a cancellation, or with a request that replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from quorate.errors import (
    InvalidReplicaAssignmentError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    NoReassignmentInProgressError,
    QuorateError,
    UnknownTopicError,
    to_wire,
)
from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions.free_space import DirectoryChoice
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.controller.decisions.partitions import (
    Assigned,
    clean_leader,
    completed,
    is_lossless,
    moved,
    steps,
)
from quorate_quorum.controller.decisions.topics import places_of, why_no_replicas
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import events_pb2 as ev

#: The most partitions that one turn of the event loop decides.
DECIDED_MAX: Final = 50
#: The most reassignments that an answer lists, and the most that one turn of the loop adds.
LISTED_MAX: Final = 10_000
LISTED_A_TURN: Final = 500


def reassigned(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    target: Sequence[int],
    choice: DirectoryChoice,
    because: Cause | None = None,
    throttle: int = 0,
) -> list[PartitionImage]:
    """Return the states that a partition goes through at once, from `old` on.

    `target`: the brokers that shall have a replica, the preferred leader first. If each of them is
    in the ISR already, the last state has no other replicas. `because`: the cause; None: someone
    asked. `throttle`: see PartitionImage. Raises InvalidReplicaAssignmentError.
    """
    if because is None:
        is_first = not old.is_reassigned
        because = Cause(
            ev.CAUSE_KIND_REASSIGNMENT_ASKED if is_first else ev.CAUSE_KIND_REASSIGNMENT_REPLACED
        )
    _check_target(image, old, target)
    original = old.before
    removing = tuple(b for b in original if b not in target)
    placed = {one.broker_id: one for one in old.replicas}
    added = [b for b in target if b not in placed]
    placed.update((b, choice.of(b)) for b in added)
    adding = tuple(b for b in target if b not in original)
    assigned = Assigned(
        replicas=tuple(placed[b] for b in (*target, *removing)),
        adding=adding,
        removing=removing,
        throttle=throttle if adding else 0,
        original=original if adding or removing else (),
    )
    new = _with(image, topic, old, assigned, because)
    return [old, new, completed(image, topic, new)]


def cancelled(
    image: MetadataImage, topic: TopicImage, old: PartitionImage, choice: DirectoryChoice
) -> list[PartitionImage]:
    """Return the states of a partition whose reassignment is cancelled, from `old` on.

    The partition has its original replicas again, in their order: a cancelled move leaves no other
    preferred leader behind. Raises NoReassignmentInProgressError, and
    InvalidReplicaAssignmentError if only added replicas surely have all records.
    """
    if not old.is_reassigned:
        raise NoReassignmentInProgressError(
            f"the partition has the replicas {list(old.broker_ids)}, and none is added or removed"
        )
    because = Cause(ev.CAUSE_KIND_REASSIGNMENT_CANCELLED)
    return reassigned(image, topic, old, old.before, choice, because)


def _with(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    assigned: Assigned,
    because: Cause,
) -> PartitionImage:
    """Return the next state, with these replicas. Raise an error if that could lose records."""
    kept = assigned.broker_ids
    dropped = [b for b in old.broker_ids if b not in kept]
    isr = tuple(b for b in old.isr if b in kept)
    leader = old.leader
    if dropped:
        _check_dropped(image, topic, old, kept, dropped)
    if leader in dropped:
        elr = tuple(b for b in old.elr if b in kept)
        after = replace(old, replicas=assigned.replicas, elr=elr)
        leader = clean_leader(image, after, isr)
        if leader == NO_LEADER:
            raise InvalidReplicaAssignmentError(
                f"broker {old.leader} leads, and would lose its replica at once; none of the other"
                f" in-sync replicas {list(isr)} may lead now"
            )
        if leader not in isr:  # it is of the ELR, and has every acknowledged record
            isr = (*isr, leader)
    return moved(image, topic, old, isr=isr, leader=leader, because=(because,), assigned=assigned)


def _check_dropped(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    kept: set[int],
    dropped: Sequence[int],
) -> None:
    """Raise InvalidReplicaAssignmentError if no replica that is kept surely has all records.

    Members of ISR and ELR have all that is acknowledged. If one of them is dropped, a member that
    is kept must be live: one that is fenced may leave the ISR in the next sweep, or never come
    back. Else a member will do that is away, and has not come back with a loss.
    """
    what = f"brokers {list(dropped)} would lose their replicas at once, and"
    complete = (*old.isr, *old.elr)
    if not complete:
        raise InvalidReplicaAssignmentError(
            f"{what} one of them may have most records: ISR and ELR are empty, so no replica surely"
            " has all; first let the partition get a leader"
        )
    left = [broker_id for broker_id in complete if broker_id in kept]
    if not left:
        raise InvalidReplicaAssignmentError(
            f"{what} no other replica is in the ISR {list(old.isr)} or the ELR {list(old.elr)}:"
            f" acknowledged records would be lost; first let one of {sorted(kept)} catch up"
        )
    must_live = not set(complete).isdisjoint(dropped)
    if not any(
        image.is_live(old, b) or (not must_live and is_lossless(image, topic, old, b)) for b in left
    ):
        raise InvalidReplicaAssignmentError(
            f"{what} of the others in ISR and ELR, {left}, none is alive with its log now:"
            " acknowledged records would be lost if none came back; ask again when one has"
        )


def _check_target(image: MetadataImage, old: PartitionImage, target: Sequence[int]) -> None:
    if not target:
        raise InvalidReplicaAssignmentError(
            "the target names no broker; a partition needs a replica on one or more"
        )
    if len(set(target)) != len(target):
        raise InvalidReplicaAssignmentError(
            f"the target {list(target)} names a broker twice; each broker has one replica"
        )
    unknown = sorted(b for b in target if b not in image.brokers)
    if unknown:
        raise InvalidReplicaAssignmentError(
            f"the target {list(target)} names brokers {unknown}, which are not registered;"
            f" {sorted(image.brokers)} are"
        )
    for broker_id in target:
        why = why_no_replicas(image.brokers[broker_id])
        if why and broker_id not in old.broker_ids:
            raise InvalidReplicaAssignmentError(
                f"broker {broker_id} of the target {list(target)} {why}, and has no replica of"
                f" the partition: it would never catch up; brokers {_free(image)} take replicas"
            )


def _check_expected(old: PartitionImage, asked: admin.ReassignedPartition) -> None:
    """Raise InvalidReplicaAssignmentError if a plan was made from other replicas.

    During a move the replicas are both the old and the new ones. A plan that was made from them
    would keep them all: it would raise the number of replicas and override the move.
    """
    if tuple(asked.expected) != old.broker_ids:
        raise InvalidReplicaAssignmentError(
            f"the replicas are {list(old.broker_ids)} now, and the plan was made when they were"
            f" {list(asked.expected)}: make a new plan"
        )
    if old.is_reassigned and not asked.cancel:
        raise InvalidReplicaAssignmentError(
            f"the partition is being moved to {list(old.target)}, and a plan counts on replicas"
            " that stay: make a new plan at the end of the move, or first cancel it"
        )


def check_throttle(throttle: int) -> None:
    """Raise InvalidRequestError for a negative throttle."""
    if throttle < 0:
        raise InvalidRequestError(
            f"a throttle is a number of bytes a second, or 0 for none, not {throttle}"
        )


def _free(image: MetadataImage) -> list[int]:
    return [place.broker_id for place in places_of(image)]


def under_way(
    image: MetadataImage, asked: admin.ListReassignmentsRequest, may_see: Callable[[str], bool]
) -> Iterator[tuple[TopicImage, int, PartitionImage]]:
    """Yield the partitions that are being reassigned: of those named, or of all.

    Partitions that do not exist, or whose topics the caller may not see, are left out.
    """
    keys: Iterable[tuple[bytes, int]] = image.reassigned
    if asked.topics:
        keys = (
            (image.topic_ids.get(one.topic, b""), index)
            for one in asked.topics
            for index in one.partitions
        )
    for topic_id, index in keys:
        state = image.partition(topic_id, index)
        if state is not None and state.is_reassigned and may_see(image.topics[topic_id].name):
            yield image.topics[topic_id], index, state


@dataclass(slots=True)
class Reassignments:
    """The reassignments of one request, decided in parts: `next`, until its response is True.

    `response` holds a result for each partition that the request names.
    """

    request: admin.ReassignPartitionsRequest
    response: admin.ReassignPartitionsResponse = field(
        default_factory=admin.ReassignPartitionsResponse
    )
    _left: Iterator[tuple[str, admin.ReassignedPartition]] = field(init=False)
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._left = ((one.topic, part) for one in self.request.topics for part in one.partitions)

    def next(self, image: MetadataImage, context: Context) -> Outcome[bool]:
        """Decide the next partitions. Response: whether these were the last ones.

        Raises InvalidRequestError for a negative throttle.
        """
        check_throttle(self.request.throttle)
        choice = DirectoryChoice(image, context.free_space)
        events: list[ev.MetadataEvent] = []
        for decided, (name, asked) in enumerate(self._left, 1):
            try:
                events.extend(self._decided(image, name, asked, choice))
                self._answer(name, asked.partition, None)
            except QuorateError as error:
                self._answer(name, asked.partition, error)
            if decided == DECIDED_MAX:
                return Outcome(tuple(events), False)
        return Outcome(tuple(events), True)

    def _decided(
        self,
        image: MetadataImage,
        name: str,
        asked: admin.ReassignedPartition,
        choice: DirectoryChoice,
    ) -> list[ev.MetadataEvent]:
        index = asked.partition
        if (name, index) in self._seen:
            raise InvalidReplicaAssignmentError("one request names the partition twice")
        self._seen.add((name, index))
        topic = image.topic_named(name)
        if topic is None:
            raise UnknownTopicError(f"there is no topic {name[:249]!r}")
        if not 0 <= index < len(topic.partitions):
            raise UnknownTopicError(
                f"topic {name!r} has partitions 0 to {len(topic.partitions) - 1}, and no {index}"
            )
        old = topic.partitions[index]
        if asked.expected and self._has_all(old, asked):
            return []  # the answer to the same request was lost, and it is repeated
        if asked.expected:
            _check_expected(old, asked)
        if asked.cancel:
            return steps(topic.id, index, cancelled(image, topic, old, choice))
        factor = len(old.target)
        if self.request.keep_replication_factor and len(asked.replicas) != factor:
            has = "is moving to" if old.is_reassigned else "has"
            raise InvalidReplicationFactorError(
                f"the target {list(asked.replicas)} has {len(asked.replicas)} replicas; the"
                f" partition {has} {factor}, and the request may not change this number"
            )
        throttle = self.request.throttle
        states = reassigned(image, topic, old, asked.replicas, choice, throttle=throttle)
        return steps(topic.id, index, states)

    def _has_all(self, old: PartitionImage, asked: admin.ReassignedPartition) -> bool:
        """Return whether a partition has, or is moving to, all that is asked."""
        throttle = self.request.throttle if old.adding else 0
        return not asked.cancel and tuple(asked.replicas) == old.target and throttle == old.throttle

    def _answer(self, name: str, index: int, error: QuorateError | None) -> None:
        topics = self.response.topics
        if not topics or topics[-1].topic != name:
            topics.add(topic=name)
        result = topics[-1].partitions.add(partition=index)
        if error is not None:
            result.error.CopyFrom(to_wire(error))
