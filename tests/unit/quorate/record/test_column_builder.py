"""Records in columns: they have the same bytes as records that are encoded one at a time."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quorate.errors import InvalidTimestampError
from quorate.model import Header
from quorate.record.batch import HEADER_BYTES, TIMESTAMP_MAX, TIMESTAMP_MIN, BatchBuilder
from quorate.record.column_builder import ColumnBuilder, RecordColumns
from quorate.record.compression import NONE, ZSTD
from quorate.record.record import RawRecord, record_bytes_max

Row = tuple[int, bytes | None, bytes | None, tuple[Header, ...]]

#: Around the sizes at which a length has one byte more, and at which the tables end.
blobs = st.one_of(
    st.binary(max_size=5),
    st.integers(60, 67).map(bytes),
    st.integers(4000, 4200).map(bytes),
    st.integers(8100, 8300).map(bytes),
)
times = st.integers(1_700_000_000_000, 1_700_000_000_003) | st.sampled_from(
    [TIMESTAMP_MIN, TIMESTAMP_MAX, -1, 0, 1_699_999_999_000]
)
headers = st.just(()) | st.lists(
    st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2
).map(tuple)
plain = st.tuples(times, st.none(), blobs, st.just(()))
keyed = st.tuples(times, blobs, blobs, st.just(()))
any_row = st.tuples(times, st.none() | blobs, st.none() | blobs, headers)
rows = st.one_of(*(st.lists(one, min_size=1, max_size=30) for one in (plain, keyed, any_row)))


def append(columns: RecordColumns, row: Row) -> int:
    timestamp_ms, key, value, its_headers = row
    size = record_bytes_max(key, value, its_headers)
    return columns.append(timestamp_ms, key, value, its_headers, size)


def builders(content: list[Row], codec: int = NONE) -> tuple[ColumnBuilder, BatchBuilder]:
    columns, single = ColumnBuilder(codec=codec), BatchBuilder(codec=codec)
    for index, row in enumerate(content):
        assert append(columns, row) == index
        single.append(*row)
    return columns, single


@settings(deadline=None)
@given(rows, st.sampled_from([NONE, ZSTD]))
@example([(7, None, b"v" * (i % 90), ()) for i in range(9000)], NONE)
@example([(i // 700, b"k%d" % i, b"v", ()) for i in range(9000)], NONE)
def test_a_batch_of_columns_has_the_bytes_of_one_that_was_encoded_record_by_record(
    content: list[Row], codec: int
) -> None:
    columns, single = builders(content, codec)
    assert columns.build() == single.build()
    assert columns.size == single.size
    columns.base_sequence = single.base_sequence = 5
    assert columns.build() == single.build()


@settings(deadline=None)
@given(rows, st.data())
def test_the_size_is_a_bound_and_after_settle_exact(
    content: list[Row], data: st.DataObject
) -> None:
    columns = ColumnBuilder()
    settled = data.draw(st.sets(st.integers(0, len(content))))
    freed = bound = 0
    for index, row in enumerate(content):
        append(columns, row)
        bound += record_bytes_max(*row[1:])
        if index in settled:
            freed += columns.settle()
    freed += columns.settle()
    assert columns.size == HEADER_BYTES + bound - freed == len(columns.build())
    assert columns.settle() == 0


@settings(deadline=None)
@given(rows, rows, st.data())
def test_a_part_of_other_columns_can_be_added(
    first: list[Row], second: list[Row], data: st.DataObject
) -> None:
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(second))] * 2)))
    other, _ = builders(second)
    bounds = other.bounds()
    assert bounds == [
        sum(record_bytes_max(*row[1:]) for row in second[:i]) for i in range(len(second) + 1)
    ]
    columns, _ = builders(first)
    assert columns.extend(other, start, stop, bounds[stop] - bounds[start]) == len(first)
    expected, _ = builders(first + second[start:stop])
    assert list(columns.raw_records()) == list(expected.raw_records())
    assert (columns.size, columns.count) == (expected.size, expected.count)
    assert columns.build() == expected.build()


@given(rows)
def test_records_are_read_back_until_they_are_released(content: list[Row]) -> None:
    columns, _ = builders(content)
    assert list(columns.raw_records()) == [RawRecord(i, *row) for i, row in enumerate(content)]
    columns.release()
    assert columns.count == len(content)
    assert [columns.time_of(index) for index in range(len(content))] == [row[0] for row in content]
    assert list(columns.raw_records()) == []
    with pytest.raises(AssertionError, match="released"):
        columns.build()


@pytest.mark.parametrize("timestamp_ms", [TIMESTAMP_MIN - 1, TIMESTAMP_MAX + 1])
def test_a_timestamp_out_of_range_changes_nothing(timestamp_ms: int) -> None:
    columns, single = builders([(7, None, b"v", ())])
    with pytest.raises(InvalidTimestampError):
        append(columns, (timestamp_ms, b"k", b"v", ()))
    assert columns.build() == single.build()
