"""A partition's state, and the events that hold it. topics.py replays these events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Final

from quorate_quorum.metadata.aspect import LogPlace, event_of
from quorate_quorum.metadata.carried import NOT_CARRIED, Carrier, ChangeCarrier, Codec, carried
from quorate_quorum.metadata.history import CAUSE, CAUSES_MAX, Cause, extended
from quorate_quorum.v1 import events_pb2 as ev

NO_LEADER: Final = -1
NEVER: Final = -1
#: The most different assignments that are kept for sharing: partitions with an equal assignment
#: share its objects.
ASSIGNMENTS_SHARED_MAX: Final = 10_000

#: The id of a topic, and the number of one of its partitions.
Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class ReplicaImage:
    """The place of one replica: the broker and the directory that the controller chose."""

    broker_id: int
    directory_id: bytes


@lru_cache(maxsize=ASSIGNMENTS_SHARED_MAX)
def _assignment(replicas: tuple[tuple[int, bytes], ...]) -> tuple[ReplicaImage, ...]:
    """Return the same object for equal assignments.

    There are few different assignments, so this saves many objects, and a run of the garbage
    collector is shorter.
    """
    return tuple([ReplicaImage(broker_id, directory_id) for broker_id, directory_id in replicas])


REPLICAS = Codec(
    lambda told: _assignment(tuple([(one.broker_id, one.directory_id) for one in told])),
    Carrier(ReplicaImage, ev.Replica).codec.to_wire,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionImage:
    """A partition's state.

    ISR and ELR are disjoint subsets of the replicas, in the order of assignment. The leader is in
    the ISR. leader_epoch grows with every new leader, partition_epoch with every change.

    While the partition is being reassigned (KIP-455), `replicas` are the target replicas in their
    order, then those to remove. `adding` are the targets that the partition did not have before.
    """

    leader: int
    leader_epoch: int = 0
    partition_epoch: int = 0
    #: The last leader_epoch whose election may have lost records; NEVER if there was none.
    recovered_epoch: int = NEVER
    replicas: tuple[ReplicaImage, ...] = field(metadata=carried(codec=REPLICAS))
    isr: tuple[int, ...]
    elr: tuple[int, ...] = ()
    last_isr: tuple[int, ...] = ()
    adding: tuple[int, ...] = ()
    removing: tuple[int, ...] = ()
    #: The last changes, encoded: see history.py. Two nodes may have a different number of them.
    history: bytes = b""
    #: In a state that a decision proposes: why it comes after the state before. Else empty: the
    #: causes of what was applied are in `history`.
    causes: tuple[Cause, ...] = field(default=(), compare=False, metadata=NOT_CARRIED)
    #: The most bytes a second that each broker copies to the replicas in `adding`; 0: any.
    throttle: int = 0
    #: During a reassignment: the replicas from before, in their order. Empty: the order is not
    #: known, because an older program began the reassignment.
    original: tuple[int, ...] = ()

    @property
    def broker_ids(self) -> tuple[int, ...]:
        """The assigned brokers, the preferred one first."""
        return tuple(replica.broker_id for replica in self.replicas)

    @property
    def is_reassigned(self) -> bool:
        """Whether replicas are being added or removed."""
        return bool(self.adding or self.removing)

    @property
    def target(self) -> tuple[int, ...]:
        """The brokers that have a replica when the reassignment is over, the preferred one first.

        Without a reassignment: the assigned brokers.
        """
        return tuple(b for b in self.broker_ids if b not in self.removing)

    @property
    def before(self) -> tuple[int, ...]:
        """The brokers that had a replica before the reassignment, the preferred one first.

        Without a reassignment: the assigned brokers. If their order is not known, that of now.
        """
        return self.original or tuple(b for b in self.broker_ids if b not in self.adding)

    @property
    def is_under_replicated(self) -> bool:
        """Whether a replica is not in the ISR, other than those that a reassignment adds."""
        lacking = len(self.replicas) - len(self.isr)
        if lacking <= 0 or not self.adding:
            return lacking > 0
        return any(b not in self.isr and b not in self.adding for b in self.broker_ids)

    @property
    def permanent_replicas(self) -> int:
        """The number of replicas that count for the in-sync replicas which a commit needs.

        A replica that catches up for the first time must not raise this number. If no replica is
        removed, each of those added counts from the time when it is in sync. A reassignment
        that removes replicas changes the number at its end.
        """
        permanent = len(self.replicas) - len(self.adding)
        if not self.removing:
            permanent += sum(1 for b in self.adding if b in self.isr or b in self.elr)
        return permanent

    def directory_of(self, broker_id: int) -> bytes | None:
        """Return the directory of a broker's replica; None if the broker has no replica."""
        for replica in self.replicas:
            if replica.broker_id == broker_id:
                return replica.directory_id
        return None

    def check(self) -> None:
        """Assert what is true of every partition at every offset."""
        ids = self.broker_ids
        known = set(ids)
        assert ids, "a partition has replicas"
        assert len(known) == len(ids), f"replicas repeat: {ids}"
        for name in _MEMBER_LISTS:
            members: tuple[int, ...] = getattr(self, name)
            if members:
                distinct = set(members)
                assert len(distinct) == len(members), f"{name} repeats: {members}"
                assert distinct <= known, f"{name} {members} not in {ids}"
        assert not any(member in self.isr for member in self.elr), "ISR and ELR are disjoint"
        assert not any(b in self.adding for b in self.removing), "added ones are not removed"
        assert len(self.removing) < len(ids), "a reassignment has a target"
        assert self.throttle >= 0, "a number of bytes a second"
        assert self.adding or not self.throttle, "only copies to added replicas are throttled"
        assert self.leader == NO_LEADER or self.leader in self.isr, "the leader is in the ISR"
        assert self.leader_epoch >= 0, "leader_epoch is 0 or more"
        assert self.partition_epoch >= 0, "partition_epoch is 0 or more"
        assert NEVER <= self.recovered_epoch <= self.leader_epoch, "recovered in a known epoch"


