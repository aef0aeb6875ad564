"""What is left of one batch: the last record of each key, unchanged, and tombstones for a while."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from crc32c import crc32c

from quorate.record import compression
from quorate.record.batch import (
    CONTROL,
    DELETE_HORIZON,
    HEADER,
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    TRANSACTIONAL,
    check,
    parse_header,
    records,
)
from quorate.record.filtered import emptied
from quorate_broker.compaction.batch_filter import BatchFilter, Rules
from quorate_broker.compaction.offset_map import OffsetMap
from quorate_broker.compaction.survivors import Survivors
from tests.unit.quorate_broker.compaction.builders import NOW_MS, Pair, keyed

CODECS = [compression.NONE, compression.ZSTD]


def filter_with(later: dict[bytes, int], *, epoch_before: int = 1, **rules: Any) -> BatchFilter:
    """Return a filter of a pass whose map holds `later`.

    It has met a batch of epoch_before; batches are of epoch 1.
    """
    offsets = OffsetMap(10_000, bytes(16))
    offsets.put(later)
    survivors = Survivors(0, 1000)
    survivors.mark(0, 1000)
    values: dict[str, Any] = {
        "first_dirty": 0,
        "map_end": 1000,
        "now_ms": NOW_MS,
        "delete_retention_ms": 100,
        "may_drop_tombstones": True,
        "producers": {},
    }
    found = BatchFilter(offsets, survivors, Rules(**(values | rules)))
    earlier = emptied(parse_header(keyed(0, [(b"k", b"v")], epoch=epoch_before)))
    found.filtered(parse_header(earlier), earlier, segment_end=1000)
    return found


def left_of(batch: bytes, later: dict[bytes, int], end: int = 1000, **rules: Any) -> bytes | None:
    found = filter_with(later, **rules).filtered(parse_header(batch), batch, segment_end=end)
    return None if found is None else bytes(found)


THREE: list[Pair] = [(b"a", b"1" * 50), (b"b", b"2" * 50), (b"a", b"3" * 50)]


@pytest.mark.parametrize("codec", CODECS)
def test_the_last_record_of_a_key_stays_unchanged(codec: int) -> None:
    batch = keyed(10, THREE, codec=codec, producer=(7, 20))
    left = left_of(batch, {b"a": 12, b"b": 11})
    assert left is not None
    before, after = parse_header(batch), check(left)
    assert list(records(left)) == list(records(batch))[1:]
    assert after.codec == before.codec == codec
    for name in ("base_offset", "end_offset", "leader_epoch", "producer_id", "producer_epoch"):
        assert getattr(after, name) == getattr(before, name)
    assert (after.base_sequence, after.last_sequence) == (20, 22)
    assert after.max_timestamp == 12


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_loses_nothing_is_the_very_same(codec: int) -> None:
    batch = keyed(10, THREE[1:], codec=codec)
    found = filter_with({b"a": 11, b"b": 10}).filtered(parse_header(batch), batch, segment_end=99)
    assert found is batch


def test_a_batch_without_records_goes() -> None:
    batch = keyed(10, THREE)
    assert left_of(batch, {b"a": 20, b"b": 21}) is None


@pytest.mark.parametrize(
    "reason",
    [
        {"end": 13},
        {"epoch_before": 0},
        {"producers": {7: 10}},
        {"producers": {7: 3}},
    ],
    ids=["last of its segment", "first of its epoch", "last of its producer", "in the window"],
)
def test_an_empty_batch_stays_where_its_header_is_needed(reason: dict[str, Any]) -> None:
    batch = keyed(10, THREE, producer=(7, 20), codec=compression.ZSTD)
    left = left_of(batch, {b"a": 20, b"b": 21}, **reason)
    assert left is not None
    header = check(left)
    assert (header.count, header.base_offset, header.end_offset) == (0, 10, 13)
    assert (header.producer_id, header.base_sequence, header.last_sequence) == (7, 20, 22)
    assert list(records(left)) == []
    assert left_of(left, {}, **reason) == left, "and in every later pass"
    assert left_of(left, {}) is None, "until it is not needed any more"


def test_the_first_batch_of_each_epoch_stays_wherever_the_log_starts() -> None:
    """A power loss may leave an old table of epochs. The batches tell where each one begins.

    The table begins at the log's start, and may know no batch that begins an epoch: when records
    were deleted up to the middle of a batch, the whole epoch was lost with its batches.
    """
    batch_filter = filter_with({b"a": 90, b"b": 91}, epoch_before=0)
    left = []
    for base_offset, epoch in ((10, 1), (13, 1), (16, 2), (19, 4), (22, 4)):
        batch = keyed(base_offset, THREE, epoch=epoch)
        found = batch_filter.filtered(parse_header(batch), batch, segment_end=99)
        if found is not None:
            header = parse_header(found)
            left.append((header.base_offset, header.leader_epoch, header.count))
    assert left == [(10, 1, 0), (16, 2, 0), (19, 4, 0)]


def test_a_batch_of_a_producer_that_wrote_more_since_goes() -> None:
    batch = keyed(10, THREE, producer=(7, 20))
    assert left_of(batch, {b"a": 20, b"b": 21}, producers={7: 13}) is None


def test_records_without_a_key_stay_and_are_counted() -> None:
    batch = keyed(10, [(None, b"1"), (b"a", b"2"), (None, None)])
    batch_filter = filter_with({b"a": 20})
    left = batch_filter.filtered(parse_header(batch), batch, segment_end=99)
    assert left is not None
    assert [record.offset for record in records(left)] == [10, 12]
    assert (batch_filter.counts.without_key, batch_filter.counts.dropped) == (2, 1)


@pytest.mark.parametrize("bit", [CONTROL, TRANSACTIONAL])
def test_control_and_transactional_batches_stay_as_they_are(bit: int) -> None:
    batch = keyed(10, THREE)
    fields = list(HEADER.unpack_from(batch))
    fields[5] |= bit
    marked = HEADER.pack(*fields) + batch[HEADER.size :]
    assert left_of(marked, {b"a": 20, b"b": 21}) == marked


def test_a_batch_that_does_not_decode_stays_and_is_counted() -> None:
    batch = keyed(10, THREE)
    broken = batch[: HEADER.size] + b"\xff" + batch[HEADER.size + 1 :]
    batch_filter = filter_with({b"a": 20, b"b": 21})
    assert batch_filter.filtered(parse_header(broken), broken, segment_end=99) is broken
    assert batch_filter.counts.not_decoded == 1


TOMBSTONE: list[Pair] = [(b"a", b"1"), (b"a", None), (b"b", b"x")]
LAST = {b"a": 11, b"b": 12}


@pytest.mark.parametrize("codec", CODECS)
def test_a_tombstone_gets_its_horizon_in_the_pass_that_takes_what_it_deletes(codec: int) -> None:
    batch = keyed(10, TOMBSTONE, codec=codec)
    left = left_of(batch, LAST)
    assert left is not None
    header = check(left)
    assert header.attributes & DELETE_HORIZON
    assert header.base_timestamp == NOW_MS + 100
    assert list(records(left)) == list(records(batch))[1:], "timestamps too"
    assert header.max_timestamp == 12


@pytest.mark.parametrize("rules", [{"map_end": 12}, {"first_dirty": 11}])
def test_a_tombstone_that_the_map_does_not_hold_gets_no_horizon(rules: dict[str, Any]) -> None:
    """An older record of its key may be left."""
    left = left_of(keyed(10, TOMBSTONE), LAST, **rules)
    assert left is not None
    assert not parse_header(left).attributes & DELETE_HORIZON
    assert [record.offset for record in records(left)] == [11, 12]


def test_a_tombstone_goes_after_its_horizon_and_not_before() -> None:
    first = left_of(keyed(10, TOMBSTONE), LAST)
    assert first is not None
    assert left_of(first, LAST, now_ms=NOW_MS + 99) == first
    assert left_of(first, LAST, now_ms=NOW_MS + 100, may_drop_tombstones=False) == first
    assert left_of(first, {}, now_ms=NOW_MS + 100, map_end=12) == first
    later = left_of(first, {}, now_ms=NOW_MS + 100)
    assert later is not None
    assert [(record.offset, record.timestamp_ms) for record in records(later)] == [(12, 12)]
    assert check(later).base_timestamp == NOW_MS + 100


def test_an_emptied_batch_has_no_codec_no_horizon_and_no_time() -> None:
    batch = keyed(10, THREE, codec=compression.ZSTD)
    header = check(emptied(parse_header(batch)))
    assert (header.attributes, header.max_timestamp) == (0, -1)


def of_times(base_ms: int, pairs: list[Pair]) -> bytes:
    """Return a batch at offset 10 whose records are a millisecond apart, from `base_ms` on."""
    made = bytearray(keyed(10, pairs))
    struct.pack_into(">qq", made, 27, base_ms, max(base_ms + len(pairs) - 1, -1))
    struct.pack_into(">I", made, 17, crc32c(bytes(made[21:])))
    return bytes(made)


@pytest.mark.parametrize("base_ms", [-5_000, -2, TIMESTAMP_MIN])
@pytest.mark.parametrize("now_ms", [NOW_MS, TIMESTAMP_MAX])
@pytest.mark.parametrize("pairs", [THREE, TOMBSTONE], ids=["values", "tombstone"])
def test_records_from_before_1970_are_compacted_like_others(
    pairs: list[Pair], base_ms: int, now_ms: int
) -> None:
    batch = of_times(base_ms, pairs)
    last = {b"a": 11 if pairs is TOMBSTONE else 12, b"b": 12 if pairs is TOMBSTONE else 11}
    left = left_of(batch, last, now_ms=now_ms)
    assert left is not None
    assert list(records(left)) == list(records(batch))[1:]
    assert check(left).max_timestamp == max(base_ms + 2, -1)
