"""A coordinator with a fake machine on each broker of a small cluster without servers."""

from __future__ import annotations

from typing import Any

from quorate_broker.groups.coordinator import Coordinator
from quorate_broker.groups.machine.config import GroupsConfig
from quorate_broker.groups.machine.topics import Topics
from quorate_broker.groups.shard import Shard
from quorate_quorum.metadata.topics import OFFSETS_TOPIC
from quorate_quorum.node.authorizer import ALLOW_ALL
from tests.unit.quorate_broker.builders import Broker, World, until
from tests.unit.quorate_broker.groups.fake_machine import FakeMachine


class GroupWorld(World):
    """Brokers whose only topic is __consumer_offsets, of one partition, led by the first."""

    def __init__(self, *, brokers: int = 3, lag_ms: int = 10_000) -> None:
        super().__init__(brokers=brokers, lag_ms=lag_ms, topic=OFFSETS_TOPIC)
        self.coordinators: dict[int, Coordinator] = {}
        self.machines: list[FakeMachine] = []

    async def begin(self, *, min_isr: int = 2) -> Shard:
        """Start, and return the shard on the first broker, loaded."""
        await self.start(min_isr=min_isr)
        for broker in self.brokers.values():
            self.coordinate(broker)
        shard = self.shard()
        await until(lambda: shard.is_loaded)
        return shard

    def coordinate(self, broker: Broker) -> Coordinator:
        failed = broker.failures.append
        coordinator = Coordinator(broker.replicas, failed, ALLOW_ALL, self._make)
        self.coordinators[broker.id] = coordinator
        broker.replicas.subscribe(coordinator)
        return coordinator

    def _make(self, config: GroupsConfig, topics: Topics) -> FakeMachine:
        self.machines.append(FakeMachine(config, topics))
        return self.machines[-1]

    def shard(self, broker_id: int = 1) -> Shard:
        (shard,) = self.coordinators[broker_id].shards
        return shard

    async def hold_commits(self) -> None:
        """Let broker 2, which is in the ISR, fetch no more: nothing is committed."""
        await self.brokers[2].fetchers.stop()

    async def release_commits(self) -> None:
        """Take broker 2 out of the ISR: the others commit what waited."""
        await self.change(isr=[1, 3])

    async def end(self) -> None:
        for coordinator in self.coordinators.values():
            await coordinator.stop()
        await self.stop()


def put(key: str, value: str, **more: Any) -> Any:
    return lambda machine, now_ms, wall_ms: machine.put(key, value, **more)


def read(key: str) -> Any:
    return lambda machine, now_ms, wall_ms: machine.read(key)
