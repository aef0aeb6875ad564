"""The operator of a simulated cluster: moves replicas, cancels moves, drains, elects leaders."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from quorate import Admin, TopicPartition
from quorate.errors import QuorateError
from tests.harness.cluster_clients import ADMIN_S, Clients, started
from tests.harness.invariants import Violation

#: The bytes a second of every other move: so few that copies wait.
THROTTLE = 20_000
#: The longest wait for the moves at the end.
MOVED_S = 60.0
#: Time between two requests for elections that may lose records.
RESCUE_S = 5.0


class Operator:
    """Works until a time. At last, each partition gets as many replicas as at first."""

    def __init__(self, clients: Clients, chance: random.Random) -> None:
        self.clients = clients
        self.chance = chance
        self.done: Counter[str] = Counter()
        self._servers = clients.cluster.bootstrap_servers
        self._broker_ids = list(range(len(clients.cluster.brokers)))

    async def work(self, until_s: float) -> None:
        loop = self.clients.cluster.loop
        acts = [self._move, self._move, self._move, self._cancel, self._drain, self._elect]
        if self.clients.shape.unclean:
            acts += [self._elect_unclean] * 4
        async with Admin(bootstrap_servers=self._servers, request_timeout_ms=5000) as admin:
            while loop.time() < until_s:
                await asyncio.sleep(self.chance.uniform(0.1, 1.5))
                act = self.chance.choice(acts)
                try:
                    await act(admin)
                except QuorateError as error:
                    self.done[f"refused: {type(error).__name__}"] += 1
            # the topic may have to be made once more, on as many brokers as it has replicas
            await self._undrain_all(admin)

    async def _undrain_all(self, admin: Admin) -> None:
        for broker_id in self._broker_ids:
            await self._again(partial(admin.undrain_broker, broker_id))

    async def _move(self, admin: Admin) -> None:
        chosen = self.chance.sample(self.clients.all_partitions(), self.chance.randint(1, 2))
        throttle = THROTTLE if self.done["moves begun"] % 2 else 0
        results = await admin.reassign_partitions(
            {one: self._target() for one in chosen}, throttle=throttle
        )
        self.done["moves throttled"] += len(chosen) if throttle else 0
        self.done["moves begun"] += sum(error is None for error in results.values())
        self.done["moves refused"] += sum(error is not None for error in results.values())
        if self.chance.random() < 0.25:  # at once: most moves are over soon
            await asyncio.sleep(self.chance.uniform(0, 0.1))
            await self._cancel_moves(admin, chosen)

    async def _cancel(self, admin: Admin) -> None:
        await self._cancel_moves(admin, await admin.list_reassignments())

    async def _cancel_moves(self, admin: Admin, moving: Iterable[TopicPartition]) -> None:
        results = await admin.reassign_partitions(dict.fromkeys(moving))
        self.done["cancels"] += sum(error is None for error in results.values())

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

    async def _elect_unclean(self, admin: Admin) -> None:
        found = await admin.elect_leaders(self.clients.all_partitions(), unclean=True)
        self.done["unclean elections"] += sum(one.error is None for one in found.values())

    async def rescue(self) -> None:
        """Let partitions without a leader have one, although records may be lost, until cancelled.

        An operator does so if the replica that had all is on a disk that does not come back.
        """
        servers = self._servers
        async with started(lambda: Admin(bootstrap_servers=servers)) as admin:
            while True:
                await asyncio.sleep(RESCUE_S)
                with contextlib.suppress(QuorateError):
                    await admin.elect_leaders(self.clients.all_partitions(), unclean=True)

    async def come_to_rest(self) -> None:
        """Undrain all, give each partition its number of replicas, and wait for the moves.

        Call it when no topic is deleted or grows any more.
        """
        servers = self._servers
        async with started(
            lambda: Admin(bootstrap_servers=servers, request_timeout_ms=5000)
        ) as admin:
            await self._come_to_rest(admin)

    async def _come_to_rest(self, admin: Admin) -> None:
        await self._undrain_all(admin)
        left = {one: self._target() for one in self.clients.all_partitions()}
        while left:
            results = await self._again(partial(admin.reassign_partitions, left))
            left = {one: left[one] for one, error in results.items() if error is not None}
            await asyncio.sleep(0.1 if left else 0)
        until_s = self.clients.cluster.loop.time() + MOVED_S
        while moving := await self._again(admin.list_reassignments):
            if self.clients.cluster.loop.time() > until_s:
                raise Violation(f"moves do not end within {MOVED_S} s: {moving}")
            await asyncio.sleep(0.1)

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
