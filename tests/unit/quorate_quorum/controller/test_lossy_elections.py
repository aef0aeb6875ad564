"""Elections that may lose records, while a reassignment adds replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.v1 import admin_pb2 as admin
from quorate_quorum.controller.decisions import brokers as decide
from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.lossy_elections import (
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.decisions.reassignment import Reassignments
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from tests.harness.addresses import listening_at
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    context,
    decided,
    directory_id,
    every_partition,
    incarnation,
    the_partition,
    topic_id,
    with_partition,
)

WAIT_MS = 60_000


def reassigned_without_leader(
    originals: Sequence[int],
    target: Sequence[int],
    *,
    last_isr: Sequence[int] = (),
    away: Sequence[int] = (),
    unclean: bool = False,
) -> MetadataImage:
    """A partition on its way from `originals` to `target`, which no replica leads without loss."""
    image = with_partition(
        brokers(range(4)),
        originals,
        isr=[],
        last_isr=last_isr,
        leader=-1,
        configs={"unclean.leader.election.enable": str(unclean).lower()},
    )
    request = admin.ReassignPartitionsRequest()
    asked = admin.ReassignedPartition(partition=0, replicas=target)
    request.topics.add(topic="orders", partitions=[asked])
    image = replayed(image, Reassignments(request).next(image, context(image)).events)
    assert the_partition(image).is_reassigned
    for broker_id in away:
        image = replayed(image, decide.fence(image, broker_id).events)
    return image


def elected(
    image: MetadataImage, ends: Mapping[int, int], *, asked: bool = False
) -> tuple[int | None, MetadataImage]:
    """Return the leader that is elected after the whole wait, and the image then.

    `ends`: the log ends of the brokers that answer.
    """
    machine = LossyElections(WAIT_MS)
    machine.changed(image, every_partition(image))
    if asked:
        machine.ask_for(dict.fromkeys(every_partition(image), ()), until_ms=10 * WAIT_MS)
    for now_ms in range(0, 3 * WAIT_MS, 1_000):
        effects = [one for one in machine.tick(image, now_ms) if isinstance(one, LossyElection)]
        if effects:
            after = replayed(image, elect_all(image, effects, FreeSpace()).events)
            assert the_partition(after).leader == effects[0].leader
            return effects[0].leader, after
        for broker_id, end in ends.items():
            told = wire.ReplicaEnd(
                topic_id=topic_id(1),
                partition=0,
                last_epoch=0 if end else -1,
                log_end_offset=end,
            )
            machine.answered(broker_id, image.brokers[broker_id].epoch, [told])
    return None, image


#: (what, ends of the originals 0 and 1 and of the added 2, is it asked for, the leader)
NEWCOMERS: list[tuple[str, dict[int, int], bool, int | None]] = [
    ("no original is there", {2: 50}, False, None),
    ("no original is there, and one asks", {2: 50}, True, 2),
    ("one original is there, with less", {0: 10, 2: 50}, False, 0),
    ("one original is there, with less, and one asks", {0: 10, 2: 50}, True, 0),
    ("one original is there, empty", {0: 0, 2: 50}, False, None),
    ("one original is there, empty, and one asks", {0: 0, 2: 50}, True, 2),
    ("all are there, and the added one has most", {0: 10, 1: 40, 2: 50}, False, 2),
    ("all are there, and an original has most", {0: 10, 1: 60, 2: 50}, False, 1),
    ("all are there, and all are equal", {0: 50, 1: 50, 2: 50}, False, 0),
    ("all originals are there, and empty", {0: 0, 1: 0, 2: 1}, False, 2),
]


@pytest.mark.parametrize("unclean", [False, True])
@pytest.mark.parametrize(
    ("ends", "asked", "leader"), [row[1:] for row in NEWCOMERS], ids=[row[0] for row in NEWCOMERS]
)
def test_a_replica_that_is_only_being_added_leads_after_all_originals_have_answered(
    ends: dict[int, int], asked: bool, leader: int | None, unclean: bool
) -> None:
    """An original that is absent may hold all; the added one has what it has copied so far."""
    away = [b for b in (0, 1, 2) if b not in ends]
    image = reassigned_without_leader([0, 1], [2], away=away, unclean=unclean)
    assert elected(image, ends, asked=asked)[0] == leader


def test_an_added_replica_that_was_in_sync_counts_as_the_others() -> None:
    image = reassigned_without_leader([0, 1], [0, 2], away=[0, 1])
    in_sync = with_partition(
        brokers(range(4), fenced=[0, 1]), [0, 2, 1], isr=[], last_isr=[0, 2], leader=-1
    )
    assert elected(image, {2: 50})[0] is None
    assert elected(in_sync, {2: 50})[0] == 2


def test_the_wait_for_the_originals_begins_when_the_first_of_them_is_back() -> None:
    """The added replica was there for hours: the first original must not win by seconds."""
    image = reassigned_without_leader([0, 1], [2], away=[0, 1])
    machine = LossyElections(WAIT_MS)
    machine.changed(image, every_partition(image))
    for now_ms in (0, 3_600_000):
        machine.tick(image, now_ms)
    image = replayed(image, decide.unfence(image, 0).events)
    for now_ms in range(3_600_000, 3_600_000 + WAIT_MS, 1_000):
        assert not [e for e in machine.tick(image, now_ms) if isinstance(e, LossyElection)]
        told = wire.ReplicaEnd(topic_id=topic_id(1), last_epoch=0, log_end_offset=9)
        machine.answered(0, image.brokers[0].epoch, [told])


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


@pytest.mark.parametrize("unclean", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_a_replica_whose_directory_is_gone_begins_empty_only_if_an_operator_asks(
    asked: bool, unclean: bool
) -> None:
    """The disk may come back, with all records."""
    configs = {"unclean.leader.election.enable": str(unclean).lower()}
    image = with_partition(brokers(range(3)), [0], configs=configs)
    image = replaced_disk(image, 0)
    leader, after = elected(image, {}, asked=asked)
    assert leader == (0 if asked else None)
    partition = the_partition(after)
    assert partition.directory_of(0) == directory_id(0, 1 if asked else 0)
    assert (partition.recovered_epoch == partition.leader_epoch) == asked


def test_a_replica_that_has_a_log_leads_before_one_whose_directory_is_gone() -> None:
    image = replaced_disk(with_partition(brokers(range(3)), [0, 1], isr=[0], leader=0), 0)
    assert elected(image, {1: 0}, asked=True)[0] == 1
    assert elected(image, {}, asked=True)[0] is None, "its log is waited for"


def requested(image: MetadataImage) -> LossyElections:
    """The machine, after an operator's request for the partition was accepted."""
    request = admin.ElectLeadersRequest(unclean=True)
    request.topics.add(topic="orders", partitions=[0])
    elections = RequestedElections(request)
    assert elections.next(image, context(image)).response
    machine = LossyElections(WAIT_MS)
    machine.changed(image, every_partition(image))
    machine.ask_for(elections.lossy, until_ms=10_000)
    assert elections.lossy
    return machine


