"""Looks for damage in the logs of a broker, in the background (log.scrub.bytes.per.second).

Most records are never read again, or only after years. Without this, a replica would keep its
damaged records until the other copies are damaged, too. The Scrubber reads one log after the other,
in steps, at a bounded rate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import StorageError
from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import LogCorruptError

log_line = structlog.get_logger(__name__)

#: A step counts as at least so many bytes: to open the files of a log costs as much as to read so
#: many. With 4 KiB, the scrub of 10,000 small logs took 7 % of a core all the time.
STEP_BYTES_MIN = 32 * 1024
#: A pass over all logs begins at most this often, however few bytes they have.
PASS_MIN_S = 60.0


class Scrubber:
    """Verifies all logs, over and over: see the module."""

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self._replicas = replicas
        self._tasks = Tasks(lambda _, error: fail(f"logs can't be scrubbed: {error!r}"))
        self._stepping = asyncio.Lock()

    def start(self) -> None:
        if self._replicas.config.log_scrub_bytes_per_second:
            self._tasks.spawn(self._run(), "scrub")

    async def stop(self) -> None:
        """Verify nothing more. It is safe to call this twice.

        A write under way is finished: a cancelled write would count as a failure of its log.
        """
        async with self._stepping:
            await self._tasks.end_all()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            again_at = loop.time() + PASS_MIN_S
            for key in [partition.key for partition in self._replicas.all()]:
                partition = self._replicas.find(*key)
                if partition is not None:
                    await self._scrub(partition)
            await asyncio.sleep(max(0.0, again_at - loop.time()))

    async def _scrub(self, partition: Partition) -> None:
        """Verify one log. If the replica is closed or fails meanwhile, leave it."""
        rate = self._replicas.config.log_scrub_bytes_per_second
        scrub = partition.log.verification.scrub()
        while not scrub.is_done:
            size = 0
            async with self._stepping:
                if partition.offline is not None or partition.replica_log.is_closed:
                    return
                try:
                    size = await scrub.step()
                except LogCorruptError as error:
                    partition.found_damage(str(error))
                except TryAgainError as error:
                    log_line.warning("scrub waits", partition=partition.name, reason=str(error))
                    return
                except StorageError as error:
                    if not partition.replica_log.is_closed:
                        partition.replica_log.failed(error)
                    return
            await asyncio.sleep(max(size, STEP_BYTES_MIN) / rate)
