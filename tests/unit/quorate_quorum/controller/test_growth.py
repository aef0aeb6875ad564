"""A topic gets more partitions: which requests are refused, where the new ones lie, in turns."""

from __future__ import annotations

import asyncio

import pytest

from quorate.errors import OutcomeUnknownError, QuorateError, from_wire
from quorate.net.methods import CREATE_PARTITIONS
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.configs import PARTITIONS_MAX
from quorate_quorum.controller.decisions.growth import Growth
from quorate_quorum.controller.decisions.placement import Place, next_position, place
from quorate_quorum.metadata.delta import MetadataDelta, replayed
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.controller.builders import World, create, in_a_world, new
from tests.unit.quorate_quorum.metadata.builders import (
    RACKS,
    brokers,
    context,
    directory_id,
    topic_id,
    unfence_event,
    with_partition,
)


def growth(
    topic: str, count: int, known: int = 0, *assigned: list[int], validate_only: bool = False
) -> admin.CreatePartitionsRequest:
    return admin.CreatePartitionsRequest(
        topic=topic,
        count=count,
        known_count=known,
        assignments=[admin.ReplicaAssignment(replicas=ids) for ids in assigned],
        validate_only=validate_only,
    )


def grown(
    image: MetadataImage, request: admin.CreatePartitionsRequest, events_max: int = 1000
) -> tuple[MetadataImage, admin.CreatePartitionsResponse]:
    """The image after all turns of a request, and the answer."""
    work = Growth(request, events_max=events_max)
    for _ in range(max(0, request.count) + 2):
        outcome = work.next(image, context(image))
        assert len(outcome.events) <= events_max
        image = replayed(image, outcome.events)
        if outcome.response:
            return image, work.response
    raise AssertionError("it never ended")


def refused(
    image: MetadataImage, request: admin.CreatePartitionsRequest
) -> tuple[ErrorCode.ValueType, str]:
    """The code and the message of the error. Nothing was changed."""
    after, answer = grown(image, request)
    assert after is image or after == image
    return answer.error.code, answer.error.message


def orders(partitions: int = 3, ids: range = range(3), factor: int = 2) -> MetadataImage:
    """A cluster with topic `orders`."""
    image, (made,) = create(brokers(ids), new("orders", partitions, factor))
    assert not made.HasField("error")
    return image


def assignments(image: MetadataImage, topic: str = "orders") -> list[tuple[int, ...]]:
    found = image.topic_named(topic)
    assert found is not None
    return [partition.broker_ids for partition in found.partitions]


# What is refused, with both numbers, and nothing changed.


@pytest.mark.parametrize("count", [2, 3, 0, -1, -(2**31), PARTITIONS_MAX + 1, 2**31 - 1])
def test_a_number_that_is_not_larger_or_is_above_the_limit_is_refused(count: int) -> None:
    code, message = refused(orders(3), growth("orders", count))
    assert code == ErrorCode.ERROR_CODE_INVALID_PARTITIONS
    assert f"topic 'orders' has 3 partitions, and {count} were asked for" in message
    assert f"ask for 4 to {PARTITIONS_MAX}" in message


def test_the_known_number_makes_no_excuse_for_the_same_number() -> None:
    code, message = refused(orders(3), growth("orders", 3, known=3))
    assert code == ErrorCode.ERROR_CODE_INVALID_PARTITIONS
    assert "has 3 partitions, and 3 were asked for" in message


def test_a_topic_with_as_many_as_there_may_be_can_not_grow() -> None:
    image = orders(1)
    image, _ = grown(image, growth("orders", PARTITIONS_MAX), PARTITIONS_MAX)
    code, message = refused(image, growth("orders", PARTITIONS_MAX + 1))
    assert code == ErrorCode.ERROR_CODE_INVALID_PARTITIONS
    assert f"has {PARTITIONS_MAX} partitions" in message
    assert "can't have more" in message


def test_an_unknown_topic_is_refused() -> None:
    for name in ("nothing", ""):
        assert refused(orders(3), growth(name, 5)) == (
            ErrorCode.ERROR_CODE_UNKNOWN_TOPIC,
            f"no topic {name!r}",
        )


