"""A replica that leads: its answers to producers, consumers and followers in one reign."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quorate.aio.clock import loop_ms
from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    LogTruncatedError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    StorageError,
    UnknownLeaderEpochError,
)
from quorate_broker.replica.checks import NO_TIMESTAMP
from quorate_broker.replica.damage import Damage
from quorate_broker.replica.divergence import Divergence, divergence
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.hints import hinted
from quorate_broker.replica.in_sync_replicas import Proposal
from quorate_broker.replica.isr_entries import IsrEntries
from quorate_broker.replica.leader import Leader, ReplicaStream
from quorate_broker.replica.log_start import LogStart
from quorate_broker.replica.produce_queue import ProduceQueue
from quorate_broker.replica.producers import Producers
from quorate_broker.replica.replica import Replica
from quorate_broker.replica.replica_log import ReplicaLog
from quorate_broker.v1.replica_pb2 import ReplicaDiverging, ReplicaFetchPartition
from quorate_quorum.log.disk_errors import TryAgainError
from quorate_quorum.log.log import LogCorruptError
from quorate_quorum.metadata.partitions import PartitionImage

T = TypeVar("T")

#: The timestamps of ListOffsets that mean the record with the greatest timestamp, and the start and
#: the high watermark of the log.
GREATEST_TIME = -3
EARLIEST = -2
LATEST = -1
#: Pause before the next try of a sync that failed for the moment (too many open files).
SYNC_AGAIN_S = 0.1


class DivergedError(LogTruncatedError):
    """The log has other records than those that the reader has read."""

    def __init__(self, message: str, divergence: Divergence) -> None:
        super().__init__(message)
        self.divergence = divergence


class LeaderReplica:
    """One reign over a partition. The Leader machine decides; this class reads, syncs and answers.

    The object is made when this broker becomes the leader in a leader_epoch, and dropped at the
    next change of role. After each wait it checks `is_over`: after the reign, the records that it
    read or wrote may be cut. `earlier`: this broker's reign just before, if no other broker led
    since. It ends here, and the batches of producers that wait in it go on to wait in this one.

    With flush.on.ack this broker's own end counts for the high watermark when it is synced,
    otherwise when it is written.
    """

    def __init__(
        self,
        replica: Replica,
        log: ReplicaLog,
        producers: Producers,
        damage: Damage,
        state: PartitionImage,
        min_isr: int,
        earlier: LeaderReplica | None = None,
    ) -> None:
        self._replica = replica
        self._replica_log = log
        self._log = log.log
        self.damage = damage
        config = replica.host.config
        own_end = log.log.synced_end if replica.config.flush_on_ack else log.log.log_end_offset
        self.machine = Leader.begin(
            broker_id=config.node_id,
            leader_epoch=state.leader_epoch,
            log_end_offset=self._log.log_end_offset,
            own_end=own_end,
            high_watermark=self._log.high_watermark,
            partition_epoch=state.partition_epoch,
            isr=state.isr,
            replicas=state.broker_ids,
            min_isr=min_isr,
            lag_ms=config.replica_lag_time_max_ms,
            now_ms=loop_ms(),
        )
        log.set_high_watermark(self.machine.high_watermark, self._log.hw_epoch)
        self.leader_epoch = state.leader_epoch
        self.queue = ProduceQueue(replica, log, self.machine, producers, self._count_own_end)
        self.log_start = LogStart(replica, log, self.machine)
        self.entries = IsrEntries(replica, log, self.machine, self._advance)
        self._is_syncing = False
        self.is_over = False
        if earlier is not None:
            self.queue.go_on(earlier.queue)
            earlier.end()
        self._save_own_end()
        self._isr_changed()

    def update(self, state: PartitionImage, min_isr: int) -> None:
        """Take over the ISR and the replicas from an image of this same reign."""
        self.machine.min_isr = min_isr
        self.machine.update(state.partition_epoch, state.isr, state.broker_ids, loop_ms())
        self._isr_changed()

    def end(self) -> None:
        """End the reign. Batches that wait for their commit fail with OutcomeUnknownError."""
        self.is_over = True
        self.log_start.end()
        self.entries.end()
        self.queue.end()

    # consumers

    async def fetch(
        self, offset: int, *, bytes_max: int, last_epoch: int = -1, at_least_one: bool = True
    ) -> Fetched:
        """Return whole batches from `offset` on, below the high watermark.

        `last_epoch` is the epoch of the last record below `offset` that the reader knows; -1: not
        known. The result is empty for an offset in [high_watermark, log_end_offset]. Raises
        OffsetOutOfRangeError if `offset` is outside the log, the errors of _check_past, and
        CorruptRecordError, NotLeaderError or StorageError if the read fails.
        """
        start, end = self._log.log_start_offset, self._log.log_end_offset
        if offset >= start:
            self._check_past(offset, last_epoch)
        if not start <= offset <= end:
            raise OffsetOutOfRangeError(
                f"{self._replica.name}: offset {offset} is not in [{start}, {end}]"
            )
        high_watermark = self.machine.high_watermark
        if offset >= high_watermark or (bytes_max <= 0 and not at_least_one):
            return Fetched(b"", high_watermark, start)
        batches = await self._read_batches(offset, high_watermark, bytes_max, at_least_one)
        start, has_gaps = self._log.log_start_offset, self._log.compaction.has_gaps
        return Fetched(batches, high_watermark, start, has_gaps)

    def _check_past(self, offset: int, last_epoch: int) -> None:
        """Raise DivergedError if the log has other records below `offset` than the reader knows.

        Raises UnknownLeaderEpochError if the reader knows a later epoch. Then this broker is
        behind, and its log proves nothing about the reader's records.
        """
        name = self._replica.name
        if last_epoch > self.leader_epoch:
            raise hinted(
                UnknownLeaderEpochError(
                    f"{name}: a record of leader_epoch {last_epoch} was read, and "
                    f"{self.leader_epoch} is known here; retry"
                ),
                self._replica.hint,
            )
        start, end = self._log.log_start_offset, self._log.log_end_offset
        found = divergence(self._log.epochs, start, end, offset, last_epoch)
        if found is not None:
            raise DivergedError(
                f"{name}: the record before offset {offset} was of leader_epoch "
                f"{last_epoch}; this log's leader_epoch {found.epoch} ends at {found.end_offset}",
                found,
            )

    async def list_offset(self, timestamp_ms: int) -> tuple[int, int, int]:
        """Return (offset, timestamp, leader_epoch) of the first record at or after a time.

        The offset is -1 if no record is that late. The time -3 means the greatest one, -2 the log's
        start, -1 the high watermark. Raises OffsetNotAvailableError while a new leader does not
        know its high watermark, InvalidRequestError for another time below 0, and those of `fetch`.
        """
        if timestamp_ms == EARLIEST:
            start = self._log.log_start_offset
            return (start, NO_TIMESTAMP, self._epoch_at(start))
        high_watermark = self.machine.high_watermark
        if not self.machine.knows_high_watermark:
            raise OffsetNotAvailableError(
                f"{self._replica.name}: the high watermark {high_watermark} is not yet known to be "
                f"that of leader_epoch {self.leader_epoch}; retry"
            )
        if timestamp_ms == LATEST:
            # the epoch of the record before it, because a reader's first fetch has it (KIP-320)
            return (high_watermark, NO_TIMESTAMP, self._epoch_at(high_watermark - 1))
        if timestamp_ms < GREATEST_TIME:
            raise InvalidRequestError(f"timestamp {timestamp_ms}: only -3 or more is")
        wanted_ms = None if timestamp_ms == GREATEST_TIME else timestamp_ms
        with self._replica_log.guard:
            found = await self._read(self._log.offset_for_time(wanted_ms, end=high_watermark))
        if found is None:
            return (-1, NO_TIMESTAMP, -1)
        return (found[0], found[1], self._epoch_at(found[0]))

    def _epoch_at(self, offset: int) -> int:
        return self._log.epochs.epoch_at(offset)

    # followers

    def follower_fetch(
        self, stream: ReplicaStream, request: ReplicaFetchPartition, now_ms: int
    ) -> ReplicaDiverging | None:
        """Take a follower's position. Return where its records diverge; None if they agree.

        A fetch that diverges, is out of range, or comes from a replaced stream or another
        leader_epoch changes no state: it must not count as an acknowledgement. Raises
        FencedLeaderEpochError, UnknownLeaderEpochError, OffsetOutOfRangeError, StorageError.
        """
        self._replica.check_epoch(request.leader_epoch, self.leader_epoch)
        if stream.replica_id not in self.machine.replicas:
            raise self._replica.not_assigned(stream.replica_id)
        diverging = self._diverging(request.fetch_offset, request.last_fetched_epoch)
        if diverging is not None:
            return diverging
        if request.was_corrupt:
            self.damage.suspect(request.fetch_offset)
        with self._replica_log.guard:
            if self.machine.record_fetch(stream, request.fetch_offset, now_ms):
                self.log_start.told(stream, request.log_start_offset)
                self.entries.fetched(stream, now_ms)
                self._advance()
                if self.machine.wants_to_expand:
                    self._replica.isr_wanted()
        return None

    def _diverging(self, fetch_offset: int, last_epoch: int) -> ReplicaDiverging | None:
        """Compare a follower's records with this log. Raise OffsetOutOfRangeError."""
        start, end, name = self._log.log_start_offset, self._log.log_end_offset, self._replica.name
        if fetch_offset < start:
            raise OffsetOutOfRangeError(f"{name}: {fetch_offset} is below the start {start}")
        found = divergence(self._log.epochs, start, end, fetch_offset, last_epoch)
        if found is not None:
            return ReplicaDiverging(epoch=found.epoch, end_offset=found.end_offset)
        if fetch_offset > end:
            raise OffsetOutOfRangeError(f"{name}: {fetch_offset} is above the end {end}")
        return None

    async def read_for_follower(self, offset: int, *, bytes_max: int) -> bytes:
        """Return whole batches from `offset` up to the log's end, at least one if there is one."""
        return await self._read_batches(offset, self._log.log_end_offset, bytes_max, True)

    # reading

    async def _read_batches(
        self, offset: int, end: int, bytes_max: int, at_least_one: bool
    ) -> bytes:
        reading = self._log.read(offset, end=end, bytes_max=bytes_max, at_least_one=at_least_one)
        return await self._read(reading)

    async def _read(self, reading: Awaitable[T]) -> T:
        """Await a read of the log. After an error, only this replica or its disk goes offline."""
        try:
            found = await reading
        except TryAgainError:
            raise  # the replica stays online
        except LogCorruptError as error:
            if self._replica.is_leader and not self._replica_log.is_closed:
                self.damage.found(str(error))
                raise CorruptRecordError(
                    f"{self._replica.name}: a batch is damaged on the disk of its leader, broker "
                    f"{self._replica.broker_id}; what else there is can be read: {error}"
                ) from error
            self._replica_log.failed(error)
            raise self._replica.not_leader() from error  # the reign ended during the read
        except StorageError as error:
            if self._replica_log.is_closed:  # no fault of the disk: the log was closed meanwhile
                raise self._replica.not_leader() from error
            self._replica_log.failed(error)
        else:
            if self.is_over:  # the log may have been cut during the read
                raise self._replica.not_leader()
            return found
        raise self._replica.offline_error()

    # what is committed

    def _count_own_end(self) -> None:
        """Count this broker's own end, after it has moved. The high watermark may move, too."""
        self._save_own_end()
        self._advance()

    def _save_own_end(self) -> None:
        if not self._replica.config.flush_on_ack:
            self.machine.saved(self._log.log_end_offset)
            return
        self.machine.saved(min(self._log.synced_end, self.machine.log_end_offset))
        if not self._replica_log.is_synced and not self._is_syncing:
            self._is_syncing = True
            self._replica_log.start(self._sync_behind(), "sync")

    async def _sync_behind(self) -> None:
        """Sync until all appended bytes are synced. Appends during a sync share the next sync."""
        try:
            while not self.is_over and not self._replica_log.is_synced:
                try:
                    await self._log.sync()
                except TryAgainError:
                    await asyncio.sleep(SYNC_AGAIN_S)
                    continue
                if not self.is_over:
                    self.machine.saved(min(self._log.synced_end, self.machine.log_end_offset))
                    self._advance()
        finally:
            self._is_syncing = False

    def _advance(self) -> None:
        """Move the high watermark as far as the ISR allows, and answer the batches that waited."""
        moved = self.machine.advance()
        if self.machine.is_confirmed and self._log.hw_epoch != self.leader_epoch:
            self._replica_log.set_high_watermark(self._log.high_watermark, self.leader_epoch)
        if not moved:
            return
        self._replica_log.set_high_watermark(self.machine.high_watermark, self.leader_epoch)
        self.queue.waits.committed(self.machine.high_watermark)
        self._replica.wake_all()

    # the ISR

    def isr_accepted(self, proposal: Proposal, leader_epoch: int, partition_epoch: int) -> None:
        """Do not use the new ISR yet: wait for the image that has the accepted proposal.

        The metadata log may raise min.insync.replicas before it accepts the proposal. With the new
        ISR and the old min ISR, this leader would commit records that a member of the ELR lacks.
        """
        in_sync = self.machine.in_sync
        is_coming = leader_epoch == self.leader_epoch and partition_epoch > in_sync.partition_epoch
        if not is_coming:
            in_sync.lost(proposal, loop_ms())

    def isr_refused(self, proposal: Proposal) -> None:
        with self._replica_log.guard:
            self.machine.in_sync.refused(proposal)
            self._advance()

    def isr_lost(self, proposal: Proposal) -> None:
        """Send a proposal again later, because it has no answer, or one that decides nothing."""
        self.machine.in_sync.lost(proposal, loop_ms())

    def propose_isr(
        self, now_ms: int, broker_epoch: int, eligible_epoch: Callable[[int], int]
    ) -> Proposal | None:
        """Return the ISR to propose to the controller now, or None. See Leader.propose."""
        with self._replica_log.guard:
            return self.machine.propose(now_ms, broker_epoch, eligible_epoch)

    def _isr_changed(self) -> None:
        if not self.machine.has_enough_replicas:
            self.queue.waits.isr_shrank()
        self._advance()
