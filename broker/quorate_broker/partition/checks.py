"""What a broker checks of batches before they enter a log (law 8): hostile bytes end here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    RecordTooLargeError,
)
from quorate.record import batch as record_batch

if TYPE_CHECKING:
    from quorate.record.batch import BatchHeader
    from quorate_quorum.metadata.configs import TopicConfig

Buffer = bytes | bytearray | memoryview
Write = tuple["BatchHeader", Sequence[Buffer]]

NO_TIMESTAMP = -1


def from_producer(
    batch: Buffer, config: TopicConfig, now_ms: int
) -> tuple[BatchHeader, Buffer, int]:
    """Return (header, batch, time of the append or -1) of a producer's batch that may be written.

    The batch is the one given, unless the topic asks for LogAppendTime. Raises
    RecordTooLargeError, CorruptRecordError, InvalidTimestampError, InvalidRequestError.
    """
    if len(batch) > config.max_message_bytes:
        raise RecordTooLargeError(
            f"a batch of {len(batch)} bytes; max.message.bytes is {config.max_message_bytes}"
        )
    header = record_batch.check(batch, from_producer=True)
    if header.is_transactional:
        raise InvalidRequestError("a transactional batch: transactions are not known here")
    if config.compacts:
        _check_keys(batch)
    if config.message_timestamp_type == "LogAppendTime":
        stamped = record_batch.with_log_append_time(batch, now_ms)
        return record_batch.parse_header(stamped), stamped, now_ms
    bound = now_ms + config.message_timestamp_after_max_ms
    if header.max_timestamp > bound:
        raise InvalidTimestampError(
            f"timestamp {header.max_timestamp} lies beyond {bound} (message.timestamp.after.max.ms)"
        )
    return header, batch, NO_TIMESTAMP


def from_leader(
    batches: Buffer, *, log_end_offset: int, last_epoch: int, leader_epoch: int
) -> list[Write]:
    """Return what to append of a leader's batches: whole, unbroken, and following our log.

    Raises CorruptRecordError: a follower trusts its leader's decisions, not its bytes.
    """
    writes: list[Write] = []
    offset, epoch = log_end_offset, last_epoch
    for _, batch in record_batch.split(batches):
        header = record_batch.check(batch)
        if header.base_offset != offset:
            raise CorruptRecordError(f"a batch at {header.base_offset}; {offset} is next")
        if not epoch <= header.leader_epoch <= leader_epoch:
            raise CorruptRecordError(
                f"a batch of leader_epoch {header.leader_epoch}; {epoch} to {leader_epoch} may be"
            )
        writes.append((header, (batch,)))
        offset, epoch = header.end_offset, header.leader_epoch
    return writes


def _check_keys(batch: Buffer) -> None:
    """A compacted topic keeps the last record of each key, so each record must have one."""
    for record in record_batch.records(batch):
        if record.key is None:
            raise InvalidRequestError("a record without a key, on a topic that is compacted")