def test_an_internal_topic_is_refused() -> None:
    image = with_partition(brokers(range(3)), [0, 1], name="__consumer_offsets")
    code, message = refused(image, growth("__consumer_offsets", 5))
    assert code == ErrorCode.ERROR_CODE_POLICY_VIOLATION
    assert "'__consumer_offsets' is Quorate's own" in message
    assert "1, is fixed, and can't become 5" in message


@pytest.mark.parametrize("known", [-1, 4])
def test_a_known_number_that_the_topic_never_had_is_refused(known: int) -> None:
    code, message = refused(orders(3), growth("orders", 6, known))
    assert code == ErrorCode.ERROR_CODE_INVALID_REQUEST
    assert f"has 3 partitions, and known_count is {known}" in message


def test_fewer_live_brokers_than_replicas_are_refused_retriably() -> None:
    image = brokers(range(3), fenced=[2], on=EMPTY)
    image = with_partition(image, [0, 1, 2], isr=[0, 1])
    code, message = refused(image, growth("orders", 4))
    assert code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS
    assert "each further one needs 3 live brokers, and 2 of 3 are unfenced" in message


@pytest.mark.parametrize(
    ("assigned", "code", "said"),
    [
        ([[0, 1]], "INVALID_PARTITIONS", "has 3 partitions, and 5 were asked for: that is 2 more"),
        (
            [[0, 1], [2]],
            "INVALID_REPLICA_ASSIGNMENT",
            "partition 4 is assigned to brokers [2]; name 2 ",
        ),
        (
            [[0, 1], [2, 2]],
            "INVALID_REPLICA_ASSIGNMENT",
            "partition 4 must be assigned to different",
        ),
        ([[0, 1], []], "INVALID_REPLICA_ASSIGNMENT", "partition 4 must be assigned to different"),
        ([[0, 9], [1, 2]], "INVALID_REPLICA_ASSIGNMENT", "partition 3 is assigned to brokers [9]"),
    ],
)
def test_assignments_that_do_not_fit_are_refused(
    assigned: list[list[int]], code: str, said: str
) -> None:
    found, message = refused(orders(3), growth("orders", 5, 0, *assigned))
    assert ErrorCode.Name(found) == f"ERROR_CODE_{code}"
    assert said in message


def test_a_request_that_only_validates_makes_nothing_and_is_refused_as_any_other() -> None:
    image = orders(3)
    after, answer = grown(image, growth("orders", 5000, validate_only=True), events_max=10)
    assert after == image
    assert not answer.HasField("error")
    assert answer.num_partitions == 5000
    code, _ = refused(image, growth("orders", 3, validate_only=True))
    assert code == ErrorCode.ERROR_CODE_INVALID_PARTITIONS


# What it makes.


def test_the_new_partitions_are_empty_and_led_and_the_old_ones_stay_as_they_are() -> None:
    before = orders(3)
    image, answer = grown(before, growth("orders", 5))
    assert (answer.num_partitions, answer.topic_id) == (5, topic_id(1))
    topic, old = image.topics[topic_id(1)], before.topics[topic_id(1)]
    assert topic.partitions[:3] == old.partitions
    for partition in topic.partitions[3:]:
        assert partition.isr == partition.broker_ids
        assert (partition.leader, partition.leader_epoch) == (partition.isr[0], 0)
    assert image.partitions_created == 5


def test_a_topic_that_grows_lies_as_one_that_was_created_with_all_its_partitions() -> None:
    """The table in docs/design/controller.md, with other topics made in between."""
    start = brokers(RACKS, racks=RACKS)
    whole, _ = create(start, new("invoice", 10, 3))
    image, _ = create(start, new("invoice", 4, 3))
    image, _ = create(image, new("other", 5, 2, number=2))
    image, _ = grown(image, growth("invoice", 10), events_max=4)
    assert assignments(image, "invoice") == assignments(whole, "invoice")
    for number, ids in enumerate(assignments(image, "invoice")):
        assert {RACKS[broker] for broker in ids} == {"R1", "R2"}, number


