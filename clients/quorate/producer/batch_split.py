"""Splits a batch that is too large into parts.

The parts divide the batch's sequences among them, in order and without a gap. So later batches of
the partition keep their sequences (KIP-126). This is safe only if the batch was certainly not
written.
"""

from __future__ import annotations

from quorate.producer.partition_queue import Batch
from quorate.record.batch import SEQUENCE_MAX
from quorate.record.column_builder import ColumnBuilder
from quorate.record.record import record_bytes_max


def parts_of(batch: Batch, bytes_max: int) -> list[Batch]:
    """Return the batch's records, in order, as batches of at most `bytes_max`, or of one record.

    Each part takes over the batch's deadline, attempts, time of the first attempt and place in the
    order. It gets its share of the batch's sequences.
    """
    parts: list[Batch] = []
    builder: ColumnBuilder | None = None
    for record in batch.builder.raw_records():
        size = record_bytes_max(record.key, record.value, record.headers)
        if builder is not None and builder.size + size > bytes_max:
            builder.settle()
        if builder is None or builder.size + size > bytes_max:
            builder = ColumnBuilder(codec=batch.builder.codec, level=batch.builder.level)
            parts.append(_part(batch, builder, len(parts), record.offset))
        builder.append(record.timestamp_ms, record.key, record.value, record.headers, size)
    _share_observed(batch, parts)
    return parts


def _part(batch: Batch, builder: ColumnBuilder, place: int, start: int) -> Batch:
    part = Batch(batch.queue, builder, batch.opened_at, batch.deadline, (*batch.number, place))
    part.attempts = batch.attempts
    part.first_sent_at = batch.first_sent_at
    part.refusal = batch.refusal
    part.urgent = batch.urgent
    part.on_end = batch.on_end
    if batch.base_sequence >= 0:
        part.base_sequence = (batch.base_sequence + start) & SEQUENCE_MAX
        builder.producer_id = batch.builder.producer_id
        builder.producer_epoch = batch.builder.producer_epoch
        builder.base_sequence = part.base_sequence
    return part


def _share_observed(batch: Batch, parts: list[Batch]) -> None:
    start = 0
    for part in parts:
        seen = {index - start for index in batch.observed or () if 0 <= index - start < part.count}
        part.observed = seen or None
        start += part.count
