"""Records that are decoded together are those that are decoded one by one."""

from __future__ import annotations

import random
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import CorruptRecordError
from quorate.model import Header
from quorate.record import alike
from quorate.record.batch import HEADER_BYTES, BatchBuilder
from quorate.record.decoder import BatchDecoder
from quorate.record.record import RawRecord

TIME_MS = 1_790_000_000_000
BASE_OFFSET = 70_000
Rows = list[tuple[int, bytes | None, bytes | None, tuple[Header, ...]]]


def encoded(rows: Rows) -> bytes:
    builder = BatchBuilder()
    for row in rows:
        builder.append(*row)
    return builder.build()[HEADER_BYTES:]


def expected(rows: Rows, append_time: int | None = None) -> list[RawRecord]:
    return [
        RawRecord(BASE_OFFSET + index, append_time or row[0], *row[1:])
        for index, row in enumerate(rows)
    ]


def decoded(
    data: bytes, count: int, limits: list[int], append_time: int | None = None
) -> tuple[list[RawRecord], str]:
    """Return the records, decoded in blocks of these limits in turn, and what ended them."""
    decoder = BatchDecoder(
        data,
        0,
        count=count,
        base_offset=BASE_OFFSET,
        last_offset_delta=count - 1,
        base_timestamp=TIME_MS,
        log_append_time=append_time,
    )
    found: list[RawRecord] = []
    for limit in cycle(limits):
        try:
            columns = decoder.next(limit)
        except CorruptRecordError as error:
            with pytest.raises(CorruptRecordError):
                decoder.next(limit)  # an error stays
            return found, str(error)
        if columns is None:
            return found, ""
        block = [RawRecord(*fields) for fields in zip(*columns, strict=False)]
        assert 1 <= len(block) <= limit
        found += block
    raise AssertionError


def one_by_one(data: bytes, count: int) -> tuple[list[RawRecord], str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "OFFSETS_ALIKE", 0)
        return decoded(data, count, [512])


KEYS = st.sampled_from([None, b"", b"key", b"k" * 63, b"k" * 64])
VALUES = st.sampled_from([None, b"", b"v", b"v" * 100, b"v" * 8200])
STEPS = st.sampled_from([0, 1, 40, -1, -7000, 9000])
LIMITS = st.lists(st.sampled_from([1, 3, 100, 512]), min_size=1, max_size=3)


@st.composite
def runs(draw: st.DrawFn) -> Rows:
    """Records with runs of one layout between others."""
    rows: Rows = []
    time_ms = TIME_MS
    for _ in range(draw(st.integers(1, 4))):
        key, value, step = draw(KEYS), draw(VALUES), draw(STEPS)
        headers: tuple[Header, ...] = draw(st.sampled_from([(), (), (("h", b"1"), ("h", None))]))
        for _ in range(draw(st.integers(1, 150))):
            rows.append((time_ms, key, value, headers))
            time_ms += step
    return rows


@settings(deadline=None, max_examples=100)
@given(rows=runs(), limits=LIMITS, append_time=st.sampled_from([None, 5]))
def test_records_come_as_they_were_written(
    rows: Rows, limits: list[int], append_time: int | None
) -> None:
    """The first timestamp is the base of the others, so it is the batch's base_timestamp."""
    assert decoded(encoded(rows), len(rows), limits, append_time) == (
        expected(rows, append_time),
        "",
    )


@settings(deadline=None, max_examples=100)
@given(rows=runs(), limits=LIMITS, seed=st.integers(0, 1 << 30))
def test_changed_bytes_are_judged_alike(rows: Rows, limits: list[int], seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(encoded(rows))
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.randrange(len(data))
        data[at] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, data[at] ^ 1))
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    changed = bytes(data)
    assert decoded(changed, len(rows), limits) == one_by_one(changed, len(rows))


def test_offsets_may_be_missing_between_records_alike() -> None:
    """As compaction leaves them."""
    whole = encoded([(TIME_MS, None, b"v" * 100, ())] * 200)
    size = len(encoded([(TIME_MS, None, b"v" * 100, ())] * 51)) - len(
        encoded([(TIME_MS, None, b"v" * 100, ())] * 50)
    )
    with_gap = whole[: 50 * size] + whole[60 * size :]
    decoder = BatchDecoder(
        with_gap,
        0,
        count=190,
        base_offset=0,
        last_offset_delta=199,
        base_timestamp=TIME_MS,
        log_append_time=None,
    )
    offsets: list[int] = []
    while (columns := decoder.next(512)) is not None:
        offsets += columns[0]
    assert offsets == [*range(50), *range(60, 200)]
