"""Decodes the records of a batch in blocks, as columns: all offsets, all timestamps, all values.

A caller makes its own kind of record from the columns with zip(), so each record is made once.
Records that are alike (`alike.py`) are decoded together, a field at a time, in a fifth of the time
of the loop over single records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final

from quorate.errors import CorruptRecordError
from quorate.model import Header
from quorate.record.alike import SINGLE_MAX, SINGLE_MIN, Alike, records_alike
from quorate.record.record import (
    INT64_MAX,
    RawRecord,
    corrupt_record,
    decode_headers,
    read_varint,
)

#: The most records of one block of decode_records.
BLOCK_RECORDS: Final = 512


#: The fields of some records, in the order of RawRecord. Columns with one value are endless, so
#: zip() ends at the last offset.
Columns = tuple[
    Sequence[int],
    Iterable[int],
    Iterable[bytes | None],
    Iterable[bytes | None],
    Iterable[tuple[Header, ...]],
]


class BatchDecoder:
    """The records of one batch that are not decoded yet. They fill `data` from `position` on.

    `base_timestamp` is 2**62 at most. `log_append_time`, unless None, replaces every record's
    timestamp.
    """

    def __init__(
        self,
        data: bytes,
        position: int,
        *,
        count: int,
        base_offset: int,
        last_offset_delta: int,
        base_timestamp: int,
        log_append_time: int | None,
    ) -> None:
        self._data = data
        self._position = position
        self._count = count
        self._left = count
        #: The offset delta of the next record, at least.
        self._next_delta = 0
        self._base_offset = base_offset
        self._last_offset_delta = last_offset_delta
        self._base_timestamp = base_timestamp
        self._log_append_time = log_append_time
        self._step = SINGLE_MIN

    def next(self, limit: int) -> Columns | None:
        """Return at least one and at most `limit` further records; None at the end.

        Raises CorruptRecordError at the first impossible byte. The records before it were returned
        by earlier calls, and are valid.
        """
        if not self._left:
            if self._position != len(self._data):
                raise CorruptRecordError(
                    f"{len(self._data) - self._position} bytes follow the last of a batch's "
                    f"{self._count} records"
                )
            return None
        limit = min(limit, self._left)
        first = self._next_delta
        stop = min(first + limit, self._last_offset_delta + 1)
        alike = records_alike(self._data, self._position, first, stop)
        if alike is not None:
            start, self._position = self._position, alike.end
            self._next_delta += alike.count
            self._left -= alike.count
            self._step = SINGLE_MIN
            return self._columns(alike, start, self._base_offset + first)
        self._step = min(2 * self._step, SINGLE_MAX)
        return self._single(min(limit, self._step))

    def _columns(self, alike: Alike, start: int, offset: int) -> Columns:
        view = memoryview(self._data)[start : alike.end]
        return (
            range(offset, offset + alike.count),
            self._timestamps(alike),
            _pieces(view, alike.key_at - start, alike.key_bytes, alike.size),
            _pieces(view, alike.value_at - start, alike.value_bytes, alike.size),
            repeat(()),
        )

    def _timestamps(self, alike: Alike) -> Iterable[int]:
        if self._log_append_time is not None:
            return repeat(self._log_append_time)
        base = self._base_timestamp
        if alike.later:
            pairs = list(zip(alike.times, alike.later, strict=True))
            raws = {pair: pair[0] & 0x7F | pair[1] << 7 for pair in set(pairs)}
            times = {pair: base + ((raw >> 1) ^ -(raw & 1)) for pair, raw in raws.items()}
            return map(times.__getitem__, pairs)
        times_of_a_byte = {raw: base + ((raw >> 1) ^ -(raw & 1)) for raw in set(alike.times)}
        return map(times_of_a_byte.__getitem__, alike.times)

    def _single(self, limit: int) -> Columns:  # noqa: C901, PLR0912, PLR0915 - one hot loop
        """Decode records one by one. The loop is unrolled, as in `record.py`."""
        data = self._data
        data_end = len(data)
        position = start = self._position
        base_offset, base_timestamp = self._base_offset, self._base_timestamp
        next_delta, last_offset_delta = self._next_delta, self._last_offset_delta
        offsets: list[int] = []
        timestamps: list[int] = []
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        all_headers: list[tuple[Header, ...]] = []
        try:
            for _ in range(limit):
                start = position
                # Each of the next five blocks reads a varint: one or two bytes without a call,
                # rarely more.
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
                        if not -INT64_MAX <= time <= INT64_MAX:
                            raise corrupt_record(start, "its timestamp")
                timestamp = (
                    base_timestamp - (raw + 1 >> 1) if raw & 1 else base_timestamp + (raw >> 1)
                )

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
                if raw & 1 or not next_delta <= offset_delta <= last_offset_delta:
                    raise corrupt_record(start, "its offset")

                raw = data[position]
                position += 1
                if raw >= 0x80:
                    high = data[position]
                    if high < 0x80:
                        raw += (high << 7) - 0x80
                        position += 1
                    else:
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
                position += 1
                if raw >= 0x80:
                    high = data[position]
                    if high < 0x80:
                        raw += (high << 7) - 0x80
                        position += 1
                    else:
                        raw, position = read_varint(data, position - 1)
                if raw == 1:
                    value = None
                elif raw & 1:
                    raise corrupt_record(start, "its value's length")
                else:
                    stop = position + (raw >> 1)
                    value = data[position:stop]
                    position = stop

                headers: tuple[Header, ...] = ()
                if data[position]:
                    headers, position = decode_headers(data, position, end)
                else:
                    position += 1
                if position != end:
                    raise corrupt_record(start, "the length of its parts")
                next_delta = offset_delta + 1
                offsets.append(base_offset + offset_delta)
                timestamps.append(timestamp)
                keys.append(key)
                values.append(value)
                all_headers.append(headers)
        except (IndexError, CorruptRecordError) as error:
            if not offsets:
                if isinstance(error, CorruptRecordError):
                    raise
                raise CorruptRecordError(
                    f"a batch says {self._count} records, and its {data_end} bytes end before the "
                    "last"
                ) from None
            # the next call raises the error again, after the records before it were used
            position = start
        self._position, self._next_delta = position, next_delta
        self._left -= len(offsets)
        if self._log_append_time is not None:
            return offsets, repeat(self._log_append_time), keys, values, all_headers
        return offsets, timestamps, keys, values, all_headers


def decode_records(decoder: BatchDecoder) -> Iterator[RawRecord]:
    """Yield the records of a batch. They are decoded a block at a time.

    Raises CorruptRecordError at the first impossible byte, after the records before it.
    """
    while (columns := decoder.next(BLOCK_RECORDS)) is not None:
        yield from map(RawRecord._make, zip(*columns, strict=False))


def _pieces(view: memoryview, at: int, size: int, step: int) -> Iterable[bytes | None]:
    """Return the piece of `size` bytes (-1: null) in each `step` of the view.

    >>> list(_pieces(memoryview(b"-ab--cd-"), 1, 2, 4))
    [b'ab', b'cd']
    """
    if size < 0:
        return repeat(None)
    return [one for (one,) in struct.iter_unpack(f"{at}x{size}s{step - at - size}x", view)]
