"""The reads of consumers from a follower in their rack (KIP-392)."""

from __future__ import annotations

from quorate.aio.clock import loop_ms
from quorate.errors import (
    NotLeaderError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    StorageError,
    UnknownLeaderEpochError,
)
from quorate_broker.replica.contact import Contact
from quorate_broker.replica.divergence import divergence
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.follower import Follower
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog
from quorate_quorum.log.disk_errors import TryAgainError


class FollowerReads:
    """Serves consumers from a replica that follows one leader in one leader_epoch.

    It serves records below this replica's own high watermark, which are committed. It is dropped
    with the role, and `is_over` is set then.
    """

    def __init__(self, replica: Replica, log: ReplicaLog, machine: Follower) -> None:
        self._replica = replica
        self._replica_log = log
        self._log = log.log
        self._machine = machine
        #: When the leader was heard last. The stream to the leader sets it.
        self.contact = Contact()
        self.is_over = False

    async def fetch(
        self, offset: int, *, bytes_max: int, last_epoch: int = -1, at_least_one: bool = True
    ) -> Fetched:
        """Return whole batches from `offset` on, below this replica's own high watermark (KIP-392).

        The arguments and the result are those of LeaderReplica.fetch. The final word about a
        position is the leader's. So a position that this log does not confirm is an
        OffsetNotAvailableError, with which consumers go back to the leader. NotLeaderError says
        that this replica serves no consumer now. Raises OffsetOutOfRangeError below the log's
        start.
        """
        self._check_serves_consumers()
        log, name, high_watermark = self._log, self._replica.name, self._machine.high_watermark
        start, end = log.log_start_offset, log.log_end_offset
        if offset < start:
            raise OffsetOutOfRangeError(f"{name}: offset {offset} is below the start {start}")
        if last_epoch > self._machine.leader_epoch:
            raise hinted(
                UnknownLeaderEpochError(
                    f"{name}: a record of leader_epoch {last_epoch} was read, and "
                    f"{self._machine.leader_epoch} is known here; retry"
                ),
                self._replica.hint,
            )
        if offset > end:
            raise self._ask_the_leader(f"offset {offset} is above this follower's end {end}")
        if offset > high_watermark:
            # Do not compare epochs: records above the high watermark may not be the leader's.
            return Fetched(b"", high_watermark, start)
        if divergence(log.epochs, start, high_watermark, offset, last_epoch) is not None:
            raise self._ask_the_leader(
                f"the record before offset {offset} was of leader_epoch {last_epoch}, and has "
                "another one here"
            )
        if offset == high_watermark or (bytes_max <= 0 and not at_least_one):
            return Fetched(b"", high_watermark, start)
        batches = await self._read(offset, high_watermark, bytes_max, at_least_one)
        return Fetched(batches, high_watermark, log.log_start_offset, log.compaction.has_gaps)

    def _check_serves_consumers(self) -> None:
        """Raise NotLeaderError unless what is below the high watermark is certainly committed.

        After a lossy election, records below the high watermark may be gone from the leader's log:
        until the leader has confirmed this log's end in its leader_epoch, nothing is served. A
        replica that has left the ISR, or does not hear its leader, may be far behind: its consumers
        go back to the leader.
        """
        replica = self._replica
        lag_ms = replica.host.config.replica_lag_time_max_ms
        if not self._machine.has_matched:
            reason = "has not compared its log with the leader's yet"
        elif replica.state is None or replica.broker_id not in replica.state.isr:
            reason = "is not in the ISR"
        elif self.contact.is_silent(loop_ms(), lag_ms):
            reason = f"has not heard the leader for {lag_ms} ms"
        else:
            return
        raise hinted(
            NotLeaderError(
                f"broker {replica.broker_id} follows {replica.name} and {reason}: ask the leader, "
                f"broker {replica.leader}"
            ),
            replica.hint,
        )

    def _ask_the_leader(self, reason: str) -> OffsetNotAvailableError:
        text = f"{self._replica.name}: {reason}; ask the leader, broker {self._replica.leader}"
        return hinted(OffsetNotAvailableError(text), self._replica.hint)

    async def _read(self, offset: int, end: int, bytes_max: int, at_least_one: bool) -> bytes:
        """Read from the log. A bad batch takes this replica offline, and it is repaired."""
        log = self._replica_log
        try:
            found = await self._log.read(
                offset, end=end, bytes_max=bytes_max, at_least_one=at_least_one
            )
        except TryAgainError:
            raise  # the replica stays online
        except StorageError as error:
            if not log.is_closed:
                log.failed(error)
            raise self._replica.not_leader() from error
        if self.is_over:  # the log may have been cut during the read
            raise self._replica.not_leader()
        return found
