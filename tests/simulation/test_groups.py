"""Consumer groups in a whole simulated cluster: offsets, coordinators that die, internal topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import (
    FencedMemberEpochError,
    GroupNotFoundError,
    InvalidGroupIdError,
    InvalidRequestError,
    NonEmptyGroupError,
    NotEnoughReplicasError,
    OffsetMetadataTooLargeError,
    PolicyViolationError,
    UnknownMemberIdError,
    UnknownTopicError,
)
from quorate.net.methods import COMMIT_OFFSETS
from quorate.v1 import groups_pb2 as wire
from quorate_broker.groups.partitioning import partition_of
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.amounts import few_or_many
from tests.harness.group_clients import GroupCalls, Key, Member
from tests.harness.invariants import partitions_of

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

OFFSETS = "__consumer_offsets"
SEEDS = range(few_or_many(1, 3))
Scene = Callable[[SimulatedCluster, Admin], Awaitable[None]]


def in_a_cluster(scene: Scene, seed: int = 1, **shape: int) -> None:
    """Play a scene in a cluster with the topic t of four partitions and three replicas."""

    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape(**shape))  # type: ignore[arg-type]
        await cluster.format()
        cluster.start_all()

        async def play() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                unfenced = 0
                while unfenced < len(cluster.brokers):
                    found = await admin.describe_cluster()
                    unfenced = sum(not one.fenced for one in found.brokers)
                await admin.create_topic("t", 4, len(cluster.brokers))
                await scene(cluster, admin)

        await cluster.spawn_client(play)

    simulate(program, seed)


async def topic_id(admin: Admin, name: str = "t") -> bytes:
    return bytes.fromhex((await admin.describe_topics([name]))[name].topic_id)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; the loop's time limit ends the test otherwise."""
    while not holds():  # noqa: ASYNC110  (any condition, not an event)
        await asyncio.sleep(0.01)


def coordinator(cluster: SimulatedCluster, group_id: str) -> str:
    """Return the name of the node that leads the group's partition."""
    index = partition_of(group_id, 16)
    for node in cluster.brokers:
        if isinstance(node.server, BrokerServer):
            for one in partitions_of(node.server):
                if one.name == f"{OFFSETS}-{index}" and one.is_leader:
                    return node.name
    raise AssertionError("no coordinator")


def test_offsets_of_a_group_without_members_are_committed_and_found() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        other = GroupCalls(cluster.bootstrap_servers, "other")
        t = await topic_id(admin)
        assert await calls.committed() == {}
        assert await calls.commit({(t, 0): 5, (t, 3): 7}) == {}
        assert await calls.commit({(t, 0): 6}) == {}
        assert await calls.committed() == {(t, 0): 6, (t, 3): 7}
        assert await other.committed() == {}
        assert await calls.commit({(t, 3): -1}) == {}
        assert await calls.committed() == {(t, 0): 6}

    in_a_cluster(scene)


def test_the_offsets_topic_is_made_once_at_the_first_use_and_is_internal() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        assert OFFSETS not in await admin.list_topics()
        groups = [GroupCalls(cluster.bootstrap_servers, f"g{n}") for n in range(6)]
        for number, calls in enumerate(groups):
            calls.ask_from(number)
        await asyncio.gather(*(calls.find() for calls in groups))
        topic = (await admin.describe_topics([OFFSETS]))[OFFSETS]
        assert topic.internal
        assert len(topic.partitions) == 16
        assert {len(one.replicas) for one in topic.partitions} == {3}

    in_a_cluster(scene)


