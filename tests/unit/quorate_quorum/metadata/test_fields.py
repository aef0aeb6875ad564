"""Every field of every image goes to the log and to snapshots, and comes back.

The tests find the fields themselves: a new one that is forgotten somewhere fails here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any

import pytest
from rpds import HashTrieMap

from quorate_quorum.log.events import SNAPSHOT_ENDS, decode_events, encode_events
from quorate_quorum.metadata.aspect import REPLAYS
from quorate_quorum.metadata.brokers import BROKER, BrokerImage, DirectoryImage
from quorate_quorum.metadata.brokers import CHANGE as BROKER_CHANGE
from quorate_quorum.metadata.carried import Carrier, ChangeCarrier
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import CHANGE as PARTITION_CHANGE
from quorate_quorum.metadata.partitions import PARTITION, PartitionImage, ReplicaImage
from quorate_quorum.metadata.topics import TOPIC, FormingTopic, TopicImage
from quorate_quorum.metadata.voters import VOTER, VoterImage
from quorate_quorum.node.features import Levels
from quorate_quorum.node.listeners import ListenerAddress
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import built, config_event, topic_id

OUTSIDE = ListenerAddress("outside", "kafka", True, "h", 2)
BROKER_SEEN = BrokerImage(
    id=1,
    epoch=1,
    incarnation=b"i" * 16,
    listeners=(ListenerAddress("inside", "grpc", False, "h", 1), OUTSIDE),
    inter_broker_listener="inside",
    rack="r",
    host="h",
    directories=(
        DirectoryImage(b"d" * 16, tail_intact=False, sync_failed=True, failed=True),
        DirectoryImage(b"e" * 16),
    ),
    fenced=True,
    fenced_because=Cause(ev.CAUSE_KIND_BROKER_SILENT, 1, ms=3000, records=7),
    shutting_down=True,
    cordoned=True,
    features=(("metadata.version", Levels(1, 2)),),
    configs=(("leader.replication.throttled.rate", "7"),),
)
PARTITION_SEEN = PartitionImage(
    replicas=tuple(ReplicaImage(broker, bytes([broker]) * 16) for broker in (1, 2, 3, 4)),
    isr=(1, 2),
    leader=2,
    leader_epoch=7,
    partition_epoch=9,
    adding=(4,),
    removing=(3,),
    elr=(3,),
    last_isr=(4, 1),
    recovered_epoch=5,
    throttle=1 << 40,
    original=(3, 1, 2),
)


def everything() -> MetadataImage:
    """An image in which each field of each dataclass has a value of its own somewhere."""
    seen = ev.Topic(topic_id=topic_id(1), name="seen", created_ms=77)
    forming = ev.Topic(topic_id=topic_id(2), name="forming", created_ms=78, partitions=3)
    return built(
        ev.MetadataEvent(feature=ev.Feature(name="metadata.version", level=1)),
        ev.MetadataEvent(voters=ev.Voters(voters=[VOTER.message(VoterImage(9, b"v" * 16, "q:1"))])),
        config_event("num.partitions", "3"),
        ev.MetadataEvent(register_broker=BROKER.message(replace(BROKER_SEEN, epoch=3))),
        ev.MetadataEvent(topic=seen),
        config_event("retention.ms", "5", topic=1),
        ev.MetadataEvent(
            partition=PARTITION.message(PARTITION_SEEN, topic_id=topic_id(1), partition=0)
        ),
        ev.MetadataEvent(topic=forming),
        ev.MetadataEvent(
            partition=PARTITION.message(PARTITION_SEEN, topic_id=topic_id(2), partition=0)
        ),
        ev.MetadataEvent(producer_ids=ev.ProducerIds(next_producer_id=2000)),
    )


def dataclasses_in(value: object) -> Iterator[Any]:
    """All dataclass values inside a value."""
    if isinstance(value, Mapping | HashTrieMap):
        for key in value:
            yield from dataclasses_in(value[key])
    elif isinstance(value, tuple):
        for one in value:
            yield from dataclasses_in(one)
    elif is_dataclass(value):
        yield value
        for field in fields(value):
            yield from dataclasses_in(getattr(value, field.name))


def is_set(image: object, field: Field[Any]) -> bool:
    value = getattr(image, field.name)
    default = field.default if field.default_factory is MISSING else field.default_factory()
    is_empty = not len(value) if isinstance(value, HashTrieMap) else not value
    return value != default and not (is_empty and default is MISSING)


def test_each_field_of_each_image_survives_a_snapshot() -> None:
    image = everything()
    batch = encode_events(list(image.to_events()), base_offset=0, epoch=1, timestamp_ms=0)
    delta = MetadataDelta(EMPTY)
    for event in decode_events(batch):
        delta.replay(event)
    assert delta.finish(image.offset, image.epoch) == image
    found: dict[str, dict[str, bool]] = {}
    for one in dataclasses_in(image):
        seen = found.setdefault(type(one).__name__, {})
        # what is not compared is only in a state that is proposed, and in no image
        for field in (field for field in fields(one) if field.compare):
            seen[field.name] = seen.get(field.name, False) or is_set(one, field)
    unset = [f"{name}.{field}" for name, seen in found.items() for field in seen if not seen[field]]
    assert unset == [], "everything() gives each field a value that is not its default"
    kinds = (MetadataImage, VoterImage, BrokerImage, DirectoryImage, TopicImage, FormingTopic)
    assert {one.__name__ for one in (*kinds, PartitionImage, ReplicaImage)} <= set(found)


@pytest.mark.parametrize(
    ("carrier", "image", "rest"),
    [
        (VOTER, VoterImage(9, b"v" * 16, "q:1"), set()),
        (BROKER, BROKER_SEEN, set()),
        (PARTITION, PARTITION_SEEN, {"topic_id", "partition", "causes"}),
        (TOPIC, TopicImage(b"t" * 16, "t", created_ms=7), {"partitions"}),
    ],
    ids=["voter", "broker", "partition", "topic"],
)
def test_each_field_of_a_message_is_one_of_the_image(
    carrier: Carrier[Any, Any], image: Any, rest: set[str]
) -> None:
    message = carrier.message(image)
    assert carrier.image(message) == image
    names = {one.wire for one in carrier.fields.values()}
    assert set(message.DESCRIPTOR.fields_by_name) - names == rest


@pytest.mark.parametrize(
    ("carrier", "old", "new", "unchangeable"),
    [
        (
            PARTITION_CHANGE,
            PartitionImage(replicas=(ReplicaImage(9, b"9" * 16),), isr=(9,), leader=9),
            PARTITION_SEEN,
            {"history", "causes"},
        ),
        (
            BROKER_CHANGE,
            replace(BROKER_SEEN, fenced=False, shutting_down=False, cordoned=False, configs=()),
            BROKER_SEEN,
            {f.name for f in fields(BrokerImage)}
            - {"fenced", "shutting_down", "cordoned", "configs"},
        ),
    ],
    ids=["partition", "broker"],
)
def test_each_field_that_changes_goes_into_the_event_of_the_change(
    carrier: ChangeCarrier[Any, Any], old: Any, new: Any, unchangeable: set[str]
) -> None:
    for name in {field.name for field in fields(old)} - unchangeable:
        assert getattr(old, name) != getattr(new, name), f"the test must change {name}"
    assert carrier.changed(old, carrier.change(old, new)) == new
    back = carrier.change(new, old)
    assert carrier.changed(new, back) == old, "empty lists are changes, too"
    assert carrier.changed(old, carrier.change(old, old)) == old


def test_each_kind_of_event_is_replayed() -> None:
    kinds = {one.name for one in ev.MetadataEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert set(REPLAYS) == kinds - {"epoch_start", *SNAPSHOT_ENDS}


def test_a_jump_past_the_removal_of_a_topics_last_config_names_the_topic() -> None:
    """A broker would go on with the config that was removed."""
    old = everything()
    new = replayed(old, [config_event("retention.ms", None, topic=1)])
    delta = MetadataDelta.between(old, new)
    assert list(delta.topics.changed_configs) == [topic_id(1)]
    assert list(delta.topics.changed) == [topic_id(1)]
    assert not delta.topics.changed_partitions
