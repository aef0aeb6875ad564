"""Followers and leaders over real streams: Replicas, fetchers, the replica service, the ISR."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from quorate.errors import (
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OutcomeUnknownError,
    RequestTimedOutError,
)
from quorate_broker.replica.hints import hint_of
from quorate_broker.replica.leader import Leader, ReplicaStream
from quorate_broker.replication import service
from quorate_broker.replication.fetcher import Fetchers
from quorate_broker.replication.follower_positions import FollowerPositions
from quorate_broker.v1.replica_pb2 import ReplicaDiverging, ReplicaFetched
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import (
    TOPIC_ID,
    World,
    batch_of,
    no_controller,
    until,
    values_of,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.start()
    yield world
    await world.stop()


async def test_a_record_of_acks_all_is_on_every_in_sync_replica(world: World) -> None:
    produced = await world.brokers[1].produce(b"a", b"b")

    assert produced.base_offset == 0
    for broker in world.brokers.values():
        assert await broker.stored() == [b"a", b"b"]
    await until(lambda: all(b.partition.high_watermark == 2 for b in world.brokers.values()))


async def test_many_batches_arrive_in_order_and_each_is_answered(world: World) -> None:
    futures = [world.brokers[1].produce(b"%d" % number) for number in range(200)]

    answers = await asyncio.gather(*futures)

    assert [answer.base_offset for answer in answers] == list(range(200))
    expected = [b"%d" % number for number in range(200)]
    for broker in world.brokers.values():
        assert await broker.stored() == expected


async def test_a_follower_that_restarts_keeps_what_it_has_and_may_lead(world: World) -> None:
    """KIP-101, scenario 1: a cut to its own high watermark would lose an acknowledged record."""
    await world.brokers[1].produce(b"acknowledged")
    follower = world.brokers[2]
    await follower.stop()
    await follower.start()
    assert await follower.stored() == [b"acknowledged"]
    await world.register(follower)
    await world.brokers[1].stop()
    await world.change(leader=2, isr=[2, 3])

    await world.brokers[2].produce(b"next")

    assert await world.brokers[2].stored() == [b"acknowledged", b"next"]
    assert await world.brokers[3].stored() == [b"acknowledged", b"next"]


async def test_after_both_crash_logs_are_equal_below_the_high_watermark(world: World) -> None:
    """KIP-101, scenario 2: the first one up writes where the other has another record."""
    world.on_alter = no_controller
    await world.brokers[1].produce(b"both")
    await world.brokers[2].stop()
    await world.brokers[3].stop()
    await world.brokers[1].produce(b"only on 1", acks=1)
    await world.brokers[1].stop()
    await world.change(leader=-1)
    world.on_alter = None
    await world.brokers[2].start()
    await world.register(world.brokers[2])
    await world.brokers[3].start()
    await world.register(world.brokers[3])
    await world.change(leader=2, isr=[2, 3])
    await world.brokers[2].produce(b"on 2 and 3")

    await world.brokers[1].start()
    await world.register(world.brokers[1])
    await until(lambda: set(world.state.isr) == {1, 2, 3})
    await world.brokers[2].produce(b"all")

    for broker in world.brokers.values():
        assert await broker.stored() == [b"both", b"on 2 and 3", b"all"]


async def test_three_failovers_with_few_records_end_in_equal_logs(world: World) -> None:
    """KIP-279: a follower may know epochs that the new leader never saw."""
    one, two, three = world.brokers.values()
    await one.produce(b"a")
    await world.change(leader=2, to=[2])  # 1 and 3 do not hear of it
    await two.produce(b"only on 2", acks=1)
    await world.change(leader=3, to=[3])
    await three.produce(b"only on 3", acks=1)
    await world.change(leader=1, to=[1, 2, 3])
    await one.produce(b"b")

    await until(lambda: all(b.partition.log_end_offset == 2 for b in world.brokers.values()))
    for broker in world.brokers.values():
        assert await broker.stored() == [b"a", b"b"]


async def test_a_position_that_comes_before_the_leaders_image_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, the follower would pause, and a record would be committed later by that pause."""
    await world.brokers[1].produce(b"a")
    monkeypatch.setattr(Fetchers, "backoff_s", lambda _: 3600.0)
    came: list[int] = []
    name = FollowerPositions.name

    def noted(positions: FollowerPositions, *arguments: Any) -> None:
        name(positions, *arguments)
        came.append(arguments[1].leader_epoch)

    monkeypatch.setattr(FollowerPositions, "name", noted)
    before = world.state.leader_epoch

    await world.change(leader=2, to=[1, 3])
    await until(lambda: came.count(before + 1) == 2)
    await world.change(to=[2])
    await world.brokers[2].produce(b"b")

    for broker in world.brokers.values():
        assert await broker.stored() == [b"a", b"b"]


