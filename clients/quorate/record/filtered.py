"""A batch with only some of its records: what compaction reads of batches, and what it writes.

The records that stay are copied as bytes. So their offsets, timestamps, keys, values and headers do
not change, and neither does the codec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crc32c import crc32c

from quorate.record import compression
from quorate.record.batch import (
    CODEC_MASK,
    DELETE_HORIZON,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    MAGIC,
    NONE,
    BatchHeader,
    Buffer,
    record_bytes,
)
from quorate.record.record import with_timestamp_delta
from quorate.record.walks import Outline, decode_last_offsets, decode_outlines

#: The bytes of base_offset and batch_length, and the bytes before the part that the CRC covers.
_BEFORE_LENGTH, _BEFORE_CRC_COVERS = 12, 21


Outlines = Iterator[Outline]


def outlines(batch: Buffer, header: BatchHeader) -> tuple[bytes, Outlines]:
    """Return a batch's records as decompressed bytes, and an iterator over their outlines in them.

    Call `check` first. Raises the errors of `records`. The iterator may raise them too.
    """
    data, position = record_bytes(batch, header)
    return data, decode_outlines(
        data, position, count=header.count, last_offset_delta=header.last_offset_delta
    )


def last_offsets(batch: Buffer, header: BatchHeader) -> tuple[dict[bytes, int], bool]:
    """Return the last offset of each key of a batch, and whether all its records have keys.

    Raises the errors of `outlines`.
    """
    data, position = record_bytes(batch, header)
    return decode_last_offsets(
        data,
        position,
        count=header.count,
        base_offset=header.base_offset,
        last_offset_delta=header.last_offset_delta,
    )


def with_records(
    header: BatchHeader,
    data: bytes,
    kept: Sequence[Outline],
    *,
    delete_horizon_ms: int | None = None,
) -> bytes:
    """Return the batch with only some of its records. These records and the codec do not change.

    `data` and `kept` come from `outlines`. A delete horizon becomes the new base_timestamp, and the
    bit DELETE_HORIZON says so (KIP-534).
    """
    if delete_horizon_ms is None:
        pieces = [data[start:stop] for start, stop, *_ in kept]
    else:
        shift = header.base_timestamp - delete_horizon_ms
        pieces = [
            with_timestamp_delta(data[start:stop], delta + shift) for start, stop, delta, *_ in kept
        ]
    newest = header.max_timestamp
    if not header.attributes & LOG_APPEND_TIME:
        newest = max(header.base_timestamp + max(delta for _, _, delta, *_ in kept), NONE)
    return _rebuilt(
        header,
        attributes=header.attributes | (0 if delete_horizon_ms is None else DELETE_HORIZON),
        base_timestamp=header.base_timestamp if delete_horizon_ms is None else delete_horizon_ms,
        max_timestamp=newest,
        count=len(kept),
        body=compression.compress(header.codec, b"".join(pieces)),
    )


def emptied(header: BatchHeader) -> bytes:
    """Return the batch without records. Its offsets, epoch and producer's sequences stay.

    The batch has no timestamp: Kafka's tools compare the time index with the records, and would
    report a timestamp that no record has.
    """
    return _rebuilt(
        header,
        attributes=header.attributes & ~(CODEC_MASK | DELETE_HORIZON),
        base_timestamp=NONE,
        max_timestamp=NONE,
        count=0,
        body=b"",
    )


def _rebuilt(
    header: BatchHeader,
    *,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int,
    count: int,
    body: bytes,
) -> bytes:
    """Return a batch with another body. Offsets, epoch and producer are those of `header`."""
    fields = [
        header.base_offset,
        HEADER_BYTES - _BEFORE_LENGTH + len(body),
        header.leader_epoch,
        MAGIC,
        0,  # the CRC is computed at the end
        attributes,
        header.last_offset_delta,
        base_timestamp,
        max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        count,
    ]
    covered = HEADER.pack(*fields)[_BEFORE_CRC_COVERS:]
    fields[4] = crc32c(body, crc32c(covered))
    return HEADER.pack(*fields) + body
