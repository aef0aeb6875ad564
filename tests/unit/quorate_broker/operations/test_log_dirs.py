"""The log directories of a broker: what each replica takes, which offsets it holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from quorate.errors import ClusterAuthorizationFailedError
from quorate.net.principal import Principal
from quorate_broker.compaction.compactor import Compactor
from quorate_broker.compaction.job import Done, Failed, Job, Report
from quorate_broker.operations.log_dirs import LogDirs
from quorate_quorum.node.authorizer import ALLOW_ALL, CLUSTER, Operation, Resource
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import (
    TOPIC,
    TOPIC_ID,
    World,
    directory_id,
    no_controller,
    until,
)
from tests.unit.quorate_broker.operations.builders import ANN, DenyAll


async def test_each_directory_tells_its_replicas_its_free_bytes_and_its_failure() -> None:
    world = World()
    await world.start()
    for _ in range(3):
        await world.brokers[1].produce(b"value")
    await world.brokers[1].partition.as_leader().log_start.move(1, "a test")
    await world.caught_up(2, 3)
    replicas = world.brokers[1].replicas
    operation = LogDirs(replicas, ALLOW_ALL)
    [found] = await operation.describe(ANN, None)
    assert (found.path, found.directory_id, found.failure) == ("/data", directory_id(1), "")
    assert found.free_bytes > 0
    [replica] = found.replicas
    assert replica == (TOPIC, 0, world.brokers[1].partition.log.size, 1, 3, True, "", "")
    [other] = await LogDirs(world.brokers[2].replicas, ALLOW_ALL).describe(ANN, [TOPIC])
    assert not other.replicas[0].is_leader
    [none] = await operation.describe(ANN, ["no-such-topic"])
    assert none.replicas == []
    replicas.directory_failed(directory_id(1), "for the test")
    [failed] = await operation.describe(ANN, None)
    assert failed.failure == "for the test"
    await world.stop()


async def test_a_compaction_that_fails_is_told_until_it_works_again_or_is_not_needed() -> None:
    world = World(brokers=1)
    await world.start(min_isr=1, configs={"cleanup.policy": "compact"})
    broker = world.brokers[1]
    for number in range(4):
        await broker.produce(b"%d" % number)
        await broker.partition.log.roll()

    async def told() -> str:
        [found] = await LogDirs(broker.replicas, ALLOW_ALL).describe(ANN, None)
        return found.replicas[0].compaction_failure

    runner = Failing()
    compactor = Compactor(broker.replicas, broker.failures.append, runner)
    compactor.start()
    assert await told() == ""
    await until(lambda: broker.partition.compaction_failure != "")
    assert await told() == "the disk is odd"
    runner.is_failing = False
    await until(lambda: broker.partition.log.compaction.cleaned_end == 4)
    await until(lambda: broker.partition.compaction_failure == "")
    assert await told() == ""

    runner.is_failing = True
    for number in range(8):
        await broker.produce(b"%d" % number)
    await broker.partition.log.roll()
    await until(lambda: broker.partition.compaction_failure != "")
    config = ev.Config(topic_id=TOPIC_ID, name="cleanup.policy", value="delete")
    await world.commit(ev.MetadataEvent(config=config))
    await until(lambda: broker.partition.compaction_failure == "")
    await compactor.stop()
    await world.stop()


class Failing:
    """A runner whose passes fail until the disk is well again."""

    def __init__(self) -> None:
        self.is_failing = True

    async def run(self, job: Job) -> AsyncGenerator[Report, None]:
        if self.is_failing:
            yield Failed("the disk is odd")
            return
        closed = [end for _, end, _ in job.segments]
        yield Done(closed[-1], 0, 0, 0, 0, 0)


async def test_a_principal_that_may_not_describe_the_cluster_is_refused() -> None:
    world = World(brokers=1)
    await world.start(min_isr=1)
    with pytest.raises(ClusterAuthorizationFailedError):
        await LogDirs(world.brokers[1].replicas, DenyAll()).describe(ANN, None)
    await world.stop()


class AllowCluster:
    """An authorizer that allows everything on the cluster, and nothing on topics."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        return resource == CLUSTER


async def test_topics_that_the_caller_may_not_describe_are_not_told() -> None:
    world = World(brokers=1)
    await world.start(min_isr=1)
    for asked in (None, [TOPIC]):
        [found] = await LogDirs(world.brokers[1].replicas, AllowCluster()).describe(ANN, asked)
        assert found.replicas == []
    await world.stop()


async def test_a_damaged_replica_is_told_while_it_is_damaged() -> None:
    world = World()
    await world.start()
    for number in range(5):
        await world.brokers[1].produce(b"%d" % number)
    await world.caught_up(2, 3)
    world.on_alter = no_controller

    async def told(broker: int) -> str:
        [found] = await LogDirs(world.brokers[broker].replicas, ALLOW_ALL).describe(ANN, [TOPIC])
        [replica] = found.replicas
        return replica.trouble

    assert [await told(one) for one in (1, 2)] == ["", ""]
    world.brokers[1].partition.found_damage("at byte 70")
    assert await told(1) == "a batch is damaged: at byte 70"
    world.brokers[2].partition.found_damage("at byte 80")
    assert await told(2) == "it is offline: at byte 80"
    await until(lambda: TOPIC_ID in {key[0] for key in world.brokers[2].replicas.losses.corrupt})
    third = world.brokers[3]
    await third.replicas.close(third.partition)
    third.replicas.unopened[TOPIC_ID, 0] = "for the test"
    assert await told(3) == "it is not open: for the test"
    await world.stop()
