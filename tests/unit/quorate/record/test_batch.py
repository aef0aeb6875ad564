"""Record batches: round trips, and the same bytes as two other clients of Kafka write and read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import CorruptRecordError, InvalidTimestampError
from quorate.model import Header
from quorate.record.batch import (
    HEADER_BYTES,
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    BatchBuilder,
    check,
    complete_prefix,
    find_by_time,
    parse_header,
    records,
    split,
    stamp,
    stamped_prefix,
)
from quorate.record.compression import GZIP, LZ4, NONE, SNAPPY, ZSTD
from quorate.record.header_changes import with_log_append_time
from quorate.record.record import RawRecord
from tests.unit.quorate.record.other_clients import (
    AiokafkaBatch,
    AiokafkaBuilder,
    AiokafkaPythonBatch,
    KafkaPythonBatch,
    KafkaPythonBuilder,
)

Row = tuple[int, bytes | None, bytes | None, tuple[Header, ...]]

blobs = st.none() | st.binary(max_size=200) | st.integers(8100, 8300).map(bytes)
headers = st.lists(
    st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=80)), max_size=4
).map(tuple)
timestamps = st.integers(-1, TIMESTAMP_MAX) | st.integers(1_700_000_000_000, 1_700_000_010_000)
rows = st.lists(st.tuples(timestamps, blobs, blobs, headers), min_size=1, max_size=40)
CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
#: kafka-python needs libraries of its own for the other two.
KAFKA_PYTHON_CODECS = (NONE, GZIP, ZSTD)
codecs = st.sampled_from(CODECS)

FEW: list[Row] = [
    (1_700_000_000_000, b"k", b"v", ()),
    (1_700_000_000_005, None, b"", (("trace", b"\x00\xff"), ("none", None), ("", b""))),
    (1_699_999_999_000, b"", None, ()),
    (1_700_000_900_000, b"x" * 70, b"y" * 9000, ()),
]
MANY: list[Row] = [(1_700_000_000_000 + i, b"%d" % i, b"v" * (i % 300), ()) for i in range(9000)]


def build(content: list[Row], codec: int = NONE, **fields: int) -> bytes:
    builder = BatchBuilder(codec=codec, **fields)
    for index, row in enumerate(content):
        assert builder.append(*row) == index
    batch = builder.build()
    assert len(batch) <= builder.size
    assert len(batch) == builder.size or codec
    return batch


def expected(content: list[Row], base_offset: int = 0) -> list[RawRecord]:
    return [RawRecord(base_offset + index, *row) for index, row in enumerate(content)]


@settings(deadline=None)
@given(rows, codecs)
def test_what_was_appended_is_read_back(content: list[Row], codec: int) -> None:
    batch = build(content, codec)
    header = check(batch, from_producer=True)
    assert header.count == len(content)
    assert header.last_offset_delta == len(content) - 1
    assert header.base_timestamp == content[0][0]
    assert header.max_timestamp == max(row[0] for row in content)
    assert header.size == len(batch)
    for form in (batch, bytearray(batch), memoryview(batch)):
        assert list(records(form)) == expected(content)


@pytest.mark.parametrize("content", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("builder_type", [KafkaPythonBuilder, AiokafkaBuilder])
def test_an_uncompressed_batch_has_the_bytes_that_others_write(
    content: list[Row], builder_type: type
) -> None:
    theirs = builder_type(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=7,
        producer_epoch=3,
        base_sequence=11,
        batch_size=1 << 30,
    )
    for index, (timestamp_ms, key, value, extra) in enumerate(content):
        theirs.append(index, timestamp_ms, key, value, list(extra))
    ours = bytearray(build(content, producer_id=7, producer_epoch=3, base_sequence=11))
    their_bytes = bytearray(theirs.build())
    stamp(their_bytes, base_offset=0, leader_epoch=-1)
    assert ours == their_bytes


@pytest.mark.parametrize(
    ("batch_type", "codec"),
    [
        *((AiokafkaBatch, codec) for codec in CODECS),
        *((AiokafkaPythonBatch, codec) for codec in CODECS),
        *((KafkaPythonBatch, codec) for codec in KAFKA_PYTHON_CODECS),
    ],
)
def test_others_read_our_batches(batch_type: type, codec: int) -> None:
    theirs = batch_type(build(MANY, codec))
    assert theirs.validate_crc()
    assert [
        RawRecord(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in theirs
    ] == expected(MANY)


@pytest.mark.parametrize(
    ("builder_type", "codec"),
    [
        *((AiokafkaBuilder, codec) for codec in CODECS),
        *((KafkaPythonBuilder, codec) for codec in KAFKA_PYTHON_CODECS),
    ],
)
def test_we_read_the_batches_that_others_write(builder_type: type, codec: int) -> None:
    theirs = builder_type(
        magic=2,
        compression_type=codec,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    for index, (timestamp_ms, key, value, extra) in enumerate(MANY):
        theirs.append(index, timestamp_ms, key, value, list(extra))
    batch = bytes(theirs.build())
    assert check(batch, from_producer=True).codec == codec
    assert list(records(batch)) == expected(MANY)


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_compression_does_not_make_smaller_goes_as_it_is(codec: int) -> None:
    batch = build([(0, None, b"x", ())], codec)
    assert parse_header(batch).codec == NONE


def test_a_builder_compresses_with_its_level() -> None:
    small, large = (BatchBuilder(codec=GZIP, level=level) for level in (9, 1))
    for row in MANY:
        small.append(*row)
        large.append(*row)
    assert len(small.build()) < len(large.build())


def test_null_is_not_empty() -> None:
    batch = build([(0, None, b"", (("a", None), ("b", b""))), (0, b"", None, ())])
    first, second = records(batch)
    assert (first.key, first.value) == (None, b"")
    assert (second.key, second.value) == (b"", None)
    assert first.headers == (("a", None), ("b", b""))


def test_records_are_decoded_when_asked_for() -> None:
    """A broken last record does not keep the first from being read."""
    batch = bytearray(build(FEW))
    batch[-1] = 0x7F
    lazily = records(batch)
    assert next(lazily).key == b"k"
    with pytest.raises(CorruptRecordError):
        list(lazily)


def test_a_builder_takes_its_sequence_late_and_builds_again() -> None:
    builder = BatchBuilder()
    builder.append(5, b"k", b"v")
    builder.producer_id, builder.producer_epoch, builder.base_sequence = 9, 1, 2**31 - 1
    header = check(builder.build(base_offset=40, leader_epoch=6))
    assert (header.producer_id, header.producer_epoch) == (9, 1)
    assert (header.base_offset, header.last_offset, header.end_offset) == (40, 40, 41)
    assert header.leader_epoch == 6
    builder.base_sequence = 0
    assert check(builder.build()).last_sequence == 0


def test_sequences_wrap() -> None:
    batch = build(FEW, producer_id=1, producer_epoch=0, base_sequence=2**31 - 2)
    assert parse_header(batch).last_sequence == 1
    assert parse_header(build(FEW)).last_sequence == -1


@pytest.mark.parametrize("timestamp_ms", [TIMESTAMP_MIN - 1, TIMESTAMP_MAX + 1])
def test_an_impossible_timestamp_is_refused_at_the_door(timestamp_ms: int) -> None:
    builder = BatchBuilder()
    with pytest.raises(InvalidTimestampError, match=str(timestamp_ms)):
        builder.append(timestamp_ms, None, None)
    assert builder.count == 0


def test_a_value_that_is_not_bytes_is_refused_at_the_door() -> None:
    builder = BatchBuilder()
    with pytest.raises(TypeError, match=r"value must be bytes or None, not str"):
        builder.append(0, None, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"key must be bytes or None, not int"):
        builder.append(0, 5, None)  # type: ignore[arg-type]
    builder.append(0, bytearray(b"k"), memoryview(b"v"))  # type: ignore[arg-type]
    assert list(records(builder.build())) == [RawRecord(0, 0, b"k", b"v", ())]


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(-1, 2**31 - 1), codecs)
def test_stamping_leaves_the_crc_alone(base_offset: int, leader_epoch: int, codec: int) -> None:
    batch = build(FEW, codec)
    stamped = bytearray(batch)
    stamp(stamped, base_offset=base_offset, leader_epoch=leader_epoch)
    header = check(stamped)
    assert (header.base_offset, header.leader_epoch) == (base_offset, leader_epoch)
    assert stamped[16:] == batch[16:]
    assert list(records(stamped)) == expected(FEW, base_offset)
    prefix = stamped_prefix(batch, base_offset=base_offset, leader_epoch=leader_epoch)
    assert prefix + batch[16:] == stamped


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time_is_every_records_timestamp(codec: int) -> None:
    batch = with_log_append_time(build(MANY, codec), 1_800_000_000_000)
    header = check(batch)
    assert header.timestamp_type == "log_append_time"
    assert header.max_timestamp == 1_800_000_000_000
    assert {record.timestamp_ms for record in records(batch)} == {1_800_000_000_000}
    assert AiokafkaBatch(batch).validate_crc()
    assert {record.timestamp for record in AiokafkaBatch(batch)} == {1_800_000_000_000}


def test_split_gives_views_of_whole_batches() -> None:
    one, two = build(FEW), build(FEW[:1])
    joined = one + two
    assert [(header.count, bytes(view)) for header, view in split(joined)] == [(4, one), (1, two)]
    assert list(split(b"")) == []
    for cut in (1, HEADER_BYTES - 1, HEADER_BYTES, len(two) - 1):
        batches = split(joined[: len(one) + cut])
        next(batches)
        with pytest.raises(CorruptRecordError):
            next(batches)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_the_complete_prefix_ends_where_a_batch_ends(data: st.DataObject) -> None:
    one, two = build(FEW), build(FEW[:1])
    joined = one + two
    cut = data.draw(st.integers(0, len(joined)))
    ends = [0, len(one), len(joined)]
    assert complete_prefix(joined[:cut]) == max(end for end in ends if end <= cut)
    assert len(list(split(joined[: complete_prefix(joined[:cut])]))) == ends.index(
        complete_prefix(joined[:cut])
    )


@given(
    st.lists(st.tuples(st.integers(-200, 200_000), st.binary(max_size=200)), min_size=1),
    st.integers(-300, 200_100),
    codecs,
    st.booleans(),
    st.integers(60, 75),
)
def test_a_search_by_time_finds_what_decoding_every_record_finds(
    made: list[tuple[int, bytes]], wanted: int, codec: int, log_append_time: bool, start: int
) -> None:
    builder = BatchBuilder(codec=codec)
    for delta, value in made:
        builder.append(1_000_000 + delta, value or None, value, [("h", value)])
    batch = builder.build(base_offset=70)
    if log_append_time:
        batch = with_log_append_time(batch, 1_000_000)
    late = (
        (record.offset, record.timestamp_ms)
        for record in records(batch)
        if record.timestamp_ms >= 1_000_000 + wanted and record.offset >= start
    )
    found = find_by_time(batch, parse_header(batch), 1_000_000 + wanted, start)
    assert found == next(late, None)
