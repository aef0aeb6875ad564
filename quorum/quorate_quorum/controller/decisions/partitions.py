"""Leaders, ISR and ELR: the next state of a partition when its replicas come, go and fall behind.

`moved` makes every change of a partition's state, and notes its causes. It keeps the ELR by the
rule of KIP-966: while the ISR is smaller than min ISR, the high watermark does not move. So a
replica that leaves such an ISR still has every acknowledged record, and enters the ELR. The ELR is
emptied when the ISR is large enough again. Leaders are elected from the ISR, then from the ELR.
`LossyElections` decides the elections that may lose records; recovered_epoch marks a partition that
had one.

A leader must take its ISR from the image, never from the answer to AlterPartition. Only images
arrive in order: before the new ISR, the log may hold a raised min.insync.replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
from quorate_quorum.controller.decisions.free_space import DirectoryChoice
from quorate_quorum.controller.decisions.outcome import Context, Outcome
from quorate_quorum.metadata.brokers import BrokerImage, DirectoryImage
from quorate_quorum.metadata.history import CAUSE, CAUSES_MAX, Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import (
    NO_LEADER,
    Key,
    PartitionImage,
    ReplicaImage,
    partition_changed,
)
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev

#: The most of a leader's proposals that one turn of the event loop decides.
ALTERED_PER_TURN = 50


@dataclass(frozen=True, slots=True)
class Assigned:
    """The replicas of a partition, and which of them a reassignment adds and removes.

    `throttle`, `original`: see PartitionImage.
    """

    replicas: tuple[ReplicaImage, ...]
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    throttle: int = 0
    original: tuple[int, ...] = ()

    @classmethod
    def of(cls, old: PartitionImage, replicas: tuple[ReplicaImage, ...]) -> Assigned:
        """Return the same assignment, where replicas may be in other directories."""
        return cls(replicas, old.adding, old.removing, old.throttle, old.original)

    @property
    def broker_ids(self) -> set[int]:
        """The assigned brokers."""
        return {one.broker_id for one in self.replicas}

    def ordered(self, members: set[int]) -> tuple[int, ...]:
        """Return the members in the order of assignment, which is the same on every node."""
        return tuple([r.broker_id for r in self.replicas if r.broker_id in members])


def moved(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    *,
    isr: Iterable[int],
    leader: int,
    because: Sequence[Cause],
    lossy: Sequence[int] = (),
    assigned: Assigned | None = None,
) -> PartitionImage:
    """Return the next state of a partition with this ISR and leader; `old` if nothing changes.

    If a broker loses its replica, leader_epoch grows, although the leader may stay. Otherwise what
    the old replica has fetched would count for a replica that the same broker gets later, and that
    one is empty.

    `because`: the causes of the change. `lossy`: brokers whose replica may have lost the end of its
    log. If such a replica leaves ISR or
    ELR, it enters last_isr, not the ELR. `assigned`: the new replicas, if they change.
    """
    members = set(isr)
    left = {*old.isr, *old.elr} - members
    unsure = set(lossy)
    now = Assigned.of(old, old.replicas) if assigned is None else assigned
    is_new_reign = leader != old.leader or not set(old.broker_ids) <= now.broker_ids
    new = replace(
        old,
        replicas=now.replicas,
        adding=now.adding,
        removing=now.removing,
        throttle=now.throttle,
        original=now.original,
        isr=now.ordered(members),
        leader=leader,
        leader_epoch=old.leader_epoch + is_new_reign,
        elr=now.ordered(left - unsure),
        last_isr=now.ordered({*old.last_isr, *(left & unsure)}),
        causes=tuple(because),
    )
    if new.elr and len(new.isr) >= image.min_isr(topic, new):
        new = replace(new, elr=())
    return old if new == old else replace(new, partition_epoch=old.partition_epoch + 1)


def completed(image: MetadataImage, topic: TopicImage, old: PartitionImage) -> PartitionImage:
    """Return the next state of a partition whose reassignment can end; `old` if it can't.

    It ends when every target replica is in the ISR and live, and one of them may lead (KIP-455). A
    member that is not live leaves the ISR in the sweep to come, and may have lost its records.
    """
    target = old.target
    if not old.is_reassigned or not set(target) <= set(old.isr):
        return old
    if not all(image.is_live(old, broker_id) for broker_id in target):
        return old
    kept = Assigned(tuple(one for one in old.replicas if one.broker_id in target))
    because = (Cause(ev.CAUSE_KIND_REASSIGNMENT_COMPLETED),)
    leader = old.leader
    if leader not in target:
        leader = leader_among(image, old, target)
        if leader == NO_LEADER:
            return old
    return moved(image, topic, old, isr=target, leader=leader, because=because, assigned=kept)


def clean_leader(image: MetadataImage, partition: PartitionImage, isr: Sequence[int]) -> int:
    """Return the broker that may lead without loss; NO_LEADER if there is none.

    It is a member of the ISR; if none of them may lead, of the ELR. The caller must take a member
    of the ELR into the ISR: the leader is in the ISR.
    """
    leader = leader_among(image, partition, isr)
    return leader_among(image, partition, partition.elr) if leader == NO_LEADER else leader


def leader_among(image: MetadataImage, partition: PartitionImage, members: Sequence[int]) -> int:
    """Return the first eligible one of these members, or NO_LEADER.

    The order is that of assignment. A drained broker comes after the others.
    """
    found = [b for b in partition.broker_ids if b in members and image.is_eligible(partition, b)]
    undrained = (b for b in found if not image.brokers[b].cordoned)
    return next(undrained, found[0] if found else NO_LEADER)


def elect(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    because: ev.CauseKind.ValueType = ev.CAUSE_KIND_BROKER_RETURNED,
) -> PartitionImage:
    """Return the next state of a leaderless partition.

    It has a leader, if a broker can lead the partition without loss. `because`: the cause, which is
    about the new leader.
    """
    if old.leader != NO_LEADER:
        return old
    leader = clean_leader(image, old, old.isr)
    if leader == NO_LEADER:
        return old
    causes = (Cause(because, leader),)
    return moved(image, topic, old, isr=(*old.isr, leader), leader=leader, because=causes)


def adapted(
    image: MetadataImage,
    topic: TopicImage,
    old: PartitionImage,
    broker_id: int,
    choice: DirectoryChoice,
) -> PartitionImage:
    """Return the next state of a partition, given the state of one of its brokers in the image.

    A broker that is fenced, or whose directory failed, leaves the ISR and stops leading. A broker
    that is shutting down does the same, unless it is the last member. A broker leaves the ELR if
    its replica may have lost records. A replica whose directory is not registered gets another
    directory, if a member of ISR or ELR still has the records. A second call changes nothing, so
    the next controller can complete the changes that this one began.
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
    lossy = () if is_lossless(image, topic, old, broker_id) else (broker_id,)
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
        return old  # the last member stays in the ISR and leads until it stops
    because = (_cause(broker, directory, is_lossy=bool(lossy)),)
    new = moved(image, topic, old, isr=isr, leader=leader, because=because, lossy=lossy)
    if directory is None and (new.isr or new.elr):
        new = moved(
            image,
            topic,
            old,
            isr=isr,
            leader=leader,
            because=because,
            lossy=lossy,
            assigned=Assigned.of(old, redirected(old, broker, choice)),
        )
    return new