def test_clients_may_only_read_the_offsets_topic() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        servers = cluster.bootstrap_servers
        calls = GroupCalls(servers, "g")
        await calls.commit({(await topic_id(admin), 0): 5})
        async with Producer(bootstrap_servers=servers) as producer:
            with pytest.raises(PolicyViolationError, match="only the cluster writes"):
                await producer.send_and_wait(OFFSETS, b"x", key=b"k")
        with pytest.raises(PolicyViolationError):
            await admin.delete_topics([OFFSETS])
        partition = TopicPartition(OFFSETS, partition_of("g", 16))
        with pytest.raises(PolicyViolationError):
            await admin.delete_records({partition: -1})
        with pytest.raises(PolicyViolationError, match=r"cleanup\.policy"):
            await admin.alter_configs(OFFSETS, set={"cleanup.policy": "delete"})
        async with Consumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([partition])
            record = await consumer.getone()
            assert b"g" in (record.key or b"")

    in_a_cluster(scene)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_death_of_a_coordinator_loses_no_offset_and_causes_no_rebalance(seed: int) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        loop = asyncio.get_running_loop()
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        t = await topic_id(admin)
        members = [Member(calls, f"m{n}", ["t"]) for n in range(2)]
        tasks = [asyncio.create_task(member.run()) for member in members]
        await until(lambda: [len(member.owned) for member in members] == [2, 2])
        await asyncio.sleep(2)
        owned = [member.owned for member in members]
        epochs = [member.epoch for member in members]
        told = [len(member.epochs) for member in members]
        wanted: dict[Key, int] = {}
        for member in members:
            offsets = {key: 10 + key[1] for key in member.owned}
            assert (
                await calls.commit(offsets, member_id=member.member_id, member_epoch=member.epoch)
                == {}
            )
            wanted |= offsets
        for round in range(3):
            died = coordinator(cluster, "g")
            cluster.kill(died)
            began = loop.time()
            assert await calls.committed() == wanted, f"round {round}"
            member = members[round % 2]
            key = min(member.owned)
            wanted[key] += 1
            refused = await calls.commit(
                {key: wanted[key]}, member_id=member.member_id, member_epoch=member.epoch
            )
            assert refused == {}
            assert loop.time() - began < 1, "commits go on within a second"
            cluster.start(died)
            await asyncio.sleep(5)
            assert await calls.committed() == wanted
        assert [member.owned for member in members] == owned
        assert [member.epoch for member in members] == epochs
        assert [len(member.epochs) for member in members] == told, "no rebalance"
        assert [member.joins for member in members] == [1, 1]
        assert all(topic == t for topic, _ in wanted)
        for task in tasks:
            task.cancel()

    in_a_cluster(scene, seed)


def test_a_topic_that_is_made_again_does_not_inherit_offsets() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        old = await topic_id(admin)
        await admin.create_topic("u", 1, 3)
        u = await topic_id(admin, "u")
        await calls.commit({(old, 0): 5, (u, 0): 9})
        await admin.delete_topics(["t"])
        await admin.create_topic("t", 4, 3)
        new = await topic_id(admin)
        assert new != old
        for _ in range(50):
            if len(await calls.committed()) == 1:
                break
            await asyncio.sleep(0.1)
        assert await calls.committed() == {(u, 0): 9}
        await calls.commit({(new, 0): 1})
        assert await calls.committed() == {(new, 0): 1, (u, 0): 9}

    in_a_cluster(scene)


def test_a_group_with_members_takes_no_offsets_of_others() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        t = await topic_id(admin)
        await calls.commit({(t, 0): 5})
        member = Member(calls, "m", ["t"])
        task = asyncio.create_task(member.run())
        await until(lambda: len(member.owned) == 4)
        with pytest.raises((NonEmptyGroupError, GroupNotFoundError)):
            await calls.commit({(t, 0): 1})
        assert await calls.committed() == {(t, 0): 5}
        member.leave()
        await task
        await calls.commit({(t, 0): 1})
        assert await calls.committed() == {(t, 0): 1}

    in_a_cluster(scene)


def test_a_member_that_dies_gives_its_partitions_to_the_others_within_a_second() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        loop = asyncio.get_running_loop()
        stays = Member(GroupCalls(cluster.bootstrap_servers, "g"), "stays", ["t"])
        task = asyncio.create_task(stays.run())
        dies = Member(GroupCalls(cluster.bootstrap_servers, "g"), "dies", ["t"])

        victim = cluster.spawn_client(dies.run, "victim")
        await until(lambda: (len(stays.owned), len(dies.owned)) == (2, 2))
        began = loop.time()
        victim.cancel()
        await until(lambda: len(stays.owned) == 4)
        assert loop.time() - began < 1
        task.cancel()

    in_a_cluster(scene)


def test_one_broker_is_enough_for_a_group() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        t = await topic_id(admin)
        await calls.commit({(t, 0): 5})
        cluster.kill("broker-0")
        cluster.start("broker-0")
        assert await calls.committed() == {(t, 0): 5}

    in_a_cluster(scene, brokers=1, voters=1)


