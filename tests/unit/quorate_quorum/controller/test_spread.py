"""Replicas stay apart and go to allowed brokers alone: create, grow, raise, move, drain.

The brokers are any: up to four racks of one to six brokers, some without a rack, several on one
host, some of them fenced, drained or shutting down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions.drain import Drain, cordon
from quorate_quorum.controller.decisions.growth import Growth
from quorate_quorum.controller.decisions.internal_topics import internal_topic
from quorate_quorum.controller.decisions.placement import spread
from quorate_quorum.controller.decisions.topics import place_of
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.topics import OFFSETS_TOPIC, TopicImage
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.controller.builders import create, new
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    config_event,
    context,
    create_topics,
    partition_made,
    raised,
    register_event,
    topic_event,
    topic_id,
    unfence_event,
    with_partition,
)

STATES = st.sampled_from(["fenced", "cordoned", "shutting_down", *["alive"] * 5])


def with_state(image: MetadataImage, broker_id: int, state: str) -> MetadataImage:
    change = ev.BrokerChange(broker_id=broker_id, broker_epoch=image.brokers[broker_id].epoch)
    if state != "alive":
        setattr(change, state, True)
    return built(ev.MetadataEvent(broker_change=change), on=image)


@st.composite
def clusters(draw: st.DrawFn, on: MetadataImage = EMPTY) -> MetadataImage:
    """Brokers with racks and hosts, all of them alive."""
    image, next_id = on, len(on.brokers)
    nameless = draw(st.booleans())
    for rack in range(draw(st.integers(1, 4))):
        name = "" if rack == 0 and nameless else f"R{rack}"
        for host in draw(st.lists(st.integers(0, 4), min_size=1, max_size=6)):
            epoch = image.offset
            event = register_event(next_id, epoch, rack=name, host=f"{name}-h{host}")
            image = built(event, unfence_event(next_id, epoch), on=image)
            next_id += 1
    return image


def in_any_state(data: st.DataObject, image: MetadataImage) -> MetadataImage:
    for broker_id in sorted(image.brokers):
        image = with_state(image, broker_id, data.draw(STATES))
    return image


def allowed(image: MetadataImage) -> set[int]:
    return {
        broker.id
        for broker in image.sorted_brokers()
        if not (broker.fenced or broker.cordoned or broker.shutting_down)
    }


def apart(image: MetadataImage, ids: Iterable[int]) -> tuple[int, int, int]:
    return spread(place_of(image.brokers[b]) for b in ids)


def most_apart(image: MetadataImage, factor: int) -> tuple[int, int]:
    """The largest numbers of racks and hosts that new partitions may have."""
    places = [place_of(image.brokers[b]) for b in allowed(image)]
    racks = len({one.rack for one in places})
    return min(factor, racks), min(factor, len({(one.rack, one.host) for one in places}))


def the_topic(image: MetadataImage) -> TopicImage:
    return image.topics[topic_id(1)]


def grown(image: MetadataImage, count: int) -> tuple[MetadataImage, Growth]:
    work = Growth(admin.CreatePartitionsRequest(topic="t", count=count), events_max=7)
    is_done = False
    while not is_done:
        outcome = work.next(image, context(image))
        image, is_done = replayed(image, outcome.events), outcome.response
    return image, work


@given(st.data(), clusters(), st.integers(1, 20), st.integers(1, 5), st.integers(1, 20))
def test_a_topic_is_made_and_grows_on_allowed_brokers_apart(
    data: st.DataObject, image: MetadataImage, partitions: int, factor: int, more: int
) -> None:
    image = in_any_state(data, image)
    able = allowed(image)
    image, (made,) = create(image, new("t", partitions, factor))
    if factor > len(able):
        assert made.HasField("error")
        return
    assert not made.HasField("error")
    check_new(image, the_topic(image).partitions, able, most_apart(image, factor))

    image = in_any_state(data, image)
    able, before = allowed(image), the_topic(image).partitions
    image, work = grown(image, partitions + more)
    assert the_topic(image).partitions[:partitions] == before
    if factor > len(able):
        assert work.response.error.code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS
        return
    added = the_topic(image).partitions[partitions:]
    assert len(added) == more
    check_new(image, added, able, most_apart(image, factor))


def check_new(
    image: MetadataImage,
    partitions: Iterable[PartitionImage],
    able: set[int],
    most: tuple[int, int],
) -> None:
    for partition in partitions:
        assert set(partition.broker_ids) <= able
        assert apart(image, partition.broker_ids)[:2] == most
        assert partition.isr == partition.broker_ids


@given(st.data(), clusters())
def test_an_internal_topic_is_raised_on_allowed_brokers_apart(
    data: st.DataObject, image: MetadataImage
) -> None:
    """It was made when the first of the brokers was alone."""
    image = built(config_event("offsets.topic.num.partitions", "12"), on=image)
    first = image
    for broker_id in range(1, len(image.brokers)):
        first = with_state(first, broker_id, "fenced")
    request = internal_topic(first, OFFSETS_TOPIC)
    made = create_topics(first, request, context(first), internal=True)
    image = in_any_state(data, replayed(image, made.events))
    able = allowed(image)
    image = raised(image)
    topic = image.topic_named(OFFSETS_TOPIC)
    assert topic is not None
    for partition in topic.partitions:
        old, added = partition.broker_ids[:1], partition.broker_ids[1:]
        assert old == (0,)
        assert set(added) <= able
        assert len(partition.target) == max(1, min(3, len(able)))
        # each of them adds a rack or, if there is none, a host
        for count in range(1, len(partition.target)):
            now = partition.broker_ids[:count]
            best = max(apart(image, [*now, b]) for b in able - set(now))
            assert apart(image, partition.broker_ids[: count + 1]) == best
    assert raised(image) == image


@given(st.data(), clusters(), st.integers(1, 12), st.integers(1, 5))
def test_a_drain_keeps_replicas_as_far_apart_as_can_be(
    data: st.DataObject, image: MetadataImage, partitions: int, factor: int
) -> None:
    factor = min(factor, len(image.brokers))
    image, _ = create(image, new("t", partitions, factor))
    image = in_any_state(data, image)
    gone = data.draw(st.sampled_from(sorted(image.brokers)))
    image = replayed(image, cordon(image, gone, cordoned=True).events)
    able, before = allowed(image), the_topic(image).partitions
    image, drain = drained(image, gone)
    left = {one.partition for one in drain.response.left}
    for index, (old, partition) in enumerate(zip(before, the_topic(image).partitions, strict=True)):
        others = set(old.broker_ids) - {gone}
        if gone not in old.broker_ids or not able - others:
            assert partition.target == old.target
            assert (index in left) == (gone in old.broker_ids)
            continue
        [added] = set(partition.target) - set(old.broker_ids)
        assert set(partition.target) == others | {added}
        assert added in able
        best = max(apart(image, [*others, b]) for b in able - others)
        assert apart(image, partition.target) == best
    again, second = drained(image, gone)
    assert again.topics == image.topics
    assert second.response.replicas_moved == 0


def drained(
    image: MetadataImage, broker_id: int, *, replicas: bool = True
) -> tuple[MetadataImage, Drain]:
    drain, is_done = Drain(broker_id, replicas), False
    while not is_done:
        outcome = drain.next(image, context(image))
        image, is_done = replayed(image, outcome.events), outcome.response
    return image, drain


@pytest.mark.parametrize(("count", "shares"), [(3, [12, 12]), (4, [8, 8, 8]), (6, [4, 4, 4, 6, 6])])
def test_a_drain_gives_replicas_to_the_brokers_with_the_fewest(
    count: int, shares: list[int]
) -> None:
    """Broker 0 is alone in its rack. It had a replica of each partition."""
    image = brokers(range(count), racks={0: "R0"})
    for number in range(12):
        image = with_partition(image, [0, 1 + number % 2], number=number, name=f"t{number}")
    image = replayed(image, cordon(image, 0, cordoned=True).events)
    image, drain = drained(image, 0)
    assert drain.response.left_count == 0
    counts = Counter(
        b for topic in image.sorted_topics() for one in topic.partitions for b in one.target
    )
    assert sorted(counts.values()) == shares


@pytest.mark.parametrize(
    ("count", "gone", "shares"), [(3, [0], [15, 15]), (5, [0, 3], [9, 9, 12]), (6, [0, 3], [6] * 4)]
)
def test_drains_share_the_leaderships_among_those_that_may_lead(
    count: int, gone: list[int], shares: list[int]
) -> None:
    """The followers come in the same order in all partitions of a leader. Of 5, only 4 may take
    those of broker 3.
    """
    partitions = 30 if count < 6 else 24
    made = [
        partition_made(1, index, [(index + step) % count for step in range(3)])
        for index in range(partitions)
    ]
    image = built(topic_event(1, "t"), *made, on=brokers(range(count)))
    for broker_id in gone:
        image = replayed(image, cordon(image, broker_id, cordoned=True).events)
        image, drain = drained(image, broker_id, replicas=False)
        assert drain.response.left_count == 0
    leads = Counter(one.leader for one in the_topic(image).partitions)
    assert sorted(leads.values()) == shares


def test_an_assignment_to_a_drained_broker_is_refused() -> None:
    image = replayed(brokers(range(3)), [])
    image, (made,) = create(image, new("t", 1, 1))
    assert not made.HasField("error")
    image = with_state(image, 2, "cordoned")
    given_to = [admin.ReplicaAssignment(replicas=[2])]
    request = admin.CreateTopicsRequest(topics=[admin.NewTopic(name="u", assignments=given_to)])
    [refused] = create_topics(image, request, context(image)).response.topics
    work = Growth(admin.CreatePartitionsRequest(topic="t", count=2, assignments=given_to))
    assert work.next(image, context(image)).events == ()
    for error in (refused.error, work.response.error):
        assert error.code == ErrorCode.ERROR_CODE_INVALID_REPLICA_ASSIGNMENT
        assert "assigned to brokers [2], which are drained" in error.message


def test_a_replica_may_be_assigned_to_a_broker_that_is_fenced_for_a_while() -> None:
    """As in Kafka: it is not in the ISR, and catches up later."""
    image = with_state(brokers(range(3)), 2, "fenced")
    given_to = [admin.ReplicaAssignment(replicas=[0, 2])]
    request = admin.CreateTopicsRequest(topics=[admin.NewTopic(name="u", assignments=given_to)])
    outcome = create_topics(image, request, context(image))
    image = replayed(image, outcome.events)
    topic = image.topic_named("u")
    assert topic is not None
    assert topic.partitions[0].broker_ids == (0, 2)
    assert topic.partitions[0].isr == (0,)
