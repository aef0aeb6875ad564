"""Kafka record batch v2: build, parse, check, stamp and read.

A batch is encoded once, in the producer, and decoded once, in the consumer. In between, servers
check its header and CRC, stamp base_offset and leader_epoch (which the CRC does not cover) and
move bytes. All bytes may be hostile: whatever is wrong with them is raised as a CorruptRecordError,
and as nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from quorate.errors import CorruptRecordError, InvalidTimestampError
from quorate.model import Header, TimestampType
from quorate.record import compression
from quorate.record.record import (
    INT64_MAX,
    RECORD_BYTES_MIN,
    RawRecord,
    decode_records,
    encode_record,
)
from quorate.record.record import find_by_time as record_by_time

Buffer = bytes | bytearray | memoryview

HEADER: Final = struct.Struct(
    ">"
    "q"  # base_offset: outside the CRC, so that the leader may stamp it
    "i"  # batch_length: the bytes after this field
    "i"  # leader_epoch: outside the CRC, so that the leader may stamp it
    "b"  # magic: 2
    "I"  # crc: CRC-32C of all that follows
    "h"  # attributes: codec (bits 0-2), and the flags below
    "i"  # last_offset_delta
    "q"  # base_timestamp: the first record's
    "q"  # max_timestamp
    "q"  # producer_id: -1 if none
    "h"  # producer_epoch: -1 if none
    "i"  # base_sequence: -1 if none
    "i"  # count of records
)
HEADER_BYTES: Final = HEADER.size
MAGIC: Final = 2

CODEC_MASK: Final = 0x07
LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20
#: base_timestamp says when the batch's tombstones may go (KIP-534); only compaction sets it.
DELETE_HORIZON: Final = 0x40
_KNOWN_ATTRIBUTES: Final = 0x7F

#: Milliseconds; the sum of a timestamp and a delta still fits 64 bits.
TIMESTAMP_MAX: Final = 1 << 62
#: No timestamp; also no producer_id, producer_epoch, base_sequence or leader_epoch.
NONE: Final = -1
#: The most that `records` decompresses by default.
DECOMPRESSED_BYTES_MAX: Final = 64 << 20
#: Sequences wrap from here to 0.
SEQUENCE_MAX: Final = (1 << 31) - 1

_BEFORE_LENGTH: Final = 12  # bytes of base_offset and batch_length
_BEFORE_CRC_COVERS: Final = 21  # bytes up to and with the crc
_STAMPED: Final = 16  # bytes of base_offset, batch_length, leader_epoch
_OFFSET: Final = struct.Struct(">q")
_INT32: Final = struct.Struct(">i")
_UINT32: Final = struct.Struct(">I")
_PREFIX: Final = struct.Struct(">qii")
_COVERED: Final = struct.Struct(">hiqqqhii")  # the header's part that the CRC covers


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """The header of one batch. Its values are possible; `check` also checks the CRC."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.batch_length + _BEFORE_LENGTH

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def end_offset(self) -> int:
        """One past the last offset."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self) -> TimestampType:
        return "log_append_time" if self.attributes & LOG_APPEND_TIME else "create_time"

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def last_sequence(self) -> int:
        """The last record's sequence, -1 without a producer_id; sequences wrap at 2**31."""
        if self.producer_id == NONE:
            return NONE
        return (self.base_sequence + self.last_offset_delta) & SEQUENCE_MAX