def chosen(machine: LossyElections, image: MetadataImage, now_ms: int) -> list[int]:
    effects = machine.tick(image, now_ms)
    return [one.leader for one in effects if isinstance(one, LossyElection)]


def tell(machine: LossyElections, image: MetadataImage, broker_id: int, end: int) -> None:
    told = wire.ReplicaEnd(topic_id=topic_id(1), last_epoch=0, log_end_offset=end)
    machine.answered(broker_id, image.brokers[broker_id].epoch, [told])


#: The disk of broker 0 was replaced, and broker 1 has records.
ONE_DISK_GONE = replaced_disk(with_partition(brokers(range(3)), [0, 1], isr=[0], leader=0), 0)


def fenced(image: MetadataImage, broker_id: int) -> MetadataImage:
    return replayed(image, decide.fence(image, broker_id).events)


@pytest.mark.parametrize("ticks_before", [0, 1])
def test_no_replica_begins_empty_while_another_was_alive_during_the_request(
    ticks_before: int,
) -> None:
    """Its lease may have ended for a moment."""
    machine = requested(ONE_DISK_GONE)
    for _ in range(ticks_before):
        assert chosen(machine, ONE_DISK_GONE, 0) == []
    for now_ms in range(500, 3_000, 500):
        assert chosen(machine, fenced(ONE_DISK_GONE, 1), now_ms) == []
    assert chosen(machine, ONE_DISK_GONE, 3_000) == []
    tell(machine, ONE_DISK_GONE, 1, 7)
    assert chosen(machine, ONE_DISK_GONE, 3_500) == [1]


def test_no_replica_begins_empty_while_another_shuts_down_but_on_the_next_request() -> None:
    stopping = replayed(ONE_DISK_GONE, decide.shut_down(ONE_DISK_GONE, 1).events)
    machine = requested(stopping)
    assert chosen(machine, stopping, 0) == []
    for now_ms in range(500, 20_000, 500):
        assert chosen(machine, fenced(stopping, 1), now_ms) == []
    assert chosen(requested(fenced(stopping, 1)), fenced(stopping, 1), 0) == [0]


def test_a_replica_that_comes_alive_during_the_request_is_asked_for_its_end() -> None:
    """The request came before the first tick, and found it dead."""
    machine = requested(fenced(ONE_DISK_GONE, 1))
    assert chosen(machine, ONE_DISK_GONE, 0) == []
    assert chosen(machine, fenced(ONE_DISK_GONE, 1), 500) == []


def test_a_request_waits_for_the_replica_that_was_alive_and_may_have_most_records() -> None:
    image = fenced(with_partition(brokers(range(3)), [0, 1, 2], isr=[0], leader=-1), 0)
    machine = requested(image)
    assert chosen(machine, image, 0) == []
    tell(machine, image, 2, 5)
    assert chosen(machine, fenced(image, 1), 500) == []
    tell(machine, image, 1, 9)
    assert chosen(machine, image, 1_000) == [1]


ENDS = st.dictionaries(st.integers(0, 3), st.integers(0, 3))


@given(
    ends=ENDS, asked=st.booleans(), unclean=st.booleans(), last_isr=st.sets(st.sampled_from([0, 1]))
)
def test_no_lossy_election_removes_a_replica_or_passes_over_an_original_for_less(
    ends: dict[int, int], asked: bool, unclean: bool, last_isr: set[int]
) -> None:
    image = reassigned_without_leader(
        [0, 1],
        [2, 3],
        last_isr=sorted(last_isr),
        away=[b for b in range(4) if b not in ends],
        unclean=unclean,
    )
    leader, after = elected(image, ends, asked=asked)
    before, now = the_partition(image), the_partition(after)
    assert (now.broker_ids, now.adding, now.removing) == (
        before.broker_ids,
        before.adding,
        before.removing,
    )
    if leader is None:
        return
    originals = [ends[b] for b in (0, 1) if b in ends]
    assert ends[leader] >= max(originals, default=0)
    if leader in before.adding:
        assert ends[leader] > max(originals, default=-1) or asked
        assert asked or len(originals) == 2
        assert len(originals) == 2 or not any(originals)