async def test_followers_that_hear_of_an_election_first_do_not_leave_the_isr(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.brokers[1].produce(b"a")
    left: list[int] = []
    follower_left = Leader.follower_left

    def noted(leader: Leader, stream: ReplicaStream) -> bool:
        left.append(stream.replica_id)
        return follower_left(leader, stream)

    monkeypatch.setattr(Leader, "follower_left", noted)
    monkeypatch.setattr(service, "LEFT_MS", 3_600_000)

    await world.change(leader=2, to=[2, 3])
    await until(lambda: sorted(left) == [2, 3])
    await world.change(to=[1])
    await world.brokers[2].produce(b"b")

    assert world.altered == []


async def test_a_position_whose_epoch_the_leader_never_learns_is_refused_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def again(_: Fetchers) -> float:
        refused.append("again")
        return 0.01

    monkeypatch.setattr(Fetchers, "backoff_s", again)
    await world.brokers[1].produce(b"a")

    await world.change(leader=2, to=[1, 3])

    await until(lambda: len(refused) >= 2)


async def test_a_follower_steps_down_to_the_last_epoch_that_both_have(world: World) -> None:
    """KIP-279, KAFKA-6361: where the older epoch ends in the leader's log says nothing of ours."""
    one, two, _ = world.brokers.values()
    await one.produce(b"a")
    await world.change(leader=2, to=[2])  # 1 leads on, as far as 1 and 3 know
    await one.produce(b"1", b"of 1", acks=1)
    for value in (b"1", b"2", b"of 2"):
        await two.produce(value, acks=1)
    await world.change(leader=1)
    await one.produce(b"b")

    for broker in world.brokers.values():
        assert await broker.stored() == [b"a", b"1", b"of 1", b"b"]


async def test_elections_without_records_do_not_confuse_anybody(world: World) -> None:
    """Epochs that left no record leave nothing to compare."""
    await world.brokers[1].produce(b"a")
    for leader in (2, 3, 1, 2):
        await world.change(leader=leader)
    await world.brokers[2].produce(b"b")

    for broker in world.brokers.values():
        assert await broker.stored() == [b"a", b"b"]


async def test_a_diverging_tail_is_never_shown(world: World) -> None:
    """An old leader takes no high watermark before its own tail is cut."""
    one, two, _ = world.brokers.values()
    await one.produce(b"committed")
    await until(lambda: one.partition.high_watermark == 1)
    await world.change(leader=2, isr=[2, 3], to=[2, 3])
    one.produce(b"uncommitted 1", b"uncommitted 2", acks=1)
    await until(lambda: one.partition.log_end_offset == 3)
    shown: list[int] = []

    def look() -> None:
        follower = one.partition
        if follower.follower and follower.high_watermark > 1:
            shown.append(follower.log.epochs.epoch_at(1))  # whose record would consumers read?

    one.partition.watches.add(look)
    await two.produce(b"x", b"y")
    await until(lambda: two.partition.high_watermark == 3)
    await world.change(raise_epoch=True)
    await two.produce(b"z")
    await until(lambda: one.partition.high_watermark == 4)

    assert shown
    assert set(shown) == {1}
    assert await one.stored() == [b"committed", b"x", b"y", b"z"]
    committed = await one.partition.log.read(
        1, end=one.partition.high_watermark, bytes_max=1 << 20, at_least_one=True
    )
    assert values_of(committed) == [b"x", b"y", b"z"]


async def test_an_answer_that_comes_after_the_role_has_ended_cuts_nothing(world: World) -> None:
    """KAFKA-13207: the former leader wants a cut, and this replica leads by then."""
    two = world.brokers[2]
    await world.brokers[1].produce(b"both")
    role = two.partition.follower
    assert role is not None
    await world.change(leader=2, to=[2])
    await two.produce(b"only on 2", acks=1)
    late = ReplicaFetched(
        leader_epoch=role.leader_epoch,
        base_offset=1,
        diverging=ReplicaDiverging(epoch=0, end_offset=1),
    )

    assert await role.take(late, b"") is not None

    assert await two.stored() == [b"both", b"only on 2"]


async def test_a_follower_below_the_leaders_start_begins_there_and_may_lead(world: World) -> None:
    """KAFKA-12996: its high watermark moves along, or consumers would be sent below its start."""
    one, _, three = world.brokers.values()
    await one.produce(b"a")
    await world.fence(3)
    await world.change(isr=[1, 2])
    await three.stop()
    for value in (b"b", b"c", b"d"):
        await one.produce(value)
    await one.partition.as_leader().log_start.move(3, "a test")

    await three.start()
    partition, bounds = three.partition, set[tuple[int, int]]()

    def look() -> None:
        if partition.follower is not None:
            known = min(partition.high_watermark, partition.follower.machine.high_watermark)
            bounds.add((partition.log_start_offset, known))

    partition.watches.add(look)
    await world.register(three)
    await until(lambda: set(world.state.isr) == {1, 2, 3})
    await world.change(leader=3)

    assert (3, 3) in bounds
    assert all(start <= high_watermark for start, high_watermark in bounds)
    assert (three.partition.high_watermark, await three.stored()) == (4, [b"d"])
    await three.produce(b"e")
    for broker in world.brokers.values():
        assert (await broker.stored())[-2:] == [b"d", b"e"]


async def test_a_proposal_without_an_answer_is_sent_again() -> None:
    """KAFKA-12686, KAFKA-14010: else the ISR would stay as it is until the next election."""
    world = World(lag_ms=300)
    await world.start()
    lost: list[wire.AlterPartition] = []

    def lose_some(wanted: wire.AlterPartition) -> None:
        if len(lost) < 3:
            lost.append(wanted)
            no_controller(wanted)

    world.on_alter = lose_some
    await world.brokers[3].stop()

    await world.brokers[1].produce(b"a")

    assert set(world.state.isr) == {1, 2}
    assert lost[0] == lost[1] == lost[2], "the same proposal, until it is decided"
    await world.stop()


async def test_the_high_watermark_moves_when_a_dead_member_leaves_the_isr() -> None:
    """A produce that waits is completed by the shrink."""
    world = World(lag_ms=300)
    await world.start()
    await world.brokers[1].produce(b"a")
    await world.brokers[3].stop()

    await world.brokers[1].produce(b"b")

    assert set(world.state.isr) == {1, 2}
    await world.stop()


async def test_a_member_that_comes_back_is_taken_in_again(world: World) -> None:
    await world.brokers[3].stop()
    await world.fence(3)  # else the leader, for which 3 is caught up, takes it in at once
    await world.change(isr=[1, 2])
    await world.brokers[1].produce(b"a")
    await world.brokers[3].start()
    await world.register(world.brokers[3])

    await until(lambda: set(world.state.isr) == {1, 2, 3})

    assert await world.brokers[3].stored() == [b"a"]


async def test_nothing_commits_under_min_isr(world: World) -> None:
    """With acks=all it is refused before the append; with acks=1 written, and not committed."""
    one = world.brokers[1]
    await one.produce(b"a")
    world.on_alter = no_controller
    await world.change(isr=[1], elr=[2, 3])

    with pytest.raises(NotEnoughReplicasError):
        await one.produce(b"b")
    await one.produce(b"c", acks=1)
    await until(lambda: all(b.partition.log_end_offset == 2 for b in world.brokers.values()))

    assert one.partition.high_watermark == 1


async def test_a_waiter_is_told_that_the_isr_shrank_after_the_append(world: World) -> None:
    one = world.brokers[1]
    world.on_alter = no_controller
    await world.brokers[2].stop()
    await world.brokers[3].stop()
    waiting = one.produce(b"a")
    await until(lambda: one.partition.log_end_offset == 1)

    await world.change(isr=[1], elr=[2, 3])

    with pytest.raises(NotEnoughReplicasAfterAppendError):
        await waiting


async def test_a_leader_commits_nothing_by_a_new_isr_before_it_has_the_image_with_its_min_isr() -> (
    None
):
    """With a raised min ISR, the member that leaves the ISR enters the ELR, and may be elected."""
    world = World(brokers=2, lag_ms=300)
    await world.start(min_isr=1)
    one = world.brokers[1]
    await world.brokers[2].stop()
    world.hearing = ()
    raised = ev.Config(topic_id=TOPIC_ID, name="min.insync.replicas", value="2")
    await world.commit(ev.MetadataEvent(config=raised), to=())
    waiting = one.produce(b"only on 1")
    await until(lambda: world.state.isr == (1,), what="the answer")

    await world.change(elr=[2])

    with pytest.raises(NotEnoughReplicasAfterAppendError):
        await waiting
    assert one.partition.high_watermark == 0
    await world.stop()


async def test_a_leader_cut_off_commits_nothing_and_loses_its_tail(world: World) -> None:
    """A zombie leader acknowledges nothing with acks=all; after the heal its tail is gone."""
    one, two, _ = world.brokers.values()
    await one.produce(b"a")
    await world.change(leader=2, isr=[2, 3], to=[2, 3])

    zombie = one.produce(b"zombie", timeout_ms=200)
    await two.produce(b"b")
    with pytest.raises(RequestTimedOutError):
        await zombie
    assert one.partition.high_watermark == 1

    await world.change(raise_epoch=True)
    await until(lambda: one.partition.high_watermark == 2)
    assert await one.stored() == [b"a", b"b"]


async def test_a_leader_that_reaches_no_controller_commits_nothing_by_itself() -> None:
    """It wants to drop its silent followers. Until that is committed one of them may be elected."""
    world = World(lag_ms=200)
    await world.start(min_isr=1)
    one = world.brokers[1]
    await one.produce(b"a")
    world.on_alter = no_controller
    await world.brokers[2].stop()
    await world.brokers[3].stop()
    await one.produce(b"b", acks=1)
    await until(lambda: (1,) in world.altered)

    with pytest.raises(RequestTimedOutError):
        await one.produce(b"c", timeout_ms=300)

    assert one.partition.high_watermark == 1
    await world.stop()


async def test_who_waits_at_a_leader_that_loses_its_reign_learns_who_leads(world: World) -> None:
    one = world.brokers[1]
    await world.brokers[2].stop()
    world.on_alter = no_controller
    waiting = one.produce(b"a")
    await until(lambda: one.partition.log_end_offset == 1)

    await world.change(leader=3, isr=[3, 1])

    with pytest.raises(OutcomeUnknownError) as caught:
        await waiting
    hint = hint_of(caught.value)
    assert hint is not None
    assert (hint.leader, hint.leader_epoch) == (3, 1)


async def test_flush_on_ack_counts_only_what_is_synced_on_every_replica() -> None:
    world = World()
    await world.start(min_isr=2, configs={"flush.on.ack": "true"})

    await asyncio.gather(*(world.brokers[1].produce(b"%d" % n) for n in range(20)))

    for broker in world.brokers.values():
        assert broker.partition.log.synced_end == 20
    await world.stop()


async def test_with_flush_on_ack_a_reign_begins_with_what_is_synced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records that the last leader only wrote, without a sync, do not count in the next epoch."""
    world = World()
    await world.start(min_isr=2, configs={"flush.on.ack": "true"})
    one, others = world.brokers[1], [world.brokers[2], world.brokers[3]]
    await one.produce(b"synced")
    log, gate = one.partition.log, asyncio.Event()
    sync = log.sync

    async def held() -> int:
        await gate.wait()
        return await sync()

    monkeypatch.setattr(log, "sync", held)
    waiting = one.produce(b"only written")
    await until(lambda: all(b.partition.log.synced_end == 2 for b in others))
    await world.change(raise_epoch=True)
    leader = one.partition.as_leader().machine
    assert leader.leader_epoch == 1
    await until(lambda: all(leader.replicas[b.id].log_end_offset == 2 for b in others))
    assert (one.partition.log_end_offset, one.partition.high_watermark) == (2, 1)
    assert not waiting.done()

    gate.set()
    assert (await waiting).base_offset == 1
    assert one.partition.high_watermark == 2
    await world.stop()


async def test_a_topic_made_again_under_its_name_starts_empty(world: World) -> None:
    """The old directory is out of the way before the new topic's is made."""
    one = world.brokers[1]
    await one.produce(b"old")
    state, other_id = world.state, bytes(16)
    await world.commit(
        ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=TOPIC_ID)),
        ev.MetadataEvent(topic=ev.Topic(topic_id=other_id, name="invoice")),
        ev.MetadataEvent(
            partition=ev.Partition(
                topic_id=other_id,
                partition=0,
                replicas=[
                    ev.Replica(broker_id=r.broker_id, directory_id=r.directory_id)
                    for r in state.replicas
                ],
                isr=state.isr,
                leader=2,
                recovered_epoch=-1,
            )
        ),
    )

    partition = world.brokers[2].replicas.get(other_id, 0)
    assert partition.log_end_offset == 0
    await partition.as_leader().queue.produce(
        batch_of(b"new"), acks=-1, timeout_ms=5000, appended=lambda: None
    )
    fetched = await partition.as_leader().fetch(0, bytes_max=1 << 20, at_least_one=True)
    assert values_of(fetched.batches) == [b"new"]
