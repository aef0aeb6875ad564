"""The health of a cluster follows each change of the image; the controller reports it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from quorate import Admin, ClusterHealth
from quorate.errors import InvalidRequestError, QuorateError, UnknownBrokerError
from quorate_cli.node_disks import format_broker
from quorate_quorum.controller.decisions.health import PartitionHealth
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.simulated.cluster import DATA, ClusterShape, SimulatedCluster
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.raft_machines import Machine, batch, serving_leader
from tests.unit.quorate_quorum.metadata.builders import (
    brokers,
    built,
    config_event,
    directory_id,
    partition_made,
    topic_event,
    topic_id,
)

MIN_ISR = "min.insync.replicas"


class Followed:
    """An image, and the health that follows it."""

    def __init__(self) -> None:
        self.image = brokers([0, 1, 2])
        self.health = PartitionHealth()

    def apply(self, *events: ev.MetadataEvent) -> Followed:
        delta = MetadataDelta(self.image)
        for event in events:
            delta.replay(event, offset=None)
        self.image = delta.finish(self.image.offset + len(events), 1)
        self.health.applied(delta, self.image)
        return self

    def isr(self, index: int, isr: list[int], leader: int) -> Followed:
        old = self.image.partition(topic_id(1), index)
        assert old is not None
        change = ev.PartitionChange(
            topic_id=topic_id(1),
            partition=index,
            partition_epoch=old.partition_epoch + 1,
            leader=leader,
            leader_epoch=old.leader_epoch + 1,
            isr=ev.BrokerSet(brokers=isr),
        )
        return self.apply(ev.MetadataEvent(partition_change=change))

    def found(self) -> tuple[list[int], list[int], list[int]]:
        """Partitions offline, under min ISR, under-replicated."""
        health = self.health
        return (
            [index for _, index in health.offline],
            [index for _, index in health.under_min_isr],
            [index for _, index in health.under_replicated],
        )


def three_partitions() -> Followed:
    made = [partition_made(1, index, [0, 1, 2]) for index in range(3)]
    return Followed().apply(topic_event(1, "orders"), *made)


def test_a_partition_is_in_trouble_from_the_change_that_brings_it_to_the_one_that_ends_it() -> None:
    followed = three_partitions()
    assert followed.found() == ([], [], [])
    assert followed.isr(1, [0, 1], 0).found() == ([], [], [1])
    assert followed.isr(0, [2], 2).found() == ([], [0], [1, 0])
    assert followed.isr(0, [2], -1).found() == ([0], [0], [1, 0])
    assert followed.isr(0, [0, 1, 2], 0).found() == ([], [], [1])


@pytest.mark.parametrize(
    ("isr", "is_under"),
    [([0, 1, 2], False), ([0, 1, 2, 3], False), ([0, 1], True), ([0, 1, 3], True)],
)
def test_a_replica_that_is_being_added_does_not_count(isr: list[int], is_under: bool) -> None:
    followed = Followed().apply(topic_event(1, "orders"), partition_made(1, 0, [0, 1, 2]))
    replicas = [ev.Replica(broker_id=b, directory_id=directory_id(b)) for b in (4, 3, 0, 1, 2)]
    change = ev.PartitionChange(
        topic_id=topic_id(1),
        partition=0,
        partition_epoch=1,
        replicas=ev.ReplicaList(replicas=replicas),
        adding=ev.BrokerSet(brokers=[4, 3]),
        removing=ev.BrokerSet(brokers=[2]),
    )
    followed.apply(ev.MetadataEvent(partition_change=change)).isr(0, isr, 0)
    assert followed.found()[2] == [0] * is_under


def test_a_change_of_min_isr_is_seen_of_the_topic_and_of_the_cluster() -> None:
    followed = three_partitions().isr(1, [0, 1], 0)
    assert followed.apply(config_event(MIN_ISR, "3", 1)).found() == ([], [1], [1])
    assert followed.apply(config_event(MIN_ISR, None, 1)).found() == ([], [], [1])
    assert followed.apply(config_event(MIN_ISR, "3")).found() == ([], [1], [1])


def test_a_deleted_topic_is_in_no_trouble() -> None:
    followed = three_partitions().isr(2, [0], 0)
    gone = ev.MetadataEvent(remove_topic=ev.RemoveTopic(topic_id=topic_id(1)))
    assert followed.apply(gone).found() == ([], [], [])


def test_a_jump_to_another_image_is_followed_too() -> None:
    """As when a voter takes up a snapshot."""
    made = [partition_made(1, index, [0, 1, 2], isr=[index]) for index in range(2)]
    new = built(topic_event(1, "orders"), *made, on=brokers([0, 1, 2]))
    health = PartitionHealth()
    health.applied(MetadataDelta.between(EMPTY, new), new)
    assert len(health.under_replicated) == 2
    health.applied(MetadataDelta.between(new, MetadataImage()), MetadataImage())
    assert not health.under_replicated


# What the leader of the quorum knows of the others.


def state(leader: Machine, voter: int) -> tuple[bool, bool]:
    """Whether it is heard, and whether it is caught up."""
    (found,) = (one for one in leader.raft.status().voters if one.id == voter)
    return found.heard, found.caught_up


def test_a_voter_is_heard_while_its_stream_stands_and_for_a_fetch_timeout() -> None:
    leader = serving_leader()
    assert state(leader, 1) == (True, True)
    assert state(leader, 2) == (False, False)  # its stream broke: its process is gone
    leader.fetch(2, leader.raft.ledger.log_end_offset, leader.epoch)
    assert state(leader, 2) == (True, True)
    leader.tick(after_ms=leader.raft.state.timing.fetch_timeout_ms)
    assert state(leader, 2) == (False, False)


def test_a_voter_that_fetches_without_having_all_is_behind() -> None:
    leader = serving_leader()
    end = leader.raft.ledger.log_end_offset
    leader.raft.propose(batch(end, leader.epoch), leader.now_ms)
    leader.drain()
    leader.fetch(3, end, leader.epoch)
    leader.tick(after_ms=leader.raft.state.timing.fetch_timeout_ms)
    leader.fetch(3, end, leader.epoch)
    assert state(leader, 3) == (True, False)


# A whole cluster.


def in_a_cluster(program: Callable[[SimulatedCluster, Admin], Coroutine[Any, Any, None]]) -> None:
    async def main(loop: SimulatedLoop) -> None:
        cluster = SimulatedCluster(loop, ClusterShape())
        await cluster.format()
        cluster.start_all()

        async def client() -> None:
            async with Admin(
                bootstrap_servers=cluster.bootstrap_servers, request_timeout_ms=4000
            ) as admin:
                await until(admin, lambda found: found.healthy and len(found.nodes) == 0)
                await until_registered(admin, 3)
                await program(cluster, admin)

        await cluster.spawn_client(client)

    simulate(main, seed=7, time_max_s=600)


async def until(admin: Admin, is_so: Callable[[ClusterHealth], bool]) -> ClusterHealth:
    found: ClusterHealth | None = None
    for _ in range(300):
        try:
            found = await admin.describe_health()
            if is_so(found):
                return found
        except QuorateError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError(found)


async def until_registered(admin: Admin, count: int) -> None:
    while len((await admin.describe_cluster()).brokers) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await until(admin, lambda found: found.healthy)


def test_health_names_a_dead_voter_until_it_is_back_and_has_caught_up() -> None:
    async def program(cluster: SimulatedCluster, admin: Admin) -> None:
        leader = (await admin.describe_quorum()).leader
        victim = next(one for one in cluster.voters if one.node_id != leader)
        cluster.kill(victim.name)
        found = await until(admin, lambda found: not found.healthy)
        (one,) = found.nodes
        assert (one.kind, one.id, one.state) == ("voter", victim.node_id, "not_heard")
        assert f"voter {victim.node_id} at {victim.endpoint} is not heard" in str(one)
        cluster.start(victim.name)
        await until(admin, lambda found: found.healthy)

    in_a_cluster(program)


def test_health_names_a_fenced_broker_and_what_lacks_its_replicas() -> None:
    async def program(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("orders", 4, 3)
        await admin.create_topic("alone", 1, assignments=[[2]])
        cluster.kill("broker-2")
        found = await until(admin, lambda found: found.offline.count > 0)
        (one,) = found.nodes
        assert (one.kind, one.id, one.state) == ("broker", 2, "fenced")
        assert "does not run, or cannot reach the controller" in one.reason
        assert found.offline.examples == ("alone/0",)
        assert sorted(found.under_replicated.examples) == [
            "alone/0", "orders/0", "orders/1", "orders/2", "orders/3",
        ]  # fmt: skip
        assert found.under_replicated.count == 5
        cluster.start("broker-2")
        await until(admin, lambda found: found.healthy)

    in_a_cluster(program)


def test_a_broker_is_unregistered_once_it_is_gone_and_nothing_is_placed_on_it() -> None:
    async def program(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("orders", 1, assignments=[[0, 1, 2]])
        with pytest.raises(InvalidRequestError, match="runs: stop it first"):
            await admin.unregister_broker(2)
        cluster.kill("broker-2")
        await until(admin, lambda found: any(one.id == 2 for one in found.nodes))
        with pytest.raises(InvalidRequestError, match="still holds 1 replicas"):
            await gone(admin, 2)
        await admin.delete_topics(["orders"])
        await gone(admin, 2)
        assert [one.id for one in (await admin.describe_cluster()).brokers] == [0, 1]
        await until(admin, lambda found: found.healthy)
        with pytest.raises(UnknownBrokerError):
            await admin.unregister_broker(2)
        cluster.start("broker-2")
        await until_registered(admin, 3)

    in_a_cluster(program)


def test_a_broker_that_comes_back_on_an_empty_disk_fetches_what_it_should_hold() -> None:
    async def program(cluster: SimulatedCluster, admin: Admin) -> None:
        await admin.create_topic("orders", 4, 3)
        cluster.kill("broker-2")
        await until(admin, lambda found: found.under_replicated.count == 4)
        node = cluster.nodes["broker-2"]
        node.disk = SimulatedDisk(random.Random(3))
        await format_broker(cluster.cluster_id, 2, [DATA], disk=node.disk, chance=random.Random(4))
        cluster.start("broker-2")
        await until(admin, lambda found: found.healthy)

    in_a_cluster(program)


async def gone(admin: Admin, broker: int) -> None:
    """Unregister it as soon as its process is known to be gone."""
    for _ in range(100):
        try:
            await admin.unregister_broker(broker)
        except InvalidRequestError as error:
            if "runs" not in str(error):
                raise
            await asyncio.sleep(0.1)
        else:
            return
    raise AssertionError("it is heard still")
