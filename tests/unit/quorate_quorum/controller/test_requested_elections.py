"""ElectLeaders: the preferred replica leads if nothing is lost by it; or any replica, if asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.errors import InvalidRequestError
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions import requested_elections
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import partition_changed
from quorate_quorum.v1 import controller_pb2 as wire
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    context,
    decided,
    directory_id,
    incarnation,
    partition_made,
    the_partition,
    topic_event,
    topic_id,
    with_partition,
)

NOT_NEEDED = ErrorCode.ERROR_CODE_ELECTION_NOT_NEEDED
NO_PREFERRED = ErrorCode.ERROR_CODE_PREFERRED_LEADER_NOT_AVAILABLE
NONE_ELIGIBLE = ErrorCode.ERROR_CODE_ELIGIBLE_LEADERS_NOT_AVAILABLE
UNKNOWN_TOPIC = ErrorCode.ERROR_CODE_UNKNOWN_TOPIC

THREE = brokers([0, 1, 2])
Result = tuple[int, int, int]  # partition, error code, leader


def carried_out(
    image: MetadataImage, request: admin.ElectLeadersRequest
) -> tuple[MetadataImage, dict[str, list[Result]], RequestedElections]:
    requested = RequestedElections(request)
    is_done = False
    while not is_done:
        outcome = requested.next(image, context(image))
        image, is_done = replayed(image, outcome.events), outcome.response
    return image, results(requested.response), requested


def results(response: admin.ElectLeadersResponse) -> dict[str, list[Result]]:
    return {
        topic.topic: [(one.partition, one.error.code, one.leader) for one in topic.partitions]
        for topic in response.topics
    }


def named(
    *partitions: int, topic: str = "orders", unclean: bool = False
) -> admin.ElectLeadersRequest:
    asked = admin.ElectionTopic(topic=topic, partitions=partitions)
    return admin.ElectLeadersRequest(topics=[asked], unclean=unclean)


def moved_leader() -> MetadataImage:
    """Broker 2 is preferred, in the ISR, and does not lead."""
    return with_partition(THREE, [2, 0, 1], leader=0)


def test_the_preferred_replica_takes_over_with_the_same_isr_in_a_new_epoch() -> None:
    image, found, _ = carried_out(moved_leader(), named(0))
    partition = the_partition(image)
    assert found == {"orders": [(0, 0, 2)]}
    assert (partition.leader, partition.leader_epoch, partition.isr) == (2, 1, (2, 0, 1))
    assert partition.recovered_epoch == -1


REFUSED: list[tuple[str, MetadataImage, int, int]] = [
    ("it leads", with_partition(THREE, [0, 1, 2]), NOT_NEEDED, 0),
    ("outside the ISR", with_partition(THREE, [2, 0, 1], isr=[0, 1], leader=0), NO_PREFERRED, 0),
    (
        "outside the ISR, in the ELR of a partition with a leader",
        with_partition(THREE, [2, 0, 1], isr=[0], elr=[2], leader=0),
        NO_PREFERRED,
        0,
    ),
    (
        "fenced, and not swept yet",
        replayed(moved_leader(), decide.fence(moved_leader(), 2).events),
        NO_PREFERRED,
        0,
    ),
    (
        "shutting down, and not swept yet",
        replayed(moved_leader(), decide.shut_down(moved_leader(), 2).events),
        NO_PREFERRED,
        0,
    ),
    (
        "with a failed directory, and not swept yet",
        replayed(
            moved_leader(), decide.directories_failed(moved_leader(), 2, [directory_id(2)]).events
        ),
        NO_PREFERRED,
        0,
    ),
    ("of no leader", with_partition(THREE, [2, 0], isr=[], last_isr=[0]), NO_PREFERRED, -1),
]


@pytest.mark.parametrize(
    ("image", "code", "leader"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_preferred_replica_that_leads_or_may_not_lead_changes_nothing(
    image: MetadataImage, code: int, leader: int
) -> None:
    after, found, _ = carried_out(image, named(0))
    assert found == {"orders": [(0, code, leader)]}
    assert after.topics == image.topics


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (
            with_partition(brokers([0, 1, 2], fenced=[2]), [2, 0], isr=[], elr=[2], leader=-1),
            "broker 2, may not lead: broker 2 is not alive: start it",
        ),
        (
            with_partition(THREE, [2, 0, 1], isr=[0, 1], leader=0),
            "its replica is not in the ISR [0, 1]: `quorate explain` tells why",
        ),
    ],
    ids=["dead", "behind"],
)
def test_why_a_preferred_replica_may_not_lead_is_said(image: MetadataImage, said: str) -> None:
    _, _, requested = carried_out(image, named(0))
    assert said in requested.response.topics[0].partitions[0].error.message


def test_a_partition_without_a_leader_gets_its_preferred_one_from_the_elr() -> None:
    image = with_partition(THREE, [2, 0, 1], isr=[], elr=[2], leader=-1)
    image, found, _ = carried_out(image, named(0))
    assert found == {"orders": [(0, 0, 2)]}
    assert the_partition(image).isr == (2,)


ids = st.lists(st.integers(0, 3), unique=True, min_size=1, max_size=4)


@given(data=st.data(), replicas=ids)
def test_a_preferred_election_never_leads_outside_of_isr_and_elr(
    data: st.DataObject, replicas: list[int]
) -> None:
    """Only a leader that had every acknowledged record takes over."""
    members = data.draw(st.lists(st.sampled_from(replicas), unique=True))
    others = [one for one in replicas if one not in members]
    elr = data.draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    leader = data.draw(st.sampled_from([*members, -1]))
    image = brokers(range(4))
    for gone in data.draw(st.lists(st.sampled_from(range(4)), unique=True)):
        image = replayed(image, decide.fence(image, gone).events)
    image = with_partition(image, replicas, isr=members, elr=elr, leader=leader)
    before = the_partition(image)
    after, _, _ = carried_out(image, named(0))
    partition = the_partition(after)
    if partition != before:
        assert partition.leader == replicas[0]
        assert partition.leader in (*before.isr, *(before.elr if before.leader < 0 else ()))
        assert not after.brokers[partition.leader].fenced
        assert set(before.isr) <= set(partition.isr)


UNCLEAN: list[tuple[str, MetadataImage, int, int]] = [
    ("a leader", with_partition(THREE, [2, 0, 1], isr=[0], leader=0), NOT_NEEDED, 0),
    (
        "a replica that has all records",
        with_partition(THREE, [2, 0, 1], isr=[], elr=[1], leader=-1),
        0,
        1,
    ),
    (
        "no broker that is alive",
        with_partition(brokers([0, 1, 2], fenced=[0, 1, 2]), [2, 0], isr=[], leader=-1),
        NONE_ELIGIBLE,
        -1,
    ),
]


@pytest.mark.parametrize(
    ("image", "code", "leader"), [row[1:] for row in UNCLEAN], ids=[row[0] for row in UNCLEAN]
)
def test_an_unclean_election_loses_nothing_where_there_is(
    image: MetadataImage, code: int, leader: int
) -> None:
    after, found, requested = carried_out(image, named(0, unclean=True))
    assert found == {"orders": [(0, code, leader)]}
    assert requested.lossy == {}
    assert the_partition(after).recovered_epoch == -1


def replaced_disk(image: MetadataImage, broker_id: int) -> MetadataImage:
    """The broker is back and unfenced, and has another directory than before."""
    request = wire.RegisterRequest(
        broker_id=broker_id,
        incarnation=incarnation(broker_id, 2),
        **listening_at(f"b{broker_id}:1"),
        host=f"h{broker_id}",
    )
    request.directories.add(directory_id=directory_id(broker_id, 1), tail_intact=True)
    outcome = decide.register(image, request, context(image), session_lives=lambda _: False)
    image = decided(image, broker_id, outcome)
    return decided(image, broker_id, decide.unfence(image, broker_id))


def failed_disk(image: MetadataImage, broker_id: int) -> MetadataImage:
    outcome = decide.directories_failed(image, broker_id, [directory_id(broker_id)])
    return decided(image, broker_id, outcome)


ONE = with_partition(THREE, [0])
NOT_ALIVE: list[tuple[str, MetadataImage, str]] = [
    ("dead", decided(ONE, 0, decide.fence(ONE, 0)), "broker 0 is not alive: start it"),
    (
        "with a failed disk",
        failed_disk(brokers([0], disks=2, on=with_partition(brokers([1]), [0])), 0),
        "broker 0 is alive, and the log directory of its replica has failed",
    ),
    (
        "with a failed disk, its only one",
        failed_disk(ONE, 0),
        "broker 0 is alive, and the log directory of its replica has failed",
    ),
]


@pytest.mark.parametrize(
    ("image", "told"), [row[1:] for row in NOT_ALIVE], ids=[row[0] for row in NOT_ALIVE]
)
def test_a_refused_unclean_election_says_what_each_replica_lacks(
    image: MetadataImage, told: str
) -> None:
    requested = RequestedElections(named(0, unclean=True))
    assert requested.next(image, context(image)).events == ()
    error = requested.response.topics[0].partitions[0].error
    assert error.code == NONE_ELIGIBLE
    assert told in error.message
    assert "ask again" in error.message


def test_a_replica_on_a_replaced_disk_may_begin_empty_if_its_partition_is_named() -> None:
    """Its broker is alive. Without the request the partition would have no leader for ever."""
    image = replaced_disk(ONE, 0)
    assert the_partition(image).leader == -1
    assert carried_out(image, named(0, unclean=True))[2].lossy == {(topic_id(1), 0): ()}
    requested = RequestedElections(admin.ElectLeadersRequest(all_topics=True, unclean=True))
    assert requested.next(image, context(image)).events == ()
    assert requested.lossy == {}
    error = requested.response.topics[0].partitions[0].error
    assert "is gone: bring the disk back, or name this partition" in error.message


def test_an_unclean_election_is_left_to_the_machine_that_compares_the_logs() -> None:
    image = with_partition(brokers([0, 1, 2], fenced=[0]), [0, 1, 2], isr=[0], leader=-1)
    after, found, requested = carried_out(image, named(0, unclean=True))
    assert (found, after) == ({}, image)
    assert requested.lossy == {(topic_id(1), 0): (1, 2)}
    requested.lossy_ended(image)
    assert results(requested.response) == {"orders": [(0, NONE_ELIGIBLE, -1)]}


@pytest.mark.parametrize(("recovered", "may_have_lost"), [(3, True), (-1, False)])
def test_the_answer_says_whether_acknowledged_records_may_be_lost(
    recovered: int, may_have_lost: bool
) -> None:
    image = with_partition(brokers([0, 1, 2], fenced=[0]), [0, 1, 2], isr=[0], leader=-1)
    _, _, requested = carried_out(image, named(0, unclean=True))
    old = the_partition(image)
    new = replace(
        old,
        leader=1,
        isr=(1,),
        leader_epoch=3,
        recovered_epoch=recovered,
        partition_epoch=old.partition_epoch + 1,
    )
    requested.lossy_ended(built(partition_changed(topic_id(1), 0, old, new), on=image))
    [result] = requested.response.topics[0].partitions
    assert (result.leader, result.may_have_lost) == (1, may_have_lost)


def three_topics() -> MetadataImage:
    """Topics a, b, c of seven partitions; each second one needs an election, c's has none."""
    image = THREE
    for number, name in enumerate("abc", 1):
        events = [topic_event(number, name)]
        for index in range(7):
            leader = 0 if index % 2 else 2
            members = [0, 1] if name == "c" and index % 2 else [2, 0, 1]
            events.append(partition_made(number, index, [2, 0, 1], isr=members, leader=leader))
        image = built(*events, on=image)
    return image


