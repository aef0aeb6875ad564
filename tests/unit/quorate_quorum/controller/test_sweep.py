"""What a broker's state asks of partitions, in slices that survive their controller."""

from __future__ import annotations

import pytest

from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.lossy_elections import (
    ELECTED_PER_TICK,
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.decisions.sweep import Slice, Sweep
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    context,
    directory_id,
    every_partition,
    incarnation,
    leads,
    partition_made,
    settled,
    topic_event,
    topic_id,
)


def with_topics(image: MetadataImage, topics: int, partitions: int) -> MetadataImage:
    events: list[ev.MetadataEvent] = []
    for number in range(1, topics + 1):
        events.append(topic_event(number, f"t{number}"))
        events += [partition_made(number, i, [0, 1]) for i in range(partitions)]
    return built(*events, on=image)


def fenced(image: MetadataImage, broker: int) -> MetadataImage:
    return replayed(image, decide.fence(image, broker).events)


def step(sweep: Sweep, image: MetadataImage) -> tuple[MetadataImage, Slice, dict[int, bool]]:
    part = sweep.next(image, FreeSpace())
    return replayed(image, part.events), part, sweep.took(part)


def test_a_slice_is_bounded_in_what_it_looks_at_and_in_what_it_changes() -> None:
    image = fenced(with_topics(brokers([0, 1]), topics=3, partitions=40), 0)
    sweep = Sweep(looked_max=30, changed_max=7)
    sweep.begin([0])
    steps = 0
    while sweep.is_busy:
        image, part, _ = step(sweep, image)
        assert len(part.events) <= 7
        steps += 1
    assert steps >= 120 // 7
    assert leads(image, 0) == 0
    sweep.begin([0])
    looks = 0
    while sweep.is_busy:
        image, part, done = step(sweep, image)
        assert not part.events
        assert done in ({}, {0: False})
        looks += 1
    assert looks >= 120 // 30


def test_slices_of_any_size_give_the_same_image_as_one() -> None:
    image = fenced(with_topics(brokers([0, 1, 2]), topics=3, partitions=10), 0)
    whole = Sweep(looked_max=10_000, changed_max=10_000)
    whole.begin([0])
    at_once, _, done = step(whole, image)
    assert done == {0: True}
    assert settled(image, 0) == at_once


def test_a_broker_is_settled_only_when_all_partitions_were_looked_at_since_it_changed() -> None:
    image = with_topics(brokers([0, 1]), topics=2, partitions=10)
    sweep = Sweep(looked_max=6, changed_max=100)
    sweep.begin([0])
    for _ in range(3):
        image, _, done = step(sweep, image)
        assert not done
    image = fenced(image, 0)
    sweep.begin([0])  # the sweep looks again at all that it has passed
    assert not sweep.is_swept(0)
    while sweep.is_busy:
        image, _, _ = step(sweep, image)
    assert sweep.is_swept(0)
    assert leads(image, 0) == 0


def test_who_joins_a_walk_under_way_is_looked_for_one_whole_lap() -> None:
    image = with_topics(brokers([0, 1, 2]), topics=4, partitions=5)
    sweep = Sweep(looked_max=3, changed_max=100)
    image = fenced(image, 2)
    sweep.begin([2])
    image, _, _ = step(sweep, image)
    image, _, _ = step(sweep, image)
    image = fenced(image, 0)
    sweep.begin([0])
    ended: list[int] = []
    while sweep.is_busy:
        image, _, done = step(sweep, image)
        ended += done
    assert ended == [2, 0]
    assert leads(image, 0) == 0


def test_a_slice_changes_no_partition_twice() -> None:
    """It sees the image from before its first change: a second change would be of an old state."""
    made = [partition_made(1, index, [0, 2]) for index in range(7)]
    made += [partition_made(1, index, [1, 2]) for index in range(7, 10)]
    image = built(topic_event(1, "t1"), *made, on=brokers([0, 1, 2]))
    sweep = Sweep(looked_max=1000, changed_max=7)
    image = fenced(image, 0)
    sweep.begin([0])
    image, part, _ = step(sweep, image)
    assert len(part.events) == 7
    image = fenced(image, 1)
    sweep.begin([1])  # from the eighth partition on, and around
    while sweep.is_busy:
        image, _, _ = step(sweep, image)
    assert [leads(image, broker) for broker in (0, 1, 2)] == [0, 0, 10]


def test_a_topic_that_came_after_the_walk_began_counts_for_who_joins_it_later() -> None:
    """A broker that joins the sweep later may lead in the new topic.

    If the sweep passed over that topic, a lost tail would be trusted, or a dead broker would lead.
    """
    image = fenced(with_topics(brokers([0, 1, 2]), topics=4, partitions=5), 2)
    sweep = Sweep(looked_max=3, changed_max=100)
    sweep.begin([2])
    image, _, _ = step(sweep, image)
    for number in (0, 9):  # before and behind the place where the sweep stands
        image = built(
            topic_event(number, f"new{number}"), partition_made(number, 0, [0, 1]), on=image
        )
    image = fenced(image, 0)
    sweep.begin([0])
    while sweep.is_busy:
        image, _, _ = step(sweep, image)
    assert leads(image, 0) == 0


