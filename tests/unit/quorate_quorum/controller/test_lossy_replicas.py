"""Replicas that their brokers report as lossy: out of ISR and ELR, and the way back."""

from __future__ import annotations

from quorate_quorum.controller.decisions.free_space import FreeSpace
from quorate_quorum.controller.decisions.lossy_elections import (
    AskEnds,
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.decisions.lossy_replicas import replicas_lossy
from quorate_quorum.controller.decisions.partitions import alter_partitions
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.v1 import controller_pb2 as wire
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    context,
    the_partition,
    topic_id,
    with_partition,
)

KEY = (topic_id(1), 0)


def told(
    image: MetadataImage, broker_id: int, *, partition_epoch: int | None = None, times: int = 1
) -> MetadataImage:
    """Return the image after a broker has reported its replica of the partition as lossy."""
    epoch = the_partition(image).partition_epoch if partition_epoch is None else partition_epoch
    one = wire.LossyReplica(topic_id=KEY[0], partition=0, partition_epoch=epoch)
    outcome = replicas_lossy(image, broker_id, [one] * times)
    assert outcome.response == len(outcome.events)
    return replayed(image, outcome.events)


def test_a_lossy_replica_leaves_the_elr_and_is_no_clean_leader() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0], elr=[1, 2])
    state = the_partition(told(image, 1))
    assert (state.isr, state.elr, state.last_isr) == ((0,), (2,), (1,))


def test_a_lossy_replica_leaves_the_isr_and_enters_no_elr() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0, 1])
    state = the_partition(told(image, 1))
    assert (state.isr, state.elr, state.leader) == ((0,), (), 0)


def test_a_leader_that_is_lossy_gives_way_to_the_first_of_the_isr() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2])
    state = the_partition(told(image, 0))
    assert (state.isr, state.leader, state.leader_epoch) == ((1, 2), 1, 1)
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0], elr=[2])
    state = the_partition(told(image, 0))
    assert (state.isr, state.elr, state.last_isr, state.leader) == ((2,), (), (0,), 2)


def test_what_was_told_of_an_older_state_is_passed_over() -> None:
    """The replica may have caught up since, and must not be removed then."""
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2])
    shrunk = told(image, 1)
    assert told(shrunk, 2, partition_epoch=the_partition(image).partition_epoch) == shrunk


def test_what_is_told_twice_or_of_what_is_not_there_changes_nothing() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0], elr=[1])
    once = told(image, 1)
    assert told(image, 1, times=2) == once
    assert told(once, 1) == once
    assert told(image, 2) == image
    nowhere = wire.LossyReplica(topic_id=topic_id(9), partition=0)
    beyond = wire.LossyReplica(topic_id=KEY[0], partition=7)
    assert not replicas_lossy(image, 1, [nowhere, beyond]).events


def test_where_no_lossless_replica_is_left_the_furthest_leads_and_the_loss_is_marked() -> None:
    for replicas, ends in (([0], {0: 7}), ([0, 1], {0: 7, 1: 9}), ([0, 1, 2], {0: 7, 1: 9, 2: 8})):
        image = with_partition(brokers(replicas), replicas, isr=[], elr=replicas, leader=-1)
        for broker_id in replicas:
            image = told(image, broker_id)
        assert the_partition(image).last_isr == tuple(replicas)
        recovery = LossyElections()
        recovery.changed(image, [KEY])
        asked = {e.broker_id for e in recovery.tick(image, 0) if isinstance(e, AskEnds)}
        assert asked == set(replicas)
        for broker_id, end in ends.items():
            answer = wire.ReplicaEnd(topic_id=KEY[0], partition=0, last_epoch=0, log_end_offset=end)
            recovery.answered(broker_id, image.brokers[broker_id].epoch, [answer])
        [effect] = recovery.tick(image, 100)
        assert isinstance(effect, LossyElection)
        leader = max(ends, key=lambda b: ends[b])
        assert effect.leader == leader
        image = replayed(image, elect_all(image, [effect], FreeSpace()).events)
        state = the_partition(image)
        assert (state.isr, state.leader) == ((leader,), leader)
        assert state.recovered_epoch == state.leader_epoch


