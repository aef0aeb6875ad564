"""The start of a log that this broker leads: where it is, and which followers lack it."""

from __future__ import annotations

import structlog

from quorate.aio.bell import Bell
from quorate_broker.replica.leader import Leader, ReplicaStream
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog

log_line = structlog.get_logger(__name__)


class LogStart:
    """The start of a log that this broker leads, in one reign.

    The start never passes the high watermark, because a record that is not committed must not be
    deleted. A new start is durable on the leader before a follower or a caller learns it. Followers
    learn it from the answers to their fetches, and send their own start in the next fetch.
    """

    def __init__(self, replica: Replica, log: ReplicaLog, leader: Leader) -> None:
        self._replica = replica
        self._replica_log = log
        self._leader = leader
        self._is_over = False
        #: Rings when a follower may have moved its start, and at the end of the reign.
        self.moved = Bell()

    @property
    def high_watermark(self) -> int:
        """The highest offset to which the start may move now."""
        return self._leader.high_watermark

    def end(self) -> None:
        """End the use of this object, with the reign."""
        self._is_over = True
        self.moved.ring()

    def check_reign(self) -> None:
        """Raise NotLeaderError if the reign is over."""
        if self._is_over:
            raise self._replica.not_leader()

    def told(self, stream: ReplicaStream, log_start_offset: int) -> None:
        """Take over a follower's start, from a fetch that the leader has accepted."""
        self._leader.replicas[stream.replica_id].log_start_offset = log_start_offset
        self.moved.ring()

    async def move(self, offset: int, reason: str) -> None:
        """Move the log's start to `offset`. Do nothing if the log begins there or above already.

        `offset` must not be above `high_watermark`. Raises NotLeaderError or StorageError.
        """
        replica, log = self._replica, self._replica_log.log
        async with self._replica_log.lock:
            self.check_reign()
            with self._replica_log.guard:
                assert offset <= self.high_watermark, (offset, self.high_watermark)
            before = log.log_start_offset
            if offset <= before:
                return
            if not await self._replica_log.write(log.move_start(offset)):
                raise replica.offline_error()
        log_line.info(
            "log start moved",
            partition=replica.name,
            from_offset=before,
            to_offset=offset,
            reason=reason,
        )
        replica.wake_all()
        replica.retention_wanted()

    def behind(self, offset: int) -> list[int]:
        """Return the other replicas whose log is not known to begin at `offset` or above."""
        return sorted(
            broker_id
            for broker_id, progress in self._leader.replicas.items()
            if progress.log_start_offset < offset
        )
