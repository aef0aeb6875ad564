"""The image of the metadata: events build it, deltas say what changed, bytes load it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorate_quorum.log.events import encode_events
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY
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
    world,
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
    assert not image.brokers[0].directories[0].tail_intact
    failed = ev.BrokerChange(broker_id=0, broker_epoch=0, failed_directories=[directory_id(0, 1)])
    image = built(ev.MetadataEvent(broker_change=failed), unfence_event(0, 0), on=image)
    assert all(directory.tail_intact for directory in image.brokers[0].directories)
    assert not image.brokers[0].directories[0].failed
    assert image.brokers[0].directories[1].failed


def test_a_replica_that_is_still_being_added_does_not_raise_what_a_commit_needs() -> None:
    replicas = tuple(ReplicaImage(b, directory_id(b)) for b in (0, 1))
    partition = PartitionImage(replicas=replicas, isr=(0,), leader=0, adding=(1,))
    image = with_partition(EMPTY, [0])
    assert image.min_isr(image.topics[topic_id(1)], partition) == 1
    assert image.min_isr(image.topics[topic_id(1)], replace(partition, adding=())) == 2


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
