"""Loops over the records of a batch that read only what a server must know of them.

A server decodes no record: that takes twice to five times as long. The loops are unrolled, as in
`record.py`, because a call for each field would double the cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from quorate.errors import CorruptRecordError
from quorate.record.alike import SINGLE_MAX, SINGLE_MIN, records_alike
from quorate.record.record import (
    INT64_MAX,
    TIMESTAMP_MIN,
    corrupt_record,
    decode_headers,
    read_varint,
)

#: Less than any timestamp delta.
NO_DELTA: Final = -(1 << 63)
_EVEN: Final = bytes(range(0, 256, 2))


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
        alike = records_alike(data, position, first, stop)
        if alike is not None and (without_key is None or alike.key_bytes >= 0):
            latest = max(latest, _latest(alike.times, alike.later))
            position = alike.end
            first += alike.count
            if first >= stop:
                break
            step = SINGLE_MIN
        else:
            step = min(2 * step, SINGLE_MAX)
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
