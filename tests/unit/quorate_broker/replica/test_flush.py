"""flush.ms: when a log is synced by time, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest import mock

from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica_log import FLUSH_AGAIN_MS
from quorate_broker.replicas.replicas import FLUSHES_MAX
from quorate_quorum.configs import NEVER_MS
from quorate_quorum.log.disk_errors import ProcessLimitError
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.simulated.loop import simulate
from tests.unit.quorate_broker.builders import TOPIC_ID, World, batch_of, directory_id, until

FLUSH_MS = 1_000
ANOTHER_ID = bytes(reversed(range(16)))


def play(act: Callable[[World], Awaitable[None]], *, brokers: int = 1, **configs: str) -> None:
    """Run `act` on a topic with flush.ms, in virtual time."""
    settings = {"flush.ms": str(FLUSH_MS)} | {
        name.replace("_", "."): value for name, value in configs.items()
    }

    async def program(_: object) -> None:
        world = World(brokers=brokers)
        await world.start(min_isr=1, configs=settings)
        await act(world)
        await world.stop()

    simulate(program, 1)


def is_synced(world: World, broker_id: int = 1) -> bool:
    return world.brokers[broker_id].partition.replica_log.is_synced


async def altered(world: World, value: int) -> None:
    config = ev.Config(topic_id=TOPIC_ID, name="flush.ms", value=str(value))
    await world.commit(ev.MetadataEvent(config=config))


def test_a_log_is_synced_flush_ms_after_its_first_unsynced_record_and_not_before() -> None:
    async def act(world: World) -> None:
        await world.brokers[1].produce(b"a")
        for _ in range(9):  # later records do not delay the sync
            await asyncio.sleep(0.099)
            assert not is_synced(world)
            await world.brokers[1].produce(b"b")
        await asyncio.sleep(0.13)
        assert is_synced(world)
        await world.brokers[1].produce(b"c")
        await asyncio.sleep(0.99)
        assert not is_synced(world)
        await asyncio.sleep(0.02)
        assert is_synced(world)

    play(act)


def test_a_follower_syncs_its_own_log() -> None:
    async def act(world: World) -> None:
        await world.brokers[1].produce(b"a")
        await world.caught_up(2)
        assert not is_synced(world, 2)
        await asyncio.sleep(1.1)
        assert is_synced(world, 2)

    play(act, brokers=2)


def test_without_flush_ms_no_log_is_synced_by_time() -> None:
    async def act(world: World) -> None:
        await world.brokers[1].produce(b"a")
        await asyncio.sleep(50)  # every minute the recovery point moves, which is a sync, too
        assert not is_synced(world)

    play(act, flush_ms=str(NEVER_MS))


def test_a_shorter_flush_ms_counts_from_the_first_unsynced_record() -> None:
    async def act(world: World) -> None:
        await world.brokers[1].produce(b"a")
        await asyncio.sleep(30)
        await altered(world, 45_000)
        await asyncio.sleep(14)
        assert not is_synced(world)
        await asyncio.sleep(2)
        assert is_synced(world)

    play(act, flush_ms=str(NEVER_MS))


def test_a_longer_flush_ms_delays_the_sync() -> None:
    async def act(world: World) -> None:
        await world.brokers[1].produce(b"a")
        await altered(world, 45_000)
        await asyncio.sleep(40)
        assert not is_synced(world)
        await altered(world, NEVER_MS)
        await asyncio.sleep(10)
        assert not is_synced(world)

    play(act)


def test_what_an_earlier_process_left_unsynced_is_synced_too() -> None:
    async def act(world: World) -> None:
        broker = world.brokers[1]
        await broker.produce(b"a")
        await broker.stop()
        await broker.start()
        assert not is_synced(world)
        await asyncio.sleep(1.1)
        assert is_synced(world)
        await world.register(broker)

    play(act)


def test_a_record_that_comes_during_a_sync_is_synced_flush_ms_later() -> None:
    async def act(world: World) -> None:
        broker = world.brokers[1]
        await broker.produce(b"a")
        broker.disk.slow_sync = 0.1
        await asyncio.sleep(1.05)
        await broker.produce(b"b")
        await asyncio.sleep(0.95)
        assert broker.partition.log.synced_end == 1
        await asyncio.sleep(1.0)
        assert is_synced(world)
        broker.disk.slow_sync = 0.0

    play(act)


def test_a_failed_sync_gives_the_disk_up() -> None:
    async def act(world: World) -> None:
        broker = world.brokers[1]
        await broker.produce(b"a")
        broker.disk.fail_next_sync()
        await asyncio.sleep(1.1)
        assert broker.partition.failure == "storage"
        assert directory_id(1) in broker.replicas.failed_directories

    play(act)


def test_a_sync_that_could_not_begin_is_tried_again() -> None:
    """The process has no free descriptor for the segment at that moment."""

    async def act(world: World) -> None:
        broker = world.brokers[1]
        await broker.produce(b"a")

        refused = ProcessLimitError("for the test")
        with mock.patch.object(broker.partition.log, "sync", side_effect=refused) as sync:
            await asyncio.sleep(1.1)
            assert sync.call_count == 1
        assert broker.partition.offline is None
        await asyncio.sleep(FLUSH_AGAIN_MS / 1000)
        assert is_synced(world)

    play(act)


def test_few_logs_are_synced_at_the_same_time_and_only_those_with_unsynced_records() -> None:
    async def act(world: World) -> None:
        broker = world.brokers[1]
        await world.commit(
            ev.MetadataEvent(topic=ev.Topic(topic_id=ANOTHER_ID, name="many")),
            ev.MetadataEvent(
                config=ev.Config(topic_id=ANOTHER_ID, name="flush.ms", value=str(FLUSH_MS))
            ),
            *(
                ev.MetadataEvent(
                    partition=ev.Partition(
                        topic_id=ANOTHER_ID,
                        partition=number,
                        replicas=[ev.Replica(broker_id=1, directory_id=directory_id(1))],
                        isr=[1],
                        leader=1,
                        recovered_epoch=-1,
                    )
                )
                for number in range(40)
            ),
        )
        partitions = [broker.replicas.get(ANOTHER_ID, number) for number in range(40)]
        written = partitions[:20]
        for one in written:
            await produced(one)
        most = 0
        begun: set[str] = set()

        def hook(name: str, path: str) -> None:
            nonlocal most
            if name == "sync" and path.endswith(".log"):
                begun.add(path)
                done = sum(one.replica_log.is_synced for one in written)
                most = max(most, len(begun) - done)

        broker.disk.slow_sync = 0.01
        broker.disk.hook = hook
        await until(lambda: all(one.replica_log.is_synced for one in written))
        broker.disk.hook = None
        broker.disk.slow_sync = 0.0
        assert len(begun) == 20
        assert most == FLUSHES_MAX

    play(act)


async def produced(partition: Partition) -> None:
    await partition.as_leader().queue.produce(
        batch_of(b"v"), acks=-1, timeout_ms=10_000, appended=lambda: None
    )
