"""A drained broker gets no new replicas, and leads only where no other can."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.drain import CHANGED_MAX, LOOKED_MAX, Drain, cordon
from quorate_quorum.controller.decisions.partitions import completed, elect, moved, steps
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.controller.decisions.topics import places_of
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.features import DRAINED_BROKERS, METADATA_VERSION, SUPPORTED, to_wire
from quorate_quorum.v1 import controller_pb2 as wire
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    RACKS,
    brokers,
    built,
    context,
    create_topics,
    decided,
    directory_id,
    incarnation,
    partition_made,
    settled,
    the_partition,
    topic_event,
    topic_id,
    with_partition,
)

UNKNOWN = ErrorCode.ERROR_CODE_UNKNOWN_BROKER
SIX = brokers(range(6), racks=RACKS)


def mark(image: MetadataImage, broker: int, *, cordoned: bool = True) -> MetadataImage:
    outcome = cordon(image, broker, cordoned=cordoned)
    assert not outcome.response.HasField("error")
    return replayed(image, outcome.events)


def drained(
    image: MetadataImage, broker: int, *, replicas: bool = False, throttle: int = 0
) -> tuple[MetadataImage, admin.DrainBrokerResponse, list[int]]:
    image = mark(image, broker)
    drain, turns, is_done = Drain(broker, replicas, throttle), [], False
    while not is_done:
        outcome = drain.next(image, context(image))
        image, is_done = replayed(image, outcome.events), outcome.response
        turns.append(len(outcome.events))
    return image, drain.response, turns


def test_leaderships_go_to_other_members_of_the_isr_in_new_epochs() -> None:
    image, response, _ = drained(with_partition(SIX, [0, 3, 1]), 0)
    partition = the_partition(image)
    assert (partition.leader, partition.leader_epoch) == (3, 1)
    assert partition.isr == partition.broker_ids == (0, 3, 1)
    assert (response.leaders_moved, response.left_count) == (1, 0)
    again, response, _ = drained(image, 0)
    assert again.topics == image.topics
    assert (response.leaders_moved, response.left_count) == (0, 0)


def test_the_only_member_of_an_isr_leads_on_and_is_told() -> None:
    image, response, _ = drained(with_partition(SIX, [0, 3], isr=[0]), 0)
    assert the_partition(image).leader == 0
    [left] = response.left
    assert (left.topic, left.partition, response.left_count) == ("orders", 0, 1)
    assert "no other replica is in the ISR" in left.reason


def test_the_leader_of_a_partition_of_one_replica_leads_on_and_the_way_out_is_told() -> None:
    _, response, _ = drained(with_partition(SIX, [3]), 3)
    [left] = response.left
    assert left.reason == "it has one replica: use `quorate cluster drain 3 --replicas`"


def test_a_drain_hands_no_leadership_to_another_drained_broker() -> None:
    image = mark(with_partition(SIX, [0, 1, 2]), 1)
    assert the_partition(drained(image, 0)[0]).leader == 2
    image = mark(with_partition(SIX, [0, 1]), 1)
    for broker in (0, 1, 0, 1):
        image, response, _ = drained(image, broker)
        assert the_partition(image).leader == 0
        assert response.leaders_moved == 0
        assert [one.reason for one in response.left] == (
            ["the other replicas that may lead are on drained brokers, too"] if broker == 0 else []
        )
    requested = RequestedElections(admin.ElectLeadersRequest(all_topics=True))
    assert requested.next(image, context(image)).events == ()


def test_another_drained_broker_takes_a_leadership_if_the_leader_goes() -> None:
    image = mark(mark(with_partition(SIX, [0, 1]), 1), 0)
    image = decided(image, 0, decide.fence(image, 0))
    assert the_partition(image).leader == 1


def test_an_election_passes_over_a_drained_broker_if_it_can() -> None:
    image = mark(with_partition(SIX, [0, 1, 2]), 1)
    image = decided(image, 0, decide.fence(image, 0))
    assert the_partition(image).leader == 2
    image = decided(image, 2, decide.fence(image, 2))
    assert the_partition(image).leader == 1
    topic = image.topics[topic_id(1)]
    assert elect(image, topic, the_partition(image)) is the_partition(image)


def test_a_drained_preferred_replica_is_not_elected_on_request() -> None:
    image, _, _ = drained(with_partition(SIX, [0, 1, 2]), 0)
    asked = admin.ElectionTopic(topic="orders", partitions=[0])
    elections = RequestedElections(admin.ElectLeadersRequest(topics=[asked]))
    outcome = elections.next(image, context(image))
    assert outcome.events == ()
    [result] = elections.response.topics[0].partitions
    assert result.error.code == ErrorCode.ERROR_CODE_PREFERRED_LEADER_NOT_AVAILABLE
    assert "undrain 0" in result.error.message
    image = mark(image, 0, cordoned=False)
    elections = RequestedElections(admin.ElectLeadersRequest(topics=[asked]))
    assert len(elections.next(image, context(image)).events) == 1


def test_a_drained_broker_gets_no_new_replicas() -> None:
    image = mark(SIX, 2)
    assert [place.broker_id for place in places_of(image)] == [0, 1, 3, 4, 5]
    new = admin.NewTopic(name="n", topic_id=topic_id(7), num_partitions=12, replication_factor=3)
    request = admin.CreateTopicsRequest(topics=[new])
    image = replayed(image, create_topics(image, request, context(image)).events)
    placed = {b for one in image.topics[topic_id(7)].partitions for b in one.broker_ids}
    assert placed == {0, 1, 3, 4, 5}


def test_the_replicas_go_to_others_on_a_rack_of_their_own() -> None:
    image = with_partition(SIX, [0, 3])  # R1 and R2
    image, response, _ = drained(image, 0, replicas=True)
    partition = the_partition(image)
    assert (response.leaders_moved, response.replicas_moved, response.left_count) == (1, 1, 0)
    [added] = partition.adding
    assert RACKS[added] == "R1"
    assert partition.target == (added, 3)  # the preferred place stays that of the new one
    assert partition.removing == (0,)
    again, response, _ = drained(image, 0, replicas=True)
    assert again.topics == image.topics
    assert response.replicas_moved == 0


def test_without_another_broker_the_replicas_stay_and_are_told() -> None:
    image = with_partition(brokers([0, 1]), [0, 1])
    image, response, _ = drained(image, 0, replicas=True)
    assert the_partition(image).broker_ids == (0, 1)
    assert the_partition(image).leader == 1
    assert "no other live broker can take the replica" in response.left[0].reason


def test_a_large_drain_is_decided_in_turns() -> None:
    count = 2 * CHANGED_MAX + 3
    events = [partition_made(1, index, [0, 1]) for index in range(count)]
    image = built(topic_event(1, "orders"), *events, on=SIX)
    image, response, turns = drained(image, 0)
    assert turns == [CHANGED_MAX, CHANGED_MAX, 3]
    assert response.leaders_moved == count
    events = [partition_made(2, index, [1]) for index in range(LOOKED_MAX)]
    image = built(topic_event(2, "others"), *events, on=image)
    assert len(drained(image, 0)[2]) == 2


def test_the_mark_survives_a_registration_and_is_taken_away_once() -> None:
    image = mark(SIX, 4)
    assert cordon(image, 4, cordoned=True).events == ()
    assert cordon(image, 4, cordoned=True).response.was_drained
    image = decided(image, 4, decide.fence(image, 4))
    request = wire.RegisterRequest(
        broker_id=4,
        incarnation=incarnation(4, 2),
        **listening_at("b4:1"),
        host="h4",
        features=to_wire(SUPPORTED),
    )
    request.directories.add(directory_id=directory_id(4), tail_intact=True)
    outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
    image = replayed(image, outcome.events)
    assert (image.brokers[4].incarnation, image.brokers[4].cordoned) == (incarnation(4, 2), True)
    image = mark(image, 4, cordoned=False)
    assert not image.brokers[4].cordoned
    assert cordon(image, 4, cordoned=False).events == ()


@pytest.mark.parametrize("cordoned", [True, False])
def test_a_broker_that_is_not_registered_is_refused(cordoned: bool) -> None:
    outcome = cordon(SIX, 9, cordoned=cordoned)
    assert outcome.events == ()
    assert outcome.response.error.code == UNKNOWN
    assert "[0, 1, 2, 3, 4, 5] are" in outcome.response.error.message


@pytest.mark.parametrize("level", range(DRAINED_BROKERS))
def test_no_broker_is_marked_while_nodes_may_not_know_the_mark(level: int) -> None:
    """An older controller would place replicas on it, and its snapshots would lose the mark."""
    image = replace(SIX, features=SIX.features.insert(METADATA_VERSION, level))
    outcome = cordon(image, 4, cordoned=True)
    assert outcome.events == ()
    assert outcome.response.error.code == ErrorCode.ERROR_CODE_UNSUPPORTED
    assert f"is at metadata.version {level}" in outcome.response.error.message
    assert f"features --upgrade {DRAINED_BROKERS}" in outcome.response.error.message
    assert DRAINED_BROKERS in SUPPORTED[METADATA_VERSION]
    assert not cordon(image, 4, cordoned=False).response.HasField("error")


def test_a_drained_leader_is_relieved_when_another_member_may_lead() -> None:
    """It led because no other could; the next look of the balance, or a request, mends it."""
    image = mark(with_partition(SIX, [0, 1]), 0)
    assert the_partition(image).leader == 0
    elections = RequestedElections(admin.ElectLeadersRequest(all_topics=True))
    outcome = elections.next(image, context(image))
    assert the_partition(replayed(image, outcome.events)).leader == 1
    alone = mark(with_partition(SIX, [0, 1], isr=[0]), 0)
    elections = RequestedElections(admin.ElectLeadersRequest(all_topics=True))
    assert elections.next(alone, context(alone)).events == ()


UNSWEPT = {
    "fenced": lambda image: decide.fence(image, 0),
    "shutting down": lambda image: decide.shut_down(image, 0),
    "with a failed directory": lambda image: decide.directories_failed(image, 0, [directory_id(0)]),
}


@pytest.mark.parametrize("how", UNSWEPT)
def test_a_drained_leader_alone_in_the_isr_is_not_relieved_by_the_elr(how: str) -> None:
    """The sweep that takes its leaderships away comes in a later turn: it lets the ELR lead."""
    image = with_partition(
        SIX, [0, 1], configs={"min.insync.replicas": "2"}, isr=[0], elr=[1], leader=0
    )
    image = mark(image, 0)
    image = replayed(image, UNSWEPT[how](image).events)
    for request in (
        admin.ElectLeadersRequest(all_topics=True),
        admin.ElectLeadersRequest(topics=[admin.ElectionTopic(topic="orders", partitions=[0])]),
    ):
        outcome = RequestedElections(request).next(image, context(image))
        assert outcome.events == ()
    drain = Drain(0, replicas=False)
    assert drain.next(image, context(image)).events == ()
    assert the_partition(settled(image, 0)).leader == 1


BROKER_STATES = ["well", "fenced", "shutting down", "without its directory"]


@given(data=st.data(), replicas=st.lists(st.integers(0, 3), unique=True, min_size=1))
def test_no_election_or_drain_takes_a_leadership_out_of_the_isr(
    data: st.DataObject, replicas: list[int]
) -> None:
    """Whatever is not swept yet: a change of the leader keeps the ISR, and goes to a member."""
    in_sync = data.draw(st.sets(st.sampled_from(replicas), min_size=1))
    members = [one for one in replicas if one in in_sync]
    elr = [one for one in replicas if one not in in_sync and data.draw(st.booleans())]
    image = with_partition(
        SIX,
        replicas,
        configs={"min.insync.replicas": "4"},
        isr=members,
        elr=elr,
        leader=data.draw(st.sampled_from(members)),
    )
    before = the_partition(image)
    for broker in replicas:
        state = data.draw(st.sampled_from(BROKER_STATES))
        if state == "fenced":
            image = replayed(image, decide.fence(image, broker).events)
        elif state == "shutting down":
            image = replayed(image, decide.shut_down(image, broker).events)
        elif state == "without its directory":
            failed = decide.directories_failed(image, broker, [directory_id(broker)])
            image = replayed(image, failed.events)
        image = mark(image, broker, cordoned=data.draw(st.booleans()))
    requested = RequestedElections(admin.ElectLeadersRequest(all_topics=True))
    elected = replayed(image, requested.next(image, context(image)).events)
    image = mark(image, before.leader)
    moved_away = replayed(
        image, Drain(before.leader, replicas=False).next(image, context(image)).events
    )
    for after in (the_partition(elected), the_partition(moved_away)):
        assert after.isr == before.isr
        assert after.elr == before.elr
        if after.leader != before.leader:
            assert image.is_eligible(after, after.leader)


def test_replicas_of_small_topics_go_to_all_brokers() -> None:
    image = SIX
    for number in range(10):
        image = with_partition(image, [5], number=number, name=f"t{number}")
    image, response, _ = drained(image, 5, replicas=True)
    taken = {the_partition(image, number).target[0] for number in range(10)}
    assert taken == {0, 1, 2, 3, 4}
    assert (response.replicas_moved, response.left_count) == (10, 0)


def moving(image: MetadataImage, *target: int, throttle: int = 0) -> MetadataImage:
    """The image in which partition 0 of `orders` has begun to move."""
    asked = admin.ReassignedPartition(partition=0, replicas=target)
    topic = admin.ReassignedTopic(topic="orders", partitions=[asked])
    work = Reassignments(admin.ReassignPartitionsRequest(topics=[topic], throttle=throttle))
    outcome = work.next(image, context(image))
    assert not work.response.topics[0].partitions[0].HasField("error")
    return replayed(image, outcome.events)


def test_a_drain_of_a_target_of_a_move_gives_its_place_to_another_broker() -> None:
    image = moving(with_partition(SIX, [0, 3]), 1, 4)
    image, response, _ = drained(image, 4, replicas=True)
    partition = the_partition(image)
    assert response.replicas_moved == 1
    assert 4 not in partition.broker_ids
    assert partition.target[0] == 1
    assert RACKS[partition.target[1]] == "R2"
    assert partition.isr == partition.removing == (0, 3)
    assert set(partition.adding) == set(partition.target)


def test_the_moves_of_a_drain_have_its_throttle_and_others_keep_theirs() -> None:
    image, _, _ = drained(with_partition(SIX, [0, 3]), 0, replicas=True, throttle=9)
    assert the_partition(image).throttle == 9
    image = moving(with_partition(SIX, [0, 3]), 1, 4, throttle=7)
    unlimited, _, _ = drained(image, 4, replicas=True)
    limited, _, _ = drained(image, 4, replicas=True, throttle=9)
    assert [the_partition(one).throttle for one in (unlimited, limited)] == [7, 9]


def test_a_drain_of_a_broker_that_a_move_leaves_takes_the_leader_away_and_no_more() -> None:
    image = moving(with_partition(SIX, [0, 3]), 1, 4)
    before = the_partition(image)
    image, response, _ = drained(image, 0, replicas=True)
    partition = the_partition(image)
    assert (response.leaders_moved, response.replicas_moved, response.left_count) == (1, 0, 0)
    assert partition.leader == 3
    assert (partition.target, partition.removing) == (before.target, before.removing)


def test_a_drain_takes_no_replica_out_of_an_isr_at_its_minimum() -> None:
    """The new replica is added first; the old one goes when that is in sync."""
    configs = {"min.insync.replicas": "2"}
    image = with_partition(SIX, [0, 3, 1], isr=[0, 3], configs=configs)
    image, response, _ = drained(image, 0, replicas=True)
    partition = the_partition(image)
    assert response.left_count == 0
    assert set(partition.isr) == {0, 3}
    assert partition.removing == (0,)
    assert partition.leader == 3


def test_all_brokers_may_be_drained_one_after_the_other_and_the_last_keeps_all() -> None:
    image = with_partition(SIX, [0, 3])
    for broker in range(5):
        image = moved_to_the_end(drained(image, broker, replicas=True)[0])
    assert 5 in the_partition(image).broker_ids
    image, response, _ = drained(image, 5, replicas=True)
    [left] = response.left
    assert (
        "no other live broker can take the replica: all others are drained or gone" in left.reason
    )
    assert "undrain or add a broker, or lower the replication factor" in left.reason
    assert the_partition(image).leader in the_partition(image).isr


def moved_to_the_end(image: MetadataImage) -> MetadataImage:
    """The image after the target of partition 0 of `orders` has caught up."""
    topic, old = image.topics[topic_id(1)], the_partition(image)
    isr = (*old.isr, *(b for b in old.target if b not in old.isr))
    caught_up = moved(image, topic, old, isr=isr, leader=old.leader, because=())
    done = completed(image, topic, caught_up)
    return replayed(image, steps(topic.id, 0, [old, caught_up, done]))


def dead(image: MetadataImage, *broker_ids: int) -> MetadataImage:
    for broker_id in broker_ids:
        image = decided(image, broker_id, decide.fence(image, broker_id))
    return image


#: (what, the partition without a leader, the brokers that may have all records)
STUCK: list[tuple[str, MetadataImage, str]] = [
    ("the only replica", dead(with_partition(SIX, [0]), 0), "only brokers [0]"),
    ("the last in sync", dead(with_partition(SIX, [0, 1, 2], isr=[0]), 0), "only brokers [0]"),
    ("both that have all records", dead(with_partition(SIX, [0, 1]), 1, 0), "only brokers [0, 1]"),
    (
        "another one has all records",
        dead(with_partition(SIX, [0, 1, 2], isr=[1]), 1),
        "only brokers [1]",
    ),
    (
        "no replica surely has all",
        dead(with_partition(SIX, [0, 1], isr=[], last_isr=[0], leader=-1), 0, 1),
        "only brokers [0, 1]",
    ),
]


@pytest.mark.parametrize(
    ("image", "told"), [row[1:] for row in STUCK], ids=[row[0] for row in STUCK]
)
def test_a_partition_that_nothing_is_copied_of_is_named_each_time(
    image: MetadataImage, told: str
) -> None:
    assert the_partition(image).leader == -1
    for moves_begun in (1, 0):
        image, response, _ = drained(image, 0, replicas=True)
        assert response.replicas_moved == moves_begun, "it goes on when there is a leader"
        [left] = response.left
        assert (left.topic, left.partition, response.left_count) == ("orders", 0, 1)
        assert told in left.reason
        assert "`quorate partition elect orders/0 --unclean --accept-loss`" in left.reason
    assert drained(image, 0)[1].left_count == 0, "it leads nothing"


def test_a_partition_that_gets_a_leader_without_an_operator_is_not_named() -> None:
    image = dead(with_partition(SIX, [0, 1], isr=[], last_isr=[0], leader=-1), 0)
    assert drained(image, 0, replicas=True)[1].left_count == 0, "broker 1 will lead"
    image = dead(with_partition(SIX, [0]), 0)
    image, response, _ = drained(image, 0, replicas=True)
    assert response.left_count == 1
    image = decided(image, 0, decide.unfence(image, 0))
    assert drained(image, 0, replicas=True)[1].left_count == 0, "it is back"


def test_what_can_not_be_placed_elsewhere_is_named_once() -> None:
    image = dead(with_partition(brokers([0]), [0]), 0)
    _, response, _ = drained(image, 0, replicas=True)
    [left] = response.left
    assert response.left_count == 1
    assert "no other live broker can take the replica" in left.reason


def test_too_few_brokers_for_a_topic_are_named_with_what_hinders_them() -> None:
    image = mark(brokers(range(3), fenced=[1]), 2)
    new = admin.NewTopic(name="n", topic_id=topic_id(7), num_partitions=1, replication_factor=2)
    request = admin.CreateTopicsRequest(topics=[new])
    [made] = create_topics(image, request, context(image)).response.topics
    assert made.error.code == ErrorCode.ERROR_CODE_NOT_ENOUGH_REPLICAS
    assert (
        "needs as many live brokers, and 1 of 3 may get replicas: broker 1 is fenced, broker 2 is"
        " drained; ask for fewer, or first `quorate cluster undrain` a broker" in made.error.message
    )
