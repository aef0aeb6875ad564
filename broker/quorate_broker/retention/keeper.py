"""Retention: rolls old segments, moves the start of logs, and removes the segments below it.

The keeper checks every partition at an interval (log.retention.check.interval.ms), and soon after a
roll, a change of its configuration, and a move of its start. The leader decides the start
(policy.py), and its followers learn it from the answers to their fetches. Rolls and removals
concern only one copy of the log: every replica does them for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from quorate.aio.bell import Bell
from quorate.aio.clock import loop_ms
from quorate.aio.tasks import Tasks
from quorate.errors import QuorateError, StorageError
from quorate_broker.replica.leader_replica import LeaderReplica
from quorate_broker.replica.log_start import LogStart
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replicas.replicas import Replicas
from quorate_broker.retention.policy import new_start
from quorate_quorum.log.disk_errors import TryAgainError

log_line = structlog.get_logger(__name__)


class RetentionKeeper:
    """Applies the retention to the logs of a broker: see the module.

    It checks one partition after the other, each in another turn of the event loop.
    """

    def __init__(self, replicas: Replicas, fail: Callable[[str], None]) -> None:
        self._replicas = replicas
        #: Partitions to check soon. A dict has an order, and each key once.
        self._soon: dict[Key, None] = {}
        self._bell = Bell()
        self._looking = asyncio.Lock()
        self._tasks = Tasks(lambda _, error: fail(f"retention can't go on: {error!r}"))
        replicas.on_retention_wanted = self._want

    def _want(self, partition: Partition) -> None:
        self._soon[partition.key] = None
        self._bell.ring()

    def start(self) -> None:
        self._tasks.spawn(self._run(), "retention")

    async def stop(self) -> None:
        """Check no more partitions. It is safe to call this twice.

        A write under way is finished: a cancelled write would count as a failure of its log.
        """
        async with self._looking:
            await self._tasks.end_all()

    async def _run(self) -> None:
        interval_ms = self._replicas.config.log_retention_check_interval_ms
        look_at_ms = loop_ms() + interval_ms
        while True:
            self._bell.reset()
            if loop_ms() >= look_at_ms:
                self._soon.update((partition.key, None) for partition in self._replicas.all())
                look_at_ms = loop_ms() + interval_ms
            while self._soon:
                key = next(iter(self._soon))
                del self._soon[key]
                partition = self._replicas.find(*key)
                if partition is not None:
                    async with self._looking:
                        await self.look(partition)
                await asyncio.sleep(0)
            await self._bell.wait(max(0, look_at_ms - loop_ms()))

    async def look(self, partition: Partition) -> None:
        """Apply the retention to one log. A failure of the disk takes the replica offline."""
        log = partition.replica_log
        if partition.offline is not None or log.is_closed or partition.state is None:
            return
        try:
            await self._roll(partition)
            if isinstance(partition.role, LeaderReplica):
                await self._delete(partition, partition.role.log_start)
            await log.log.remove_below_start()
        except TryAgainError as error:
            log_line.warning("retention waits", partition=partition.name, reason=str(error))
        except StorageError as error:
            if not log.is_closed:
                log.failed(error)
        except QuorateError:
            # do nothing: the role has changed meanwhile
            return

    async def _roll(self, partition: Partition) -> None:
        """Close the active segment if it is due. On a full disk, go on: deletions make room."""
        try:
            await partition.log.roll_if_due()
        except TryAgainError as error:
            log_line.warning("roll waits", partition=partition.name, reason=str(error))

    async def _delete(self, partition: Partition, start: LogStart) -> None:
        """Move the start of a log that this broker leads, as the policy says.

        A bad batch that is found here is treated like one that a reader reports: another replica
        should lead. If this is the only copy, it continues to lead, and the age of the file decides
        when the damaged segment is deleted.
        """
        segments = await partition.log.segments()
        for damaged in (one for one in segments if one.damage):
            partition.damage.found(damaged.damage)
        found = new_start(
            segments,
            partition.config,
            now_ms=self._replicas.environment.wall_clock_ms(),
            high_watermark=start.high_watermark,
        )
        if found is not None:
            await start.move(found.offset, found.reason)
