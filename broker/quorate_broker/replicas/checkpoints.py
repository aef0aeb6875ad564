"""Writes the high watermarks that moved to the disk at an interval.

After a restart, the written high watermark is a lower bound of the committed one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.tasks import Tasks
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas

#: High watermarks that are written in one turn of the loop. Each opens a file: up to 1 ms.
CHECKPOINTS_A_TURN = 5


class Checkpoints:
    """Writes high watermarks to the disk: see the module.

    It also calls `has_caught_up` when a repaired replica has reached the end of its log before the
    loss.
    """

    def __init__(
        self,
        replicas: Replicas,
        has_caught_up: Callable[[Key], None],
        fail: Callable[[str], None],
    ) -> None:
        self._replicas = replicas
        self._has_caught_up = has_caught_up
        self._tasks = Tasks(
            lambda _, error: fail(f"high watermarks can't be written down: {error!r}")
        )
        self._writing = asyncio.Lock()

    def start(self) -> None:
        self._tasks.spawn(self._run(), "high watermarks")

    async def stop(self) -> None:
        """Write nothing more. It is safe to call this twice.

        A write under way is finished: a cancelled write would count as a failure of its log.
        """
        async with self._writing:
            await self._tasks.end_all()

    async def _run(self) -> None:
        interval_ms = self._replicas.config.replica_high_watermark_checkpoint_interval_ms
        while True:
            await asyncio.sleep(interval_ms / 1000)
            async with self._writing:
                await self.write()

    async def write(self) -> None:
        """Write the high watermarks that moved since the last call."""
        unsaved, self._replicas.unsaved = self._replicas.unsaved, {}
        for number, key in enumerate(unsaved):
            if number % CHECKPOINTS_A_TURN == 0:
                await asyncio.sleep(0)
            partition = self._replicas.find(*key)
            if partition is None:
                continue
            await partition.replica_log.checkpoint()
            owed = partition.owed
            if owed is None:
                continue
            self._replicas.unsaved[key] = None
            if partition.log_end_offset >= owed[1]:
                self._has_caught_up(key)