def _cause(broker: BrokerImage, directory: DirectoryImage | None, *, is_lossy: bool) -> Cause:
    """Return why a broker's replica in this directory may be out of date by now.

    A run that registers fences the broker. What it says of the disk tells more than that.
    """
    if directory is None:
        return Cause(ev.CAUSE_KIND_DIRECTORY_MISSING, broker.id)
    if directory.failed:
        return Cause(ev.CAUSE_KIND_DIRECTORY_FAILED, broker.id)
    if not broker.fenced:
        return Cause(ev.CAUSE_KIND_SHUTTING_DOWN, broker.id)
    fenced = broker.fenced_because
    if fenced is None or fenced.kind == ev.CAUSE_KIND_UNSPECIFIED:
        return Cause(ev.CAUSE_KIND_UNSPECIFIED, broker.id)
    if is_lossy and fenced.kind == ev.CAUSE_KIND_BROKER_RESTARTED:
        return Cause(ev.CAUSE_KIND_TAIL_LOST, broker.id)
    return fenced


def is_lossless(
    image: MetadataImage, topic: TopicImage, partition: PartitionImage, broker_id: int
) -> bool:
    """Return whether a replica has all that it had, as far as its broker's registration tells."""
    broker = image.brokers.get(broker_id)
    if broker is None:
        return False
    directory = broker.directory(partition.directory_of(broker_id) or b"")
    if directory is None or directory.sync_failed or directory.failed:
        return False
    return directory.tail_intact or bool(image.config_value(topic, "flush.on.ack"))


def redirected(
    partition: PartitionImage, broker: BrokerImage, choice: DirectoryChoice
) -> tuple[ReplicaImage, ...]:
    """Return the replicas; the one of `broker` is in a working directory, if the broker has one."""
    if all(directory.failed for directory in broker.directories):
        return partition.replicas
    placed = choice.of(broker.id)
    return tuple(
        placed if replica.broker_id == broker.id else replica for replica in partition.replicas
    )


# AlterPartition.


def alter_partitions(
    image: MetadataImage, request: wire.AlterPartitionsRequest, context: Context
) -> Outcome[wire.AlterPartitionsResponse]:
    """Decide a leader's proposals for the ISRs of its partitions. Each has its own result."""
    choice = DirectoryChoice(image, context.free_space)
    response = wire.AlterPartitionsResponse(request_id=request.request_id)
    broker = image.brokers.get(request.broker_id)
    if broker is None or broker.epoch != request.broker_epoch or broker.fenced:
        response.error.CopyFrom(to_wire(_fenced(image, request)))
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
            changes, state = _altered(image, request.broker_id, proposal, choice)
            events.extend(changes)
        except QuorateError as error:
            result.error.CopyFrom(to_wire(error))
        _tell(result, state)
    return Outcome(tuple(events), response)


