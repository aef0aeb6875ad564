"""Moves the recovery points of the logs that were appended to, at an interval.

After a crash, a start reads only what was appended since. The logs are synced one after the other,
so that a thousand of them do not keep the disk from acknowledging records. Of logs with few new
bytes only some are synced at a time: to read those takes a start no longer than to open the log.
But a clean stop is faster if most logs are synced already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.tasks import Tasks
from quorate_broker.replicas.replicas import Replicas

#: A log with fewer bytes above its recovery point has few. An open reads as many at once.
FEW_BYTES = 64 << 10
#: The most logs with few new bytes that are synced at an interval. The others come later.
FEW_MAX = 300
#: The most logs that are looked at in one turn of the loop.
LOOKS_A_TURN = 500


class RecoveryPoints:
    """Moves the recovery points of a broker's logs: see the module."""

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self._replicas = replicas
        self._tasks = Tasks(lambda _, error: fail(f"recovery points can't be moved: {error!r}"))
        self._moving = asyncio.Lock()

    def start(self) -> None:
        self._tasks.spawn(self._run(), "recovery points")

    async def stop(self) -> None:
        """Move no more recovery points. It is safe to call this twice.

        A sync under way is finished: a cancelled write would count as a failure of its log.
        """
        async with self._moving:
            await self._tasks.end_all()

    async def _run(self) -> None:
        interval_ms = self._replicas.config.log_flush_offset_checkpoint_interval_ms
        while True:
            await asyncio.sleep(interval_ms / 1000)
            await self.move()

    async def move(self) -> None:
        """Move the recovery points of all logs with new bytes, but of at most FEW_MAX with few."""
        few = 0
        appended, self._replicas.appended = self._replicas.appended, {}
        for number, key in enumerate(appended, 1):
            if number % LOOKS_A_TURN == 0:
                await asyncio.sleep(0)
            partition = self._replicas.find(*key)
            if partition is None:
                continue
            log = partition.replica_log
            has_few = log.log.recovery_point.bytes_above < FEW_BYTES
            if has_few and few == FEW_MAX:
                self._replicas.appended[key] = None
                continue
            few += has_few
            async with self._moving:
                await log.move_recovery_point()
