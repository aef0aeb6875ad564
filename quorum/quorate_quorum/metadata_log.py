"""Checks the epoch of each batch of a metadata log.

A batch's CRC does not cover its leader_epoch (the format is Kafka's). If a bit flips in that field,
the log's last epoch may be too high, and the log counts as the most complete. Its voter could win
elections that it must lose, and committed records would be lost. But every epoch begins with an
EpochStart event, which the CRC covers. So a batch must have the epoch of the newest EpochStart at
or before it. A batch before the first EpochStart must have epoch 0; a batch right above a snapshot,
the snapshot's epoch.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Buffer, Disk
from quorate_quorum.log.epochs import misfit
from quorate_quorum.log.events import EVENTS_BYTES_MAX
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.snapshots.file import SnapshotId, newest
from quorate_quorum.v1.events_pb2 import MetadataEvent

#: The first byte of an encoded MetadataEvent that holds EpochStart: field 1, length-delimited.
EPOCH_START_TAG = 0x0A


def epoch_started_by(value: bytes | None, header: BatchHeader) -> int | None:
    """Return the epoch that an event of this batch begins; None if the event is no EpochStart.

    CorruptRecordError if the event can't be decoded, or if it is not alone in its batch.
    """
    if not value or value[0] != EPOCH_START_TAG:
        return None
    if header.count != 1:
        raise CorruptRecordError(
            f"the batch at {header.base_offset} has an EpochStart among its {header.count} events"
        )
    try:
        epoch = MetadataEvent.FromString(value).epoch_start.epoch
    except DecodeError as error:
        raise CorruptRecordError(f"an EpochStart at {header.base_offset}: {error}") from None
    if epoch < 1:
        raise CorruptRecordError(f"the EpochStart at {header.base_offset} is of epoch {epoch}")
    return epoch


class EpochChain:
    """Checks the epoch of every batch of a metadata log, in order from its start."""

    def __init__(self, snapshot: SnapshotId | None = None) -> None:
        self._snapshot = snapshot
        #: The epoch of the batch before the next one; None: not known, because the log begins below
        #: the snapshot.
        self._epoch: int | None = -1
        self._has_begun = False

    @property
    def epoch(self) -> int:
        """The epoch of the last inspected batch, by the EpochStarts; -1 before the first batch."""
        return -1 if self._epoch is None else self._epoch

    def inspect(self, header: BatchHeader, batch: Buffer) -> None:
        """Check the next batch. CorruptRecordError if its epoch is wrong.

        After an error, the next batches are still compared with the EpochStarts.
        """
        if not self._has_begun:
            self._has_begun = True
            self._epoch = self._epoch_before(header.base_offset)
        started = None
        if header.count == 1:
            for record in record_batch.records(batch, size_max=EVENTS_BYTES_MAX):
                started = epoch_started_by(record.value, header)
        reason = misfit(header.leader_epoch, started, self._epoch)
        if started is not None:
            self._epoch = started
        else:
            self._epoch = header.leader_epoch if self._epoch is None else max(self._epoch, 0)
        if reason is not None:
            raise CorruptRecordError(f"the batch at {header.base_offset}: {reason}")

    def _epoch_before(self, offset: int) -> int | None:
        if offset == 0:
            return -1
        if self._snapshot is not None and self._snapshot.offset == offset:
            return self._snapshot.epoch
        return None


async def open_metadata_log(disk: Disk, directory: str, config: LogConfig) -> Log:
    """Open a metadata log, and check each of its batches.

    Bad batches above the synced end are cut. LogCorruptError if a batch below that end is bad.
    StorageError if the disk fails.
    """
    assert config.verify_all
    assert config.track_synced
    chain = EpochChain(await newest(disk, directory))
    return await Log.open(disk, directory, config, inspect=chain.inspect)
