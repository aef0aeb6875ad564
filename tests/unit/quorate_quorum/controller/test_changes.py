"""The controller's log has one line for each committed change."""

from __future__ import annotations

from typing import Any

from quorate_quorum.controller.decisions import changes
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    config_event,
    partition_made,
    register_event,
    topic_event,
    topic_id,
    with_partition,
)


def lines(image: MetadataImage, *events: ev.MetadataEvent) -> list[tuple[str, dict[str, Any]]]:
    delta = MetadataDelta(image)
    for offset, event in enumerate(events, image.offset):
        delta.replay(event, offset=offset)
    return changes.lines(delta, delta.finish(image.offset + len(events), image.epoch))


def voters(*ids: int) -> ev.MetadataEvent:
    members = [ev.Voter(id=i, directory_id=b"v" * 16, endpoint=f"q{i}:1") for i in ids]
    return ev.MetadataEvent(voters=ev.Voters(voters=members))


def test_a_topic_that_is_created() -> None:
    made = lines(brokers([0, 1]), topic_event(1, "a"), partition_made(1, 0, [0, 1]))
    assert made == [
        (
            "topic_created",
            {
                "topic": "a",
                "topic_id": topic_id(1).hex(),
                "partitions": 1,
                "replication_factor": 2,
                "configs": {},
            },
        )
    ]


def test_a_topic_that_grows() -> None:
    image = with_partition(brokers([0, 1]), [0], name="a", number=1)
    assert lines(image, partition_made(1, 1, [1]), partition_made(1, 2, [0])) == [
        ("topic_grown", {"topic": "a", "before": 1, "partitions": 3})
    ]


def test_a_topic_that_is_deleted() -> None:
    image = with_partition(brokers([0]), [0], name="a", number=1)
    removal = ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1)))
    assert lines(image, removal) == [
        ("topic_deleted", {"topic": "a", "topic_id": topic_id(1).hex()})
    ]


def test_configs_that_are_altered_and_one_that_keeps_its_value() -> None:
    image = with_partition(brokers([0]), [0], name="a", number=1, configs={"retention.ms": "5"})
    assert lines(image, config_event("retention.ms", "5", topic=1)) == []
    assert lines(image, config_event("retention.ms", None, topic=1)) == [
        ("topic_config_altered", {"topic": "a", "changed": {"retention.ms": "5 -> default"}})
    ]
    assert lines(image, config_event("min.insync.replicas", "1")) == [
        ("cluster_config_altered", {"changed": {"min.insync.replicas": "default -> 1"}})
    ]


def test_brokers_that_register_and_are_unregistered() -> None:
    image = brokers([0])
    registered = lines(image, register_event(1, image.offset, rack="R1"))
    assert registered == [
        (
            "broker_registered",
            {"broker": 1, "broker_epoch": image.offset, "rack": "R1", "endpoint": "b1:9092"},
        )
    ]


def test_voters_that_are_replaced() -> None:
    first = MetadataDelta(brokers([0]))
    first.replay(voters(100, 101))
    image = first.finish(50, 1)
    assert lines(image, voters(100, 102)) == [
        (
            "voters_changed",
            {"before": ["100@q100:1", "101@q101:1"], "voters": ["100@q100:1", "102@q102:1"]},
        )
    ]


def test_lines_are_bounded_and_the_rest_is_counted() -> None:
    events = [
        event
        for number in range(1, changes.LINES_MAX + 6)
        for event in (topic_event(number, f"t{number}"), partition_made(number, 0, [0]))
    ]
    found = lines(brokers([0]), *events)
    assert len(found) == changes.LINES_MAX + 1
    assert found[-1] == ("changes_not_shown", {"count": 5})
