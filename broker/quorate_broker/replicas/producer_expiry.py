"""Advances the clock of the producer memory, and lets all partitions forget silent producers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate_broker.replica.producer_memory import TICK_MS
from quorate_broker.replica.producers import FORGET_MAX
from quorate_broker.replicas.replicas import Replicas

#: Ticks between two rounds over all partitions.
TICKS_PER_LOOK = 12
#: Partitions that are handled in one turn of the loop.
LOOKS_IN_A_ROW_MAX = 64


class ProducerExpiry:
    """Runs the clock of a broker's ProducerMemory, from start() to stop()."""

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self._replicas = replicas
        self._tasks = Tasks(lambda _, error: fail(f"producers can't be forgotten: {error!r}"))

    def start(self) -> None:
        self._tasks.spawn(self._run(), "producer expiry")

    async def stop(self) -> None:
        """Stop the clock. It is safe to call this twice, and without a start."""
        await self._tasks.end_all()

    async def _run(self) -> None:
        memory = self._replicas.producer_memory
        ticks = 0
        while True:
            memory.tick(loop_ms())
            ticks += 1
            if ticks % TICKS_PER_LOOK == 0:
                await self._look()
            await asyncio.sleep(TICK_MS / 1000)

    async def _look(self) -> None:
        """Let every partition forget silent producers. Then count all known producers again.

        Without the new count, producers of closed partitions would still count.
        """
        for number, partition in enumerate(self._replicas.all(), 1):
            for _ in range(0, len(partition.producers), FORGET_MAX):
                if partition.producers.forget() < FORGET_MAX:
                    break
                await asyncio.sleep(0)
            if number % LOOKS_IN_A_ROW_MAX == 0:
                await asyncio.sleep(0)
        held = sum(len(partition.producers) for partition in self._replicas.all())
        self._replicas.producer_memory.count = held
