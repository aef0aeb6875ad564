"""The history of a partition: the newest changes, in order, in bounded room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.history import (
    HISTORY_BYTES_MAX,
    Cause,
    changes_of,
    extended,
)
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, partition_changed
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    the_partition,
    topic_id,
    with_partition,
)

THREE = with_partition(brokers([0, 1, 2]), [0, 1, 2])


def changed(
    image: MetadataImage, isr: tuple[int, ...], *causes: Cause, time_ms: int = 0
) -> MetadataImage:
    old = the_partition(image)
    new = replace(old, isr=isr, partition_epoch=old.partition_epoch + 1, causes=causes)
    event = partition_changed(topic_id(1), 0, old, new)
    return replayed(image, [event], epoch=1, time_ms=time_ms)


def test_each_change_is_kept_with_its_offset_its_time_its_causes_and_the_state_after_it() -> None:
    behind = Cause(ev.CAUSE_KIND_FELL_BEHIND, 2, ms=12_000, records=18_000)
    back = Cause(ev.CAUSE_KIND_CAUGHT_UP, 2)
    shrunk = changed(THREE, (0, 1), behind, time_ms=1_000)
    grown = changed(shrunk, (0, 1, 2), back, time_ms=2_000)
    made, left, joined = changes_of(the_partition(grown).history)
    assert made.offset == THREE.offset - 1
    assert (left.offset, left.time_ms, left.causes) == (THREE.offset, 1_000, (behind,))
    assert (joined.offset, joined.time_ms, joined.causes) == (shrunk.offset, 2_000, (back,))
    assert [one.isr for one in (made, left, joined)] == [(0, 1, 2), (0, 1), (0, 1, 2)]
    assert [(one.leader, one.leader_epoch) for one in (made, left, joined)] == [(0, 0)] * 3
    assert made.replicas == (0, 1, 2)


def test_what_was_proposed_is_in_no_image() -> None:
    image = changed(THREE, (0, 1), Cause(ev.CAUSE_KIND_FELL_BEHIND, 2))
    assert the_partition(image).causes == ()


def test_a_snapshot_keeps_the_history() -> None:
    image = changed(THREE, (0, 1), Cause(ev.CAUSE_KIND_FELL_BEHIND, 2), time_ms=77)
    delta = MetadataDelta(EMPTY)
    for event in image.to_events():
        delta.replay(event)
    assert delta.finish(image.offset, image.epoch) == image
    assert len(changes_of(the_partition(image).history)) == 2


def test_a_snapshot_of_an_older_release_has_no_history_and_the_next_change_begins_one() -> None:
    delta = MetadataDelta(EMPTY)
    for event in THREE.to_events():
        if event.HasField("partition"):
            event.partition.ClearField("history")
        delta.replay(event)
    image = delta.finish(THREE.offset, THREE.epoch)
    assert changes_of(the_partition(image).history) == ()
    (only,) = changes_of(the_partition(changed(image, (0, 1))).history)
    assert (only.offset, only.causes, only.is_creation) == (image.offset, (), False)


def test_a_partition_that_was_created_has_its_creation_as_the_first_change() -> None:
    made = ev.Partition(
        topic_id=topic_id(1),
        partition=1,
        replicas=[ev.Replica(broker_id=1, directory_id=b"d" * 16)],
        isr=[1],
        leader=1,
        recovered_epoch=-1,
        causes=[ev.Cause(kind=ev.CAUSE_KIND_TOPIC_GROWN)],
    )
    image = replayed(THREE, [ev.MetadataEvent(partition=made)], epoch=1, time_ms=5)
    (change,) = changes_of(the_partition(image, index=1).history)
    assert change.is_creation
    assert change.time_ms == 5


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_a_history_is_bounded_and_has_the_newest_changes_in_order(sizes: list[int]) -> None:
    history = b""
    for offset, size in enumerate(sizes):
        history = extended(history, ev.PastChange(offset=offset, isr=range(size)))
        kept = changes_of(history)
        assert [one.offset for one in kept] == list(range(offset + 1 - len(kept), offset + 1))
        assert len(history) <= HISTORY_BYTES_MAX
        if len(kept) <= offset:
            longer = ev.PastChange(offset=offset - len(kept), isr=range(sizes[offset - len(kept)]))
            assert len(extended(b"", longer)) + len(history) > HISTORY_BYTES_MAX


def test_a_change_that_is_longer_than_the_bound_stays_alone() -> None:
    history = extended(b"", ev.PastChange(offset=1))
    history = extended(history, ev.PastChange(offset=2, isr=range(3_000)))
    assert [one.offset for one in changes_of(history)] == [2]


def test_thirty_changes_of_a_partition_with_three_replicas_fit() -> None:
    causes = [Cause(ev.CAUSE_KIND_FELL_BEHIND, 2, ms=12_345, records=1_234_567)]
    state = PartitionImage(replicas=(), isr=(0, 1, 2), elr=(), leader=0)
    history = b""
    for offset in range(10_000_000, 10_000_050):
        change = ev.PastChange(
            offset=offset,
            time_ms=1_800_000_000_000,
            causes=[ev.Cause(kind=c.kind, broker_id=2, ms=c.ms, records=c.records) for c in causes],
            leader=1,
            leader_epoch=20,
            isr=state.isr,
            replicas=[0, 1, 2],
        )
        history = extended(history, change)
    assert len(changes_of(history)) >= 30


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ev.CAUSE_KIND_UNSPECIFIED, "unspecified"),
        (ev.CAUSE_KIND_FELL_BEHIND, "fell_behind"),
        (9_999, "unknown"),
    ],
)
def test_a_cause_has_a_name_even_if_a_newer_release_wrote_it(kind: int, name: str) -> None:
    told = ev.PastChange(causes=[ev.Cause(kind=kind)])  # type: ignore[arg-type]
    ((cause,),) = [one.causes for one in changes_of(extended(b"", told))]
    assert cause.name == name
