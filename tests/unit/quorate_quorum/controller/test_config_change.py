"""A change of min.insync.replicas empties ELRs first, in turns, while other decisions go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.config_change import CHANGED_MAX, LOOKED_MAX, ConfigChange
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.partitions import moved, steps
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_quorum.metadata.builders import (
    alter_configs,
    brokers,
    built,
    config_event,
    context,
    partition_made,
    the_partition,
    topic_event,
    topic_id,
    with_partition,
)

THREE = brokers(range(3))
MIN_ISR = "min.insync.replicas"


def topics(counts: dict[int, int], *, elr: bool = True) -> MetadataImage:
    """Topics with so many partitions; each has an ELR, if it is said, and min ISR 2."""
    events = []
    for number, count in counts.items():
        events.append(topic_event(number, f"t{number}"))
        for index in range(count):
            isr, others = ([0], [1]) if elr else ([0, 1, 2], [])
            events.append(partition_made(number, index, [0, 1, 2], isr=isr, elr=others))
    return built(*events, on=THREE)


def lowered(
    topic: str = "", looked_max: int = LOOKED_MAX, changed_max: int = CHANGED_MAX
) -> ConfigChange:
    request = admin.AlterConfigsRequest(topic=topic, set={MIN_ISR: "1"})
    return ConfigChange(request, looked_max, changed_max)


class Turns:
    """The turns of one change, between which others decide."""

    def __init__(self, image: MetadataImage, change: ConfigChange) -> None:
        self.image = image
        self.change = change
        self.outcomes: list[Outcome[bool]] = []

    def take(self, *events: ev.MetadataEvent) -> None:
        """Others propose these events."""
        self.image = replayed(self.image, events)
        self.change.proposed(events)

    def turn(self) -> bool:
        outcome = self.change.next(self.image, context(self.image))
        self.outcomes.append(outcome)
        self.take(*outcome.events)
        assert not self.voidable(), "no ELR is there whose members lack what the ISR commits"
        return outcome.response

    def to_the_end(self) -> None:
        while not self.turn():
            pass

    def voidable(self) -> list[str]:
        return [
            topic.name
            for topic in self.image.sorted_topics()
            for one in topic.partitions
            if one.elr and len(one.isr) >= self.image.min_isr(topic, one)
        ]

    @property
    def configs(self) -> Iterator[tuple[str, str]]:
        for outcome in self.outcomes:
            for event in outcome.events:
                if event.HasField("config"):
                    yield event.config.name, event.config.value


def test_a_change_of_a_topic_looks_at_its_own_partitions_alone() -> None:
    turns = Turns(topics({1: 3 * LOOKED_MAX, 2: 1}), lowered("t2"))
    assert turns.turn(), "it is decided in one turn"
    assert len(turns.outcomes[0].events) == 2
    assert the_partition(turns.image, 2).elr == ()
    assert the_partition(turns.image, 1).elr == (1,)


def test_a_change_of_the_default_goes_in_bounded_turns_and_its_config_is_last() -> None:
    turns = Turns(topics({1: CHANGED_MAX, 2: CHANGED_MAX + 1, 3: 1}), lowered())
    turns.to_the_end()
    assert [len(one.events) for one in turns.outcomes] == [CHANGED_MAX, CHANGED_MAX, 3]
    assert turns.outcomes[-1].events[-1].config.name == MIN_ISR
    assert list(turns.configs) == [(MIN_ISR, "1")]
    assert not any(one.elr for t in turns.image.sorted_topics() for one in t.partitions)


def test_a_turn_looks_at_a_bounded_number_of_partitions() -> None:
    turns = Turns(topics({1: LOOKED_MAX, 2: LOOKED_MAX, 3: 1}, elr=False), lowered())
    turns.to_the_end()
    assert [len(one.events) for one in turns.outcomes] == [0, 0, 1]


def test_topics_with_a_value_of_their_own_are_left_alone() -> None:
    image = built(config_event(MIN_ISR, "2", 2), on=topics({1: 1, 2: LOOKED_MAX}))
    turns = Turns(image, lowered())
    assert turns.turn(), "they are not looked at"
    assert (the_partition(turns.image).elr, the_partition(turns.image, 2).elr) == ((), (1,))


def shrunk(image: MetadataImage, number: int, *isr: int) -> list[ev.MetadataEvent]:
    """Members leave the ISR of a partition. Under the old min ISR they enter the ELR."""
    topic, old = image.topics[topic_id(number)], the_partition(image, number)
    new = moved(image, topic, old, isr=isr, leader=isr[0], because=())
    assert new.elr, "the case under test"
    return steps(topic.id, 0, [old, new])


@pytest.mark.parametrize("topic", ["t1", ""])
def test_a_partition_that_changes_after_its_turn_is_looked_at_again(topic: str) -> None:
    """The old config is in force until the last turn: whatever leaves the ISR enters the ELR."""
    image = built(
        config_event(MIN_ISR, "3", 1),
        config_event(MIN_ISR, "3"),
        on=with_partition(topics({2: 2}), [0, 1, 2], isr=[0, 1], elr=[2], name="t1"),
    )
    if not topic:
        image = built(config_event(MIN_ISR, None, 1), on=image)
    turns = Turns(image, lowered(topic, looked_max=1, changed_max=9))
    assert not turns.turn()
    assert the_partition(turns.image).elr == ()
    turns.take(*shrunk(turns.image, 1, 0))
    turns.to_the_end()
    assert the_partition(turns.image).isr == (0,)
    assert the_partition(turns.image).elr == ()


def test_another_change_of_the_same_config_begins_the_looks_anew() -> None:
    """The topic's own value goes, and the default counts, which was lowered meanwhile."""
    image = built(config_event(MIN_ISR, "3", 1), config_event(MIN_ISR, "2"), on=topics({1: 2}))
    change = ConfigChange(admin.AlterConfigsRequest(topic="t1", remove=[MIN_ISR]), looked_max=1)
    turns = Turns(image, change)
    assert not turns.turn()
    assert the_partition(turns.image).elr == (1,), "the default still asks for more members"
    other = alter_configs(turns.image, admin.AlterConfigsRequest(set={MIN_ISR: "1"}))
    assert len(other.events) == 1
    turns.take(*other.events)
    turns.to_the_end()
    assert the_partition(turns.image).elr == ()


