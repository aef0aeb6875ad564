"""Records that wait for their encoding, with a list for each field, and their encoding in bulk.

To add a record to lists costs a fraction of its encoding. `encode` makes the bytes of many records
in a few loops of C, for which the fields must be in lists.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate, pairwise, repeat
from operator import add
from typing import Final

from quorate.model import Header
from quorate.record import compression
from quorate.record.batch import (
    HEADER_BYTES,
    NONE,
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    BatchBuilder,
    impossible_timestamp,
)
from quorate.record.record import (
    RECORD_OVERHEAD_MAX,
    VARINTS,
    RawRecord,
    encode_record,
    encode_varint,
    record_bytes_max,
)

#: A key and a value of fewer bytes together are encoded with tables. More would cost memory: larger
#: records cost most of their time elsewhere.
TABLE_BYTES_MAX: Final = 2048
#: To settle a batch again for a smaller share of its records costs more than the room is worth.
SETTLED_SHARE: Final = 16
#: The offset deltas at which the varint gets one byte more.
_CUTS: Final = (64, len(VARINTS))
_NO_HEADERS: Final[Sequence[Header]] = ()
_Headers = dict[int, Sequence[Header]]


class RecordColumns:
    """Records, each at the same index of all columns.

    The callers keep `size`: they add an upper bound of each record's bytes, as record_bytes_max
    returns it.
    """

    __slots__ = ("headers", "keys", "size", "time_ms", "times", "values")

    def __init__(self, size: int = 0) -> None:
        #: Upper bound of the bytes.
        self.size = size
        self.values: list[bytes | None] = []
        #: None as long as no record has a key.
        self.keys: list[bytes | None] | None = None
        #: Of the records that have headers, by index.
        self.headers: _Headers = {}
        #: The first index of each run of records that have the same timestamp, and the timestamp.
        self.times: list[tuple[int, int]] = []
        #: The timestamp of the last run.
        self.time_ms: int | None = None

    def append(
        self,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        size: int,
    ) -> int:
        """Add a record of at most `size` bytes. Return its index.

        Raises InvalidTimestampError if timestamp_ms is not from -2**61 to 2**62 (-1: none). After
        an error nothing has changed.
        """
        values = self.values
        index = len(values)
        if timestamp_ms != self.time_ms:
            self.begin_run(index, timestamp_ms)
        if key is not None:
            self._keys().append(key)
        elif self.keys is not None:
            self.keys.append(None)
        if headers:
            self.headers[index] = headers
        values.append(value)
        self.size += size
        return index

    def extend(self, other: RecordColumns, start: int, stop: int, size: int) -> int:
        """Add the records of `other` from `start` up to `stop`. Return the first one's index.

        `size` is an upper bound of their bytes.
        """
        first = len(self.values)
        for begin, _, timestamp_ms in other.runs(start, stop):
            if timestamp_ms != self.time_ms:
                self.begin_run(first + begin - start, timestamp_ms)
        if other.keys is not None:
            self._keys().extend(other.keys[start:stop])
        elif self.keys is not None:
            self.keys.extend([None] * (stop - start))
        if other.headers:
            for index in range(start, stop):
                if index in other.headers:
                    self.headers[first + index - start] = other.headers[index]
        self.values += other.values[start:stop]
        self.size += size
        return first

    def _keys(self) -> list[bytes | None]:
        if self.keys is None:
            self.keys = [None] * len(self.values)
        return self.keys

    def begin_run(self, index: int, timestamp_ms: int) -> None:
        """Note that the records from `index` on have this timestamp, which is another one."""
        if not TIMESTAMP_MIN <= timestamp_ms <= TIMESTAMP_MAX:
            raise impossible_timestamp(timestamp_ms)
        self.times.append((index, timestamp_ms))
        self.time_ms = timestamp_ms

    def time_of(self, index: int) -> int:
        """Return the timestamp of a record."""
        return self.times[bisect_right(self.times, (index, TIMESTAMP_MAX)) - 1][1]

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield begin, end and timestamp of each run of the records from `start` up to `stop`."""
        if start == stop:
            return
        times = self.times
        first = bisect_right(times, (start, TIMESTAMP_MAX)) - 1
        for place in range(first, len(times)):
            begin, timestamp_ms = times[place]
            if begin >= stop:
                return
            end = times[place + 1][0] if place + 1 < len(times) else stop
            yield max(begin, start), min(end, stop), timestamp_ms

    def bounds(self) -> list[int]:
        """Return the sum of record_bytes_max of all records before each index, and of all."""
        values = self.values
        if self.keys is None and not self.headers:
            with suppress(TypeError):  # a null has no length
                sizes = map(len, values)  # type: ignore[arg-type]
                return list(accumulate(map(add, sizes, repeat(RECORD_OVERHEAD_MAX)), initial=0))
        keys = repeat(None) if self.keys is None else self.keys
        headers = map(self.headers.get, range(len(values)), repeat(_NO_HEADERS))
        return list(accumulate(map(record_bytes_max, keys, values, headers), initial=0))

    def raw_records(self) -> Iterator[RawRecord]:
        """Yield the records. The offset of each is its index."""
        keys, headers = self.keys, self.headers
        for begin, end, timestamp_ms in self.runs(0, len(self.values)):
            for index in range(begin, end):
                yield RawRecord(
                    index,
                    timestamp_ms,
                    None if keys is None else keys[index],
                    self.values[index],
                    tuple(headers.get(index, ())),
                )

    def encode(self, first: int) -> list[bytes]:
        """Return the bytes of all records from the index `first` on, in parts.

        The offset delta is the index. The timestamp delta is to the timestamp of index 0.
        """
        base = self.times[0][1]
        parts = []
        for begin, end, timestamp_ms in self.runs(first, len(self.values)):
            delta = timestamp_ms - base
            # in each part all offset deltas have the same number of bytes
            cuts = sorted({begin, end, *(cut for cut in _CUTS if begin < cut < end)})
            for start, stop in pairwise(cuts):
                part = None
                if not self.headers:
                    with suppress(TypeError):  # a null has no length
                        part = self._with_tables(delta, start, stop)
                parts.append(self._one_by_one(delta, start, stop) if part is None else part)
        return parts

    def _one_by_one(self, delta: int, start: int, stop: int) -> bytes:
        pieces: list[bytes] = []
        values, keys, headers = self.values, self.keys, self.headers
        for index in range(start, stop):
            key = None if keys is None else keys[index]
            encode_record(pieces, delta, index, key, values[index], headers.get(index, ()))
        return b"".join(pieces)

    def _with_tables(self, delta: int, start: int, stop: int) -> bytes | None:
        """Encode records without headers, in loops of C. Returns None if one is too large.

        Raises TypeError if there is a null among the values, or among the keys.
        """
        values: list[bytes] = self.values[start:stop]  # type: ignore[assignment]
        keys: list[bytes] = [] if self.keys is None else self.keys[start:stop]  # type: ignore[assignment]
        sizes = list(map(len, values))
        key_sizes = list(map(len, keys))
        if max(sizes) + max(key_sizes, default=0) >= TABLE_BYTES_MAX or stop > len(VARINTS):
            return None
        fixed = b"\0" + encode_varint(delta)  # the attributes and the timestamp
        rest = len(fixed) + len(VARINTS[start]) + 1  # with the offset and the count of headers
        lengths: Iterable[bytes]
        if not keys:
            lengths = map(_tails_and_lengths(rest + 1)[1].__getitem__, sizes)
            pieces = [b"", fixed, b"", b"", b""] * (stop - start)
            pieces[3::5] = map(_null_keys().__getitem__, sizes)
        else:
            bodies = map(
                add, map(_WITH_LENGTH.__getitem__, sizes), map(_WITH_LENGTH.__getitem__, key_sizes)
            )
            lengths = map(_tails_and_lengths(rest)[0].__getitem__, bodies)
            pieces = [b"", fixed, b"", b"", b"", b"", b""] * (stop - start)
            pieces[3::7] = map(VARINTS.__getitem__, key_sizes)
            pieces[4::7] = keys
            pieces[5::7] = map(VARINTS.__getitem__, sizes)
        width = 7 if keys else 5
        pieces[0::width] = lengths
        pieces[2::width] = VARINTS[start:stop]
        pieces[width - 1 :: width] = values
        # each length has the tail of the record before it
        pieces[0] = pieces[0][1:]
        pieces.append(_TAIL)
        return b"".join(pieces)