def test_the_place_behind_the_partitions_of_a_topic_is_found() -> None:
    places = [Place(i, f"R{i % 3}", f"h{i // 2}") for i in range(7)]
    for factor in (1, 2, 3):
        for start in range(7):
            for shift in range(6):
                whole = place(places, 13, factor, start, shift)
                found = next_position(places, whole[:8])
                assert found is not None
                assert place(places, 5, factor, *found, whole[:8]) == whole[8:]


def test_a_fenced_broker_gets_no_new_partition_and_one_that_leaves_its_place_is_no_hindrance() -> (
    None
):
    image = orders(3, range(4))
    last = assignments(image)[-1][0]
    for broker_id in (last, 3):
        fenced = replayed(
            image,
            [
                ev.MetadataEvent(
                    broker_change=ev.BrokerChange(
                        broker_id=broker_id,
                        broker_epoch=image.brokers[broker_id].epoch,
                        fenced=True,
                    )
                )
            ],
        )
        after, answer = grown(fenced, growth("orders", 9))
        assert not answer.HasField("error")
        assert all(broker_id not in ids for ids in assignments(after)[3:])


def test_explicit_assignments_are_taken_in_turns_too() -> None:
    wanted = [[0, 2], [1, 0], [2, 1], [0, 1], [2, 0]]
    image, answer = grown(orders(3), growth("orders", 8, 3, *wanted), events_max=2)
    assert not answer.HasField("error")
    assert [list(ids) for ids in assignments(image)[3:]] == wanted


def test_new_partitions_go_to_the_directory_with_the_fewest_replicas() -> None:
    image, _ = create(brokers([0], disks=2), new("orders", 1, 1))
    image, _ = grown(image, growth("orders", 6), events_max=2)
    used = [p.replicas[0].directory_id for p in image.topics[topic_id(1)].partitions]
    assert used == [directory_id(0, i % 2) for i in range(6)]


def test_turns_of_any_size_make_the_same_partitions_and_each_is_bounded() -> None:
    request = growth("orders", 40)
    at_once, _ = grown(orders(3), request)
    in_turns, _ = grown(orders(3), request, events_max=4)
    assert in_turns.topics == at_once.topics


def test_a_snapshot_has_the_new_partitions() -> None:
    image, _ = grown(orders(3), growth("orders", 7))
    delta = MetadataDelta(EMPTY)
    for event in image.to_events():
        delta.replay(event)
    assert delta.finish(image.offset, image.epoch).topics == image.topics


# Repeated requests, and others in between.


def test_a_repeated_request_says_that_it_was_carried_out() -> None:
    image, first = grown(orders(3), growth("orders", 6, known=3))
    after, second = grown(image, growth("orders", 6, known=3))
    assert after == image
    assert second == first
    code, _ = refused(image, growth("orders", 6))
    assert code == ErrorCode.ERROR_CODE_INVALID_PARTITIONS


def test_a_repeated_request_goes_on_where_the_first_one_stopped() -> None:
    wanted = [[0, 2], [1, 0], [2, 1], [0, 1]]
    request = growth("orders", 7, 3, *wanted)
    image = orders(3)
    image = replayed(image, Growth(request, events_max=2).next(image, context(image)).events)
    assert len(assignments(image)) == 5
    image, answer = grown(image, request)
    assert not answer.HasField("error")
    assert [list(ids) for ids in assignments(image)[3:]] == wanted


def test_a_topic_that_others_grow_further_meanwhile_is_grown_enough() -> None:
    image = orders(3)
    slow = Growth(growth("orders", 8), events_max=2)
    image = replayed(image, slow.next(image, context(image)).events)
    image, _ = grown(image, growth("orders", 20))
    outcome = slow.next(image, context(image))
    assert (outcome.events, outcome.response) == ((), True)
    assert not slow.response.HasField("error")


