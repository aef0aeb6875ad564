"""Writes the high watermarks of all replicas down now and then.

At a start, what was written is a lower bound of what was committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from quorate.aio.tasks import Tasks

if TYPE_CHECKING:
    from quorate_broker.replica.replica import Key
    from quorate_broker.replicas.replicas import Replicas

#: High watermarks that are written down in one turn of the loop: some milliseconds.
CHECKPOINTS_A_TURN = 20


class Checkpoints:
    """See the module. It also sees when a repaired replica has caught up with its former end."""

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
        """Write nothing more. A write under way is finished: cancelled half way, it would count
        as a failure of its log. Safe to call twice.
        """
        async with self._writing:
            await self._tasks.end_all()

    async def _run(self) -> None:
        interval_ms = self._replicas.config.replica_high_watermark_checkpoint_interval_ms
        while True:
            await asyncio.sleep(interval_ms / 1000)
            async with self._writing:
                for number, partition in enumerate(self._replicas.all()):
                    if number % CHECKPOINTS_A_TURN == 0:
                        await asyncio.sleep(0)
                    await partition.replica_log.checkpoint()
                    owed = partition.owed
                    if owed is not None and partition.log_end_offset >= owed[1]:
                        self._has_caught_up(partition.key)