def test_bad_input_is_refused_by_name_and_the_group_goes_on() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        t = await topic_id(admin)
        for name in ("", "x" * 300, "ü" * 125):
            with pytest.raises(InvalidGroupIdError):
                await GroupCalls(cluster.bootstrap_servers, name).find()
        refused = await calls.commit({(t, 0): -5, (t, 1): 1, (t, 9): 1, (b"?" * 16, 0): 1})
        assert {key: type(error) for key, error in refused.items()} == {
            (t, 0): InvalidRequestError,
            (t, 9): UnknownTopicError,
            (b"?" * 16, 0): UnknownTopicError,
        }
        large = await calls.commit({(t, 1): 2}, metadata="ü" * 2049)
        assert isinstance(large[t, 1], OffsetMetadataTooLargeError)
        with pytest.raises(InvalidRequestError, match="topic_id must be 16 bytes"):
            await calls.commit({(b"short", 0): 1})
        twice = wire.CommitOffsetsRequest(group_id="g", member_epoch=-1)
        for offset in (1, 2):
            twice.topics.add(topic_id=t).partitions.add(partition=0, offset=offset)
        await calls.call(COMMIT_OFFSETS, twice)
        with pytest.raises(UnknownMemberIdError):
            await calls.commit({(t, 0): 1}, member_id="nobody", member_epoch=3)
        assert await calls.committed() == {(t, 0): 2, (t, 1): 1}, "the last of two counts"

    in_a_cluster(scene)


def test_a_fenced_member_commits_nothing_and_no_partition_of_another() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        t = await topic_id(admin)
        members = [Member(calls, f"m{n}", ["t"]) for n in range(2)]
        tasks = [asyncio.create_task(member.run()) for member in members]
        await until(lambda: [len(member.owned) for member in members] == [2, 2])
        mine, others = min(members[0].owned), min(members[1].owned)
        who = {"member_id": "m0", "member_epoch": members[0].epoch}
        refused = await calls.commit({mine: 1, others: 1}, **who)  # type: ignore[arg-type]
        assert list(refused) == [others]
        assert isinstance(refused[others], FencedMemberEpochError)
        with pytest.raises(FencedMemberEpochError):
            await calls.commit({mine: 2}, member_id="m0", member_epoch=members[0].epoch + 7)
        assert await calls.committed() == {mine: 1}
        assert mine[0] == t
        # Only a caller that is no member takes an offset away.
        refused = await calls.commit({mine: -1}, **who)  # type: ignore[arg-type]
        assert isinstance(refused[mine], InvalidRequestError)
        assert await calls.committed() == {mine: 1}
        for task in tasks:
            task.cancel()

    in_a_cluster(scene)


def test_a_request_of_many_partitions_is_several_steps_and_one_answer() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        await admin.create_topic("many", 1200, 1)
        many = await topic_id(admin, "many")
        offsets = {(many, index): index for index in range(1200)}
        assert await calls.commit(offsets) == {}
        assert await calls.committed() == offsets

    in_a_cluster(scene)


def test_below_min_isr_a_commit_is_refused_and_offsets_can_be_read() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        t = await topic_id(admin)
        await calls.commit({(t, 0): 1})
        leads = coordinator(cluster, "g")
        others = [node.name for node in cluster.brokers if node.name != leads]
        for name in others:
            cluster.kill(name)
        await asyncio.sleep(5)
        calls.known = cluster.nodes[leads].endpoint
        with pytest.raises(NotEnoughReplicasError):
            await calls.commit_once({(t, 0): 2}, member_id="", member_epoch=-1)
        assert await calls.committed() == {(t, 0): 1}
        for name in others:
            cluster.start(name)
        await calls.commit({(t, 0): 2})
        assert await calls.committed() == {(t, 0): 2}

    in_a_cluster(scene)


def test_members_stay_while_the_isr_is_too_small() -> None:
    """Heartbeats that change nothing are answered; those that do end their streams for a while."""

    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        calls = GroupCalls(cluster.bootstrap_servers, "g")
        members = [Member(calls, f"m{n}", ["t"]) for n in range(2)]
        tasks = [asyncio.create_task(member.run()) for member in members]
        await until(lambda: [len(member.owned) for member in members] == [2, 2])
        await asyncio.sleep(2)
        owned = [member.owned for member in members]
        leads = coordinator(cluster, "g")
        others = [node.name for node in cluster.brokers if node.name != leads]
        for name in others:
            cluster.kill(name)
        await asyncio.sleep(3)
        late = Member(GroupCalls(cluster.bootstrap_servers, "g"), "late", ["t"])
        tasks.append(asyncio.create_task(late.run()))
        await asyncio.sleep(12)
        assert late.owned == frozenset()
        assert [member.owned for member in members] == owned
        assert [member.joins for member in members] == [1, 1]
        for name in others:
            cluster.start(name)
        await until(lambda: len(late.owned) > 0)
        assert [member.joins for member in members] == [1, 1], "nobody was removed"
        for task in tasks:
            task.cancel()

    in_a_cluster(scene)
