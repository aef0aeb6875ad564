"""The topics of an image, and which of them a change of the image concerns."""

from __future__ import annotations

from quorate_broker.groups.image_topics import ImageTopics, changed_names
from quorate_broker.groups.machine.topics import Topic
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import brokers, topic_id, with_partition


def changed(image: MetadataImage, *events: ev.MetadataEvent) -> tuple[MetadataImage, set[str]]:
    delta = MetadataDelta(image)
    for event in events:
        delta.replay(event)
    new = delta.finish(image.offset + len(events), image.epoch)
    return new, changed_names(delta, new)


def some() -> MetadataImage:
    return with_partition(brokers([0, 1]), [0, 1], name="orders", number=1)


def test_topics_are_found_by_name_and_id() -> None:
    topics = ImageTopics(some())
    orders = Topic(topic_id(1), "orders", 1)
    assert topics.named("orders") == topics.with_id(topic_id(1)) == orders
    assert topics.named("nothing") is None
    assert topics.with_id(topic_id(2)) is None
    assert list(topics.names()) == ["orders"]
    assert topics.racks(topic_id(2)) == ()


def test_the_racks_of_a_partition_are_those_of_its_replicas() -> None:
    image = with_partition(brokers([0, 1], racks={0: "a"}), [0, 1], name="orders", number=1)
    assert ImageTopics(image).racks(topic_id(1)) == [frozenset({"a"})]


def test_a_topic_that_is_made_or_deleted_is_a_change() -> None:
    made = ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id(2), name="new"))
    image, names = changed(some(), made)
    assert names == {"new"}
    gone = ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1)))
    assert changed(image, gone)[1] == {"orders"}


def test_a_new_partition_is_a_change() -> None:
    partition = ev.Partition(
        topic_id=topic_id(1),
        partition=1,
        replicas=[ev.Replica(broker_id=0, directory_id=bytes(15) + b"\x01")],
        isr=[0],
        leader=0,
        recovered_epoch=-1,
    )
    image, names = changed(some(), ev.MetadataEvent(partition=partition))
    assert names == {"orders"}
    assert ImageTopics(image).named("orders") == Topic(topic_id(1), "orders", 2)


def test_a_new_leader_or_config_is_no_change() -> None:
    """Groups would look at all their subscriptions at each failover of a broker."""
    change = ev.PartitionChange(
        topic_id=topic_id(1), partition=0, partition_epoch=1, leader_epoch=1, leader=1
    )
    config = ev.Config(topic_id=topic_id(1), name="retention.ms", value="5")
    _, names = changed(
        some(), ev.MetadataEvent(partition_change=change), ev.MetadataEvent(config=config)
    )
    assert names == set()