def test_a_lossy_replica_does_not_lead_before_the_others_are_back_or_were_waited_for() -> None:
    """It was the last in the ISR, and may now have less than the others that were behind it."""
    image = with_partition(brokers([0, 1, 2], fenced=[1]), [0, 1, 2], isr=[], elr=[0], leader=-1)
    image = told(image, 0)
    recovery = LossyElections(60_000)
    recovery.changed(image, [KEY])
    for now_ms in range(0, 60_000, 1_000):
        assert not recovery.tick(image, now_ms), "broker 1 is not back yet"
    asked = {e.broker_id for e in recovery.tick(image, 60_000) if isinstance(e, AskEnds)}
    assert asked == {0, 2}


def test_a_wiped_last_member_is_no_candidate_before_all_others_have_answered() -> None:
    """At min ISR 1: records that all three had acknowledged must not be lost to an empty log."""
    image = brokers([0, 1, 2], fenced=[0, 2])
    image = told(with_partition(image, [0, 1, 2], isr=[], elr=[1], leader=-1), 1)
    recovery = LossyElections(60_000)
    recovery.changed(image, [KEY])
    for now_ms in (0, 1_000, 59_900):
        assert recovery.tick(image, now_ms) == []
    asked = [e.broker_id for e in recovery.tick(image, 60_000) if isinstance(e, AskEnds)]
    assert asked == [1], "the wait has an end"
    empty = wire.ReplicaEnd(topic_id=KEY[0], partition=0, last_epoch=-1, log_end_offset=0)
    recovery.answered(1, image.brokers[1].epoch, [empty])
    assert recovery.tick(image, 120_000) == []
    some = wire.ReplicaEnd(topic_id=KEY[0], partition=0, last_epoch=0, log_end_offset=1)
    recovery.answered(1, image.brokers[1].epoch, [some])
    [effect] = recovery.tick(image, 120_100)
    assert isinstance(effect, LossyElection)
    assert effect.leader == 1


def test_an_empty_log_leads_after_the_wait_only_where_unclean_elections_are_allowed() -> None:
    """A partition that was never written had no leader for ever after the end of one broker."""
    for allowed in (False, True):
        image = with_partition(
            brokers([0, 1, 2], fenced=[2]),
            [0, 1, 2],
            isr=[],
            elr=[],
            last_isr=[2],
            leader=-1,
            configs={"unclean.leader.election.enable": str(allowed).lower()},
        )
        recovery = LossyElections(60_000)
        recovery.changed(image, [KEY])
        effects: list[object] = []
        for now_ms in (0, 59_000, 60_000, 61_000, 62_000):
            effects += recovery.tick(image, now_ms)
            empty = wire.ReplicaEnd(topic_id=KEY[0], partition=0, last_epoch=-1, log_end_offset=0)
            for broker_id in (0, 1):
                recovery.answered(broker_id, image.brokers[broker_id].epoch, [empty])
            is_early = now_ms < 60_000
            elected = [one.leader for one in effects if isinstance(one, LossyElection)]
            assert not (is_early and elected)
        assert elected[:1] == ([0] if allowed else [])


def test_a_leader_that_leaves_for_its_damage_enters_no_elr() -> None:
    image = with_partition(brokers([0, 1, 2]), [0, 1, 2], isr=[0, 1])
    state = the_partition(image)
    for lossy, elr in ((True, ()), (False, (0,))):
        proposal = wire.AlterPartition(
            topic_id=KEY[0],
            partition=0,
            leader_epoch=state.leader_epoch,
            partition_epoch=state.partition_epoch,
            isr=[wire.IsrMember(broker_id=1, broker_epoch=image.brokers[1].epoch)],
            lossy=lossy,
        )
        request = wire.AlterPartitionsRequest(
            broker_id=0, broker_epoch=image.brokers[0].epoch, partitions=[proposal]
        )
        after = the_partition(
            replayed(image, alter_partitions(image, request, context(image)).events)
        )
        assert (after.leader, after.isr, after.elr) == (1, (1,), elr)
