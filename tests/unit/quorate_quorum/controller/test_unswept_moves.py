"""Moves and cancellations while brokers are away, or back and not swept yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.partitions import alter_partitions
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    context,
    decided,
    directory_id,
    incarnation,
    settled,
    the_partition,
    topic_id,
    unfence_event,
    with_partition,
)

SIX = brokers(range(6))
TWO = {"min.insync.replicas": "2"}


def ask(image: MetadataImage, target: Sequence[int] | None) -> tuple[MetadataImage, str]:
    """Ask for a target, or (None) cancel. Return the image and the error, empty if there is none.

    The error's code is checked.
    """
    request = admin.ReassignPartitionsRequest()
    asked = admin.ReassignedPartition(partition=0, replicas=target or (), cancel=target is None)
    request.topics.add(topic="orders", partitions=[asked])
    requested = Reassignments(request)
    image = replayed(image, requested.next(image, context(image)).events)
    error = requested.response.topics[0].partitions[0].error
    assert error.code in (0, ErrorCode.ERROR_CODE_INVALID_REPLICA_ASSIGNMENT)
    return image, error.message


def moving(image: MetadataImage, *target: int) -> MetadataImage:
    image, error = ask(image, target)
    assert not error
    return image


def in_sync(image: MetadataImage, *isr: int) -> MetadataImage:
    """The leader proposes this ISR."""
    partition = the_partition(image)
    request = wire.AlterPartitionsRequest(
        broker_id=partition.leader, broker_epoch=image.brokers[partition.leader].epoch
    )
    request.partitions.add(
        topic_id=topic_id(1),
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        isr=[wire.IsrMember(broker_id=b, broker_epoch=image.brokers[b].epoch) for b in isr],
    )
    outcome = alter_partitions(image, request, context(image))
    assert not outcome.response.partitions[0].HasField("error")
    return replayed(image, outcome.events)


def torn(image: MetadataImage, broker_id: int) -> MetadataImage:
    """The broker lost its power, and registers again with a torn tail."""
    request = wire.RegisterRequest(
        broker_id=broker_id,
        incarnation=incarnation(broker_id, 2),
        **listening_at(f"b{broker_id}:1"),
        host=f"h{broker_id}",
    )
    request.directories.add(directory_id=directory_id(broker_id), tail_intact=False)
    outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
    return replayed(image, outcome.events)


def fenced(image: MetadataImage, broker_id: int) -> MetadataImage:
    return replayed(image, decide.fence(image, broker_id).events)


def without_disk(image: MetadataImage, broker_id: int) -> MetadataImage:
    outcome = decide.directories_failed(image, broker_id, [directory_id(broker_id)])
    return replayed(image, outcome.events)


def dead(image: MetadataImage, *broker_ids: int) -> MetadataImage:
    """The brokers are fenced, and swept."""
    for broker_id in broker_ids:
        image = decided(image, broker_id, decide.fence(image, broker_id))
    return image


UNSWEPT = [torn, fenced, without_disk]


@pytest.mark.parametrize("gone", UNSWEPT)
def test_a_move_does_not_end_on_a_member_that_is_away_and_not_swept_yet(
    gone: Callable[[MetadataImage, int], MetadataImage],
) -> None:
    """What was only fenced, or came back with a torn tail, is in the ISR until its sweep."""
    for leader in (0, 1):
        image = gone(with_partition(SIX, [1, 0], configs=TWO, leader=leader), 0)
        image = moving(image, 0)
        assert set(the_partition(image).broker_ids) == {0, 1}
        image = settled(image, 0)
        assert (the_partition(image).leader, the_partition(image).isr) == (1, (1,))
        assert the_partition(image).target == (0,)


@pytest.mark.parametrize("gone", UNSWEPT)
@pytest.mark.parametrize("target", [None, [0], [0, 3]])
def test_a_replica_in_sync_is_not_dropped_for_one_that_is_away_and_not_swept_yet(
    gone: Callable[[MetadataImage, int], MetadataImage], target: Sequence[int] | None
) -> None:
    image = in_sync(moving(with_partition(SIX, [0]), 1, 2), 0, 1)
    image = gone(image, 0)
    after, error = ask(image, target)
    assert "of the others in ISR and ELR, [0], none is alive with its log now" in error
    assert after == image
    assert the_partition(settled(image, 0)).leader == 1


def offline() -> MetadataImage:
    """A move to 3 and 4 whose originals are away: two of them are in the ELR."""
    image = dead(moving(with_partition(SIX, [0, 1, 2], configs=TWO), 3, 4), 0, 1, 2)
    partition = the_partition(image)
    assert (partition.leader, partition.isr, partition.elr) == (-1, (), (1, 2))
    return image


@pytest.mark.parametrize("target", [None, [0, 1, 2], [5, 1, 2]])
def test_a_move_is_cancelled_and_replaced_while_its_originals_are_away(
    target: Sequence[int] | None,
) -> None:
    """The ELR has all that is acknowledged; the added replicas have nothing that it lacks."""
    image, error = ask(offline(), target)
    assert not error
    partition = the_partition(image)
    assert {3, 4}.isdisjoint(partition.broker_ids)
    assert (partition.leader, partition.isr, set(partition.elr)) == (-1, (), {1, 2})
    image = settled(replayed(image, [unfence_event(2, image.brokers[2].epoch)]), 2)
    assert the_partition(image).leader == 2


def test_no_replica_is_dropped_while_all_that_had_all_may_have_lost_it() -> None:
    image = offline()
    for broker_id in (1, 2):
        image = torn(image, broker_id)
    after, error = ask(image, None)
    assert "none is alive with its log now" in error
    assert after == image
    image = settled(image, 1, 2)
    assert the_partition(image).elr == ()
    after, error = ask(image, None)
    assert "ISR and ELR are empty, so no replica surely has all" in error
    assert after == image


@pytest.mark.parametrize("is_back", [False, True])
def test_a_replica_in_sync_is_dropped_for_one_of_the_elr_that_is_alive(is_back: bool) -> None:
    image = in_sync(moving(with_partition(SIX, [0, 1], configs=TWO), 3, 4), 0, 1, 3)
    image = dead(image, 0, 1)
    partition = the_partition(image)
    assert (partition.leader, partition.isr, partition.elr) == (3, (3,), (1,))
    if is_back:
        image = replayed(image, [unfence_event(1, image.brokers[1].epoch)])
    after, error = ask(image, None)
    assert ("none is alive with its log now" in error) == (not is_back)
    if is_back:
        assert (the_partition(after).leader, the_partition(after).isr) == (1, (1,))