def test_a_topic_that_is_created_meanwhile_does_not_begin_the_looks_anew() -> None:
    turns = Turns(topics({1: 4}), lowered(looked_max=1))
    for number in range(5, 9):
        assert not turns.turn()
        made = [topic_event(number, f"t{number}"), config_event(MIN_ISR, "1", number)]
        turns.take(*made, partition_made(number, 0, [0, 1, 2]))
    turns.to_the_end()
    assert len(turns.outcomes) <= 4 + 4 + 1, "each partition that was changed once more, at most"


@pytest.mark.parametrize("by_name", [True, False])
def test_a_topic_that_is_deleted_meanwhile_ends_its_change_alone(by_name: bool) -> None:
    turns = Turns(topics({1: 2, 2: 1}), lowered("t1" if by_name else "", looked_max=1))
    assert not turns.turn()
    turns.take(ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1))))
    turns.to_the_end()
    unknown = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC
    assert turns.change.response.error.code == (unknown if by_name else 0)
    assert list(turns.configs) == ([] if by_name else [(MIN_ISR, "1")])


def test_a_fenced_broker_between_two_turns_leaves_no_elr_behind() -> None:
    image = topics({1: 1, 2: 1})
    turns = Turns(image, lowered(looked_max=1))
    assert not turns.turn()
    turns.take(*decide.fence(turns.image, 1).events)
    turns.to_the_end()
    assert {the_partition(turns.image, number).elr for number in (1, 2)} == {()}


def test_what_was_changed_in_between_needs_no_change() -> None:
    turns = Turns(topics({1: 2}), lowered(looked_max=1))
    assert not turns.turn()
    turns.take(*alter_configs(turns.image, turns.change.request).events)
    assert turns.turn()
    assert turns.outcomes[-1].events == ()


def test_a_dry_run_changes_nothing() -> None:
    request = admin.AlterConfigsRequest(topic="t1", set={MIN_ISR: "4"}, validate_only=True)
    turns = Turns(topics({1: 2}), ConfigChange(request, looked_max=1))
    assert turns.turn()
    assert turns.outcomes[-1].events == ()
    [warning] = turns.change.response.warnings
    assert "counts as 3" in warning
