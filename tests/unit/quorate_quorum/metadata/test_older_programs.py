"""Nodes of this release replay what a controller of an older one writes, and the reverse.

An older program drops the fields that it does not know, and its events never name them. So its
events may contradict such a field in the images of newer nodes: it clears what the field is about,
and leaves the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.partitions import alter_partitions
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    context,
    settled,
    the_partition,
    topic_id,
    with_partition,
)

#: The fields that came after the first metadata.version, and that it may pass over. A new field of
#: this kind belongs here.
NEWER = {
    "partition": ("history", "causes", "throttle", "original"),
    "partition_change": ("causes", "throttle", "original"),
    "register_broker": ("fenced_because", "configs"),
    "broker_change": ("cause", "configs"),
}
START = with_partition(brokers(range(6)), [0, 1, 2])


def as_older(events: Iterable[ev.MetadataEvent]) -> list[ev.MetadataEvent]:
    """The events as an older program reads, or writes, them."""
    seen = []
    for event in events:
        older = ev.MetadataEvent.FromString(event.SerializeToString())
        kind = older.WhichOneof("event")
        assert kind is not None
        for name in NEWER.get(kind, ()):
            getattr(older, kind).ClearField(name)
        seen.append(older)
    return seen


def restored(events: Iterable[ev.MetadataEvent], image: MetadataImage) -> MetadataImage:
    """The image that a snapshot of these events makes, in the place of `image`."""
    delta = MetadataDelta(EMPTY)
    for event in events:
        delta.replay(event)
    return delta.finish(image.offset, image.epoch)


def older(image: MetadataImage) -> MetadataImage:
    """The image as an older program has it."""
    return restored(as_older(image.to_events()), image)


class TwoReleases:
    """The image of a node of this release, and that of an older one. Either may decide."""

    def __init__(self) -> None:
        self.new = START
        self.old = older(START)

    def take(self, events: Sequence[ev.MetadataEvent], *, by_older: bool) -> None:
        self.new = replayed(self.new, as_older(events) if by_older else events)
        self.old = replayed(self.old, as_older(events))
        assert older(self.new) == older(self.old), "both see one cluster"

    def move(self, target: Sequence[int] | None, *, by_older: bool, throttle: int = 0) -> None:
        """Reassign the partition; None: cancel."""
        image = self.old if by_older else self.new
        request = admin.ReassignPartitionsRequest(throttle=throttle)
        asked = admin.ReassignedPartition(partition=0, replicas=target or (), cancel=target is None)
        request.topics.add(topic="orders", partitions=[asked])
        outcome = Reassignments(request).next(image, context(image))
        self.take(outcome.events, by_older=by_older)

    def isr(self, isr: Iterable[int], *, by_older: bool) -> None:
        """The leader proposes an ISR: itself, and those of these brokers that have a replica."""
        image = self.old if by_older else self.new
        state = the_partition(image)
        members = [state.leader, *sorted(set(isr) & set(state.broker_ids) - {state.leader})]
        request = wire.AlterPartitionsRequest(
            broker_id=state.leader, broker_epoch=image.brokers[state.leader].epoch
        )
        request.partitions.add(
            topic_id=topic_id(1),
            partition=0,
            leader_epoch=state.leader_epoch,
            partition_epoch=state.partition_epoch,
            isr=[wire.IsrMember(broker_id=b, broker_epoch=image.brokers[b].epoch) for b in members],
        )
        self.take(alter_partitions(image, request, context(image)).events, by_older=by_older)

    @property
    def state(self) -> PartitionImage:
        return the_partition(self.new)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_throttled_move_that_an_older_controller_ends_has_no_throttle(
    is_cancelled: bool,
) -> None:
    cluster = TwoReleases()
    cluster.move([3, 4, 5], throttle=1_000_000, by_older=False)
    assert cluster.state.throttle == 1_000_000
    if is_cancelled:
        cluster.move(None, by_older=True)
    else:
        cluster.isr([3, 4, 5], by_older=True)
    assert (cluster.state.adding, cluster.state.throttle) == ((), 0)


def test_a_snapshot_has_no_throttle_without_a_copy() -> None:
    """A release that did not clear the throttle has written such a state."""
    cluster = TwoReleases()
    cluster.move([3, 4, 5], throttle=1_000_000, by_older=False)
    events = list(cluster.new.to_events())
    next(one.partition for one in events if one.HasField("partition")).ClearField("adding")
    assert the_partition(restored(events, cluster.new)).throttle == 0


def test_a_move_that_an_older_controller_began_is_cancelled_to_the_order_of_now() -> None:
    """The order from before is not known."""
    cluster = TwoReleases()
    cluster.move([1, 2, 3], by_older=True)
    assert cluster.state.original == ()
    cluster.move(None, by_older=False)
    assert cluster.state.broker_ids == (1, 2, 0)


def test_a_move_that_an_older_controller_replaced_is_cancelled_to_the_first_order() -> None:
    cluster = TwoReleases()
    cluster.move([1, 2, 3], by_older=False)
    cluster.move([4, 2, 1], by_older=True)
    cluster.move(None, by_older=False)
    assert cluster.state.broker_ids == (0, 1, 2)


@pytest.mark.parametrize("end", [None, [2, 1, 0]], ids=["cancelled", "other order"])
def test_an_older_controller_that_ends_a_move_ends_what_is_known_of_its_begin(
    end: list[int] | None,
) -> None:
    cluster = TwoReleases()
    cluster.move([1, 2, 3], by_older=False)
    cluster.move(end, by_older=True)
    assert (cluster.state.is_reassigned, cluster.state.original) == (False, ())
    order = cluster.state.broker_ids
    cluster.move([5], by_older=False)
    cluster.move(None, by_older=False)
    assert cluster.state.broker_ids == order


STEPS = st.one_of(
    st.none(),
    st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
    st.frozensets(st.integers(0, 5)),
)


@given(st.lists(st.tuples(STEPS, st.booleans(), st.sampled_from([0, 9])), max_size=10))
def test_controllers_of_two_releases_take_turns(
    steps: list[tuple[list[int] | frozenset[int] | None, bool, int]],
) -> None:
    cluster = TwoReleases()
    for step, by_older, throttle in steps:
        if isinstance(step, frozenset):
            cluster.isr(step, by_older=by_older)
        else:
            cluster.move(step, by_older=by_older, throttle=throttle)
        state = cluster.state
        assert state.adding or not state.throttle
        assert set(state.before) == set(state.broker_ids) - set(state.adding)
    assert restored(cluster.new.to_events(), cluster.new) == cluster.new


def test_a_broker_that_an_older_controller_fences_has_no_cause() -> None:
    cluster = TwoReleases()
    cluster.take(decide.fence(cluster.old, 0).events, by_older=True)
    assert cluster.new.brokers[0].fenced
    assert cluster.new.brokers[0].fenced_because is None
    assert the_partition(settled(cluster.new, 0)).leader == 1
