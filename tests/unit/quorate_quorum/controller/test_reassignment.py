"""Reassignments: add, catch up, remove. No state on the way has fewer replicas in sync."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.errors import InvalidRequestError
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import Error, ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.drain import cordon
from quorate_quorum.controller.decisions.free_space import DirectoryChoice, FreeSpace
from quorate_quorum.controller.decisions.lossy_elections import elect_lossy
from quorate_quorum.controller.decisions.partitions import alter_partitions, completed
from quorate_quorum.controller.decisions.reassignment import (
    DECIDED_MAX,
    Reassignments,
    under_way,
)
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    context,
    decided,
    directory_id,
    partition_made,
    settled,
    the_partition,
    topic_event,
    topic_id,
    unfence_event,
    with_partition,
)

INVALID_FACTOR = ErrorCode.ERROR_CODE_INVALID_REPLICATION_FACTOR
INVALID = ErrorCode.ERROR_CODE_INVALID_REPLICA_ASSIGNMENT
NOT_MOVING = ErrorCode.ERROR_CODE_NO_REASSIGNMENT_IN_PROGRESS
UNKNOWN_TOPIC = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC

SIX = brokers(range(6))
START = with_partition(SIX, [0, 1, 2])


def ask(
    image: MetadataImage,
    target: Sequence[int] = (),
    *,
    cancel: bool = False,
    partition: int = 0,
    topic: str = "orders",
    keep_factor: bool = False,
    throttle: int = 0,
) -> tuple[MetadataImage, admin.ReassignedPartitionResult]:
    request = admin.ReassignPartitionsRequest(
        keep_replication_factor=keep_factor, throttle=throttle
    )
    asked = admin.ReassignedPartition(partition=partition, replicas=target, cancel=cancel)
    request.topics.add(topic=topic, partitions=[asked])
    requested = Reassignments(request)
    outcome = requested.next(image, context(image))
    assert outcome.response
    return replayed(image, outcome.events), requested.response.topics[0].partitions[0]


def moving(target: Sequence[int], image: MetadataImage = START) -> MetadataImage:
    image, result = ask(image, target)
    assert not result.HasField("error"), result.error.message
    return image


def in_sync(image: MetadataImage, *isr: int) -> MetadataImage:
    """The leader proposes this ISR."""
    partition = the_partition(image)
    request = wire.AlterPartitionsRequest(
        broker_id=partition.leader, broker_epoch=image.brokers[partition.leader].epoch
    )
    request.partitions.add(
        topic_id=topic_id(1),
        partition=0,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        isr=[wire.IsrMember(broker_id=b, broker_epoch=image.brokers[b].epoch) for b in isr],
    )
    outcome = alter_partitions(image, request, context(image))
    assert not outcome.response.partitions[0].HasField("error")
    return replayed(image, outcome.events)


@dataclass(frozen=True)
class State:
    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]
    isr: tuple[int, ...]
    leader: int
    leader_epoch: int = 0


def state(image: MetadataImage) -> State:
    found = the_partition(image)
    return State(
        found.broker_ids,
        found.adding,
        found.removing,
        found.isr,
        found.leader,
        found.leader_epoch,
    )


def test_a_move_adds_waits_and_removes() -> None:
    image = moving([3, 4, 5])
    assert state(image) == State((3, 4, 5, 0, 1, 2), (3, 4, 5), (0, 1, 2), (0, 1, 2), 0)
    assert list(image.reassigned) == [(topic_id(1), 0)]
    for isr in ([0, 1, 2, 3], [0, 1, 2, 3, 4]):
        image = in_sync(image, *isr)
        assert set(the_partition(image).isr) == set(isr)
        assert the_partition(image).adding == (3, 4, 5)
    image = in_sync(image, 0, 1, 2, 3, 4, 5)
    assert state(image) == State((3, 4, 5), (), (), (3, 4, 5), 3, leader_epoch=1)
    assert list(image.reassigned) == []


def test_targets_that_are_all_in_sync_end_the_move_although_others_left_the_isr() -> None:
    image = in_sync(moving([0, 3]), 0, 3)
    assert state(image) == State((0, 3), (), (), (0, 3), 0, leader_epoch=1)


def test_a_leader_that_stays_leads_in_a_new_epoch_when_a_replica_is_removed() -> None:
    """What the old replica has fetched does not count for one that its broker gets later."""
    image = in_sync(moving([1, 0, 3]), 0, 1, 2, 3)
    assert state(image) == State((1, 0, 3), (), (), (1, 0, 3), 0, leader_epoch=1)
    image = moving([1, 0, 3, 5], image)
    assert state(image).leader_epoch == 1  # none is removed
    image, _ = ask(image, cancel=True)
    assert state(image) == State((1, 0, 3), (), (), (1, 0, 3), 0, leader_epoch=2)


def test_fewer_replicas_and_another_order_are_there_at_once() -> None:
    assert state(moving([2, 0])) == State((2, 0), (), (), (2, 0), 0, leader_epoch=1)
    assert state(moving([2, 1, 0])) == State((2, 1, 0), (), (), (2, 1, 0), 0)
    assert state(moving([1])) == State((1,), (), (), (1,), 1, leader_epoch=1)


def test_the_same_target_changes_nothing() -> None:
    image = moving([0, 1, 2])
    assert image.topics == START.topics
    image = moving([3, 1, 2])
    assert moving([3, 1, 2], image).topics == image.topics


@pytest.mark.parametrize(
    "targets",
    [
        ([3, 4, 0],),
        ([1, 2, 3],),
        ([3, 2, 1, 0],),
        ([2],),
        ([2], [3, 1, 0]),
        ([1, 2, 3], [2, 1, 4], [5]),
    ],
    ids=str,
)
def test_a_move_cancelled_has_its_first_replicas_again_in_their_order(
    targets: tuple[list[int], ...],
) -> None:
    """Another order would be another preferred leader."""
    image = START
    if targets == ([2],):
        image = with_partition(SIX, [0, 1, 2], isr=[0, 1])  # else it is there at once
    for target in targets:
        image = moving(target, in_sync(image, 0, 1))
    assert list(image.reassigned) == [(topic_id(1), 0)]
    restored = MetadataDelta(EMPTY)  # the next controller began from a snapshot
    for event in image.to_events():
        restored.replay(event)
    image, result = ask(restored.finish(image.offset, image.epoch), cancel=True)
    assert not result.HasField("error")
    found = the_partition(image)
    assert (found.broker_ids, found.adding, found.removing) == ((0, 1, 2), (), ())
    assert found.leader == 0
    assert found.original == ()
    assert list(image.reassigned) == []


def test_a_move_begins_from_the_order_of_its_time() -> None:
    image = in_sync(moving([4, 3, 2]), 0, 2, 3, 4)
    assert the_partition(image).original == ()
    assert the_partition(moving([1], image)).original == (4, 3, 2)
    image, _ = ask(moving([2, 1], moving([2, 4, 3], image)), cancel=True)
    assert the_partition(image).broker_ids == (2, 4, 3)


def test_a_new_target_replaces_the_old_one_and_drops_what_only_that_wanted() -> None:
    image = moving([4, 1, 5], moving([3, 4, 0]))
    assert state(image) == State((4, 1, 5, 0, 2), (4, 5), (0, 2), (1, 0, 2), 0, leader_epoch=1)
    image, _ = ask(image, cancel=True)
    assert the_partition(image).broker_ids == (0, 1, 2)


def test_a_leader_that_only_the_old_target_wanted_hands_over() -> None:
    image = decided(
        in_sync(moving([3, 4, 5]), 0, 1, 3), 0, decide.fence(in_sync(moving([3, 4, 5]), 0, 1, 3), 0)
    )
    assert the_partition(image).leader == 3
    image, result = ask(image, cancel=True)
    assert not result.HasField("error")
    found = the_partition(image)
    assert (found.leader, found.leader_epoch, found.isr) == (1, 2, (1,))


def test_the_only_replicas_in_sync_are_never_dropped() -> None:
    image = in_sync(moving([3, 4, 5]), 0, 3)
    image = decided(image, 0, decide.fence(image, 0))
    assert the_partition(image).isr == (3,)
    for target, cancel in (([], True), ([4, 5, 1], False)):
        after, result = ask(image, target, cancel=cancel)
        assert result.error.code == INVALID
        assert "acknowledged records would be lost" in result.error.message
        assert after.topics == image.topics
    # a target that keeps it is allowed
    assert state(moving([3, 1], image)).replicas[:2] == (3, 1)


def test_a_partition_without_a_leader_is_moved_when_it_has_one_again() -> None:
    image = with_partition(SIX, [0, 1], isr=[0, 1])
    for broker in (0, 1):
        image = decided(image, broker, decide.fence(image, broker))
    assert the_partition(image).leader == -1
    image = moving([3, 0], image)
    assert state(image).adding == (3,)
    _, result = ask(moving([3], image), [4])
    assert not result.HasField("error"), "1 is in the ELR, and 3 has nothing that it lacks"


def test_a_leader_of_the_elr_enters_the_isr_when_a_cancellation_lets_it_lead() -> None:
    """Its broker is unfenced, and the one that is fenced is not swept yet."""
    image = with_partition(SIX, [0, 1, 2], configs={"min.insync.replicas": "3"})
    image = in_sync(moving([3, 4], image), 0, 1, 2, 3)
    image = decided(image, 0, decide.fence(image, 0))
    assert the_partition(image).leader == 3
    image = decided(image, 2, decide.fence(image, 2))
    assert the_partition(image).elr == (2,)
    image = replayed(image, [unfence_event(2, image.brokers[2].epoch)])
    image = replayed(image, decide.fence(image, 1).events)
    image, result = ask(image, cancel=True)
    assert not result.HasField("error")
    found = the_partition(image)
    assert (found.leader, found.isr) == (2, (1, 2))


def test_an_election_of_the_only_target_ends_a_move() -> None:
    """The sweep elects it: no leader proposes an ISR any more that could end the move."""
    image = with_partition(SIX, [0, 1], configs={"min.insync.replicas": "2"})
    image = decided(image, 1, decide.fence(image, 1))
    assert the_partition(image).elr == (1,)
    image = moving([1], image)
    image = decided(image, 0, decide.fence(image, 0))
    assert the_partition(image).leader == -1
    image = replayed(image, [unfence_event(1, image.brokers[1].epoch)])
    image = settled(image, 1)
    assert state(image).replicas == (1,)
    assert state(image).leader == 1


def test_an_election_that_loses_records_removes_no_replica() -> None:
    """The original may hold all of them: the move ends later, by the rule of every move."""
    image = moving([3], with_partition(SIX, [0]))
    image = decided(image, 0, decide.fence(image, 0))
    outcome = elect_lossy(image, topic_id(1), 0, 3, DirectoryChoice(image, FreeSpace()))
    assert outcome.response
    image = replayed(image, outcome.events)
    assert state(image) == State((3, 0), (3,), (0,), (3,), 3, the_partition(image).leader_epoch)
    image = settled(image, 0)
    assert state(image) == State((3,), (), (), (3,), 3, the_partition(image).leader_epoch)


def test_a_move_whose_targets_may_not_lead_waits() -> None:
    """All targets are in the ISR, and shut down: the leader from before leads on."""
    image = in_sync(moving([3, 4]), 0, 3)
    for broker in (3, 4):
        image = replayed(image, decide.shut_down(image, broker).events)
    partition = the_partition(image)
    caught_up = replace(partition, isr=(3, 4, 0), partition_epoch=partition.partition_epoch + 1)
    assert completed(image, image.topics[topic_id(1)], caught_up) is caught_up
    assert (
        completed(in_sync(moving([3, 4]), 0, 3), image.topics[topic_id(1)], caught_up).leader == 3
    )


def test_replicas_that_are_added_count_when_they_are_in_sync() -> None:
    """Else a topic with min.insync.replicas=2 that grows from one replica could not be written."""
    image = moving([0, 3, 4], with_partition(SIX, [0], configs={"min.insync.replicas": "2"}))
    topic = image.topics[topic_id(1)]
    assert image.min_isr(topic, the_partition(image)) == 1
    image = in_sync(image, 0, 3)
    assert image.min_isr(topic, the_partition(image)) == 2
    image = in_sync(image, 0)
    assert the_partition(image).elr == (3,)
    assert image.min_isr(topic, the_partition(image)) == 2


def test_replicas_on_the_way_to_another_place_do_not_raise_what_a_commit_needs() -> None:
    three = {"min.insync.replicas": "3"}
    image = moving([3, 4], with_partition(SIX, [0, 1], configs=three))
    topic = image.topics[topic_id(1)]
    assert image.min_isr(topic, the_partition(image)) == 2
    assert image.min_isr(topic, the_partition(in_sync(image, 0, 1, 3))) == 2


FAILED = decide.directories_failed(START, 4, [directory_id(4)])
REFUSED: list[tuple[str, MetadataImage, Sequence[int], str]] = [
    ("empty", START, [], "names no broker"),
    ("a broker twice", START, [0, 1, 1], "names a broker twice"),
    ("unknown", START, [0, 1, 9], "[9], which are not registered; [0, 1, 2, 3, 4, 5] are"),
    (
        "fenced",
        decided(START, 4, decide.fence(START, 4)),
        [0, 4],
        "would never catch up; brokers [0, 1, 2, 3, 5] take replicas",
    ),
    (
        "drained",
        replayed(START, cordon(START, 4, cordoned=True).events),
        [0, 4],
        "broker 4 of the target [0, 4] is drained",
    ),
    (
        "shutting down",
        replayed(START, decide.shut_down(START, 4).events),
        [0, 4],
        "is shutting down",
    ),
    ("without a disk", replayed(START, FAILED.events), [0, 4], "no log directory that works"),
]


@pytest.mark.parametrize(
    ("image", "target", "told"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_an_impossible_target_changes_nothing(
    image: MetadataImage, target: Sequence[int], told: str
) -> None:
    after, result = ask(image, target)
    assert result.error.code == INVALID
    assert told in result.error.message
    assert after.topics == image.topics


def test_a_fenced_broker_may_keep_the_replica_that_it_has() -> None:
    image = decided(START, 2, decide.fence(START, 2))
    assert state(moving([0, 2, 3], image)).adding == (3,)


@pytest.mark.parametrize(
    ("topic", "partition", "cancel", "code"),
    [
        ("nothing", 0, False, UNKNOWN_TOPIC),
        ("orders", 1, False, UNKNOWN_TOPIC),
        ("orders", -1, False, UNKNOWN_TOPIC),
        ("orders", 0, True, NOT_MOVING),
    ],
)
def test_what_is_not_there_changes_nothing(
    topic: str, partition: int, cancel: bool, code: int
) -> None:
    after, result = ask(START, [3, 4], topic=topic, partition=partition, cancel=cancel)
    assert result.error.code == code
    assert after.topics == START.topics


def test_a_request_may_keep_the_number_of_replicas() -> None:
    _, result = ask(START, [3, 4], keep_factor=True)
    assert result.error.code == INVALID_FACTOR
    assert "has 2 replicas; the partition has 3" in result.error.message
    image, result = ask(START, [3, 4, 0], keep_factor=True)
    assert not result.HasField("error")
    _, result = ask(image, [3, 4, 5], keep_factor=True)  # 5 replicas for now, 3 wanted
    assert not result.HasField("error")


def test_the_number_of_replicas_that_a_request_keeps_is_that_of_the_target() -> None:
    """As in Kafka (KIP-860): a partition on its way from 3 replicas to 4 has 4 of them."""
    image = moving([0, 1, 2, 3])
    _, result = ask(image, [0, 1, 5], keep_factor=True)
    assert result.error.code == INVALID_FACTOR
    assert "has 3 replicas; the partition is moving to 4" in result.error.message
    _, result = ask(image, [0, 1, 2, 4], keep_factor=True)
    assert not result.HasField("error")


def test_a_plan_of_another_time_is_refused() -> None:
    request = admin.ReassignPartitionsRequest()
    asked = admin.ReassignedPartition(partition=0, replicas=[3, 4], expected=[0, 1, 2])
    request.topics.add(topic="orders", partitions=[asked])
    for image, is_refused in ((START, False), (moving([0, 1]), True), (moving([1, 0, 2]), True)):
        requested = Reassignments(request)
        outcome = requested.next(image, context(image))
        [result] = requested.response.topics[0].partitions
        assert (result.error.code == INVALID) == is_refused == (outcome.events == ())
        assert is_refused == ("made when they were [0, 1, 2]" in result.error.message)


def planned(image: MetadataImage, target: list[int], **more: Any) -> tuple[MetadataImage, Error]:
    """Ask for a target of a plan. Return the image after that, and the error."""
    throttle = more.pop("throttle", 0)
    request = admin.ReassignPartitionsRequest(throttle=throttle)
    asked = admin.ReassignedPartition(partition=0, replicas=target, **more)
    request.topics.add(topic="orders", partitions=[asked])
    requested = Reassignments(request)
    outcome = requested.next(image, context(image))
    return replayed(image, outcome.events), requested.response.topics[0].partitions[0].error


@pytest.mark.parametrize("target", [[3, 4], [2, 1, 0], [0, 1]])
@pytest.mark.parametrize("throttle", [0, 1000])
def test_a_plan_whose_answer_was_lost_may_be_repeated(target: list[int], throttle: int) -> None:
    begun, error = planned(START, target, expected=[0, 1, 2], throttle=throttle)
    assert error.code == 0
    again, error = planned(begun, target, expected=[0, 1, 2], throttle=throttle)
    assert error.code == 0
    assert again == begun


def test_a_repeated_plan_with_another_throttle_is_refused() -> None:
    begun, _ = planned(START, [3, 4], expected=[0, 1, 2], throttle=1000)
    again, error = planned(begun, [3, 4], expected=[0, 1, 2], throttle=2000)
    assert (error.code, again) == (INVALID, begun)


def test_a_plan_that_was_made_during_a_move_is_refused() -> None:
    """It takes the old and the new replicas for those that stay, and would keep them all."""
    image = moving([3, 4, 5])
    both = list(the_partition(image).broker_ids)
    after, error = planned(image, both[::-1], expected=both)
    assert (error.code, after) == (INVALID, image)
    assert "is being moved to [3, 4, 5]" in error.message
    after, error = planned(image, [], expected=both, cancel=True)
    assert error.code == 0
    assert not the_partition(after).is_reassigned


def test_what_is_under_way_is_found_for_those_who_may_see_it() -> None:
    image = with_partition(moving([3, 1]), [0], number=2, name="still")

    def found(named: dict[str, list[int]], may_see: bool = True) -> list[tuple[str, int]]:
        topics = [admin.ElectionTopic(topic=t, partitions=p) for t, p in named.items()]
        request = admin.ListReassignmentsRequest(topics=topics)
        return [(t.name, n) for t, n, _ in under_way(image, request, lambda _: may_see)]

    assert found({}) == [("orders", 0)]
    assert found({}, may_see=False) == []
    assert found({"orders": [0, 1, -1], "still": [0], "nothing": [0]}) == [("orders", 0)]
    assert found({"orders": []}) == found({"still": [0]}) == []


def test_a_partition_named_twice_is_moved_once() -> None:
    request = admin.ReassignPartitionsRequest()
    one, two = (admin.ReassignedPartition(partition=0, replicas=r) for r in ([3], [4]))
    request.topics.add(topic="orders", partitions=[one, two])
    requested = Reassignments(request)
    image = replayed(START, requested.next(START, context(START)).events)
    assert state(image).adding == (3,)
    assert [p.error.code for p in requested.response.topics[0].partitions] == [0, INVALID]


def test_a_large_request_is_decided_in_turns() -> None:
    count = 2 * DECIDED_MAX + 1
    events = [partition_made(1, index, [0]) for index in range(count)]
    image = built(topic_event(1, "orders"), *events, on=SIX)
    request = admin.ReassignPartitionsRequest()
    asked = [admin.ReassignedPartition(partition=i, replicas=[1]) for i in range(count)]
    request.topics.add(topic="orders", partitions=asked)
    requested = Reassignments(request)
    turns = []
    is_done = False
    while not is_done:
        outcome = requested.next(image, context(image))
        image, is_done = replayed(image, outcome.events), outcome.response
        turns.append(len(outcome.events))
    assert turns == [DECIDED_MAX, DECIDED_MAX, 1]
    assert len(image.reassigned) == count
    (topic,) = requested.response.topics
    assert [one.partition for one in topic.partitions] == list(range(count))


TARGETS = st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)


@given(st.lists(st.one_of(TARGETS, st.none(), st.sets(st.integers(0, 5))), max_size=12))
def test_any_moves_keep_an_in_sync_replica_of_each_state(
    path: list[list[int] | set[int] | None],
) -> None:
    """Targets, cancellations (None) and replicas that catch up (sets) in any order."""
    image = START
    held = {0, 1, 2}  # the brokers that have every acknowledged record
    for step in path:
        before: PartitionImage = the_partition(image)
        if isinstance(step, set):
            isr = {before.leader, *(step & set(before.broker_ids))}
            held |= isr
            image = in_sync(image, before.leader, *(isr - {before.leader}))
        else:
            image, _ = ask(image, step or (), cancel=step is None)
        now = the_partition(image)
        held &= set(now.broker_ids)
        assert set(now.isr) <= held
        held = set(now.isr)  # acknowledge one more
        assert now.leader in now.isr
        assert set(now.target) <= set(now.broker_ids)
        assert (not now.is_reassigned) or not set(now.target) <= set(now.isr)


def test_a_throttle_lasts_as_long_as_its_move() -> None:
    """It ends with the move, whichever controller ends it."""
    image, _ = ask(START, [0, 1, 3], throttle=10)
    assert the_partition(image).throttle == 10
    image = in_sync(image, 0, 1, 2)
    assert the_partition(image).throttle == 10
    image = in_sync(image, 0, 1, 2, 3)
    assert (the_partition(image).is_reassigned, the_partition(image).throttle) == (False, 0)


@pytest.mark.parametrize(
    ("again", "throttle"),
    [
        ({"cancel": True}, 0),
        ({"target": [0, 1, 3]}, 0),
        ({"target": [0, 1, 3], "throttle": 20}, 20),
        ({"target": [0, 4, 3], "throttle": 20}, 20),
        ({"target": [0, 1], "throttle": 20}, 0),  # nothing is copied
    ],
)
def test_the_next_request_decides_the_throttle_anew(again: dict[str, Any], throttle: int) -> None:
    image, _ = ask(START, [0, 1, 3], throttle=10)
    image, result = ask(image, **again)
    assert not result.HasField("error")
    assert the_partition(image).throttle == throttle


def test_the_failure_of_a_broker_does_not_lift_the_throttle() -> None:
    image, _ = ask(START, [0, 1, 3], throttle=10)
    image = decided(image, 0, decide.fence(image, 0))
    assert the_partition(image).leader == 1
    assert the_partition(image).throttle == 10


def test_a_negative_throttle_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not -1"):
        ask(START, [0, 1, 3], throttle=-1)
