"""What a partition without a leader waits for."""

from __future__ import annotations

import pytest

from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER
from quorate_quorum.metadata.waiting import present_state, waits_for
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    config_event,
    the_partition,
    topic_id,
    with_partition,
)

ASK = "`quorate partition elect orders/0 --unclean --accept-loss`"


def leaderless(*, elr: tuple[int, ...], away: tuple[int, ...]) -> MetadataImage:
    image = brokers([2, 3, 4], fenced=away)
    return with_partition(image, [2, 3, 4], isr=(), elr=elr, leader=NO_LEADER)


def said(image: MetadataImage) -> str:
    return waits_for(image, image.topics[topic_id(1)], 0)


@pytest.mark.parametrize(
    ("elr", "away", "text"),
    [
        (
            (4, 2),
            (2, 4),
            "waits for broker 4 or 2, which have all records; neither is alive: start one, or give"
            f" up what only they have by {ASK}",
        ),
        (
            (4,),
            (4,),
            "waits for broker 4, which has all records; it is not alive: start it, or give up what"
            f" only it has by {ASK}",
        ),
        (
            (2, 3, 4),
            (2, 3, 4),
            "waits for broker 2 or 3 or 4, which have all records; none is alive: start one, or"
            f" give up what only they have by {ASK}",
        ),
        (
            (4, 2),
            (4,),
            "waits for broker 4 or 2, which have all records; broker 2 is alive, and can lead now",
        ),
        (
            (),
            (3,),
            "has no replica that is sure to have all records: waits until all are back (broker 3 is"
            " not alive), or until one with records has been back for unclean.recovery.wait.ms;"
            f" start them, or give up what only they have by {ASK}",
        ),
        (
            (),
            (),
            "has no replica that is sure to have all records: waits until all have told where their"
            " logs end",
        ),
    ],
)
def test_it_is_said_who_must_come_back_and_what_an_operator_may_do(
    elr: tuple[int, ...], away: tuple[int, ...], text: str
) -> None:
    assert said(leaderless(elr=elr, away=away)) == text


def test_a_partition_with_a_leader_waits_for_nothing() -> None:
    assert said(with_partition(brokers([0, 1]), [0, 1])) == ""


def test_where_unclean_elections_are_allowed_any_replica_will_do() -> None:
    image = leaderless(elr=(4,), away=(4,))
    image = built(config_event("unclean.leader.election.enable", "true", 1), on=image)
    assert said(image).startswith("waits until a replica is alive and has told where its log ends")


def test_a_broker_that_is_alive_again_is_told_as_such() -> None:
    image = leaderless(elr=(4,), away=(4,))
    partition = the_partition(image)
    assert present_state(image, partition, 4) == ""
    assert present_state(image, partition, 2) == (
        "it is alive again, but not sure to have all records"
    )
    led = with_partition(brokers([0, 1]), [0, 1], isr=[0])
    assert present_state(led, the_partition(led), 1) == "it is alive again, and catches up"
