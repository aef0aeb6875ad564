"""The operator of a simulated cluster: moves replicas, cancels moves, drains, elects leaders."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from quorate import Admin, TopicPartition
from quorate.errors import QuorateError
from tests.harness.cluster_clients import ADMIN_S, TOPIC, Clients

#: The longest wait for the moves at the end.
MOVED_S = 60.0


class Operator:
    """One program. It works until a time; then each partition gets as many replicas as at first."""

    def __init__(self, clients: Clients, chance: random.Random) -> None:
        self.clients = clients
        self.chance = chance
        self.done: Counter[str] = Counter()
        self._broker_ids = list(range(len(clients.cluster.brokers)))

    async def work(self, until_s: float) -> None:
        loop = self.clients.cluster.loop
        servers = self.clients.cluster.bootstrap_servers
        async with Admin(bootstrap_servers=servers, request_timeout_ms=5000) as admin:
            while loop.time() < until_s:
                await asyncio.sleep(self.chance.uniform(0.1, 2))
                act = self.chance.choice(
                    (self._move, self._move, self._move, self._cancel, self._drain, self._elect)
                )
                try:
                    await act(admin)
                except QuorateError as error:
                    self.done[f"refused: {type(error).__name__}"] += 1
            await self._come_to_rest(admin)

    async def _move(self, admin: Admin) -> None:
        chosen = self.chance.sample(self._partitions(), self.chance.randint(1, 2))
        results = await admin.reassign_partitions({one: self._target() for one in chosen})
        self.done["moves begun"] += sum(error is None for error in results.values())
        self.done["moves refused"] += sum(error is not None for error in results.values())

    async def _cancel(self, admin: Admin) -> None:
        moving = await admin.list_reassignments()
        results = await admin.reassign_partitions(dict.fromkeys(moving))
        self.done["moves cancelled"] += sum(error is None for error in results.values())

    async def _drain(self, admin: Admin) -> None:
        broker_id = self.chance.choice(self._broker_ids)
        if self.chance.random() < 0.5:
            await admin.undrain_broker(broker_id)
            return
        drain = await admin.drain_broker(broker_id, replicas=self.chance.random() < 0.5)
        self.done["drains"] += 1
        self.done["leaders drained"] += drain.leaders_moved
        self.done["moves begun"] += drain.replicas_moved

    async def _elect(self, admin: Admin) -> None:
        found = await admin.elect_leaders()
        self.done["preferred elections"] += sum(one.error is None for one in found.values())

    async def _come_to_rest(self, admin: Admin) -> None:
        """Undrain all, give each partition its number of replicas, and wait for the moves."""
        for broker_id in self._broker_ids:
            await self._again(partial(admin.undrain_broker, broker_id))
        left = {one: self._target() for one in self._partitions()}
        while left:
            results = await self._again(partial(admin.reassign_partitions, left))
            left = {one: left[one] for one, error in results.items() if error is not None}
            await asyncio.sleep(0.1 if left else 0)
        until_s = self.clients.cluster.loop.time() + MOVED_S
        while moving := await self._again(admin.list_reassignments):
            if self.clients.cluster.loop.time() > until_s:
                raise AssertionError(f"moves do not end within {MOVED_S} s: {moving}")
            await asyncio.sleep(0.1)

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, number) for number in range(self.clients.partitions)]

    def _target(self) -> list[int]:
        return self.chance.sample(self._broker_ids, self.clients.shape.replication_factor)

    async def _again(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        until_s = self.clients.cluster.loop.time() + ADMIN_S
        while True:
            try:
                return await ask()
            except QuorateError:
                if self.clients.cluster.loop.time() > until_s:
                    raise
                await asyncio.sleep(0.1)
