"""Kafka's record batch, version 2: build, parse, check, stamp and read.

The producer encodes a batch once, and the consumer decodes it once. Servers in between check its
header and CRC, and stamp base_offset and leader_epoch, which the CRC does not cover. They touch the
other bytes only where a producer left out max_timestamp, and for LogAppendTime. All bytes may be
hostile: every fault in them raises CorruptRecordError, and no other error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from crc32c import crc32c

from quorate.errors import CorruptRecordError, InvalidTimestampError
from quorate.model import Header, TimestampType
from quorate.record import compression
from quorate.record.decoder import BatchDecoder, decode_records
from quorate.record.record import (
    INT64_MAX,
    RECORD_BYTES_MIN,
    RawRecord,
    encode_record,
)
from quorate.record.record import (
    TIMESTAMP_MIN as TIMESTAMP_MIN,
)
from quorate.record.walks import find_by_time as record_by_time

Buffer = bytes | bytearray | memoryview

HEADER: Final = struct.Struct(
    ">"
    "q"  # base_offset: outside the CRC, so that the leader may stamp it
    "i"  # batch_length: the bytes after this field
    "i"  # leader_epoch: outside the CRC, so that the leader may stamp it
    "b"  # magic: 2
    "I"  # crc: CRC-32C of all bytes after this field
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
#: With this bit, base_timestamp is the delete horizon: the time from which the batch's tombstones
#: may be removed (KIP-534). Only compaction sets this bit.
DELETE_HORIZON: Final = 0x40
_KNOWN_ATTRIBUTES: Final = 0x7F

#: Largest timestamp in milliseconds. The sum of a timestamp and a delta still fits into 64 bits.
TIMESTAMP_MAX: Final = 1 << 62
#: The value for: no timestamp, producer_id, producer_epoch, base_sequence or leader_epoch.
NONE: Final = -1
#: Largest decompressed size that `records` allows, unless its caller gives another.
DECOMPRESSED_BYTES_MAX: Final = 64 << 20
#: Largest sequence. The next one is 0.
SEQUENCE_MAX: Final = (1 << 31) - 1

#: More pieces are joined before their CRC is computed: a call for each would cost more.
SUMMED_PIECES_MAX: Final = 8
_BEFORE_LENGTH: Final = 12  # bytes of base_offset and batch_length
_BEFORE_CRC_COVERS: Final = 21  # bytes up to the end of crc
_STAMPED: Final = 16  # bytes of base_offset, batch_length, leader_epoch
_OFFSET: Final = struct.Struct(">q")
_INT32: Final = struct.Struct(">i")
_UINT32: Final = struct.Struct(">I")
_PREFIX: Final = struct.Struct(">qii")
_MAGIC_AND_CRC: Final = struct.Struct(">bI")
_COVERED: Final = struct.Struct(">hiqqqhii")  # the part of the header that the CRC covers


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """The header of one batch.

    `parse_header` has checked its values; only `check` checks the CRC.
    """

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
        """Size of the whole batch in bytes."""
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
        """The last record's sequence; -1 if there is no producer_id. After 2**31 - 1 follows 0."""
        if self.producer_id == NONE:
            return NONE
        return (self.base_sequence + self.last_offset_delta) & SEQUENCE_MAX


