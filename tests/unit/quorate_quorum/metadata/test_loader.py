"""The loader: bytes of the log and of snapshots become images, and never a mixed one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchBuilder
from quorate_quorum.log.events import decode_events, encode_events
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    partition_made,
    register_event,
    topic_event,
    topic_id,
    with_partition,
    world,
)


def log_of(*outcomes: list[ev.MetadataEvent], epoch: int = 1) -> list[bytes]:
    batches, offset = [], 0
    for events in outcomes:
        batches.append(encode_events(events, base_offset=offset, epoch=epoch, timestamp_ms=7))
        offset += len(events)
    return batches


OUTCOMES = (
    [ev.MetadataEvent(epoch_start=ev.EpochStart(epoch=1, leader_id=100))],
    [register_event(0, 1), register_event(1, 2)],
    [topic_event(1, "orders"), partition_made(1, 0, [0, 1], isr=[], leader=-1)],
)


def test_events_come_back_from_their_batch() -> None:
    for batch, events in zip(log_of(*OUTCOMES), OUTCOMES, strict=True):
        assert decode_events(batch) == events


def test_loading_gives_one_delta_and_image_a_batch() -> None:
    loader = Loader()
    loaded = loader.load(b"".join(log_of(*OUTCOMES)))
    assert [image.offset for _, image in loaded] == [1, 3, 5]
    assert loader.image is loaded[-1][1]
    assert loader.image.epoch == 1
    assert [list(delta.brokers.changed) for delta, _ in loaded] == [[], [0, 1], []]
    assert list(loaded[2][0].topics.changed_partitions) == [(topic_id(1), 0)]
    assert loader.load(b"".join(log_of(*OUTCOMES))) == []  # again: passed over


def test_a_gap_in_the_log_is_refused() -> None:
    batches = log_of(*OUTCOMES)
    loader = Loader()
    with pytest.raises(CorruptRecordError, match="at 1, expected 0"):
        loader.load(batches[1])
    assert loader.image == EMPTY


@pytest.mark.parametrize("cut", [1, 11, 40, 61, 70])
def test_torn_bytes_are_refused(cut: int) -> None:
    with pytest.raises(CorruptRecordError):
        Loader().load(log_of(*OUTCOMES)[0][:cut])


def test_no_flipped_bit_is_taken_for_an_event() -> None:
    (batch,) = log_of(OUTCOMES[0])
    for bit in range(16 * 8, len(batch) * 8):  # before: offset, length and epoch, outside the CRC
        flipped = bytearray(batch)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecordError):
            Loader().load(bytes(flipped))


@pytest.mark.parametrize(
    "value", [b"", None, b"\xff\xff\xff", b"\xfa\x01\x00"], ids=["empty", "null", "junk", "unknown"]
)
def test_a_record_that_is_no_event_is_corrupt(value: bytes | None) -> None:
    builder = BatchBuilder()
    builder.append(0, None, value)
    with pytest.raises(CorruptRecordError):
        decode_events(builder.build(base_offset=0, leader_epoch=0))


def test_a_snapshot_replaces_the_image_and_says_what_went_inside_the_gap() -> None:
    old = Loader(world())
    fresh = with_partition(brokers([0, 1]), [0, 1], name="c", number=7)
    events = list(fresh.to_events())
    parts = [
        encode_events(events[:2], base_offset=0, epoch=3, timestamp_ms=0),
        encode_events(events[2:], base_offset=2, epoch=3, timestamp_ms=0),
    ]
    for part in parts:
        old.load_snapshot_part(part)
    assert old.shown == world()
    ((delta, image),) = old.finish_snapshot(500, 3)
    assert replace(image, offset=fresh.offset, epoch=fresh.epoch) == fresh
    assert (image.offset, image.epoch) == (500, 3)
    assert [topic.name for topic in delta.topics.removed] == ["a", "b"]
    assert list(delta.topics.changed_partitions) == [(topic_id(7), 0)]
    assert 2 in delta.brokers.changed


def test_the_end_of_a_snapshot_that_never_began_is_refused() -> None:
    with pytest.raises(CorruptRecordError):
        Loader().finish_snapshot(5, 1)


def test_starting_over_shows_nothing_older_than_was_asked() -> None:
    batches = log_of(*OUTCOMES)
    loader = Loader()
    loader.load(b"".join(batches))
    before = loader.image
    loader.start_over(until=5)
    assert loader.image.offset == 0
    assert loader.load(batches[0] + batches[1]) == []
    assert loader.shown is before
    ((delta, image),) = loader.load(batches[2])
    assert image == before
    assert list(delta.topics.changed_partitions) == []
    assert loader.shown is image


def parts_of(image: MetadataImage, epoch: int) -> list[bytes]:
    """A snapshot's parts, one event each."""
    return [
        encode_events([event], base_offset=at, epoch=epoch, timestamp_ms=0)
        for at, event in enumerate(image.to_events())
    ]


def test_a_snapshot_older_than_what_is_shown_is_shown_when_the_log_has_caught_up() -> None:
    batches = log_of(*OUTCOMES)
    loader = Loader()
    loader.load(b"".join(batches))
    before = loader.shown
    half = Loader()
    half.load(batches[0] + batches[1])
    loader.start_over(until=before.offset)
    for part in parts_of(half.shown, 1):
        loader.load_snapshot_part(part)
    assert loader.finish_snapshot(half.shown.offset, half.shown.epoch) == []
    assert loader.shown is before, "never an older world than was shown"
    ((delta, image),) = loader.load(batches[2])
    assert image == before
    assert list(delta.topics.changed_partitions) == []


def test_a_snapshot_of_an_epoch_below_the_one_that_is_shown_is_not_shown() -> None:
    shown = replace(world(), epoch=9)
    loader = Loader(shown)
    for part in parts_of(world(), 3):
        loader.load_snapshot_part(part)
    assert loader.finish_snapshot(500, 3) == []
    assert loader.shown is shown


def test_a_snapshot_that_is_given_up_leaves_nothing_of_itself() -> None:
    """Two voters' parts never meet in one image."""
    loader = Loader(world())
    other = parts_of(with_partition(brokers([0, 1]), [0, 1], name="c", number=7), 3)
    loader.load_snapshot_part(other[0])
    with pytest.raises(CorruptRecordError, match="middle of a snapshot"):
        loader.load(log_of(*OUTCOMES)[0])
    loader.give_up()
    assert loader.image is loader.shown
    with pytest.raises(CorruptRecordError, match="no part came"):
        loader.finish_snapshot(500, 3)


def test_a_jump_into_a_new_generation_says_so() -> None:
    loader = Loader(world())
    loader.start_over(until=500, generation=2)
    for part in parts_of(brokers([0, 1]), 3):
        loader.load_snapshot_part(part)
    ((delta, _),) = loader.finish_snapshot(500, 3)
    assert delta.generation == 2
    assert [topic.name for topic in delta.topics.removed] == ["a", "b"]