class BatchBuilder:
    """A batch that grows record by record, kept as a list of pieces and joined once.

    `producer_id`, `producer_epoch` and `base_sequence` may be set until `build`.
    """

    __slots__ = (
        "_base_timestamp",
        "_max_timestamp",
        "_pieces",
        "base_sequence",
        "codec",
        "count",
        "producer_epoch",
        "producer_id",
        "size",
    )

    def __init__(
        self,
        *,
        codec: int = compression.NONE,
        producer_id: int = NONE,
        producer_epoch: int = NONE,
        base_sequence: int = NONE,
    ) -> None:
        self.codec = codec
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.base_sequence = base_sequence
        #: Records so far.
        self.count = 0
        #: Bytes that the batch will have at most; exact unless it is compressed.
        self.size = HEADER_BYTES
        self._pieces: list[bytes] = []
        self._base_timestamp = NONE
        self._max_timestamp = NONE

    def append(
        self,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
    ) -> int:
        """Add a record and return its index in the batch.

        TypeError if key or value is not bytes or None or timestamp_ms no whole number,
        InvalidTimestampError if timestamp_ms is
        not -1 (none) to 2**62; the batch is then as it was.
        """
        if key.__class__ is not bytes and key is not None:
            key = _as_bytes("key", key)
        if value.__class__ is not bytes and value is not None:
            value = _as_bytes("value", value)
        if not NONE <= timestamp_ms <= TIMESTAMP_MAX:
            raise InvalidTimestampError(
                f"timestamp_ms must be -1 (none) to {TIMESTAMP_MAX}, not {timestamp_ms}"
            )
        index = self.count
        if index:
            delta = timestamp_ms - self._base_timestamp
        else:
            if not isinstance(timestamp_ms, int):  # a later one fails when its delta is encoded
                raise TypeError(f"timestamp_ms must be a whole number, not {timestamp_ms!r}")
            delta = 0
            self._base_timestamp = timestamp_ms
        self.size += encode_record(self._pieces, delta, index, key, value, headers)
        if timestamp_ms > self._max_timestamp:  # noqa: PLR1730 - max() costs more than the rest
            self._max_timestamp = timestamp_ms
        self.count = index + 1
        return index

    def records(self) -> Iterator[RawRecord]:
        """Yield the records so far; their offsets are their places in the batch."""
        return decode_records(
            b"".join(self._pieces),
            0,
            count=self.count,
            base_offset=0,
            last_offset_delta=self.count - 1,
            base_timestamp=self._base_timestamp,
            log_append_time=None,
        )

    def release(self) -> None:
        """Free the records' bytes: nothing can be built or read any more; count and size stay."""
        self._pieces = []

    def build(self, *, base_offset: int = 0, leader_epoch: int = NONE) -> bytes:
        """Return the batch. It may be built again, with another sequence too."""
        assert self._pieces, "a batch has at least one record, and is not released"
        pieces = self._pieces
        size = self.size
        codec = self.codec
        if codec != compression.NONE:
            compressed = compression.compress(codec, b"".join(pieces))
            if HEADER_BYTES + len(compressed) < size:
                pieces = [compressed]
                size = HEADER_BYTES + len(compressed)
            else:  # bytes that compression does not make smaller stay as they are
                codec = compression.NONE
        covered = _COVERED.pack(
            codec,
            self.count - 1,
            self._base_timestamp,
            self._max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.count,
        )
        batch = bytearray().join(
            (
                _PREFIX.pack(base_offset, size - _BEFORE_LENGTH, leader_epoch),
                bytes((MAGIC, 0, 0, 0, 0)),
                covered,
                *pieces,
            )
        )
        return _with_crc(batch)


def parse_header(buffer: Buffer, position: int = 0, *, from_producer: bool = False) -> BatchHeader:
    """Return the header at `position`; only its 61 bytes need be there.

    With `from_producer`, base_offset is 0 and leader_epoch -1 whatever the bytes say: the leader
    stamps both. CorruptRecordError if it is cut or impossible. The CRC is `check`'s.
    """
    try:
        fields = HEADER.unpack_from(buffer, position)
    except struct.error:
        raise CorruptRecordError(
            f"a batch header has {HEADER_BYTES} bytes; "
            f"at byte {position} there are {max(len(buffer) - position, 0)}"
        ) from None
    if fields[3] != MAGIC:
        raise CorruptRecordError(f"a batch at byte {position} has magic {fields[3]}, not {MAGIC}")
    base_offset, batch_length, leader_epoch = fields[:3]
    if from_producer:
        base_offset, leader_epoch = 0, NONE
    header = BatchHeader(base_offset, batch_length, leader_epoch, *fields[4:])
    wrong = _impossible(header)
    if wrong:
        raise CorruptRecordError(f"a batch at byte {position} is impossible: {wrong}")
    return header