@pytest.fixture
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested_elections, "CHANGED_MAX", 2)
    monkeypatch.setattr(requested_elections, "LOOKED_MAX", 5)


@pytest.mark.usefixtures("small_turns")
def test_all_that_need_an_election_have_one_in_several_turns() -> None:
    image, found, _ = carried_out(three_topics(), admin.ElectLeadersRequest(all_topics=True))
    elected = [(index, 0, 2) for index in (1, 3, 5)]
    assert found == {
        "a": elected,
        "b": elected,
        "c": [(index, NO_PREFERRED, 0) for index in (1, 3, 5)],
    }
    assert {
        one.leader for number in (1, 2) for one in image.topics[topic_id(number)].partitions
    } == {2}


def test_one_turn_decides_so_many_and_the_answer_names_so_many(
    small_turns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requested_elections, "ANSWERED_MAX", 4)
    image, turns = three_topics(), 0
    requested = RequestedElections(admin.ElectLeadersRequest(all_topics=True))
    is_done = False
    while not is_done:
        outcome = requested.next(image, context(image))
        image, is_done, turns = replayed(image, outcome.events), outcome.response, turns + 1
        assert len(outcome.events) <= 2
    assert turns >= 21 / 5
    assert sum(map(len, results(requested.response).values())) == 4
    assert the_partition(image, 2).leader == 2, "those beyond the answer are elected, too"