@dataclass(slots=True, eq=False, kw_only=True)
class BatchBuilder:
    """A batch to which records are added: a list of pieces, which `build` joins.

    `producer_id`, `producer_epoch` and `base_sequence` may be set before each `build`.
    """

    codec: int = compression.NONE
    level: int | None = None
    producer_id: int = NONE
    producer_epoch: int = NONE
    base_sequence: int = NONE
    #: Number of records so far.
    count: int = field(default=0, init=False)
    #: Upper bound of the batch's bytes; exact if the batch is not compressed.
    size: int = field(default=HEADER_BYTES, init=False)
    _pieces: list[bytes] = field(default_factory=list, init=False)
    _base_timestamp: int = field(default=NONE, init=False)
    _max_timestamp: int = field(default=NONE, init=False)

    def append(
        self,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
    ) -> int:
        """Add a record. Return its index in the batch.

        Raises TypeError if key or value is neither bytes nor None, or if timestamp_ms is no whole
        number. Raises InvalidTimestampError if timestamp_ms is not from -2**61 to 2**62 (-1: none).
        After an error the batch is unchanged.
        """
        if key.__class__ is not bytes and key is not None:
            key = _as_bytes("key", key)
        if value.__class__ is not bytes and value is not None:
            value = _as_bytes("value", value)
        if not TIMESTAMP_MIN <= timestamp_ms <= TIMESTAMP_MAX:
            raise impossible_timestamp(timestamp_ms)
        index = self.count
        if index:
            delta = timestamp_ms - self._base_timestamp
        else:
            # check the type of the first timestamp; a later one of a wrong type fails at its delta
            if not isinstance(timestamp_ms, int):
                raise TypeError(f"timestamp_ms must be a whole number, not {timestamp_ms!r}")
            delta = 0
            self._base_timestamp = timestamp_ms
        self.size += encode_record(self._pieces, delta, index, key, value, headers)
        if timestamp_ms > self._max_timestamp:  # noqa: PLR1730 - max() costs more than the rest
            self._max_timestamp = timestamp_ms
        self.count = index + 1
        return index

    def take_encoded(
        self, parts: list[bytes], count: int, base_timestamp: int, max_timestamp: int
    ) -> None:
        """Take over the bytes of `count` encoded records, which are all records of the batch."""
        assert not self.count, "the deltas of these records begin at 0"
        self._pieces, self.count = parts, count
        self.size += sum(map(len, parts))
        self._base_timestamp, self._max_timestamp = base_timestamp, max_timestamp

    def release(self) -> None:
        """Free the bytes of the records. Only `count` and `size` can be used afterwards."""
        self._pieces = []

    def build(self, *, base_offset: int = 0, leader_epoch: int = NONE) -> bytes:
        """Return the batch. It can be built again, also with another sequence."""
        assert self._pieces, "a batch has at least one record, and is not released"
        pieces = self._pieces
        size = self.size
        codec = self.codec
        if codec != compression.NONE:
            compressed = compression.compress(codec, b"".join(pieces), self.level)
            if HEADER_BYTES + len(compressed) < size:
                pieces = [compressed]
                size = HEADER_BYTES + len(compressed)
            else:  # the compressed bytes are not smaller: keep the plain bytes
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
        if len(pieces) > SUMMED_PIECES_MAX:
            pieces = [b"".join(pieces)]
        crc = crc32c(covered)
        for piece in pieces:
            crc = crc32c(piece, crc)
        prefix = _PREFIX.pack(base_offset, size - _BEFORE_LENGTH, leader_epoch)
        return b"".join((prefix, _MAGIC_AND_CRC.pack(MAGIC, crc), covered, *pieces))


def impossible_timestamp(timestamp_ms: int) -> InvalidTimestampError:
    """Return the error for a record's timestamp that is out of range."""
    return InvalidTimestampError(
        f"timestamp_ms must be {TIMESTAMP_MIN} to {TIMESTAMP_MAX}, not {timestamp_ms}"
    )


def parse_header(
    buffer: Buffer, position: int = 0, *, from_producer: bool = False, begins_at: int = 0
) -> BatchHeader:
    """Return the header at `position`. The bytes after the header need not be there.

    With `from_producer`, base_offset becomes 0 and leader_epoch -1, because the leader stamps both
    anyway, and max_timestamp may be anything, because the leader looks at the records. Raises
    CorruptRecordError if the header is incomplete or impossible: it names the position in the file
    of which `buffer` is the part from `begins_at` on. The CRC is not checked.
    """
    try:
        fields = HEADER.unpack_from(buffer, position)
    except struct.error:
        raise CorruptRecordError(
            f"a batch header has {HEADER_BYTES} bytes; "
            f"at byte {begins_at + position} there are {max(len(buffer) - position, 0)}"
        ) from None
    if fields[3] != MAGIC:
        raise CorruptRecordError(
            f"a batch at byte {begins_at + position} has magic {fields[3]}, not {MAGIC}"
        )
    base_offset, batch_length, leader_epoch = fields[:3]
    if from_producer:
        base_offset, leader_epoch = 0, NONE
    header = BatchHeader(base_offset, batch_length, leader_epoch, *fields[4:])
    wrong = _impossible(header) or (None if from_producer else _impossible_in_log(header))
    if wrong:
        raise CorruptRecordError(f"a batch at byte {begins_at + position} is impossible: {wrong}")
    return header