def test_a_walk_goes_on_where_it_is_when_topics_went_and_somebody_joins() -> None:
    image = fenced(with_topics(brokers([0, 1, 2]), topics=4, partitions=5), 2)
    sweep = Sweep(looked_max=8, changed_max=100)
    sweep.begin([2])
    image, _, _ = step(sweep, image)
    gone = [ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(n))) for n in (1, 2)]
    image = built(*gone, topic_event(0, "new"), partition_made(0, 0, [0, 1]), on=image)
    image = fenced(image, 0)
    sweep.begin([0])
    while sweep.is_busy:
        image, _, _ = step(sweep, image)
    assert leads(image, 0) == 0


def test_topics_may_come_and_go_under_a_walk() -> None:
    image = fenced(with_topics(brokers([0, 1]), topics=3, partitions=8), 0)
    sweep = Sweep(looked_max=5, changed_max=5)
    sweep.begin([0])
    image, _, _ = step(sweep, image)
    gone = ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1)))
    image = built(gone, topic_event(9, "new"), partition_made(9, 0, [1]), on=image)
    while sweep.is_busy:
        image, _, _ = step(sweep, image)
    assert leads(image, 0) == 0


def test_a_step_that_was_not_proposed_is_taken_again() -> None:
    """A full log refuses a batch: nothing of it may count as done."""
    image = fenced(with_topics(brokers([0, 1]), topics=1, partitions=3), 0)
    sweep = Sweep()
    sweep.begin([0])
    first, second = sweep.next(image, FreeSpace()), sweep.next(image, FreeSpace())
    assert first.events == second.events
    assert not sweep.is_swept(0)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_what_one_controller_left_half_done_the_next_completes_from_the_image(steps: int) -> None:
    image = fenced(with_topics(brokers([0, 1]), topics=2, partitions=20), 0)
    done = settled(image, 0)
    first = Sweep(looked_max=100, changed_max=5)
    first.begin([0])
    for _ in range(steps):
        image, _, _ = step(first, image)
    successor = settled(image, 0, 1)
    assert leads(successor, 0) == 0
    assert successor.topics == done.topics


def test_without_topics_a_broker_is_settled_at_once() -> None:
    sweep = Sweep()
    sweep.begin([0])
    _, part, done = step(sweep, brokers([0]))
    assert (part.events, done) == ([], {0: False})


def test_partitions_without_a_leader_are_told() -> None:
    image = fenced(with_topics(brokers([0, 1], fenced=[1]), topics=1, partitions=2), 0)
    sweep = Sweep()
    sweep.begin([0, 1])
    _, part, _ = step(sweep, image)
    assert part.leaderless == [(topic_id(1), 0), (topic_id(1), 1)]


def test_leaders_are_recovered_some_in_each_tick_and_all_in_the_end() -> None:
    image = with_topics(brokers([0, 1]), topics=1, partitions=120)
    for broker in (1, 0):
        image = settled(fenced(image, broker), broker)
    assert leads(image, -1) == 120
    request = wire.RegisterRequest(
        broker_id=0, incarnation=incarnation(0, 2), **listening_at("b0:1")
    )
    request.directories.add(directory_id=directory_id(0), tail_intact=False)
    again = decide.register(image, request, context(image), session_lives=lambda _: False)
    image = settled(replayed(image, again.events), 0)
    one = wire.RegisterRequest(broker_id=1, incarnation=incarnation(1, 2), **listening_at("b1:1"))
    one.directories.add(directory_id=directory_id(1), tail_intact=False)
    again = decide.register(image, one, context(image), session_lives=lambda _: False)
    image = settled(replayed(image, again.events), 1)
    image = settled(replayed(image, decide.unfence(image, 0).events), 0)
    recovery = LossyElections(unclean_recovery_wait_ms=0)
    recovery.changed(image, every_partition(image))
    elected: list[int] = []
    for tick in range(60):
        chosen = []
        for effect in recovery.tick(image, tick * 100):
            if isinstance(effect, LossyElection):
                chosen.append(effect)
                continue
            ends = [
                wire.ReplicaEnd(topic_id=t, partition=p, last_epoch=1, log_end_offset=5)
                for t, p in effect.partitions
            ]
            recovery.answered(0, image.brokers[0].epoch, ends)
        assert len(chosen) <= ELECTED_PER_TICK
        elected.append(len(chosen))
        image = replayed(image, elect_all(image, chosen, FreeSpace()).events)
        recovery.changed(image, every_partition(image))
    assert leads(image, 0) == 120
    assert sum(elected) == 120
