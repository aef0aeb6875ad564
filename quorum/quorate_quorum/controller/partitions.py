"""Leaders, ISR and ELR: what becomes of a partition when its replicas come, go and fall behind.

Every change of a partition's state is made by `moved`, which keeps the books of KIP-966: while the
ISR is under min ISR the high watermark stands still, so who leaves then still has all that was
acknowledged and enters the ELR; at min ISR or more the ELR is void. Leaders are elected from the
ISR, then from the ELR; what may lose records goes through `Recovery` and is marked for good.

A leader must take its ISR from the image and not from the answer to AlterPartition: the image
comes in order, and a raised min.insync.replicas may stand before the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from quorate.errors import (
    FencedError,
    FencedLeaderEpochError,
    IneligibleReplicaError,
    InvalidRequestError,
    NotLeaderError,
    QuorateError,
    StalePartitionEpochError,
    UnknownLeaderEpochError,
    UnknownTopicError,
    to_wire,
)
from quorate_quorum.controller.outcome import Context, Outcome
from quorate_quorum.metadata.image import (
    NO_LEADER,
    BrokerImage,
    MetadataImage,
    PartitionImage,
    ReplicaImage,
    TopicImage,
    change_event,
)
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev

Key = tuple[bytes, int]

#: An answer of a log's end that does not come is asked for again, and at last done without.
ASK_AGAIN_MS = 1_000
ANSWERS_WAIT_MS = 5_000
#: Proposals of a leader that are decided in one turn of the loop.
ALTERED_PER_TURN = 50
#: Partitions without a leader that are looked at, and that are given one, in one tick at most;
#: the others in the next ones.
LEADERLESS_PER_TICK = 1_000
RECOVERED_PER_TICK = 50


# The books.


def moved(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    *,
    isr: Iterable[int],
    leader: int,
    lossy: Sequence[int] = (),
    replicas: tuple[ReplicaImage, ...] | None = None,
) -> PartitionImage:
    """Return the next state of a partition with this ISR and leader; `old` if nothing differs.

    `lossy`: brokers whose replica may have lost a tail; those that leave ISR or ELR so enter
    last_isr.
    """
    members = set(isr)
    left = {*old.isr, *old.elr} - members
    unsure = set(lossy)
    new = PartitionImage(
        replicas=old.replicas if replicas is None else replicas,
        isr=_assigned(old, members),
        leader=leader,
        leader_epoch=old.leader_epoch if leader == old.leader else old.leader_epoch + 1,
        partition_epoch=old.partition_epoch + 1,
        adding=tuple(b for b in old.adding if b not in members),
        removing=old.removing,
        elr=_assigned(old, left - unsure),
        last_isr=_assigned(old, {*old.last_isr, *(left & unsure)}),
        recovered_epoch=old.recovered_epoch,
    )
    if new.elr and len(new.isr) >= image.min_isr(topic, new):
        new = replace(new, elr=())
    return old if _is_same(old, new) else new


def _is_same(old: PartitionImage, new: PartitionImage) -> bool:
    """Whether nothing differs but the partition_epoch."""
    return (
        old.leader == new.leader
        and old.isr == new.isr
        and old.elr == new.elr
        and old.last_isr == new.last_isr
        and old.adding == new.adding
        and old.replicas == new.replicas
    )


def _assigned(partition: PartitionImage, members: set[int]) -> tuple[int, ...]:
    """Return the members in order of assignment; sets themselves are never iterated."""
    return tuple([r.broker_id for r in partition.replicas if r.broker_id in members])


def clean_leader(image: MetadataImage, partition: PartitionImage, isr: Sequence[int]) -> int:
    """Return who may lead without loss: first of the ISR, else of the ELR, in order of assignment;
    NO_LEADER if nobody.
    """
    for members in (isr, partition.elr):
        for broker_id in partition.broker_ids:
            if broker_id in members and image.is_eligible(partition, broker_id):
                return broker_id
    return NO_LEADER


def elect(image: MetadataImage, topic: TopicImage, old: PartitionImage) -> PartitionImage:
    """Give a leaderless partition a leader, if one is there that loses nothing."""
    if old.leader != NO_LEADER:
        return old
    leader = clean_leader(image, old, old.isr)
    if leader == NO_LEADER:
        return old
    return moved(image, topic, old, isr=(*old.isr, leader), leader=leader)


def settled(
    image: MetadataImage, topic: TopicImage, index: int, old: PartitionImage, broker_id: int
) -> PartitionImage:
    """Return what must become of a partition given the state of one broker in the image.

    A fenced broker, or one whose directory failed, leaves the ISR; one that is shutting down does,
    except as the last member. It stops to lead. It leaves the ELR if lossy. A replica whose
    directory is not registered gets another while somebody else has its records. Once done, the
    same call changes nothing: so the next controller completes what this one began.
    """
    broker = image.brokers[broker_id]
    directory_id = old.directory_of(broker_id)
    if directory_id is None:
        return old
    directory = broker.directory(directory_id)
    online = not broker.fenced and directory is not None and not directory.failed
    if online and not broker.shutting_down:
        return old
    if directory is not None and broker_id not in old.isr and broker_id not in old.elr:
        return old
    lossy = () if _is_lossless(image, topic, broker, directory_id) else (broker_id,)
    if directory is not None and not lossy and broker_id not in old.isr:
        return old
    isr: tuple[int, ...] = tuple(b for b in old.isr if b != broker_id)
    leader = old.leader
    if leader == broker_id:
        leader = clean_leader(image, old, isr)
        if leader not in (NO_LEADER, *isr):
            isr = (*isr, leader)
    loses_leader = old.leader == broker_id and leader == NO_LEADER
    if online and (loses_leader or not isr or broker_id not in old.isr):
        return old  # the last member serves until it is gone
    new = moved(image, topic, old, isr=isr, leader=leader, lossy=lossy)
    if directory is None and (new.isr or new.elr):
        new = moved(
            image,
            topic,
            old,
            isr=isr,
            leader=leader,
            lossy=lossy,
            replicas=_redirected(old, broker, index),
        )
    return new


def _is_lossless(
    image: MetadataImage, topic: TopicImage, broker: BrokerImage, directory_id: bytes
) -> bool:
    directory = broker.directory(directory_id)
    if directory is None or directory.sync_failed or directory.failed:
        return False
    return directory.tail_intact or bool(image.config_value(topic, "flush.on.ack"))


def _redirected(
    partition: PartitionImage, broker: BrokerImage, index: int
) -> tuple[ReplicaImage, ...]:
    """Name another directory of a broker for its replica; unchanged if none of them works."""
    directory_id = good_directory(broker, index)
    if directory_id is None:
        return partition.replicas
    return tuple(
        ReplicaImage(broker.id, directory_id) if replica.broker_id == broker.id else replica
        for replica in partition.replicas
    )


def good_directory(broker: BrokerImage, turn: int) -> bytes | None:
    """Return a directory for a new replica, in turn; best one whose last sync did not fail."""
    working = [d for d in broker.directories if not d.failed]
    best = [d for d in working if not d.sync_failed] or working
    return best[turn % len(best)].id if best else None


def partition_changed(
    topic: TopicImage, index: int, old: PartitionImage, new: PartitionImage
) -> ev.MetadataEvent:
    """Return the event of a change."""
    return ev.MetadataEvent(partition_change=change_event(topic.id, index, old, new))


# AlterPartition.


def alter_partitions(
    image: MetadataImage, request: wire.AlterPartitionsRequest, context: Context
) -> Outcome[wire.AlterPartitionsResponse]:
    """Decide what a leader proposes for the ISRs of its partitions; each has its own result."""
    del context  # decisions have one shape
    response = wire.AlterPartitionsResponse(request_id=request.request_id)
    broker = image.brokers.get(request.broker_id)
    if broker is None or broker.epoch != request.broker_epoch or broker.fenced:
        error = FencedError(
            f"broker {request.broker_id} with broker_epoch {request.broker_epoch} is not registered"
            " or fenced"
        )
        response.error.CopyFrom(to_wire(error))
        return Outcome((), response)
    events: list[ev.MetadataEvent] = []
    seen: set[Key] = set()
    for proposal in request.partitions:
        key = (proposal.topic_id, proposal.partition)
        result = response.partitions.add(topic_id=key[0], partition=key[1])
        state = image.partition(*key)
        try:
            if key in seen:
                raise InvalidRequestError("one request names the partition twice")
            seen.add(key)
            changes, state = _altered(image, request.broker_id, proposal)
            events.extend(changes)
        except QuorateError as error:
            result.error.CopyFrom(to_wire(error))
        _tell(result, state)
    return Outcome(tuple(events), response)


def parts_of(request: wire.AlterPartitionsRequest) -> list[wire.AlterPartitionsRequest]:
    """Cut a request into what is decided in one turn of the loop each."""
    proposals = request.partitions
    if len(proposals) <= ALTERED_PER_TURN:
        return [request]
    return [
        wire.AlterPartitionsRequest(
            request_id=request.request_id,
            broker_id=request.broker_id,
            broker_epoch=request.broker_epoch,
            partitions=proposals[first : first + ALTERED_PER_TURN],
        )
        for first in range(0, len(proposals), ALTERED_PER_TURN)
    ]


def joined(responses: Sequence[wire.AlterPartitionsResponse]) -> wire.AlterPartitionsResponse:
    """Return the answers to the parts as one; the first refusal of a whole part is that of all,
    for what was decided before it the leader learns from the image.
    """
    whole = wire.AlterPartitionsResponse()
    for response in responses:
        if response.HasField("error"):
            return response
        whole.MergeFrom(response)
    return whole


def _tell(result: wire.AlteredPartition, state: PartitionImage | None) -> None:
    """Say how the partition now is; of a refused one too, so that its leader can go on."""
    if state is None:
        result.leader = NO_LEADER
        return
    result.leader = state.leader
    result.leader_epoch = state.leader_epoch
    result.partition_epoch = state.partition_epoch
    result.isr.extend(state.isr)


def _altered(
    image: MetadataImage, leader: int, proposal: wire.AlterPartition
) -> tuple[list[ev.MetadataEvent], PartitionImage]:
    topic = image.topics.get(proposal.topic_id)
    old = image.partition(proposal.topic_id, proposal.partition)
    if topic is None or old is None:
        raise UnknownTopicError(
            f"no partition {proposal.partition} of topic id {proposal.topic_id.hex()}"
        )
    _check_proposal(image, old, leader, proposal)
    index = proposal.partition
    isr = [member.broker_id for member in proposal.isr]
    resigns = leader not in isr  # it can't serve: the first of the others leads
    new = moved(
        image, topic, old, isr=isr, leader=clean_leader(image, old, isr) if resigns else leader
    )
    if new.last_isr and len(new.isr) >= image.min_isr(topic, new):
        grown = replace(new, last_isr=())
        new = replace(grown, partition_epoch=old.partition_epoch + 1)
    events = [] if new is old else [partition_changed(topic, index, old, new)]
    # A leader that was the last member while shutting down may go once somebody has joined.
    left = settled(image, topic, index, new, leader)
    if left is not new:
        events.append(partition_changed(topic, index, new, left))
    return events, left


def _check_proposal(
    image: MetadataImage, old: PartitionImage, leader: int, proposal: wire.AlterPartition
) -> None:
    if old.leader != leader:
        raise NotLeaderError(
            f"broker {leader} does not lead; broker {old.leader} does, in leader_epoch"
            f" {old.leader_epoch}"
        )
    given = proposal.leader_epoch
    if given != old.leader_epoch:
        kind = FencedLeaderEpochError if given < old.leader_epoch else UnknownLeaderEpochError
        raise kind(f"leader_epoch is {old.leader_epoch}, not {given}")
    if proposal.partition_epoch != old.partition_epoch:
        raise StalePartitionEpochError(
            f"partition_epoch is {old.partition_epoch}, not {proposal.partition_epoch}"
        )
    ids = [member.broker_id for member in proposal.isr]
    if leader not in ids and (not ids or not set(ids) <= set(old.isr)):
        raise InvalidRequestError(
            f"the proposed ISR {ids} lacks the leader {leader}: one that resigns leaves it to"
            f" others of the ISR {list(old.isr)}, and adds none"
        )
    if len(set(ids)) != len(ids) or not set(ids) <= set(old.broker_ids):
        raise InvalidRequestError(
            f"the proposed ISR {ids} must name each of some replicas {list(old.broker_ids)} once"
        )
    for member in proposal.isr:
        why = _ineligible(image, old, member, leader)
        if why:
            raise IneligibleReplicaError(f"broker {member.broker_id} {why}")


def _ineligible(
    image: MetadataImage, partition: PartitionImage, member: wire.IsrMember, leader: int
) -> str | None:
    """Return why a broker may not be in the ISR (KIP-841, KIP-903). The leader itself may be
    shutting down: as the last member it needs somebody to hand over to.
    """
    broker = image.brokers.get(member.broker_id)
    if broker is None:
        return "is not registered"
    if broker.epoch != member.broker_epoch:
        return f"has broker_epoch {broker.epoch}, not {member.broker_epoch}"
    if broker.fenced:
        return "is fenced"
    if broker.shutting_down and broker.id != leader:
        return "is shutting down"
    directory = broker.directory(partition.directory_of(broker.id) or b"")
    if directory is None or directory.failed:
        return "has lost that replica's directory"
    return None


# Recovery: an election that may lose records.


def recover(
    image: MetadataImage, topic_id: bytes, partition: int, leader: int, context: Context
) -> Outcome[bool]:
    """Let `leader` lead though acknowledged records may be lost: recovered_epoch says so for good.

    Response: whether it was done; it is not if the partition has a leader by now, or is gone, or
    the chosen broker may not lead.
    """
    del context
    topic = image.topics.get(topic_id)
    old = image.partition(topic_id, partition)
    if topic is None or old is None or old.leader != NO_LEADER:
        return Outcome((), False)
    if not image.is_eligible(old, leader):
        return Outcome((), False)
    new = moved(image, topic, replace(old, isr=(), elr=()), isr=(leader,), leader=leader)
    replicas = new.replicas
    for broker_id in old.broker_ids:
        broker = image.brokers.get(broker_id)
        if broker is not None and broker.directory(old.directory_of(broker_id) or b"") is None:
            replicas = _redirected(replace(new, replicas=replicas), broker, partition)
    new = replace(new, replicas=replicas, recovered_epoch=new.leader_epoch)
    return Outcome((partition_changed(topic, partition, old, new),), True)


def recover_all(image: MetadataImage, chosen: Sequence[Recover], context: Context) -> Outcome[bool]:
    """Decide `recover` for several partitions, each by itself. Response: whether any was done."""
    outcomes = [recover(image, c.topic_id, c.partition, c.leader, context) for c in chosen]
    events = tuple(event for outcome in outcomes for event in outcome.events)
    return Outcome(events, bool(events))


@dataclass(frozen=True, slots=True)
class AskEnds:
    """Ask a broker, on its heartbeat stream, for (last_epoch, log_end_offset) of these."""

    broker_id: int
    partitions: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Recover:
    """Decide `recover` for this partition, and say the reason loudly."""

    topic_id: bytes
    partition: int
    leader: int
    reason: str


@dataclass(slots=True)
class _Waiting:
    """A partition that nobody can lead without loss."""

    since_ms: int
    #: By broker: the broker_epoch that was asked, when first, and when last.
    asked: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    #: By broker: the broker_epoch that answered, and its (last_epoch, log_end_offset).
    ends: dict[int, tuple[int, tuple[int, int]]] = field(default_factory=dict)

    def must_ask(self, broker: BrokerImage, now_ms: int) -> bool:
        """Whether to ask a broker now: not yet asked, or so long ago that the answer is lost."""
        epoch, first_ms, last_ms = self.asked.get(broker.id, (-1, now_ms, now_ms))
        if epoch == broker.epoch and now_ms - last_ms < ASK_AGAIN_MS:
            return False
        self.asked[broker.id] = (
            broker.epoch,
            first_ms if epoch == broker.epoch else now_ms,
            now_ms,
        )
        return True

    def is_hopeless(self, broker: BrokerImage, now_ms: int) -> bool:
        """Whether a broker was asked long ago and did not answer: it is done without."""
        epoch, first_ms, _ = self.asked.get(broker.id, (-1, now_ms, now_ms))
        return epoch == broker.epoch and now_ms - first_ms >= ANSWERS_WAIT_MS


class Recovery:
    """The way back for partitions whose ISR and ELR are empty, or whose topic allows loss.

    Lives as long as a reign. It waits until all of last_isr are back, or for
    unclean.recovery.wait.ms (not at all where unclean election is allowed), asks those that are
    back for the ends of their logs, and lets the furthest lead; ties go by order of assignment.
    An empty log may lead only if all who may have had records have answered: a wiped disk is no
    candidate. All images given are the pending one.
    """

    def __init__(self, unclean_recovery_wait_ms: int = 60_000) -> None:
        self._wait_ms = unclean_recovery_wait_ms
        self._leaderless: dict[Key, _Waiting | None] = {}

    def changed(self, image: MetadataImage, partitions: Iterable[Key]) -> None:
        """These partitions changed, or are new to this reign; whoever is without a leader is
        looked at in each tick.
        """
        for key in partitions:
            partition = image.partition(*key)
            if partition is not None and partition.leader == NO_LEADER:
                self._leaderless.setdefault(key, None)
            elif self._leaderless:
                self._leaderless.pop(key, None)

    def answered(self, broker_id: int, broker_epoch: int, ends: Iterable[wire.ReplicaEnd]) -> None:
        """A broker told the ends of its logs; what nobody asked for is passed over."""
        for end in ends:
            waiting = self._leaderless.get((end.topic_id, end.partition))
            if waiting is not None and broker_id in waiting.asked:
                waiting.ends[broker_id] = (broker_epoch, (end.last_epoch, end.log_end_offset))

    def tick(self, image: MetadataImage, now_ms: int) -> list[AskEnds | Recover]:
        """Return what to ask and whom to elect, by what is known now. Where many partitions have
        no leader they are looked at in turn.
        """
        questions: dict[int, list[Key]] = {}
        recovers: list[AskEnds | Recover] = []
        for key in list(islice(self._leaderless, LEADERLESS_PER_TICK)):
            topic, partition = image.topics.get(key[0]), image.partition(*key)
            if topic is None or partition is None or partition.leader != NO_LEADER:
                del self._leaderless[key]
                continue
            self._leaderless[key] = self._leaderless.pop(key)  # behind the others
            found = self._look(image, topic, key, partition, now_ms)
            if isinstance(found, Recover):
                recovers.append(found)
                if len(recovers) == RECOVERED_PER_TICK:
                    break
            else:
                for broker_id in found:
                    questions.setdefault(broker_id, []).append(key)
        asks = [AskEnds(broker_id, tuple(questions[broker_id])) for broker_id in sorted(questions)]
        return [*asks, *recovers]

    def _look(
        self,
        image: MetadataImage,
        topic: TopicImage,
        key: Key,
        partition: PartitionImage,
        now_ms: int,
    ) -> Recover | list[int]:
        """Return the election of one partition, or whom to ask first."""
        unclean = bool(image.config_value(topic, "unclean.leader.election.enable"))
        if (partition.isr or partition.elr) and not unclean:
            self._leaderless[key] = None  # somebody with all records may come back
            return []
        waiting = self._leaderless[key]
        if waiting is None:
            waiting = self._leaderless[key] = _Waiting(now_ms)
        back = [b for b in partition.broker_ids if image.is_eligible(partition, b)]
        waited = now_ms - waiting.since_ms >= self._wait_ms
        if not back or not (unclean or waited or all(b in back for b in partition.last_isr)):
            return []
        ends = {
            b: waiting.ends[b][1]
            for b in back
            if b in waiting.ends and waiting.ends[b][0] == image.brokers[b].epoch
        }
        silent = [image.brokers[b] for b in back if b not in ends]
        ask = [broker.id for broker in silent if waiting.must_ask(broker, now_ms)]
        if not all(waiting.is_hopeless(broker, now_ms) for broker in silent):
            return ask
        return self._furthest(topic, key, partition, ends) or ask

    def _furthest(
        self,
        topic: TopicImage,
        key: Key,
        partition: PartitionImage,
        ends: dict[int, tuple[int, int]],
    ) -> Recover | None:
        """Return the election of who has most; None if those who answered may not lead."""
        holders = (*partition.isr, *partition.elr, *partition.last_isr)
        if not all(b in ends for b in holders):
            ends = {b: end for b, end in ends.items() if end[1] > 0}
        if not ends:
            return None

        def rank(broker: int) -> tuple[bool, tuple[int, int], int]:
            """A batch's epoch lies outside its CRC: one that never was is damage, and no merit."""
            epoch_has_been = ends[broker][0] <= partition.leader_epoch
            return epoch_has_been, ends[broker], -partition.broker_ids.index(broker)

        leader = max(ends, key=rank)
        told = ", ".join(f"broker {b}: epoch {e}, end {o}" for b, (e, o) in ends.items())
        return Recover(
            key[0],
            key[1],
            leader,
            f"{topic.name}-{key[1]} may have lost acknowledged records: ISR"
            f" {list(partition.isr)}, ELR {list(partition.elr)} and last ISR"
            f" {list(partition.last_isr)} could not lead; of {told}, broker {leader} has most",
        )
