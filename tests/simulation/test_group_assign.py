"""assign() with a group_id, in a whole simulated cluster: the group has offsets and no members."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import NonEmptyGroupError, OffsetOutOfRangeError
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

T0, T1 = (TopicPartition("t", number) for number in range(2))
Scene = Callable[[SimulatedCluster, Admin], Awaitable[None]]


def in_a_cluster(scene: Scene, seed: int = 1) -> None:
    """Play a scene in a cluster with the topic t: two partitions of ten records each."""

    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape())
        await cluster.format()
        cluster.start_all()

        async def play() -> None:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                unfenced = 0
                while unfenced < len(cluster.brokers):
                    found = await admin.describe_cluster()
                    unfenced = sum(not one.fenced for one in found.brokers)
                await admin.create_topic("t", 2, 3)
                await write(cluster, range(10))
                await scene(cluster, admin)

        await cluster.spawn_client(play)

    simulate(program, seed)


async def write(cluster: SimulatedCluster, values: range) -> None:
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for key in (T0, T1):
            for number in values:
                await producer.send("t", b"%d" % number, partition=key.partition)


def consumer(cluster: SimulatedCluster, *keys: TopicPartition, **settings: Any) -> Consumer:
    settings = {"group_id": "g", "auto_offset_reset": "earliest"} | settings
    made = Consumer(bootstrap_servers=cluster.bootstrap_servers, **settings)
    made.assign(keys)
    return made


async def offsets(c: Consumer, count: int) -> list[int]:
    async with asyncio.timeout(30):
        return [(await c.getone()).offset for _ in range(count)]


async def committed(admin: Admin) -> dict[TopicPartition, int]:
    return {key: value.offset for key, value in (await admin.list_group_offsets("g")).items()}


async def members(admin: Admin) -> int:
    return len((await admin.describe_groups(["g"]))["g"].members)


def test_a_restart_begins_at_the_committed_offset_and_elsewhere_at_the_policy() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        async with consumer(cluster, T0, enable_auto_commit=False) as c:
            assert await c.committed(T0) is None
            assert await offsets(c, 4) == [0, 1, 2, 3]
            await c.commit()
            await offsets(c, 3)
            assert await c.committed(T0) == 4
            assert await c.committed(T1) is None
            await c.commit({T0: (5, "text")})
            found = await c.committed(T0, metadata=True)
            assert found is not None
            assert (found.offset, found.metadata) == (5, "text")
        assert await committed(admin) == {T0: 5}, "stop() commits nothing by itself"
        assert await members(admin) == 0
        async with consumer(cluster, T0, T1) as c:
            assert (await c.position(T0), await c.position(T1)) == (5, 0)
        async with consumer(cluster, T0, T1, group_id="h", auto_offset_reset="latest") as c:
            assert (await c.position(T0), await c.position(T1)) == (10, 10)
        async with consumer(cluster, T0, group_id="i", auto_offset_reset="none") as c:
            with pytest.raises(OffsetOutOfRangeError):
                await c.getone()

    in_a_cluster(scene)


def test_automatic_commits_cover_what_the_program_has_come_back_from() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        c = consumer(cluster, T0, auto_commit_interval_ms=100)
        async with c:
            assert await offsets(c, 4) == [0, 1, 2, 3]
            await asyncio.sleep(0.5)
            assert await committed(admin) == {T0: 3}, "the last record is in hand"
            assert await offsets(c, 1) == [4]
            await asyncio.sleep(0.5)
            assert await committed(admin) == {T0: 4}
        assert await committed(admin) == {T0: 5}, "stop() commits the rest"
        async with consumer(cluster, T0) as c:
            assert await offsets(c, 5) == [5, 6, 7, 8, 9]

    in_a_cluster(scene)


def test_commits_are_refused_while_the_group_has_members() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        async with consumer(cluster, T0, auto_commit_interval_ms=100) as c:
            await offsets(c, 2)
            await c.commit()
            member = Consumer(
                "t",
                bootstrap_servers=cluster.bootstrap_servers,
                group_id="g",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
            )
            async with member:
                assert await member.position(T0) == 2
                assert await offsets(c, 3) == [2, 3, 4]
                with pytest.raises(NonEmptyGroupError):
                    await c.commit()
                await asyncio.sleep(0.5)  # automatic commits are refused, and the consumer goes on
                assert await committed(admin) == {T0: 2}
                await member.commit({T1: 7})
                assert await c.committed(T1) == 7
                assert await offsets(c, 1) == [5]
            assert await committed(admin) == {T0: 2, T1: 7}
            await c.commit()
            assert await committed(admin) == {T0: 6, T1: 7}

    in_a_cluster(scene)


def test_consumers_with_assign_in_one_group_do_not_disturb_each_other() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        async with consumer(cluster, T0) as first, consumer(cluster, T1) as second:
            one, two = await asyncio.gather(offsets(first, 6), offsets(second, 7))
            assert (one, two) == (list(range(6)), list(range(7)))
            await asyncio.gather(first.commit(), second.commit())
            assert await committed(admin) == {T0: 6, T1: 7}
            async with consumer(cluster, T0) as third:
                assert await offsets(third, 4) == [6, 7, 8, 9]
                assert await offsets(first, 4) == [6, 7, 8, 9], "each reads what it has assigned"
                assert first.assignment() == third.assignment() == {T0}
            assert await committed(admin) == {T0: 10, T1: 7}
        assert await committed(admin) == {T0: 10, T1: 7}
        assert await members(admin) == 0

    in_a_cluster(scene)


def test_the_death_of_the_coordinator_loses_no_offset_of_assign() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        async with consumer(cluster, T0, T1) as c:
            await offsets(c, 5)
            await c.commit()
            before = await committed(admin)
            cluster.kill(f"broker-{(await admin.describe_groups(['g']))['g'].coordinator}")
            assert {key: await c.committed(key) for key in before} == before
            await offsets(c, 15)
            await c.commit()
        async with consumer(cluster, T0, T1) as c:
            assert (await c.position(T0), await c.position(T1)) == (10, 10)

    in_a_cluster(scene)
