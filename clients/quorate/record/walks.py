"""Loops over the records of a batch that read only what a server must know of them.

A server decodes no record: that takes twice to five times as long. The loops are unrolled, as in
`record.py`, because a call for each field would double the cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from quorate.errors import CorruptRecordError
from quorate.record.record import (
    INT64_MAX,
    RECORD_BYTES_MIN,
    TIMESTAMP_MIN,
    corrupt_record,
    decode_headers,
    read_varint,
)

#: The least records that are checked together: with fewer, it is faster to check them one by one.
ALIKE_MIN: Final = 8
#: Records that are checked one by one, before it is looked again whether some are alike.
SINGLE_MIN: Final = 4
SINGLE_MAX: Final = 256
#: The offset deltas whose varints have one byte; and those whose varints have at most two.
OFFSETS_OF_A_BYTE: Final = 64
OFFSETS_ALIKE: Final = 8192
#: The varint of -1, which is the length of null.
NULL: Final = 1
#: Stands for a varint of three bytes or more. As a length it is -2, which is no length.
LONG: Final = 3
#: Less than any timestamp delta.
NO_DELTA: Final = -(1 << 63)
_EVEN: Final = bytes(range(0, 256, 2))
#: The varints of the offset deltas, as columns: those of one byte, and both bytes of the others.
_OFFSET_BYTES: Final = bytes(2 * delta for delta in range(OFFSETS_OF_A_BYTE))
_OFFSET_LOW_BYTES: Final = bytes(2 * delta & 0x7F | 0x80 for delta in range(OFFSETS_ALIKE))
_OFFSET_HIGH_BYTES: Final = bytes(2 * delta >> 7 for delta in range(OFFSETS_ALIKE))


def check_records(
    data: bytes,
    position: int,
    *,
    first: int,
    stop: int,
    base_timestamp: int,
    without_key: list[int] | None = None,
) -> tuple[int, int]:
    """Check that decode_records can read the records `first` to `stop` (exclusive) of a batch.

    Return the position after them, so that a large batch can be checked in parts, and the greatest
    of their timestamp deltas. The batch has a record for every offset, as from a producer. Nothing
    is built, because that takes twice as long.
    Raises CorruptRecordError at the first impossible byte. The list `without_key`, which is for
    compacted topics, gets the index of each record without a key.

    Records that are alike are checked together. Where none are, single records are, in steps that
    grow, so that looking for others costs little.
    """
    step = SINGLE_MIN
    latest = NO_DELTA
    while first < stop:
        count, position, delta = _check_alike(
            data, position, first, stop, needs_keys=without_key is not None
        )
        latest = max(latest, delta)
        first += count
        if first >= stop:
            break
        step = SINGLE_MIN if count else min(2 * step, SINGLE_MAX)
        until = min(first + step, stop)
        position, delta = _check_single(
            data,
            position,
            first=first,
            stop=until,
            base_timestamp=base_timestamp,
            without_key=without_key,
        )
        latest = max(latest, delta)
        first = until
    return position, latest


def _check_alike(
    data: bytes, position: int, first: int, stop: int, *, needs_keys: bool
) -> tuple[int, int, int]:
    """Check the records from `first` on that have the same layout, as those of equal sizes have.

    Return how many these are, the position after them, and the greatest of their timestamp deltas.
    0: fewer than ALIKE_MIN, or the next one is unusual, or wrong. Each byte that matters is
    compared over all records at once, in a column.
    """
    none = (0, position, NO_DELTA)
    if first >= OFFSETS_ALIKE or len(data) - position < ALIKE_MIN * RECORD_BYTES_MIN:
        return none
    try:
        length_bytes = 1 if data[position] < 0x80 else 2
        raw = _short(data, position)
        end = position + length_bytes + (raw >> 1)
        time_at = position + length_bytes + 1
        offset_at = time_at + (1 if data[time_at] < 0x80 else 2)
        key_at = offset_at + (1 if first < OFFSETS_OF_A_BYTE else 2)
        key = data[key_at]
        value_at = key_at + 1 + (0 if key == NULL else key >> 1)
        value_bytes = 1 if data[value_at] < 0x80 else 2
        value = _short(data, value_at)
        headers_at = value_at + value_bytes + (0 if value == NULL else value >> 1)
    except IndexError:
        return none
    size = end - position
    is_odd = raw & 1 or (key & 1 and key != NULL) or (value & 1 and value != NULL)
    if is_odd or key >= 0x80 or (key == NULL and needs_keys) or headers_at + 1 != end:
        return none
    offsets_end = OFFSETS_OF_A_BYTE if first < OFFSETS_OF_A_BYTE else OFFSETS_ALIKE
    count = min(stop, offsets_end) - first
    count = min(count, (len(data) - position) // size)
    same = [*range(position, position + length_bytes), key_at]
    same += [*range(value_at, value_at + value_bytes), headers_at]
    for at in same:
        if count < ALIKE_MIN:
            return none
        column = data[at : position + count * size : size]
        count = len(column) - len(column.lstrip(column[:1]))
    after = position + count * size
    times, offsets = data[time_at:after:size], data[offset_at:after:size]
    if key_at - offset_at == 1:
        is_good = offsets == _OFFSET_BYTES[first : first + count]
    else:
        high = data[offset_at + 1 : after : size]
        is_good = (
            offsets == _OFFSET_LOW_BYTES[first : first + count]
            and high == _OFFSET_HIGH_BYTES[first : first + count]
        )
    later = b"" if offset_at - time_at == 1 else data[time_at + 1 : after : size]
    if later:
        is_good = is_good and min(times) >= 0x80 and later.isascii()
    else:
        is_good = is_good and times.isascii()
    is_good = is_good and data[headers_at] == 0 and count >= ALIKE_MIN
    return (count, after, _latest(times, later)) if is_good else none


def _latest(low: bytes, high: bytes) -> int:
    """Return the greatest of the deltas whose varints are these columns.

    `high` is empty if they have one byte. Times that only grow, as most do, cost the least.

    >>> _latest(bytes((0, 6, 3)), b""), _latest(bytes((0x80, 0x84)), bytes((1, 1)))
    (3, 66)
    """
    if low.translate(None, _EVEN):  # a delta below 0 has an odd varint
        raws = (
            low if not high else [one & 0x7F | top << 7 for one, top in zip(low, high, strict=True)]
        )
        return max((raw >> 1) ^ -(raw & 1) for raw in raws)
    if not high:
        return max(low) >> 1
    top = max(high)
    begin = high.index(top)
    if high.count(top) != len(high) - begin:
        return (max(one & 0x7F | top << 7 for one, top in zip(low, high, strict=True))) >> 1
    return (max(low[begin:]) & 0x7F | top << 7) >> 1


def _short(data: bytes, position: int) -> int:
    """Return the varint of one or two bytes; of a longer one LONG."""
    low = data[position]
    if low < 0x80:
        return low
    high = data[position + 1]
    return (low & 0x7F) | (high << 7) if high < 0x80 else LONG


def _check_single(  # noqa: C901, PLR0912, PLR0915 - one hot loop, unrolled on purpose
    data: bytes,
    position: int,
    *,
    first: int,
    stop: int,
    base_timestamp: int,
    without_key: list[int] | None,
) -> tuple[int, int]:
    """Check records one by one. See check_records."""
    data_end = len(data)
    latest = NO_DELTA  # of the deltas below 0
    most = -1  # the greatest varint of a delta of 0 or more
    try:
        for offset in range(2 * first, 2 * stop, 2):  # as zigzag varints have them
            start = position
            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            end = position + (raw >> 1)
            if raw & 1 or end > data_end:
                raise corrupt_record(start, "its length")
            position += 1  # the attributes have no use

            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1, bits=64)
                    time = base_timestamp + ((raw >> 1) ^ -(raw & 1))
                    if not TIMESTAMP_MIN <= time <= INT64_MAX:
                        raise corrupt_record(start, "its timestamp")
            if raw > most:
                if not raw & 1:
                    most = raw
                elif most < 0:
                    latest = max(latest, ~(raw >> 1))

            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            if raw != offset:
                raise corrupt_record(start, "its offset")

            raw = data[position]
            position += 1
            if raw >= 0x80:
                raw, position = read_varint(data, position - 1)
            if not raw & 1:
                position += raw >> 1
            elif raw != 1:
                raise corrupt_record(start, "its key's length")
            elif without_key is not None:
                without_key.append(offset >> 1)

            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            if not raw & 1:
                position += raw >> 1
            elif raw != 1:
                raise corrupt_record(start, "its value's length")

            if data[position]:
                _, position = decode_headers(data, position, end)
            else:
                position += 1
            if position != end:
                raise corrupt_record(start, "the length of its parts")
    except IndexError:
        raise CorruptRecordError(
            f"a batch ends at byte {data_end}, within its record {offset >> 1}"
        ) from None
    return position, most >> 1 if most >= 0 else latest


def find_by_time(
    data: bytes,
    position: int,
    *,
    count: int,
    base_offset: int,
    base_timestamp: int,
    timestamp_ms: int,
    start: int,
) -> tuple[int, int] | None:
    """Return (offset, timestamp) of the first of `count` records not before a time and an offset.

    Return None if there is no such record.

    Only the lengths and times are read, because decoding the records takes five times as long.
    Raises CorruptRecordError if a length or time is impossible.
    """
    wanted = timestamp_ms - base_timestamp
    first = start - base_offset
    data_end = len(data)
    try:
        for _ in range(count):
            begin = position
            raw = data[position]
            position += 1
            if raw >= 0x80:
                raw, position = read_varint(data, position - 1)
            end = position + (raw >> 1)
            if raw & 1 or end > data_end:
                raise corrupt_record(begin, "its length")
            raw = data[position + 1]
            if raw >= 0x80:
                raw, position = read_varint(data, position + 1, bits=64)
            else:
                position += 2
            delta = (raw >> 1) ^ -(raw & 1)
            if delta >= wanted:
                raw, _ = read_varint(data, position)
                if raw & 1:
                    raise corrupt_record(begin, "its offset")
                if raw >> 1 >= first:
                    return base_offset + (raw >> 1), base_timestamp + delta
            position = end
    except IndexError:
        raise CorruptRecordError(
            f"a batch says {count} records, and its {data_end} bytes end before the last"
        ) from None
    return None


#: The place of one record in the records of its batch, and what compaction must know of it: start,
#: stop, timestamp delta, offset delta, key, and whether it has a value. It is a plain tuple,
#: because a named one would make a pass of compaction a tenth slower.
Outline = tuple[int, int, int, int, bytes | None, bool]


def decode_outlines(  # noqa: C901, PLR0912, PLR0915 - one hot loop, unrolled on purpose
    data: bytes, position: int, *, count: int, last_offset_delta: int
) -> Iterator[Outline]:
    """Yield the outlines of `count` records that fill `data` from `position` on.

    Values and headers are not decoded, because that takes half of the time of decode_records.
    Raises CorruptRecordError at the first impossible byte that is read.
    """
    data_end = len(data)
    previous = -1
    try:
        for _ in range(count):
            start = position
            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            end = position + (raw >> 1)
            if raw & 1 or end > data_end:
                raise corrupt_record(start, "its length")
            raw = data[position + 1]  # after the attributes
            position += 2
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1, bits=64)
            timestamp_delta = (raw >> 1) ^ -(raw & 1)

            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            offset_delta = raw >> 1
            if raw & 1 or not previous < offset_delta <= last_offset_delta:
                raise corrupt_record(start, "its offset")
            previous = offset_delta

            raw = data[position]
            position += 1
            if raw >= 0x80:
                raw, position = read_varint(data, position - 1)
            if raw == 1:
                key = None
            elif raw & 1:
                raise corrupt_record(start, "its key's length")
            else:
                stop = position + (raw >> 1)
                key = data[position:stop]
                position = stop
            raw = data[position]
            if position >= end:
                raise corrupt_record(start, "the length of its parts")
            yield start, end, timestamp_delta, offset_delta, key, raw != 1
            position = end
    except IndexError:
        raise CorruptRecordError(
            f"a batch says {count} records, and its {data_end} bytes end before the last"
        ) from None
    if position != data_end:
        raise CorruptRecordError(
            f"{data_end - position} bytes follow the last of a batch's {count} records"
        )


def decode_last_offsets(  # noqa: C901, PLR0912 - one hot loop, unrolled on purpose
    data: bytes, position: int, *, count: int, base_offset: int, last_offset_delta: int
) -> tuple[dict[bytes, int], bool]:
    """Return the last offset of each key of a batch, and whether all its records have keys.

    The `count` records fill `data` from `position` on. It reads and checks the same bytes as
    `decode_outlines`, and takes half of its time, because it builds no outlines and is no
    generator. Raises CorruptRecordError at the first impossible byte.
    """
    data_end = len(data)
    previous = -1
    last: dict[bytes, int] = {}
    has_all_keys = True
    try:
        for _ in range(count):
            start = position
            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            end = position + (raw >> 1)
            if raw & 1 or end > data_end:
                raise corrupt_record(start, "its length")
            # after the attributes
            if data[position + 1] < 0x80:
                position += 2
            elif data[position + 2] < 0x80:
                position += 3
            else:
                _, position = read_varint(data, position + 1, bits=64)

            raw = data[position]
            position += 1
            if raw >= 0x80:
                high = data[position]
                if high < 0x80:
                    raw += (high << 7) - 0x80
                    position += 1
                else:
                    raw, position = read_varint(data, position - 1)
            offset_delta = raw >> 1
            if raw & 1 or not previous < offset_delta <= last_offset_delta:
                raise corrupt_record(start, "its offset")
            previous = offset_delta

            raw = data[position]
            position += 1
            if raw >= 0x80:
                raw, position = read_varint(data, position - 1)
            if raw == 1:
                has_all_keys = False
            elif raw & 1:
                raise corrupt_record(start, "its key's length")
            else:
                stop = position + (raw >> 1)
                last[data[position:stop]] = base_offset + offset_delta
                position = stop
            if position >= end:
                raise corrupt_record(start, "the length of its parts")
            position = end
    except IndexError:
        raise CorruptRecordError(
            f"a batch says {count} records, and its {data_end} bytes end before the last"
        ) from None
    if position != data_end:
        raise CorruptRecordError(
            f"{data_end - position} bytes follow the last of a batch's {count} records"
        )
    return last, has_all_keys
