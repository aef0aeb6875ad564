"""The image of the metadata: events build it, deltas say what changed, bytes load it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchBuilder
from quorate_quorum.log.events import decode_events, encode_events
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.metadata.partitions import PartitionImage, ReplicaImage
from quorate_quorum.node.features import UnknownLevelError
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    config_event,
    directory_id,
    partition_made,
    register_event,
    the_partition,
    topic_event,
    topic_id,
    unfence_event,
    with_partition,
)


def world() -> MetadataImage:
    image = brokers([0, 1, 2], fenced=[2], disks=2)
    image = with_partition(image, [0, 1], configs={"retention.ms": "5"}, name="a", number=1)
    image = with_partition(image, [1, 2], isr=[1], elr=[2], name="b", number=2)
    image = with_partition(image, [0], name="gone", number=3)
    return built(
        ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(3))),
        ev.MetadataEvent(feature=ev.Feature(name="metadata.version", level=1)),
        ev.MetadataEvent(
            voters=ev.Voters(voters=[ev.Voter(id=100, directory_id=b"v" * 16, endpoint="q:1")])
        ),
        config_event("min.insync.replicas", "1"),
        ev.MetadataEvent(producer_ids=ev.ProducerIds(next_producer_id=2000)),
        on=image,
    )


def test_a_snapshot_is_a_delta_from_the_empty_image() -> None:
    image = world()
    delta = MetadataDelta(EMPTY)
    for event in image.to_events():
        delta.replay(event)
    assert delta.finish(image.offset, image.epoch) == image
    again = [event.SerializeToString() for event in image.to_events()]
    assert again == [event.SerializeToString() for event in image.to_events()]


def test_what_was_created_counts_though_it_was_removed() -> None:
    image = world()
    assert (image.topics_created, image.partitions_created) == (3, 3)
    assert sorted(image.topic_ids) == ["a", "b"]


def test_an_image_never_changes() -> None:
    before = world()
    kept = replace(before)
    after = built(unfence_event(2, before.brokers[2].epoch), on=before)
    assert before == kept
    assert before.brokers[2].fenced
    assert not after.brokers[2].fenced


def test_a_delta_names_what_changed_in_order() -> None:
    image = world()
    delta = MetadataDelta(image)
    delta.replay(topic_event(9, "new"))
    delta.replay(partition_made(9, 0, [1]))
    change = ev.PartitionChange(topic_id=topic_id(1), partition=0, partition_epoch=1)
    delta.replay(ev.MetadataEvent(partition_change=change))
    delta.replay(config_event("retention.ms", None, 1))
    delta.replay(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(2))))
    delta.replay(unfence_event(2, image.brokers[2].epoch))
    after = delta.finish(image.offset + 6, 1)

    assert list(delta.brokers.changed) == [2]
    assert list(delta.topics.changed) == [topic_id(9), topic_id(1)]
    assert list(delta.topics.changed_partitions) == [(topic_id(9), 0), (topic_id(1), 0)]
    assert [topic.name for topic in delta.topics.removed] == ["b"]
    assert list(delta.topics.changed_configs) == [topic_id(1)]
    assert not after.topics[topic_id(1)].configs


def test_a_topic_may_go_and_another_of_its_name_come_in_one_batch() -> None:
    image = with_partition(EMPTY, [0], name="a", number=1)
    delta = MetadataDelta(image)
    delta.replay(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1))))
    delta.replay(topic_event(2, "a"))
    after = delta.finish(image.offset + 2, 1)
    assert after.topic_ids["a"] == topic_id(2)
    assert [topic.id for topic in delta.topics.removed] == [topic_id(1)]


def change(epoch: int = 1, **fields: object) -> ev.MetadataEvent:
    return ev.MetadataEvent(
        partition_change=ev.PartitionChange(
            topic_id=topic_id(1),
            partition=0,
            partition_epoch=epoch,
            **fields,  # type: ignore[arg-type]
        )
    )


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(change(epoch=2), id="partition_epoch skips"),
        pytest.param(change(epoch=0), id="partition_epoch repeats"),
        pytest.param(change(leader=1), id="leader without leader_epoch"),
        pytest.param(change(leader=2, leader_epoch=1), id="leader not in ISR"),
        pytest.param(change(isr=ev.BrokerSet(brokers=[1])), id="leader leaves ISR"),
        pytest.param(change(isr=ev.BrokerSet(brokers=[0, 7])), id="ISR beyond replicas"),
        pytest.param(change(elr=ev.BrokerSet(brokers=[1])), id="ISR meets ELR"),
        pytest.param(change(recovered_epoch=1), id="recovered without election"),
        pytest.param(topic_event(1, "other"), id="topic id again"),
        pytest.param(topic_event(2, "orders"), id="topic name again"),
        pytest.param(partition_made(1, 2, [0]), id="partitions skip"),
        pytest.param(partition_made(1, 1, [0, 0]), id="replicas repeat"),
        pytest.param(partition_made(5, 0, [0]), id="no such topic"),
        pytest.param(unfence_event(0, 99), id="another registration"),
        pytest.param(unfence_event(9, 0), id="no such broker"),
        pytest.param(register_event(0, 0), id="broker_epoch is not its offset"),
        pytest.param(
            ev.MetadataEvent(producer_ids=ev.ProducerIds(next_producer_id=0)), id="ids again"
        ),
        pytest.param(ev.MetadataEvent(epoch_start=ev.EpochStart(epoch=0)), id="epoch goes back"),
        pytest.param(ev.MetadataEvent(), id="no kind"),
    ],
)
def test_an_event_that_contradicts_the_image_is_a_broken_invariant(
    event: ev.MetadataEvent,
) -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0, 1])
    with pytest.raises(AssertionError):
        replayed(image, [event])


def test_unfencing_carries_out_the_verdict_on_the_directories() -> None:
    """From then on the running incarnation has what it has written, unless the disk fails."""
    event = register_event(0, 0, disks=2)
    for directory in event.register_broker.directories:
        directory.tail_intact = False
    image = built(event)
    assert not image.brokers[0].directories[0].is_lossless
    failed = ev.BrokerChange(broker_id=0, broker_epoch=0, failed_directories=[directory_id(0, 1)])
    image = built(ev.MetadataEvent(broker_change=failed), unfence_event(0, 0), on=image)
    assert [d.is_lossless for d in image.brokers[0].directories] == [True, False]
    assert image.brokers[0].directories[1].failed


def test_a_replica_that_is_still_being_added_does_not_raise_what_a_commit_needs() -> None:
    replicas = tuple(ReplicaImage(b, directory_id(b)) for b in (0, 1))
    partition = PartitionImage(replicas=replicas, isr=(0,), leader=0, adding=(1,))
    image = with_partition(EMPTY, [0])
    assert image.min_isr(image.topics[topic_id(1)], partition) == 1
    assert image.min_isr(image.topics[topic_id(1)], replace(partition, adding=())) == 2


# Bytes.


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


def test_a_partition_is_found_by_topic_id_only_where_it_is() -> None:
    image = world()
    assert the_partition(image).broker_ids == (0, 1)
    assert image.partition(topic_id(1), 1) is None
    assert image.partition(topic_id(1), -1) is None
    assert image.partition(topic_id(8), 0) is None


def test_a_registration_from_before_listeners_had_names_is_refused() -> None:
    event = register_event(0, 0)
    del event.register_broker.listeners[:]
    batch = encode_events([event], base_offset=0, epoch=0, timestamp_ms=0)
    with pytest.raises(UnknownLevelError, match="from before brokers could have several wrote"):
        Loader().load(batch)
