"""Records are deleted by an administrator, in a whole simulated cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import (
    InvalidConfigError,
    OffsetOutOfRangeError,
    UnknownTopicError,
)
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.invariants import partitions_of

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

RECORDS = 10
T0 = TopicPartition("t", 0)


def with_topic(scene: Callable[[SimulatedCluster, Admin], Awaitable[None]]) -> None:
    """Play a scene in a cluster with a topic of one partition, three replicas and ten records."""

    async def program(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape())
        await cluster.format()
        cluster.start_all()

        async def play() -> None:
            servers = cluster.bootstrap_servers
            async with Admin(bootstrap_servers=servers, request_timeout_ms=5000) as admin:
                while sum(not one.fenced for one in (await admin.describe_cluster()).brokers) < 3:
                    pass
                await admin.create_topic("t", 1, 3)
                async with Producer(bootstrap_servers=servers) as producer:
                    for number in range(RECORDS):
                        await producer.send_and_wait("t", b"%d" % number, partition=0)
                await scene(cluster, admin)

        await cluster.spawn_client(play)

    simulate(program, 1)


def starts(cluster: SimulatedCluster) -> list[int]:
    return [
        one.log_start_offset
        for node in cluster.brokers
        if isinstance(node.server, BrokerServer)
        for one in partitions_of(node.server)
    ]


def test_deleted_records_are_gone_on_all_replicas_and_readers_go_on_behind_them() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        assert await admin.delete_records({T0: 7}) == {T0: 7}
        assert starts(cluster) == [7, 7, 7]
        servers = cluster.bootstrap_servers
        async with Consumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([T0])
            consumer.seek(T0, 2)
            assert (await consumer.getone()).offset == 7
            assert await consumer.beginning_offsets([T0]) == {T0: 7}
        assert await admin.delete_records({T0: 3}) == {T0: 7}, "below the start nothing moves"
        assert await admin.delete_records({T0: -1}) == {T0: RECORDS}

    with_topic(scene)


def test_every_broker_tells_what_its_replicas_take() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.delete_records({T0: 4})
        described = await admin.describe_log_dirs(["t"])
        sizes = [one for found in described for one in found.replicas]
        assert [(one.log_start_offset, one.log_end_offset) for one in sizes] == [(4, RECORDS)] * 3
        assert sum(one.is_leader for one in sizes) == 1
        assert all(one.size > 0 for one in sizes)
        assert all(one.free_bytes > 0 for one in described)
        assert not any(one.failure for one in described)

    with_topic(scene)


def test_a_wrong_deletion_changes_nothing_and_says_both_numbers() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        with pytest.raises(OffsetOutOfRangeError, match=r"below offset 11 .* high watermark is 10"):
            await admin.delete_records({T0: 11})
        with pytest.raises(UnknownTopicError, match="no partition 1"):
            await admin.delete_records({TopicPartition("t", 1): 1})
        with pytest.raises(ValueError, match=r"-1 to .*, not -2"):
            await admin.delete_records({T0: -2})
        assert starts(cluster) == [0, 0, 0]

    with_topic(scene)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.ms", "-2"),
        ("retention.bytes", "-2"),
        ("cleanup.policy", "shred"),
        ("segment.ms", "0"),
        ("flush.ms", "-1"),
    ],
)
def test_a_setting_that_can_not_be_is_refused(name: str, value: str) -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        with pytest.raises(InvalidConfigError, match=f"{name} must be .+, not '{value}'"):
            await admin.alter_configs("t", set={name: value})
        assert name not in (await admin.describe_topics(["t"]))["t"].configs

    with_topic(scene)


def test_a_broker_that_is_gone_is_waited_for_until_it_is_fenced() -> None:
    async def scene(cluster: SimulatedCluster, admin: Admin) -> None:
        leader = (await admin.describe_topics(["t"]))["t"].partitions[0].leader
        other = next(node for node in cluster.brokers if node.node_id != leader)
        cluster.kill(other.name)
        assert await admin.delete_records({T0: 4}) == {T0: 4}
        cluster.start(other.name)
        while starts(cluster) != [4, 4, 4]:
            await admin.describe_cluster()

    with_topic(scene)
