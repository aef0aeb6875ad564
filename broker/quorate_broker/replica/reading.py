"""The consumers' side: whole batches below the high watermark, and offsets of times.

Functions over the replica of partition.py, which holds all state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from quorate.errors import (
    InvalidRequestError,
    LogTruncatedError,
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    UnknownLeaderEpochError,
)
from quorate_broker.replica import admission, guarded
from quorate_broker.replica.checks import NO_TIMESTAMP
from quorate_broker.replica.divergence import Divergence, divergence
from quorate_broker.replica.waiters import hinted

if TYPE_CHECKING:
    from quorate_broker.replica.partition import Partition

EARLIEST = -2
LATEST = -1


class Fetched(NamedTuple):
    """Whole batches below the high watermark, and the bounds as they were when read."""

    batches: bytes
    high_watermark: int
    log_start_offset: int


class DivergedError(LogTruncatedError):
    """The reader's past is not ours."""

    def __init__(self, message: str, divergence: Divergence) -> None:
        super().__init__(message)
        self.divergence = divergence


async def fetch(
    partition: Partition,
    offset: int,
    *,
    bytes_max: int,
    leader_epoch: int,
    last_epoch: int = -1,
    at_least_one: bool = True,
    from_follower: bool = False,
) -> Fetched:
    """See Partition.fetch."""
    admission.check_reader(partition, leader_epoch, from_follower)
    role = partition.role
    high_watermark, start = partition.high_watermark, partition.log_start_offset
    if offset >= start and partition.is_leader:
        _check_past(partition, offset, last_epoch)
    if not start <= offset <= partition.log_end_offset:
        if partition.is_follower and offset > partition.log_end_offset:
            raise OffsetNotAvailableError(f"{partition.name}: this replica has not {offset} yet")
        raise OffsetOutOfRangeError(
            f"{partition.name}: offset {offset} is not in [{start}, {partition.log_end_offset}]"
        )
    if offset >= high_watermark or (bytes_max <= 0 and not at_least_one):
        return Fetched(b"", high_watermark, start)
    batches = await guarded.read_batches(partition, offset, high_watermark, bytes_max, at_least_one)
    if partition.role is not role:  # the log may have been cut under the read
        raise admission.not_leader(partition)
    return Fetched(batches, high_watermark, partition.log_start_offset)


def _check_past(partition: Partition, offset: int, last_epoch: int) -> None:
    """Raise DivergedError if the log holds other records below `offset` than the reader knows."""
    if last_epoch > partition.leader_epoch:  # we are behind: our log proves nothing
        raise hinted(
            UnknownLeaderEpochError(
                f"{partition.name}: a record of leader_epoch {last_epoch} was read, and "
                f"{partition.leader_epoch} is known here; retry"
            ),
            partition.hint,
        )
    start, end = partition.log_start_offset, partition.log_end_offset
    found = divergence(partition.log.epochs, start, end, offset, last_epoch)
    if found is not None:
        raise DivergedError(
            f"{partition.name}: the record before offset {offset} was of leader_epoch "
            f"{last_epoch}; this log's leader_epoch {found.epoch} ends at {found.end_offset}",
            found,
        )


async def list_offset(
    partition: Partition, timestamp_ms: int, leader_epoch: int
) -> tuple[int, int, int]:
    """See Partition.list_offset."""
    leader = admission.require_leader(partition, leader_epoch)
    if timestamp_ms == EARLIEST:
        start = partition.log_start_offset
        return (start, NO_TIMESTAMP, _epoch_at(partition, start))
    if not leader.knows_high_watermark:
        raise OffsetNotAvailableError(
            f"{partition.name}: the high watermark {leader.high_watermark} is not yet known to be "
            f"that of leader_epoch {leader.leader_epoch}; retry"
        )
    high_watermark = leader.high_watermark
    if timestamp_ms == LATEST:
        # The epoch of the record before it, so that a reader can tell of its past (KIP-320).
        return (high_watermark, NO_TIMESTAMP, _epoch_at(partition, high_watermark - 1))
    if timestamp_ms < 0:
        raise InvalidRequestError(f"timestamp {timestamp_ms}: only -2, -1 and 0 or more are")
    with partition.guard:
        found = await guarded.read(
            partition, partition.log.offset_for_time(timestamp_ms, end=high_watermark)
        )
    # else what was found may have been cut since
    admission.require_leader(partition, leader.leader_epoch)
    if found is None:
        return (-1, NO_TIMESTAMP, -1)
    return (found[0], found[1], _epoch_at(partition, found[0]))


def _epoch_at(partition: Partition, offset: int) -> int:
    return partition.log.epochs.epoch_at(offset)