#: The last byte of a record without headers: their count.
_TAIL: Final = b"\0"
#: The bytes of a key or a value of each size, with those of its length.
_WITH_LENGTH: Final = (*range(1, 65), *range(66, TABLE_BYTES_MAX + 2))


@cache
def _tails_and_lengths(rest: int) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Return tables of the tail of a record and the length of the next.

    The length is the sum of `rest` and the bytes of key and value with their lengths. The index in
    the first table is this number of bytes, in the second one the size of a value without a key.
    """
    tails = tuple(map(_TAIL.__add__, VARINTS[rest : rest + TABLE_BYTES_MAX + 4]))
    # sizes below 64 have a length of one byte, other ones of two
    return tails, tails[1:65] + tails[66:]


@cache
def _null_keys() -> Sequence[bytes]:
    """Return the length of a null key and the length of a value, for each size of a value."""
    return tuple(map(encode_varint(-1).__add__, VARINTS[:TABLE_BYTES_MAX]))


class ColumnBuilder(RecordColumns):
    """A batch to which records are added. Unlike BatchBuilder, it encodes many of them together.

    `producer_id`, `producer_epoch` and `base_sequence` may be set before each `build`. The size is
    an upper bound of the whole batch's bytes; after `settle` it is exact if the batch is not
    compressed.
    """

    __slots__ = (
        "_encoded",
        "_parts",
        "_released",
        "base_sequence",
        "codec",
        "level",
        "producer_epoch",
        "producer_id",
    )

    def __init__(self, *, codec: int = compression.NONE, level: int | None = None) -> None:
        super().__init__(HEADER_BYTES)
        self.codec = codec
        self.level = level
        self.producer_id = NONE
        self.producer_epoch = NONE
        self.base_sequence = NONE
        #: The bytes of the first `_encoded` records.
        self._parts: list[bytes] = []
        self._encoded = 0
        self._released = 0

    @property
    def count(self) -> int:
        """Number of records so far."""
        return self._released or len(self.values)

    @property
    def is_worth_settling(self) -> bool:
        """Whether more than a few of the records wait for their encoding."""
        return (len(self.values) - self._encoded) * SETTLED_SHARE > len(self.values)

    def settle(self) -> int:
        """Encode the records that wait. Return by how many bytes this makes the size smaller."""
        before = self.size
        if self._encoded < len(self.values):
            self._parts += self.encode(self._encoded)
            self._encoded = len(self.values)
            self.size = HEADER_BYTES + sum(map(len, self._parts))
        return before - self.size

    def release(self) -> None:
        """Free the bytes of the records. Afterwards only `count`, `size` and `time_of` work."""
        self._released = self.count
        self._drop_parts()
        self.values, self.keys, self.headers = [], None, {}

    def build(self) -> bytes:
        """Return the batch. It can be built again, also with another sequence."""
        assert not self._released, "the records were released"
        self.settle()
        builder = BatchBuilder(
            codec=self.codec,
            level=self.level,
            producer_id=self.producer_id,
            producer_epoch=self.producer_epoch,
            base_sequence=self.base_sequence,
        )
        times = [timestamp_ms for _, timestamp_ms in self.times]
        builder.take_encoded(self._parts, self._encoded, times[0], max(NONE, *times))
        # the batch has the same bytes; to build it again is rare
        self._drop_parts()
        return builder.build()

    def _drop_parts(self) -> None:
        self._parts = []
        self._encoded = 0
