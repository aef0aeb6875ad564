"""Each decision about a partition writes down why: a row says what happens, and the cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.drain import Drain, cordon
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.growth import Growth
from quorate_quorum.controller.decisions.lossy_elections import (
    AskEnds,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.decisions.lossy_replicas import replicas_lossy
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.partitions import alter_partitions
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.history import CAUSE, CAUSES_MAX, Cause, changes_of
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    alter_configs,
    brokers,
    context,
    create_topics,
    decided,
    directory_id,
    incarnation,
    raised,
    settled,
    the_partition,
    topic_id,
    with_partition,
)

FOUR = brokers([0, 1, 2, 3])
#: Topic "orders" of one partition on brokers 0, 1 and 2, led by 0.
START = with_partition(FOUR, [0, 1, 2])
Step = Callable[[MetadataImage], MetadataImage]


@dataclass(frozen=True)
class Told:
    """The cause of the newest change of a partition, without its numbers."""

    kind: str
    broker_id: int = 0


def fenced(broker_id: int, kind: ev.CauseKind.ValueType = ev.CAUSE_KIND_BROKER_SILENT) -> Step:
    because = Cause(kind, broker_id, ms=3_000)
    return lambda image: decided(image, broker_id, decide.fence(image, broker_id, because))


def unfenced(broker_id: int) -> Step:
    return lambda image: decided(image, broker_id, decide.unfence(image, broker_id))


def leaves(broker_id: int) -> Step:
    return lambda image: decided(image, broker_id, decide.shut_down(image, broker_id))


def registered(broker_id: int, *, tail_intact: bool = True, disk: int = 0) -> Step:
    def step(image: MetadataImage) -> MetadataImage:
        request = wire.RegisterRequest(
            broker_id=broker_id,
            incarnation=incarnation(broker_id, 2),
            **listening_at(f"b{broker_id}:9092"),
        )
        request.directories.add(directory_id=directory_id(broker_id, disk), tail_intact=tail_intact)
        outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
        return decided(image, broker_id, outcome)

    return step


def disk_fails(broker_id: int) -> Step:
    return lambda image: decided(
        image,
        broker_id,
        decide.directories_failed(image, broker_id, [directory_id(broker_id)]),
    )


def lossy(broker_id: int) -> Step:
    def step(image: MetadataImage) -> MetadataImage:
        report = wire.LossyReplica(
            topic_id=topic_id(1), partition_epoch=the_partition(image).partition_epoch
        )
        return replayed(image, replicas_lossy(image, broker_id, [report]).events)

    return step


def proposes(*isr: int, causes: tuple[Cause, ...] = ()) -> Step:
    """The leader proposes this ISR, for these causes."""

    def step(image: MetadataImage) -> MetadataImage:
        partition = the_partition(image)
        request = wire.AlterPartitionsRequest(
            broker_id=partition.leader, broker_epoch=image.brokers[partition.leader].epoch
        )
        request.partitions.add(
            topic_id=topic_id(1),
            leader_epoch=partition.leader_epoch,
            partition_epoch=partition.partition_epoch,
            isr=[wire.IsrMember(broker_id=b, broker_epoch=image.brokers[b].epoch) for b in isr],
            causes=CAUSE.codec.to_wire(causes),
        )
        outcome = alter_partitions(image, request, context(image))
        assert not outcome.response.partitions[0].HasField("error")
        return replayed(image, outcome.events)

    return step


def elected(*, unclean: bool = False, balance: bool = False) -> Step:
    def step(image: MetadataImage) -> MetadataImage:
        request = admin.ElectLeadersRequest(all_topics=True, unclean=unclean)
        kinds = (ev.CAUSE_KIND_PREFERRED_BALANCE,) if balance else ()
        return replayed(
            image, RequestedElections(request, *kinds).next(image, context(image)).events
        )

    return step


def moves(*target: int, cancel: bool = False) -> Step:
    def step(image: MetadataImage) -> MetadataImage:
        asked = admin.ReassignedPartition(partition=0, replicas=target, cancel=cancel)
        request = admin.ReassignPartitionsRequest()
        request.topics.add(topic="orders", partitions=[asked])
        return replayed(image, Reassignments(request).next(image, context(image)).events)

    return step


def drained(broker_id: int, *, replicas: bool = False) -> Step:
    def step(image: MetadataImage) -> MetadataImage:
        image = replayed(image, cordon(image, broker_id, cordoned=True).events)
        drain = Drain(broker_id, replicas=replicas)
        return replayed(image, drain.next(image, context(image)).events)

    return step


def elects_with_loss(*, asked: bool = False, wait_ms: int = 10, answers: int = 3) -> Step:
    """The replicas of partition 0 that are back tell where their logs end: the first has most."""

    def step(image: MetadataImage) -> MetadataImage:
        elections = LossyElections(unclean_recovery_wait_ms=wait_ms)
        key = (topic_id(1), 0)
        elections.changed(image, [key])
        if asked:
            elections.ask_for({key: ()}, until_ms=10_000)
        for now_ms in range(0, 20_000, 100):
            for effect in elections.tick(image, now_ms):
                if isinstance(effect, AskEnds):
                    end = wire.ReplicaEnd(topic_id=key[0], log_end_offset=9 - effect.broker_id)
                    epoch = image.brokers[effect.broker_id].epoch
                    if effect.broker_id < answers:
                        elections.answered(effect.broker_id, epoch, [end])
                else:
                    return replayed(image, elect_all(image, [effect], FreeSpace()).events)
        raise AssertionError("no election")

    return step


def configured(name: str, value: str) -> Step:
    def step(image: MetadataImage) -> MetadataImage:
        request = admin.AlterConfigsRequest(topic="orders", set={name: value})
        return replayed(image, alter_configs(image, request).events)

    return step


BEHIND = Cause(ev.CAUSE_KIND_FELL_BEHIND, 2, ms=12_000, records=5)
ALL_LOST: list[Step] = [
    fenced(1),
    fenced(2),
    fenced(0),
    *(registered(b, tail_intact=False) for b in (0, 1, 2)),
]

ROWS = {
    "fenced": ([fenced(1)], Told("broker_silent", 1)),
    "the leader is fenced": ([fenced(0, ev.CAUSE_KIND_BROKER_GONE)], Told("broker_gone", 0)),
    "it stopped after it had asked to, as the last member": (
        [fenced(1), fenced(2), leaves(0), fenced(0, ev.CAUSE_KIND_BROKER_STOPPED)],
        Told("broker_stopped", 0),
    ),
    "it registers while it is trusted": ([registered(1)], Told("broker_restarted", 1)),
    "a clean stop": ([leaves(1)], Told("shutting_down", 1)),
    "a leader comes back": (
        [fenced(1), fenced(2), fenced(0), unfenced(0)],
        Told("broker_returned"),
    ),
    "a disk fails": ([disk_fails(1)], Told("directory_failed", 1)),
    "a wiped disk": ([registered(1, disk=5)], Told("directory_missing", 1)),
    "a crash that may have lost the end": (
        [fenced(1), fenced(2), registered(2, tail_intact=False)],
        Told("tail_lost", 2),
    ),
    "a replica that is told as lossy": ([lossy(1)], Told("replica_lossy", 1)),
    "an election of the preferred leader": (
        [fenced(0), unfenced(0), proposes(1, 2, 0), elected()],
        Told("preferred_asked"),
    ),
    "automatic balance": (
        [fenced(0), unfenced(0), proposes(1, 2, 0), elected(balance=True)],
        Told("preferred_balance"),
    ),
    "a drain": ([drained(0)], Told("broker_drained", 0)),
    "all told, and the furthest leads": (
        [*ALL_LOST, *(unfenced(b) for b in (0, 1, 2)), elects_with_loss(wait_ms=60_000)],
        Told("lossy_told", 0),
    ),
    "those that came back in time": (
        [*ALL_LOST, *(unfenced(b) for b in (1, 2)), elects_with_loss()],
        Told("lossy_waited", 1),
    ),
    "unclean elections are allowed": (
        [
            configured("unclean.leader.election.enable", "true"),
            *(fenced(b) for b in (1, 2, 0)),
            unfenced(1),
            elects_with_loss(),
        ],
        Told("lossy_allowed", 1),
    ),
    "an unclean election is asked for": (
        [*ALL_LOST, unfenced(2), elects_with_loss(asked=True)],
        Told("lossy_asked", 2),
    ),
    "a reassignment": ([moves(0, 1, 3)], Told("reassignment_asked")),
    "another target meanwhile": ([moves(0, 1, 3), moves(0, 3)], Told("reassignment_replaced")),
    "cancelled": ([moves(0, 1, 3), moves(cancel=True)], Told("reassignment_cancelled")),
    "completed": ([moves(0, 1, 3), proposes(0, 1, 2, 3)], Told("reassignment_completed")),
    "a drain with the replicas": ([drained(2, replicas=True)], Told("replicas_drained", 2)),
    "a follower fell behind": ([proposes(0, 1, causes=(BEHIND,))], Told("fell_behind", 2)),
    "a follower caught up": (
        [
            proposes(0, 1, causes=(BEHIND,)),
            proposes(0, 1, 2, causes=(Cause(ev.CAUSE_KIND_CAUGHT_UP, 2),)),
        ],
        Told("caught_up", 2),
    ),
    "a leader of an older release shrinks": ([proposes(0, 1)], Told("unspecified", 2)),
    "a leader of an older release grows": (
        [proposes(0, 1), proposes(0, 1, 2)],
        Told("caught_up", 2),
    ),
    "a damaged leader resigns": (
        [proposes(1, 2, causes=(Cause(ev.CAUSE_KIND_LEADER_DAMAGED, 0),))],
        Told("leader_damaged", 0),
    ),
    "a lower min ISR": (
        [
            configured("min.insync.replicas", "3"),
            proposes(0, 1),
            configured("min.insync.replicas", "2"),
        ],
        Told("min_isr_changed"),
    ),
}


@pytest.mark.parametrize(("steps", "told"), list(ROWS.values()), ids=list(ROWS))
def test_a_change_names_its_cause(steps: list[Step], told: Told) -> None:
    image = START
    for step in steps:
        image = step(image)
    newest = changes_of(the_partition(image).history)[-1]
    assert [Told(cause.name, cause.broker_id) for cause in newest.causes] == [told]
    if told.kind in ("broker_silent", "fell_behind"):
        assert newest.causes[0].ms > 0


def test_a_new_topic_and_its_new_partitions_are_told_apart() -> None:
    request = admin.CreateTopicsRequest()
    request.topics.add(name="new", topic_id=topic_id(9), num_partitions=1, replication_factor=2)
    image = replayed(FOUR, create_topics(FOUR, request, context(FOUR)).events)
    growth = Growth(admin.CreatePartitionsRequest(topic="new", count=2))
    outcome: Outcome[bool] = growth.next(image, context(image))
    image = replayed(image, outcome.events)
    names = [
        cause.name
        for index in (0, 1)
        for change in changes_of(the_partition(image, 9, index).history)
        for cause in change.causes
    ]
    assert names == ["topic_created", "topic_grown"]


def test_an_internal_topic_that_gets_more_replicas_says_so() -> None:
    image = with_partition(FOUR, [0], name="__consumer_offsets")
    image = raised(image)
    newest = changes_of(the_partition(image).history)[-1]
    assert [cause.name for cause in newest.causes] == ["internal_topic_raised"]


def test_an_operator_who_asks_for_any_leader_where_one_has_all_records_is_named() -> None:
    image = START
    for step in (fenced(1), fenced(2), fenced(0)):
        image = step(image)
    # The broker is back, and the sweep has not come to the partition yet.
    image = replayed(image, decide.unfence(image, 0).events)
    image = elected(unclean=True)(image)
    newest = changes_of(the_partition(image).history)[-1]
    assert [cause.name for cause in newest.causes] == ["election_asked"]


def test_a_fence_of_an_older_release_has_no_cause() -> None:
    image = START
    event = decide.fence(image, 1).events[0]
    event.broker_change.ClearField("cause")
    image = settled(replayed(image, [event]), 1)
    newest = changes_of(the_partition(image).history)[-1]
    assert newest.causes == (Cause(ev.CAUSE_KIND_UNSPECIFIED, 1),)


def test_a_leader_tells_only_of_brokers_that_leave_or_enter_and_only_so_many() -> None:
    told = (Cause(ev.CAUSE_KIND_LOST_RECORDS, 1), BEHIND, *[BEHIND] * 100)
    image = proposes(0, 1, causes=told)(START)
    newest = changes_of(the_partition(image).history)[-1]
    assert newest.causes == (BEHIND,)
    assert len(newest.causes) <= CAUSES_MAX


def test_a_broker_that_leaves_with_the_leader_gets_the_cause_that_the_image_has() -> None:
    """A leader that resigns leaves out who may not lead, and does not know why."""
    image = replayed(START, decide.fence(START, 1, Cause(ev.CAUSE_KIND_BROKER_GONE, 1)).events)
    image = proposes(2, causes=(Cause(ev.CAUSE_KIND_LEADER_FULL, 0),))(image)
    newest = changes_of(the_partition(image).history)[-1]
    assert {cause.name for cause in newest.causes} == {"leader_full", "broker_gone"}
