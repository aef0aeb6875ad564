"""Topics made in several turns: none is seen before it is whole, whatever happens between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quorate.errors import OutcomeUnknownError, OverloadedError
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.creation import Creation, abandon
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.topics import DELETED_PER_TURN
from quorate_quorum.controller.driver import creations
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.recovered import recovered
from quorate_quorum.metadata.voters import VoterImage
from quorate_quorum.node.features import DRAINED_BROKERS, METADATA_VERSION
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.controller.builders import World, in_a_world
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    context,
    create_topics,
    permitted,
    settled,
    topic_id,
)


def asked(*topics: tuple[str, int], **fields: object) -> admin.CreateTopicsRequest:
    request = admin.CreateTopicsRequest(**fields)  # type: ignore[arg-type]
    for number, (name, partitions) in enumerate(topics, 1):
        request.topics.add(
            name=name,
            topic_id=topic_id(number),
            num_partitions=partitions,
            replication_factor=2,
            configs={"delete.retention.ms": "5"},
        )
    return request


def turns(
    image: MetadataImage, creation: Creation, most: int = 1000
) -> tuple[MetadataImage, list[MetadataImage]]:
    """The image at the end, and after each turn."""
    seen = []
    for _ in range(most):
        outcome = creation.next(image, context(image))
        image = replayed(image, outcome.events)
        seen.append(image)
        if outcome.response:
            break
    return image, seen


def snapshot_of(image: MetadataImage) -> MetadataImage:
    delta = MetadataDelta(EMPTY)
    for event in image.to_events():
        delta.replay(event)
    return delta.finish(image.offset, image.epoch)


def test_a_large_topic_is_seen_whole_or_not_at_all() -> None:
    start = brokers([0, 1, 2])
    image, seen = turns(start, Creation(asked(("big", 25)), events_max=4))
    assert len(seen) > 6
    for between in seen[:-1]:
        assert between.topic_named("big") is None
        assert between.topics.get(topic_id(1)) is None
        assert between.partition(topic_id(1), 0) is None
        assert len(between.forming) == 1
    whole = image.topic_named("big")
    assert whole is not None
    assert len(whole.partitions) == 25
    assert not image.forming


def test_a_topic_says_when_it_was_made_after_a_snapshot_too() -> None:
    start = brokers([0, 1, 2])
    image, _ = turns(start, Creation(asked(("big", 25), ("small", 1)), events_max=4))
    for seen in (image, snapshot_of(image)):
        made = [topic.created_ms for topic in seen.sorted_topics()]
        assert made == [context(start).now_ms] * 2


def test_turns_of_any_size_make_the_same_topics() -> None:
    start = brokers([0, 1, 2], disks=2)
    request = asked(("a", 3), ("big", 25), ("b", 1), ("c", 2))
    in_turns, _ = turns(start, Creation(request, events_max=4))
    at_once = replayed(start, create_topics(start, request, context(start)).events)
    assert in_turns.topics == at_once.topics
    assert in_turns.topic_ids == at_once.topic_ids


def test_a_turn_is_bounded_and_a_small_topic_is_never_cut() -> None:
    creation = Creation(asked(*((f"t{n}", 3) for n in range(20))), events_max=12)
    image = brokers([0, 1])
    is_done = False
    while not is_done:
        outcome = creation.next(image, context(image))
        assert len(outcome.events) <= 12
        image = replayed(image, outcome.events)
        assert not image.forming
        is_done = outcome.response
    assert len(image.topics) == 20
    assert [result.num_partitions for result in creation.response.topics] == [3] * 20


def test_a_turn_is_bounded_where_all_topics_are_refused() -> None:
    image = brokers([0, 1])
    creation = Creation(asked(*((f"no/{n}", 1) for n in range(30))), events_max=8)
    answered = 0
    is_done = False
    while not is_done:
        outcome = creation.next(image, context(image))
        assert outcome.events == ()
        is_done = outcome.response
        assert len(creation.response.topics) - answered <= 8
        answered = len(creation.response.topics)
    assert answered == 30


def test_what_is_shown_at_the_end_is_told_by_the_delta() -> None:
    """The delta of the batch that completes the topic names every partition."""
    image = brokers([0, 1])
    creation = Creation(asked(("big", 9)), events_max=4)
    told: list[tuple[list[bytes], list[tuple[bytes, int]], list[bytes]]] = []
    is_done = False
    while not is_done:
        outcome = creation.next(image, context(image))
        delta = MetadataDelta(image)
        for event in outcome.events:
            delta.replay(event)
        image = delta.finish(image.offset + len(outcome.events), image.epoch)
        seen = delta.topics
        told.append((list(seen.changed), list(seen.changed_partitions), list(seen.changed_configs)))
        is_done = outcome.response
    one = topic_id(1)
    assert told[:-1] == [([], [], [])] * (len(told) - 1)
    assert told[-1] == ([one], [(one, i) for i in range(9)], [one])


def test_a_half_made_topic_is_in_snapshots_and_given_up_by_the_next_controller() -> None:
    image, _ = turns(brokers([0, 1]), Creation(asked(("big", 25)), events_max=4), most=3)
    assert snapshot_of(image) == image
    assert len(image.forming) == 1
    given_up = abandon(image, context(image))
    assert given_up.response == 1
    delta = MetadataDelta(image)
    for event in given_up.events:
        delta.replay(event)
    after = delta.finish(image.offset + 1, image.epoch)
    assert not after.forming
    assert not after.topics
    assert delta.topics.removed == [], "it was never seen"
    again, _ = turns(after, Creation(asked(("big", 25)), events_max=4))
    assert again.topic_named("big") is not None


def test_a_half_made_topic_is_not_carried_into_a_new_generation() -> None:
    image, _ = turns(brokers([0, 1]), Creation(asked(("big", 25)), events_max=4), most=3)
    assert not recovered(image, VoterImage(1, b"d" * 16, "v:1"), epoch_seen=9).forming


@pytest.mark.parametrize(
    "again",
    [("big", topic_id(9)), ("big", topic_id(1))],
    ids=["the same name", "the same call"],
)
def test_while_a_topic_is_being_made_its_name_and_id_are_taken(again: tuple[str, bytes]) -> None:
    image, _ = turns(brokers([0, 1]), Creation(asked(("big", 25)), events_max=4), most=3)
    request = admin.CreateTopicsRequest()
    request.topics.add(name=again[0], topic_id=again[1], num_partitions=1, replication_factor=2)
    outcome = create_topics(image, request, context(image))
    assert outcome.events == ()
    assert outcome.response.topics[0].error.code == ErrorCode.ERROR_CODE_OVERLOADED


def test_a_broker_that_is_fenced_meanwhile_leads_none_of_it() -> None:
    creation = Creation(asked(("big", 25)), events_max=4)
    image, _ = turns(brokers([0, 1]), creation, most=3)
    image = replayed(image, decide.fence(image, 0).events)
    image, _ = turns(image, creation, most=2)
    image = settled(image, 0)
    image, _ = turns(image, creation)
    (topic,) = image.sorted_topics()
    assert {partition.leader for partition in topic.partitions} == {1}
    assert {partition.isr for partition in topic.partitions} == {(1,)}


def test_a_topic_for_whose_partition_nobody_is_left_is_taken_back() -> None:
    creation = Creation(asked(("big", 25), ("later", 1)), events_max=4)
    image, _ = turns(brokers([0, 1]), creation, most=3)
    for broker in (0, 1):
        image = replayed(image, decide.fence(image, broker).events)
    image, _ = turns(image, creation)
    assert not image.forming
    assert not image.topics
    codes = [result.error.code for result in creation.response.topics]
    assert codes == [ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS] * 2


def test_validation_in_turns_changes_nothing_and_sees_its_own_topics() -> None:
    image = brokers([0, 1])
    request = asked(("big", 25), ("big", 3), validate_only=True)
    creation = Creation(request, events_max=4)
    after, seen = turns(image, creation)
    assert len(seen) > 3
    assert after == image
    codes = [result.error.code for result in creation.response.topics]
    assert codes == [ErrorCode.ERROR_CODE_NONE, ErrorCode.ERROR_CODE_TOPIC_EXISTS]


def test_more_partitions_than_were_said_can_not_follow() -> None:
    made = ev.MetadataEvent(topic=ev.Topic(topic_id=topic_id(1), name="t", partitions=-1))
    with pytest.raises(AssertionError):
        built(made)


def test_a_topic_that_had_to_wait_for_the_next_turn_is_checked_again_there() -> None:
    """Between the turns another request may have taken its name."""
    image = brokers([0, 1])
    creation = Creation(asked(("a", 3), ("b", 3), ("c", 3)), events_max=8)
    image, _ = turns(image, creation, most=1)
    assert sorted(image.topic_ids) == ["a"]
    other = asked(("b", 1))
    other.topics[0].topic_id = topic_id(9)
    image = replayed(image, create_topics(image, other, context(image)).events)
    image, _ = turns(image, creation)
    assert sorted(image.topic_ids) == ["a", "b", "c"]
    codes = [result.error.code for result in creation.response.topics]
    none = ErrorCode.ERROR_CODE_NONE
    assert codes == [none, ErrorCode.ERROR_CODE_TOPIC_EXISTS, none]
    assert [result.name for result in creation.response.topics] == ["a", "b", "c"]


# The driver.


def large(name: str = "big") -> admin.CreateTopicsRequest:
    request = asked((name, 450))
    request.topics[0].topic_id = name.encode().ljust(16, b"t")
    return request


def test_a_large_topic_is_answered_when_it_is_whole_and_others_are_served_between() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        making = asyncio.ensure_future(world.controller.active().create_topics(large()))
        await asyncio.sleep(0)
        small = await world.controller.active().create_topics(asked(("small", 1)))
        decided = await making
        assert small.apply_offset < decided.apply_offset - 100
        assert decided.response.topics[0].num_partitions == 450
        assert world.controller.image.offset >= decided.apply_offset
        big = world.controller.image.topic_named("big")
        assert big is not None
        assert len(big.partitions) == 450

    in_a_world(program)


def test_it_goes_on_when_its_caller_has_gone() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        making = asyncio.ensure_future(world.controller.active().create_topics(large()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        making.cancel()
        await world.until(lambda: world.controller.image.topic_named("big") is not None)

    in_a_world(program)


def test_large_requests_take_turns() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        made = await asyncio.gather(
            *(
                world.controller.active().create_topics(large(name))
                for name in ("one", "two", "three")
            )
        )
        assert [one.response.topics[0].num_partitions for one in made] == [450] * 3
        assert not world.controller.image.forming

    in_a_world(program)


def test_a_drain_leaves_no_replica_of_a_topic_that_is_being_made() -> None:
    """The placement was made before the mark, and the topic is not visible yet."""

    async def program(world: World) -> None:
        await world.unfenced(3)
        active = world.controller.active()
        level = ev.Feature(name=METADATA_VERSION, level=DRAINED_BROKERS)
        active.reign.decide(lambda *_: Outcome((ev.MetadataEvent(feature=level),), None))
        making = asyncio.ensure_future(active.create_topics(large()))
        for _ in range(3):
            await asyncio.sleep(0)
        assert active.reign.pending.forming
        drained = await active.drain_broker(admin.DrainBrokerRequest(broker_id=1, replicas=True))
        assert (await making).response.topics[0].error.code == ErrorCode.ERROR_CODE_NONE
        big = world.controller.image.topic_named("big")
        assert big is not None
        assert drained.response.left_count == 0
        assert drained.response.replicas_moved > 0
        assert not [one for one in big.partitions if 1 in one.target or one.leader == 1]

    in_a_world(program)


def test_a_reign_that_ends_half_way_leaves_nothing_and_says_that_it_is_unknown() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        making = asyncio.ensure_future(world.controller.active().create_topics(large()))
        active = world.controller.active()
        for _ in range(3):
            await asyncio.sleep(0)
        assert active.reign.pending.forming
        world.raft.commit()
        assert world.controller.image.forming
        world.raft.lose(101, 2)
        with pytest.raises(OutcomeUnknownError):
            await making
        world.raft.lead(3)
        await world.until(lambda: not world.controller.image.forming)
        assert world.controller.image.topic_named("big") is None
        again = await world.controller.active().create_topics(large())
        assert again.response.topics[0].num_partitions == 450

    in_a_world(program)


# Other requests whose parts have a result of their own.


def test_deletions_are_cut_into_turns_and_answered_together() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        await world.controller.active().create_topics(
            admin.CreateTopicsRequest(
                topics=[
                    admin.NewTopic(
                        name=f"t{n}",
                        topic_id=topic_id(n),
                        num_partitions=1,
                        replication_factor=1,
                    )
                    for n in range(120)
                ]
            )
        )
        active = world.controller.active()
        sizes: list[int] = []
        told = active.reign.when_proposed

        def count(events: Sequence[ev.MetadataEvent]) -> None:
            sizes.append(len(events))
            told(events)

        active.reign.when_proposed = count
        request = admin.DeleteTopicsRequest(
            topics=[f"t{n}" for n in range(60)] + ["t0"],
            topic_ids=[topic_id(n) for n in range(60, 120)],
        )
        decided = await world.controller.active().delete_topics(request, permitted)
        assert [one.name for one in decided.response.topics][:2] == ["t0", "t1"]
        codes = [one.error.code for one in decided.response.topics]
        assert codes[60] == ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
        assert [code for code in codes if code] == [codes[60]]
        assert len(codes) == 121
        assert max(sizes) <= DELETED_PER_TURN
        assert not world.controller.image.topics

    in_a_world(program)


def test_a_leaders_proposals_are_cut_into_turns_and_answered_together() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        made = await world.create("many", partitions=240)
        image = world.controller.image
        epochs = {b: image.brokers[b].epoch for b in (0, 1)}
        request = wire.AlterPartitionsRequest(request_id=7, broker_id=0, broker_epoch=epochs[0])
        for index, partition in enumerate(image.topics[made].partitions):
            if partition.leader == 0:
                request.partitions.add(
                    topic_id=made,
                    partition=index,
                    leader_epoch=0,
                    partition_epoch=0,
                    isr=[wire.IsrMember(broker_id=0, broker_epoch=epochs[0])],
                )
        assert len(request.partitions) == 120
        decided = await world.controller.active().alter_partitions(request)
        assert decided.response.request_id == 7
        assert [one.partition for one in decided.response.partitions] == [
            one.partition for one in request.partitions
        ]
        assert all(not one.error.code for one in decided.response.partitions)
        partitions = world.controller.image.topics[made].partitions
        assert {p.isr for p in partitions if p.leader == 0} == {(0,)}
        fenced = wire.AlterPartitionsRequest()
        fenced.CopyFrom(request)
        fenced.broker_epoch += 1
        refused = await world.controller.active().alter_partitions(fenced)
        assert refused.response.error.code == ErrorCode.ERROR_CODE_FENCED
        assert refused.response.request_id == 7

    in_a_world(program)


def test_what_a_full_log_left_half_made_takes_no_name_for_good() -> None:
    """Who asked is told that the outcome is unknown; he may ask for fewer partitions now."""

    async def program(world: World) -> None:
        await world.unfenced(2)
        making = asyncio.ensure_future(world.controller.active().create_topics(large()))
        active = world.controller.active()
        for _ in range(3):
            await asyncio.sleep(0)
        assert active.reign.pending.forming
        world.raft.room = 0
        with pytest.raises(OutcomeUnknownError):
            await making
        world.raft.room = None
        small = await world.controller.active().create_topics(asked(("big", 1)))
        assert small.response.topics[0].error.code == ErrorCode.ERROR_CODE_NONE
        assert not world.controller.image.forming

    in_a_world(program)


def test_a_small_request_leaves_alone_what_another_is_making() -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        making = asyncio.ensure_future(world.controller.active().create_topics(large()))
        for _ in range(3):
            await asyncio.sleep(0)
        small = await world.controller.active().create_topics(asked(("small", 1)))
        assert small.response.topics[0].error.code == ErrorCode.ERROR_CODE_NONE
        assert (await making).response.topics[0].num_partitions == 450

    in_a_world(program)


@pytest.mark.parametrize("bound", ["CREATIONS_MAX", "CREATION_BYTES_MAX"])
def test_large_requests_are_bounded_also_when_their_callers_have_gone(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def program(world: World) -> None:
        await world.unfenced(2)
        most = 2 if bound == "CREATIONS_MAX" else 2 * large("one").ByteSize()
        monkeypatch.setattr(creations, bound, most)
        for name in ("one", "two"):
            making = asyncio.ensure_future(world.controller.active().create_topics(large(name)))
            await asyncio.sleep(0)
            making.cancel()
        with pytest.raises(OverloadedError, match="wait already"):
            await world.controller.active().create_topics(large("six"))
        await world.until(lambda: world.controller.image.topic_named("two") is not None)
        await world.controller.active().create_topics(large("six"))

    in_a_world(program)


@pytest.mark.parametrize("assigned", [[], [0, 1]])
def test_a_min_isr_above_the_number_of_replicas_is_said_in_the_answer(assigned: list[int]) -> None:
    image = brokers([0, 1])
    for value, warnings in {
        "2": [],
        "4": ["min.insync.replicas=4 is above the number of replicas, and counts as 2"],
    }.items():
        request = admin.CreateTopicsRequest()
        topic = request.topics.add(name="orders", replication_factor=-1, num_partitions=-1)
        topic.configs["min.insync.replicas"] = value
        if assigned:
            topic.assignments.add(replicas=assigned)
        creation = Creation(request)
        assert creation.next(image, context(image)).response
        assert list(creation.response.topics[0].warnings) == warnings