def _fenced(image: MetadataImage, request: wire.AlterPartitionsRequest) -> FencedError:
    """Return the error for a broker that may propose nothing."""
    broker = image.brokers.get(request.broker_id)
    if broker is None:
        found = f"it is not registered; {sorted(image.brokers)} are"
    elif broker.epoch != request.broker_epoch:
        found = f"its registration is broker_epoch {broker.epoch}: register again"
    else:
        found = "it is fenced until it is heard again"
    return FencedError(
        f"broker {request.broker_id} with broker_epoch {request.broker_epoch} proposes ISRs, and"
        f" {found}"
    )


def parts_of(request: wire.AlterPartitionsRequest) -> list[wire.AlterPartitionsRequest]:
    """Split a request into parts. One turn of the event loop decides one part."""
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
    """Join the answers to the parts into one.

    If a part is refused as a whole, its answer is the answer to the whole request. The leader then
    learns from the image what the earlier parts have changed.
    """
    whole = wire.AlterPartitionsResponse()
    for response in responses:
        if response.HasField("error"):
            return response
        whole.MergeFrom(response)
    return whole


def _tell(result: wire.AlteredPartition, state: PartitionImage | None) -> None:
    """Write the partition's state into a result. A leader needs the state after a refusal, too."""
    if state is None:
        result.leader = NO_LEADER
        return
    result.leader = state.leader
    result.leader_epoch = state.leader_epoch
    result.partition_epoch = state.partition_epoch
    result.isr.extend(state.isr)


def _altered(
    image: MetadataImage, leader: int, proposal: wire.AlterPartition, choice: DirectoryChoice
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
    # A leader that proposes an ISR without itself resigns: the first of the members leads.
    resigns = leader not in isr
    new = moved(
        image,
        topic,
        old,
        isr=isr,
        leader=leader_among(image, old, isr) if resigns else leader,
        because=_told(image, old, isr, proposal.causes),
        lossy=(leader,) if resigns and proposal.lossy else (),
    )
    if new.last_isr and len(new.isr) >= image.min_isr(topic, new):
        grown = replace(new, last_isr=())
        new = replace(grown, partition_epoch=old.partition_epoch + 1)
    states = [old, new]
    # If the leader is shutting down, it can leave the ISR now that another member has joined.
    states.append(adapted(image, topic, states[-1], leader, choice))
    states.append(completed(image, topic, states[-1]))
    return steps(topic.id, index, states), states[-1]


def _told(
    image: MetadataImage, old: PartitionImage, isr: Sequence[int], told: Sequence[ev.Cause]
) -> list[Cause]:
    """Return why brokers leave or enter the ISR, a cause for each.

    A leader of an older release tells none. What it tells of other brokers is left out. A leader
    that resigns may propose members of the ELR: its own cause is theirs.
    """
    found = {one.broker_id: CAUSE.image(one) for one in told[:CAUSES_MAX]}
    causes = []
    for broker_id in old.broker_ids:
        if broker_id in found and (broker_id in isr) != (broker_id in old.isr):
            causes.append(found[broker_id])
        elif broker_id in isr and broker_id not in (*old.isr, *old.elr):
            causes.append(Cause(ev.CAUSE_KIND_CAUGHT_UP, broker_id))
        elif broker_id in old.isr and broker_id not in isr:
            broker, directory_id = image.brokers.get(broker_id), old.directory_of(broker_id)
            if broker is None or image.is_eligible(old, broker_id):
                causes.append(Cause(ev.CAUSE_KIND_UNSPECIFIED, broker_id))
            else:
                directory = broker.directory(directory_id or b"")
                causes.append(_cause(broker, directory, is_lossy=False))
    return causes


def steps(topic_id: bytes, index: int, states: Sequence[PartitionImage]) -> list[ev.MetadataEvent]:
    """Return the events that lead through these states of a partition."""
    return [
        partition_changed(topic_id, index, old, new)
        for old, new in pairwise(states)
        if new is not old
    ]


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
        raise kind(
            f"the proposal is of leader_epoch {given}, and the partition is in {old.leader_epoch},"
            f" led by broker {old.leader}: propose from the newest image"
        )
    if proposal.partition_epoch != old.partition_epoch:
        raise StalePartitionEpochError(
            f"the proposal changes partition_epoch {proposal.partition_epoch}, and the partition"
            f" is in {old.partition_epoch}: propose from the newest image"
        )
    ids = [member.broker_id for member in proposal.isr]
    # The members of the ELR have all that is committed, too.
    if leader not in ids and (not ids or not set(ids) <= {*old.isr, *old.elr}):
        raise InvalidRequestError(
            f"the proposed ISR {ids} lacks the leader {leader}: one that resigns leaves it to"
            f" others of the ISR {list(old.isr)} or the ELR {list(old.elr)}, and adds none"
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
    """Return why a broker may not be in the ISR (KIP-841, KIP-903); None if it may.

    Of the brokers that are shutting down, only the leader may be in the ISR: as the last member, it
    leads until another replica has joined.
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
