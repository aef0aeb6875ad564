"""A config that is altered while its topic is in use takes effect at once, or the answer says why
it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quorate.errors import QuorateError
from quorate.record.batch import BatchHeader, split
from quorate.v1 import admin_pb2 as admin
from quorate_broker.compaction.compactor import Compactor
from quorate_broker.listeners.kafka.call import Call, Client
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest, MetadataRequestTopic
from quorate_broker.listeners.kafka.metadata import MetadataRequests
from quorate_broker.listeners.kafka.recently_fenced import RecentlyFenced
from quorate_broker.operations.metadata import Metadata
from quorate_broker.operations.rights import Rights
from quorate_broker.replication.throttle import Side, Throttle
from quorate_quorum.configs import CONFIGS
from quorate_quorum.controller.decisions.creation import Creation
from quorate_quorum.controller.decisions.internal_topics import internal_topic
from quorate_quorum.controller.decisions.lossy_elections import LossyElections
from quorate_quorum.controller.decisions.outcome import Context
from quorate_quorum.metadata.delta import replayed
from quorate_quorum.metadata.topics import OFFSETS_TOPIC
from quorate_quorum.node.authorizer import ALLOW_ALL
from quorate_quorum.v1 import events_pb2 as ev
from tests.unit.quorate_broker.builders import (
    NOW_MS,
    TOPIC,
    TOPIC_ID,
    World,
    batch_of,
    until,
)
from tests.unit.quorate_quorum.metadata.builders import alter_configs

NEW_ID = bytes([7]) * 16
#: A probe of a config: its result must differ once the config is altered.
Effect = Callable[[World], Awaitable[Any]]


async def produced(world: World, size: int = 10, ahead_ms: int = 0) -> str | int:
    """Produce one record; return why it was refused, or the time that the leader gave it."""
    future = (
        world.brokers[1]
        .partition.as_leader()
        .queue.produce(
            batch_of(bytes(size), timestamp_ms=NOW_MS + ahead_ms),
            acks=-1,
            timeout_ms=10_000,
            appended=lambda: None,
        )
    )
    try:
        return (await future).log_append_time_ms
    except QuorateError as error:
        return type(error).__name__


async def a_large_batch(world: World) -> str | int:
    return await produced(world, size=5_000)


async def a_record_of_the_future(world: World) -> str | int:
    return await produced(world, ahead_ms=1_000)


async def the_last_batch(world: World) -> BatchHeader:
    """Produce a compressible record; return the header of its batch in the log."""
    value = b"".join(b'{"user":%d,"city":"Dortmund","amount":%d}' % (i, i * i) for i in range(999))
    queue = world.brokers[1].partition.as_leader().queue
    await queue.produce(batch_of(value), acks=-1, timeout_ms=10_000, appended=lambda: None)
    log = world.brokers[1].partition.log
    chunk = await log.read(0, end=log.log_end_offset, bytes_max=1 << 20)
    return [header for header, _ in split(chunk)][-1]


async def the_codec_of_a_batch(world: World) -> int:
    return (await the_last_batch(world)).codec


def compressed_by(name: str) -> Effect:
    """Return a probe of the size that a batch has under a codec."""

    async def size(world: World) -> int:
        config = ev.Config(topic_id=TOPIC_ID, name="compression.type", value=name)
        await world.commit(ev.MetadataEvent(config=config))
        return (await the_last_batch(world)).size

    return size


async def segments_of_both_replicas(world: World) -> list[bool]:
    """Append 1.2 MB; return for each replica whether a segment was closed meanwhile."""
    replicas = [world.brokers[b].partition.log for b in (1, 2)]
    await produced(world)  # the first record makes the first segment
    await until(lambda: all(log.has_segments for log in replicas))
    before = [len(await log.segments()) for log in replicas]
    for _ in range(2):
        assert await produced(world, size=600_000) == -1
    await until(lambda: replicas[0].log_end_offset == replicas[1].log_end_offset)
    after = [len(await log.segments()) for log in replicas]
    return [now > then for then, now in zip(before, after, strict=True)]


async def segments_with_one_record(world: World) -> int:
    """Append one record; return how many segments the leader has after a look at its log."""
    broker = world.brokers[1]
    await produced(world)
    await asyncio.sleep(0.002)  # the record must be older than a millisecond
    await broker.retention.look(broker.partition)
    return len(await broker.partition.log.segments())


async def the_start_of_the_log(world: World) -> int:
    """Append a record of the last second and close its segment; return where the log begins."""
    broker = world.brokers[1]
    await produced(world, ahead_ms=-1_000)
    await broker.partition.log.roll()
    await produced(world)
    await broker.retention.look(broker.partition)
    return broker.partition.log_start_offset


async def a_record_that_is_synced_at_once(world: World) -> bool:
    """Append a record; return whether it is synced a hundred turns of the loop later."""
    await produced(world)
    for _ in range(100):
        await asyncio.sleep(0)
    return world.brokers[1].partition.replica_log.is_synced


async def a_record_without_a_key(world: World) -> str:
    """Produce it; return why it was refused, or nothing."""
    try:
        await (
            world.brokers[1]
            .partition.as_leader()
            .queue.produce(batch_of(b"v", key=None), acks=-1, timeout_ms=1, appended=lambda: None)
        )
    except QuorateError as error:
        return type(error).__name__
    return ""


async def a_compaction(world: World, *, ahead_ms: int = -100, cleaned: int = 0) -> Any:
    """Return the plan and the job of the compaction of four closed segments of one record."""
    partition = world.brokers[1].partition
    config = ev.Config(topic_id=TOPIC_ID, name="cleanup.policy", value="compact")
    await world.commit(ev.MetadataEvent(config=config))
    if not partition.log.has_segments:
        for _ in range(4):
            await produced(world, ahead_ms=ahead_ms)
            await partition.log.roll()
        await partition.log.compaction.note_cleaned(cleaned)
    compactor = Compactor(world.brokers[1].replicas, world.brokers[1].failures.append)
    plan = await compactor.plan(partition)
    job = None if plan is None else await compactor.job(partition, plan)
    return plan, job and job.delete_retention_ms


async def a_compaction_of_a_quarter(world: World) -> Any:
    return await a_compaction(world, cleaned=3)


async def a_compaction_of_new_records(world: World) -> Any:
    return await a_compaction(world, ahead_ms=0)


async def a_commit_by_the_leader_alone(world: World) -> str | int:
    if 2 in world.running:
        await world.brokers[2].stop()
        await world.fence(2)
        await world.change(isr=[1])
    return await produced(world)


async def an_election_that_may_lose_records(world: World) -> list[Any]:
    """Return what the controller does when the only replica with all records is away."""
    epoch = world.image.brokers[1].epoch
    fenced = ev.BrokerChange(broker_id=1, broker_epoch=epoch, fenced=True)
    gone = ev.PartitionChange(
        topic_id=TOPIC_ID,
        partition=0,
        partition_epoch=world.state.partition_epoch + 1,
        leader=-1,
        leader_epoch=world.state.leader_epoch + 1,
        isr=ev.BrokerSet(brokers=[1]),
    )
    image = replayed(
        world.image,
        [ev.MetadataEvent(broker_change=fenced), ev.MetadataEvent(partition_change=gone)],
    )
    recovery = LossyElections()
    recovery.changed(image, [(TOPIC_ID, 0)])
    return list(recovery.tick(image, 0))


def context(world: World) -> Context:
    return Context(now_ms=NOW_MS, next_offset=world.image.offset, new_id=lambda: NEW_ID)


async def a_topic_that_is_created_now(world: World) -> list[ev.MetadataEvent]:
    new = admin.NewTopic(name="new", topic_id=NEW_ID, num_partitions=-1, replication_factor=-1)
    creation = Creation(admin.CreateTopicsRequest(topics=[new]), internal=False, events_max=1000)
    return list(creation.next(world.image, context(world)).events)


async def the_topic_of_groups_that_is_made_now(world: World) -> str:
    return str(internal_topic(world.image, OFFSETS_TOPIC))


async def topics_that_a_kafka_client_creates(world: World) -> list[str]:
    class Created(list[str]):
        async def create(self, names: Iterable[str], *_: Any) -> dict[str, QuorateError]:
            self.extend(names)
            return {}

    created, ready = Created(), asyncio.Event()
    ready.set()
    metadata = Metadata(cast(Any, SimpleNamespace(image=world.image)), ready, ALLOW_ALL)
    requests = MetadataRequests(
        metadata, cast(Any, created), RecentlyFenced(lambda: 0.0), Rights(ALLOW_ALL), "cluster", 1
    )
    asked = MetadataRequest([MetadataRequestTopic(name="new")])
    await requests.metadata(Call(asked, 9, Client("client", "kafka")))
    return created


def throttled(side: Side, given: str, value: str) -> Effect:
    """Return a probe of what may be copied at once to a follower that is out of sync.

    `given`: the other config that a throttle needs.
    """

    async def allowed(world: World) -> int | None:
        name = f"{side}.replication.throttled.{given}"
        topic_id = TOPIC_ID if given == "replicas" else b""
        config = ev.Config(topic_id=topic_id, name=name, value=value)
        await world.commit(ev.MetadataEvent(config=config))
        broker = world.brokers[1]
        throttle: Throttle[str] = Throttle(side, broker.replicas)
        return throttle.ask("a copy", broker.partition, 9, 1 << 20, lambda: None)

    return allowed


#: For each config another value than its default, and what must differ when it is obeyed.
ALTERED: dict[str, tuple[str, Effect | None]] = {
    "auto.create.topics.enable": ("false", topics_that_a_kafka_client_creates),
    "cleanup.policy": ("compact", a_record_without_a_key),
    "compression.gzip.level": ("1", compressed_by("gzip")),
    "compression.lz4.level": ("3", compressed_by("lz4")),
    "compression.type": ("gzip", the_codec_of_a_batch),
    "compression.zstd.level": ("-100", compressed_by("zstd")),
    "default.replication.factor": ("1", a_topic_that_is_created_now),
    "delete.retention.ms": ("1", a_compaction),
    "flush.ms": ("0", a_record_that_is_synced_at_once),
    "flush.on.ack": ("true", a_topic_that_is_created_now),
    "follower.replication.throttled.rate": ("7", throttled("follower", "replicas", "*")),
    "follower.replication.throttled.replicas": ("0:1", throttled("follower", "rate", "7")),
    "leader.replication.throttled.rate": ("7", throttled("leader", "replicas", "*")),
    "leader.replication.throttled.replicas": ("0:1", throttled("leader", "rate", "7")),
    "max.compaction.lag.ms": ("1", a_compaction_of_a_quarter),
    "max.message.bytes": ("1024", a_large_batch),
    "message.timestamp.after.max.ms": ("0", a_record_of_the_future),
    "message.timestamp.type": ("LogAppendTime", produced),
    "min.cleanable.dirty.ratio": ("0.1", a_compaction_of_a_quarter),
    "min.compaction.lag.ms": ("1", a_compaction_of_new_records),
    "min.insync.replicas": ("2", a_commit_by_the_leader_alone),
    "num.partitions": ("3", a_topic_that_is_created_now),
    "offsets.topic.num.partitions": ("3", the_topic_of_groups_that_is_made_now),
    "offsets.topic.replication.factor": ("1", the_topic_of_groups_that_is_made_now),
    "offsets.topic.segment.bytes": ("1048576", the_topic_of_groups_that_is_made_now),
    "retention.bytes": ("1", the_start_of_the_log),
    "retention.ms": ("1", the_start_of_the_log),
    "segment.bytes": ("1048576", segments_of_both_replicas),
    "segment.ms": ("1", segments_with_one_record),
    "unclean.leader.election.enable": ("true", an_election_that_may_lose_records),
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A topic with two replicas and no config of its own."""
    world = World(brokers=2)
    await world.start(min_isr=1)
    name = "min.insync.replicas"
    await world.commit(
        ev.MetadataEvent(config=ev.Config(name=name, value="1")),
        ev.MetadataEvent(config=ev.Config(topic_id=TOPIC_ID, name=name)),
    )
    yield world
    await world.stop()


def test_every_config_is_tried() -> None:
    assert ALTERED.keys() == CONFIGS.keys()


@pytest.mark.parametrize("topic", [TOPIC, ""], ids=["topic", "cluster"])
@pytest.mark.parametrize("name", CONFIGS)
async def test_an_altered_config_takes_effect_at_once_or_the_answer_says_why_not(
    world: World, name: str, topic: str
) -> None:
    spec = CONFIGS[name]
    value, effect = ALTERED[name]
    before = None if effect is None else await effect(world)
    request = admin.AlterConfigsRequest(topic=topic, set={name: value})
    outcome = alter_configs(world.image, request)
    await world.commit(*outcome.events)

    said = outcome.response.error.message
    if topic and not spec.is_of_topics:
        assert "belongs to the cluster" in said
    elif topic and spec.fixed:
        assert spec.fixed in said
    else:
        assert effect is not None
        assert not said
        assert await effect(world) != before