#: The fields that name some of the replicas.
_MEMBER_LISTS: Final = tuple(
    one.name for one in fields(PartitionImage) if one.type == "tuple[int, ...]"
)


def of_now(state: PartitionImage) -> PartitionImage:
    """Return a replayed state without what was about a reassignment that has ended.

    A controller of an older program that ends a reassignment leaves the fields that it does not
    know. An event of it must not stop the nodes that know them: it is in the log for good.
    """
    if state.throttle and not state.adding:
        state = replace(state, throttle=0)
    if state.original and not _is_original_known(state):
        state = replace(state, original=())
    return state


def _is_original_known(state: PartitionImage) -> bool:
    stays = [b for b in state.broker_ids if b not in state.adding]
    return state.is_reassigned and sorted(state.original) == sorted(stays)


PARTITION = Carrier(PartitionImage, ev.Partition)
CHANGE = ChangeCarrier(PartitionImage, ev.PartitionChange, PARTITION)


def partition_changed(
    topic_id: bytes, index: int, old: PartitionImage, new: PartitionImage
) -> ev.MetadataEvent:
    """Return the event that turns one state of a partition into the next, for `new.causes`."""
    causes = CAUSE.codec.to_wire(new.causes[:CAUSES_MAX])
    change = CHANGE.change(old, new, topic_id=topic_id, partition=index, causes=causes)
    return event_of(partition_change=change)


def with_past(state: PartitionImage, causes: Iterable[ev.Cause], place: LogPlace) -> PartitionImage:
    """Return the state, with the change that led to it as the newest one of its history."""
    change = ev.PastChange(
        offset=place.offset,
        time_ms=place.time_ms,
        causes=causes,
        leader=state.leader,
        leader_epoch=state.leader_epoch,
        isr=state.isr,
        elr=state.elr,
        replicas=state.broker_ids,
        adding=state.adding,
        removing=state.removing,
    )
    return replace(state, history=extended(state.history, change))