def split(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Yield each batch of `buffer` as a view.

    Raise CorruptRecordError at a bad or incomplete batch.
    """
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
    """Return the size of the whole batches at the start of `buffer`. An incomplete one may follow.

    Raises CorruptRecordError if a length is impossible.
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
    """Check the size and CRC of exactly one batch. Return its header.

    `header` saves the parsing, if these bytes were parsed already. With `from_producer`, the batch
    must be one that a producer may send: it has a record for every offset, and no attribute of a
    leader or of compaction. Raises CorruptRecordError.
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
    """Write base_offset and leader_epoch into the batch. The CRC does not cover them."""
    _OFFSET.pack_into(batch, 0, base_offset)
    _INT32.pack_into(batch, _BEFORE_LENGTH, leader_epoch)


def stamped_prefix(batch: Buffer, *, base_offset: int, leader_epoch: int) -> bytes:
    """Return the first 16 bytes of the stamped batch. The rest, batch[16:], is unchanged."""
    (batch_length,) = _INT32.unpack_from(batch, 8)
    return _PREFIX.pack(base_offset, batch_length, leader_epoch)


def decompressed_size_bound(batch: Buffer, header: BatchHeader) -> int:
    """Return an upper bound for the decompressed size of the batch's records.

    Nothing is decompressed: see compression.size_bound. Raises CorruptRecordError for impossible
    compressed bytes.
    """
    return compression.size_bound(header.codec, memoryview(batch)[HEADER_BYTES:])


def records(
    batch: Buffer,
    header: BatchHeader | None = None,
    *,
    size_max: int = DECOMPRESSED_BYTES_MAX,
) -> Iterator[RawRecord]:
    """Yield the records of one batch. They are decoded in blocks, when they are asked for.

    `header` saves the parsing, if these bytes were parsed already. Call `check` first, because this
    function does not check the CRC. Raises CorruptRecordError for impossible bytes, after the
    records before them, or if the records decompress to more than `size_max`.
    """
    header = header or parse_header(batch)
    return decode_records(decoder(*record_bytes(batch, header, size_max=size_max), header))


def record_bytes(
    batch: Buffer, header: BatchHeader, *, size_max: int = DECOMPRESSED_BYTES_MAX
) -> tuple[bytes, int]:
    """Return bytes that have the decompressed records, and the position of the first record."""
    if header.size != len(batch):
        raise CorruptRecordError(f"a batch says {header.size} bytes, and has {len(batch)}")
    if header.codec == compression.NONE:
        return bytes(batch), HEADER_BYTES
    compressed = memoryview(batch)[HEADER_BYTES:]
    return compression.decompress(header.codec, compressed, size_max), 0


def decoder(data: bytes, position: int, header: BatchHeader) -> BatchDecoder:
    """Return a decoder of the records in the result of `record_bytes`."""
    return BatchDecoder(
        data,
        position,
        count=header.count,
        base_offset=header.base_offset,
        last_offset_delta=header.last_offset_delta,
        base_timestamp=header.base_timestamp,
        log_append_time=header.max_timestamp if header.attributes & LOG_APPEND_TIME else None,
    )


def find_by_time(
    batch: Buffer, header: BatchHeader, timestamp_ms: int, start: int = 0
) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first record at or after a time; None if there is none.

    Records below the offset `start` do not count.
    Raises the errors of `records` for the bytes that it reads.
    """
    if header.attributes & LOG_APPEND_TIME:  # all records have the same time
        first = next((one for one in records(batch, header) if one.offset >= start), None)
        is_late = first is not None and first.timestamp_ms >= timestamp_ms
        return (first.offset, first.timestamp_ms) if first is not None and is_late else None
    data, position = record_bytes(batch, header)
    return record_by_time(
        data,
        position,
        count=header.count,
        base_offset=header.base_offset,
        base_timestamp=header.base_timestamp,
        timestamp_ms=timestamp_ms,
        start=start,
    )


def _impossible(header: BatchHeader) -> str | None:
    """Return why a header is impossible, from a producer too; None if it is possible."""
    body = header.batch_length + _BEFORE_LENGTH - HEADER_BYTES
    if body < 0:
        return _short(header.batch_length)
    if header.attributes & ~_KNOWN_ATTRIBUTES:
        return f"attributes {header.attributes:#06x} has bits that are not known"
    if header.codec >= len(compression.NAMES):
        return f"codec {header.codec} is not known"
    if header.base_offset < 0 or header.last_offset_delta < 0 or header.end_offset > INT64_MAX:
        return f"base_offset {header.base_offset} + last_offset_delta {header.last_offset_delta}"
    if not 0 <= header.count <= header.last_offset_delta + 1:
        return f"{header.count} records over {header.last_offset_delta + 1} offsets"
    if header.codec == compression.NONE and header.count * RECORD_BYTES_MIN > body:
        return f"{header.count} records in {body} bytes"
    if not TIMESTAMP_MIN <= header.base_timestamp <= TIMESTAMP_MAX:
        return f"base_timestamp {header.base_timestamp}"
    return _less_than_none(header)


def _impossible_in_log(header: BatchHeader) -> str | None:
    if not NONE <= header.max_timestamp <= TIMESTAMP_MAX:
        return f"max_timestamp {header.max_timestamp}"
    return None


def _less_than_none(header: BatchHeader) -> str | None:
    if header.leader_epoch >= NONE and (
        header.producer_id == NONE  # then clients write any value into the other two
        or min(header.producer_id, header.producer_epoch, header.base_sequence) >= NONE
    ):
        return None
    for name in ("leader_epoch", "producer_id", "producer_epoch", "base_sequence"):
        if getattr(header, name) < NONE:
            return f"{name} {getattr(header, name)} is less than -1"
    return None


def _impossible_from_producer(header: BatchHeader) -> str | None:
    """Return why no producer may send such a header; None if a producer may."""
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


def _as_bytes(name: str, value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{name} must be bytes or None, not {type(value).__name__}: serialize it first")