def split(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Yield each batch of `buffer` as a view; CorruptRecordError at an impossible or cut one."""
    view = memoryview(buffer)
    position = 0
    while position < len(view):
        header = parse_header(view, position)
        end = position + header.size
        if end > len(view):
            raise CorruptRecordError(
                f"a batch at byte {position} says {header.size} bytes, "
                f"and {len(view) - position} follow"
            )
        yield header, view[position:end]
        position = end


def complete_prefix(buffer: Buffer) -> int:
    """Return how many bytes at the start are whole batches; what follows them may be cut.

    CorruptRecordError if a length is impossible.
    """
    position = 0
    while position + HEADER_BYTES <= len(buffer):
        (batch_length,) = _INT32.unpack_from(buffer, position + 8)
        if batch_length < HEADER_BYTES - _BEFORE_LENGTH:
            raise CorruptRecordError(
                f"a batch at byte {position} is impossible: {_short(batch_length)}"
            )
        end = position + _BEFORE_LENGTH + int(batch_length)
        if end > len(buffer):
            break
        position = end
    return position


def check(
    batch: Buffer, header: BatchHeader | None = None, *, from_producer: bool = False
) -> BatchHeader:
    """Return the header of exactly one batch whose arithmetic and CRC hold.

    `header`: as parsed from these bytes already. With `from_producer`, it must also be what a
    producer may send: every offset of it has a record, and no mark of a leader or of compaction.
    Raises CorruptRecordError.
    """
    header = header or parse_header(batch, from_producer=from_producer)
    if header.size != len(batch):
        raise CorruptRecordError(f"a batch says {header.size} bytes, and has {len(batch)}")
    crc = crc32c(memoryview(batch)[_BEFORE_CRC_COVERS:])
    if crc != header.crc:
        raise CorruptRecordError(
            f"a batch at offset {header.base_offset} says CRC {header.crc:#010x}, "
            f"and its bytes have {crc:#010x}"
        )
    wrong = _impossible_from_producer(header) if from_producer else None
    if wrong:
        raise CorruptRecordError(f"a producer's batch is impossible: {wrong}")
    return header


def stamp(batch: bytearray | memoryview, *, base_offset: int, leader_epoch: int) -> None:
    """Write both into the batch, in place; the CRC does not cover them."""
    _OFFSET.pack_into(batch, 0, base_offset)
    _INT32.pack_into(batch, _BEFORE_LENGTH, leader_epoch)


def stamped_prefix(batch: Buffer, *, base_offset: int, leader_epoch: int) -> bytes:
    """Return the first 16 bytes of the stamped batch; the rest of it, batch[16:], is unchanged."""
    (batch_length,) = _INT32.unpack_from(batch, 8)
    return _PREFIX.pack(base_offset, batch_length, leader_epoch)


def with_log_append_time(batch: Buffer, now_ms: int) -> bytes:
    """Return the batch with LogAppendTime `now_ms`. Nothing else rewrites header and CRC."""
    changed = bytearray(batch)
    covered = list(_COVERED.unpack_from(changed, _BEFORE_CRC_COVERS))
    covered[0] |= LOG_APPEND_TIME
    covered[3] = now_ms
    _COVERED.pack_into(changed, _BEFORE_CRC_COVERS, *covered)
    return _with_crc(changed)


def decompressed_size_bound(batch: Buffer, header: BatchHeader) -> int:
    """Return a number of bytes that the batch's records cannot exceed, without decompressing.

    `records` refuses a batch whose bound is above its `size_max`. So a broker asks the same
    question before it accepts a batch: what was acknowledged can be read. UnsupportedError for a
    codec that is not installed, CorruptRecordError for impossible compressed bytes.
    """
    return compression.size_bound(header.codec, memoryview(batch)[HEADER_BYTES:])


def records(
    batch: Buffer,
    header: BatchHeader | None = None,
    *,
    size_max: int = DECOMPRESSED_BYTES_MAX,
) -> Iterator[RawRecord]:
    """Yield the records of one batch, decoding each when it is asked for.

    `header`: as parsed from these bytes already. The CRC is not looked at: `check` the batch
    first. CorruptRecordError for impossible bytes, or if `decompressed_size_bound` is above
    `size_max`; UnsupportedError for a codec that is not there.
    """
    header = header or parse_header(batch)
    data, position = _record_bytes(batch, header, size_max)
    return decode_records(
        data,
        position,
        count=header.count,
        base_offset=header.base_offset,
        last_offset_delta=header.last_offset_delta,
        base_timestamp=header.base_timestamp,
        log_append_time=(header.max_timestamp if header.attributes & LOG_APPEND_TIME else None),
    )


def find_by_time(batch: Buffer, header: BatchHeader, timestamp_ms: int) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first record at or after a time, None if there is none.

    Raises what `records` raises, for as much as it looks at.
    """
    if header.attributes & LOG_APPEND_TIME:  # all records have the same
        first = next(records(batch, header), None)
        is_late = first is not None and first.timestamp_ms >= timestamp_ms
        return (first.offset, first.timestamp_ms) if first is not None and is_late else None
    data, position = _record_bytes(batch, header, DECOMPRESSED_BYTES_MAX)
    return record_by_time(
        data,
        position,
        count=header.count,
        base_offset=header.base_offset,
        base_timestamp=header.base_timestamp,
        timestamp_ms=timestamp_ms,
    )


def _record_bytes(batch: Buffer, header: BatchHeader, size_max: int) -> tuple[bytes, int]:
    """Return bytes that hold the records, decompressed, and where in them the records begin."""
    if header.size != len(batch):
        raise CorruptRecordError(f"a batch says {header.size} bytes, and has {len(batch)}")
    if header.codec == compression.NONE:
        return bytes(batch), HEADER_BYTES
    compressed = memoryview(batch)[HEADER_BYTES:]
    return compression.decompress(header.codec, compressed, size_max), 0


def _impossible(header: BatchHeader) -> str | None:
    """Return why a header is impossible in a log, or None."""
    body = header.batch_length + _BEFORE_LENGTH - HEADER_BYTES
    if body < 0:
        return _short(header.batch_length)
    if header.attributes & ~_KNOWN_ATTRIBUTES:
        return f"attributes {header.attributes:#06x} has bits that are not known"
    if header.codec > compression.ZSTD:
        return f"codec {header.codec} is not known"
    if header.base_offset < 0 or header.last_offset_delta < 0 or header.end_offset > INT64_MAX:
        return f"base_offset {header.base_offset} + last_offset_delta {header.last_offset_delta}"
    if not 0 <= header.count <= header.last_offset_delta + 1:
        return f"{header.count} records over {header.last_offset_delta + 1} offsets"
    if header.codec == compression.NONE and header.count * RECORD_BYTES_MIN > body:
        return f"{header.count} records in {body} bytes"
    if not NONE <= header.base_timestamp <= TIMESTAMP_MAX:
        return f"base_timestamp {header.base_timestamp}"
    if not NONE <= header.max_timestamp <= TIMESTAMP_MAX:
        return f"max_timestamp {header.max_timestamp}"
    return _less_than_none(header)


def _less_than_none(header: BatchHeader) -> str | None:
    names: Sequence[str] = ("leader_epoch", "producer_id")
    if header.producer_id != NONE:  # else clients fill in the other two as they like
        names = (*names, "producer_epoch", "base_sequence")
    for name in names:
        if getattr(header, name) < NONE:
            return f"{name} {getattr(header, name)} is less than -1"
    return None


def _impossible_from_producer(header: BatchHeader) -> str | None:
    """Return why a header is impossible from a producer, or None."""
    if header.count < 1 or header.last_offset_delta != header.count - 1:
        return f"{header.count} records, and last_offset_delta {header.last_offset_delta}"
    if header.attributes & (LOG_APPEND_TIME | CONTROL | DELETE_HORIZON):
        return f"attributes {header.attributes:#06x} has bits that only a broker sets"
    if header.producer_id >= 0 and min(header.producer_epoch, header.base_sequence) < 0:
        return (
            f"producer_id {header.producer_id} comes with producer_epoch {header.producer_epoch} "
            f"and base_sequence {header.base_sequence}; both must be 0 or more where there is a "
            "producer_id"
        )
    return None


def _short(batch_length: int) -> str:
    return f"batch_length {batch_length} is less than {HEADER_BYTES - _BEFORE_LENGTH}"


def _with_crc(batch: bytearray) -> bytes:
    _UINT32.pack_into(batch, _BEFORE_CRC_COVERS - 4, crc32c(memoryview(batch)[_BEFORE_CRC_COVERS:]))
    return bytes(batch)


def _as_bytes(name: str, value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{name} must be bytes or None, not {type(value).__name__}: serialize it first")