BAD: list[tuple[str, admin.ElectLeadersRequest, dict[str, list[Result]]]] = [
    ("no topic", named(0, topic="nothing"), {"nothing": [(0, UNKNOWN_TOPIC, -1)]}),
    ("no partition", named(7, -1), {"orders": [(7, UNKNOWN_TOPIC, -1), (-1, UNKNOWN_TOPIC, -1)]}),
    ("a partition twice", named(0, 0), {"orders": [(0, 0, 2)]}),
    ("nothing", admin.ElectLeadersRequest(), {}),
]


@pytest.mark.parametrize(
    ("request_", "expected"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_each_partition_has_one_result(
    request_: admin.ElectLeadersRequest, expected: dict[str, list[Result]]
) -> None:
    assert carried_out(moved_leader(), request_)[1] == expected


def test_a_request_names_partitions_or_asks_for_all() -> None:
    request = named(0)
    request.all_topics = True
    with pytest.raises(InvalidRequestError, match="names partitions, or asks for all"):
        RequestedElections(request)


def test_a_topic_that_is_gone_after_the_wait_has_no_result() -> None:
    image = with_partition(brokers([0, 1, 2], fenced=[0]), [0, 1, 2], isr=[0], leader=-1)
    _, _, requested = carried_out(image, named(0, unclean=True))
    requested.lossy_ended(THREE)
    assert results(requested.response) == {}