def test_a_topic_that_is_deleted_meanwhile_gets_nothing_though_it_is_made_again() -> None:
    image = orders(3)
    slow = Growth(growth("orders", 8), events_max=2)
    image = replayed(image, slow.next(image, context(image)).events)
    removal = ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1)))
    image, _ = create(replayed(image, [removal]), new("orders", 3, 2, number=2))
    outcome = slow.next(image, context(image))
    assert (outcome.events, outcome.response) == ((), True)
    assert slow.response.error.message == "topic 'orders' was deleted while it grew"


def test_brokers_that_go_meanwhile_end_it_with_an_error_that_says_how_far_it_is() -> None:
    image = orders(3)
    slow = Growth(growth("orders", 8), events_max=2)
    image = replayed(image, slow.next(image, context(image)).events)
    for broker_id in (1, 2):
        epoch = image.brokers[broker_id].epoch
        event = unfence_event(broker_id, epoch)
        event.broker_change.fenced = True
        image = replayed(image, [event])
    outcome = slow.next(image, context(image))
    assert (outcome.events, outcome.response) == ((), True)
    assert slow.response.error.code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS
    assert "has 5 partitions" in slow.response.error.message


# The driver.


async def ask(world: World, request: admin.CreatePartitionsRequest) -> int:
    """Return the number of partitions afterwards. Raises the error in the answer."""
    active = world.controller.active()
    decided = await active.create_partitions(request)
    if decided.response.HasField("error"):
        raise from_wire(decided.response.error)
    assert world.controller.image.offset >= decided.apply_offset
    return decided.response.num_partitions


def partitions_of(world: World, topic: str) -> int:
    found = world.controller.image.topic_named(topic)
    assert found is not None
    return len(found.partitions)


def test_a_large_growth_is_answered_when_it_is_whole_and_others_are_served_between() -> None:
    async def program(world: World) -> None:
        await world.unfenced(3)
        await world.create("big")
        await world.create("small")
        growing = asyncio.ensure_future(ask(world, growth("big", 450)))
        await asyncio.sleep(0)
        assert await ask(world, growth("small", 2)) == 2
        assert partitions_of(world, "big") < 450
        assert await growing == 450
        assert partitions_of(world, "big") == 450

    in_a_world(program)


def test_a_reign_that_ends_half_way_keeps_what_is_made_and_the_next_one_makes_the_rest() -> None:
    async def program(world: World) -> None:
        await world.unfenced(3)
        await world.create("big")
        request = growth("big", 1000, known=1)
        growing = asyncio.ensure_future(ask(world, request))
        for _ in range(3):
            await asyncio.sleep(0)
        world.raft.commit()
        half = partitions_of(world, "big")
        assert 1 < half < 1000
        world.raft.lose(101, 2)
        with pytest.raises(OutcomeUnknownError):
            await growing
        world.raft.lead(3)
        await world.until(lambda: reigns(world))
        assert partitions_of(world, "big") >= half
        await world.until(lambda: all(b.is_unfenced for b in world.brokers))
        assert await ask(world, request) == 1000
        assert await ask(world, request) == 1000
        assert partitions_of(world, "big") == 1000

    in_a_world(program)


def reigns(world: World) -> bool:
    try:
        world.controller.active()
    except QuorateError:
        return False
    return True


def test_two_that_grow_one_topic_at_the_same_time_both_end() -> None:
    async def program(world: World) -> None:
        await world.unfenced(3)
        await world.create("big")
        done = await asyncio.gather(
            ask(world, growth("big", 450)),
            ask(world, growth("big", 300)),
            ask(world, growth("big", 600)),
            return_exceptions=True,
        )
        assert done[0] == 450
        assert done[2] == 600
        assert "has 450 partitions, and 300 were asked for" in str(done[1])
        assert partitions_of(world, "big") == 600

    in_a_world(program)


def test_the_call_comes_in_as_any_other_that_a_broker_passes_on() -> None:
    async def program(world: World) -> None:
        await world.unfenced(1)
        await world.create("t")
        answer = await world.forward(CREATE_PARTITIONS.path, growth("t", 4).SerializeToString())
        made = admin.CreatePartitionsResponse.FromString(answer.response)
        assert made.num_partitions == 4
        assert world.partition(made.topic_id, 3).leader == 0

    in_a_world(program)
