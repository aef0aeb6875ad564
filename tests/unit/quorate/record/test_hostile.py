"""Hostile batches: CorruptRecordError and nothing else, with memory in proportion to the input."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import CorruptRecordError
from quorate.record.batch import (
    HEADER,
    HEADER_BYTES,
    BatchBuilder,
    check,
    complete_prefix,
    find_by_time,
    parse_header,
    record_bytes,
    records,
    split,
)
from quorate.record.compression import GZIP, LZ4, NONE, SNAPPY, ZSTD, compress
from tests.unit.quorate.record.builders import peak_bytes

FIELDS = (
    "base_offset",
    "batch_length",
    "leader_epoch",
    "magic",
    "crc",
    "attributes",
    "last_offset_delta",
    "base_timestamp",
    "max_timestamp",
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "count",
)


def whole(codec: int = NONE) -> bytes:
    builder = BatchBuilder(codec=codec)
    for index in range(20):
        headers = (("name", b"value"), ("null", None)) if index % 3 == 0 else ()
        builder.append(1_700_000_000_000 + index * 100, b"key-%d" % index, b"v" * 100, headers)
    return builder.build(base_offset=0)


CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
BATCHES = {codec: whole(codec) for codec in CODECS}


def with_fields(batch: bytes, **changes: int) -> bytes:
    """Return the batch with other header fields and a CRC that is right for them."""
    values = dict(zip(FIELDS, HEADER.unpack_from(batch), strict=True)) | changes
    changed = bytearray(HEADER.pack(*values.values()) + batch[HEADER_BYTES:])
    if "crc" not in changes:
        struct.pack_into(">I", changed, 17, crc32c(bytes(changed[21:])))
    return bytes(changed)


def with_body(body: bytes, *, codec: int = NONE, count: int = 1, **changes: int) -> bytes:
    batch = BATCHES[NONE][:HEADER_BYTES] + body
    changes = {"count": count, "last_offset_delta": max(count - 1, 0)} | changes
    return with_fields(batch, batch_length=49 + len(body), attributes=codec, **changes)


def drain(batch: bytes) -> None:
    """Do with the bytes all that anybody does; only CorruptRecordError may come out."""
    actions: tuple[Callable[[], object], ...] = (
        lambda: check(batch),
        lambda: check(batch, from_producer=True),
        lambda: list(split(batch)),
        lambda: complete_prefix(batch),
        lambda: list(records(batch, size_max=1 << 20)),
        lambda: find_by_time(batch, parse_header(batch), 1 << 60),
        lambda: find_by_time(batch, parse_header(batch), 0),
    )
    for action in actions:
        with contextlib.suppress(CorruptRecordError):
            action()


codecs = st.sampled_from(CODECS)


@settings(deadline=None)
@given(codecs, st.data())
def test_a_cut_batch_is_corrupt(codec: int, data: st.DataObject) -> None:
    batch = BATCHES[codec]
    cut = batch[: data.draw(st.integers(0, len(batch) - 1))]
    drain(cut)
    for action in (check, records):
        with pytest.raises(CorruptRecordError):
            action(cut)


@settings(deadline=None)
@given(codecs, st.data())
def test_every_flipped_bit_that_the_crc_covers_is_found(codec: int, data: st.DataObject) -> None:
    batch = bytearray(BATCHES[codec])
    bit = data.draw(st.integers(16 * 8, len(batch) * 8 - 1))
    batch[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptRecordError):
        check(batch)
    drain(bytes(batch))


@settings(deadline=None, max_examples=300)
@given(codecs, st.data())
def test_bytes_changed_under_a_right_crc_do_no_harm(codec: int, data: st.DataObject) -> None:
    """The sender computes the CRC, so a right one proves nothing about what it covers."""
    batch = bytearray(BATCHES[codec])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(HEADER_BYTES, len(batch) - 1))
        batch[position] = data.draw(st.integers(0, 255))
    drain(with_fields(bytes(batch)))


@settings(deadline=None, max_examples=300)
@given(codecs, st.binary(max_size=300), st.integers(0, 2**31 - 2))
def test_any_body_does_no_harm(codec: int, body: bytes, count: int) -> None:
    drain(with_body(body, codec=codec, count=count))
    drain(with_body(body, codec=codec, count=len(body) // 7))
    drain(with_body(compress(codec, body), codec=codec, count=count))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_do_no_harm(data: bytes) -> None:
    drain(data)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(FIELDS), st.integers(-(2**63), 2**63 - 1))
def test_any_header_field_does_no_harm(field: str, value: int) -> None:
    bits = {"magic": 8, "attributes": 16, "producer_epoch": 16}.get(field)
    if bits is None:
        wide = ("base_offset", "base_timestamp", "max_timestamp", "producer_id")
        bits = 64 if field in wide else 32
    value %= 1 << bits
    if field != "crc" and value >> (bits - 1):
        value -= 1 << bits
    drain(with_fields(BATCHES[NONE], **{field: value}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": 1}, "magic 1, not 2"),
        ({"batch_length": 48}, "batch_length 48 is less than 49"),
        ({"batch_length": -1}, "batch_length -1"),
        ({"attributes": 0x80}, "bits that are not known"),
        ({"attributes": -0x8000}, "bits that are not known"),
        ({"attributes": 5}, "codec 5 is not known"),
        ({"base_offset": -1}, "base_offset -1"),
        ({"base_offset": 2**63 - 20}, "base_offset 9223372036854775788"),
        ({"last_offset_delta": -1, "count": 0}, "last_offset_delta -1"),
        ({"last_offset_delta": 18}, "20 records over 19 offsets"),
        ({"count": -1}, "-1 records"),
        ({"count": 2**31 - 1, "last_offset_delta": 2**31 - 1}, "2147483647 records in"),
        ({"base_timestamp": -(2**61) - 1}, "base_timestamp -2305843009213693953"),
        ({"max_timestamp": -2}, "max_timestamp -2"),
        ({"max_timestamp": 2**63 - 1}, "max_timestamp 9223372036854775807"),
        ({"leader_epoch": -2}, "leader_epoch -2 is less than -1"),
        ({"producer_id": -2}, "producer_id -2"),
        ({"producer_id": 4, "producer_epoch": -2}, "producer_epoch -2"),
        ({"producer_id": 4, "base_sequence": -2}, "base_sequence -2"),
    ],
)
def test_an_impossible_header_is_named(changes: dict[str, int], words: str) -> None:
    with pytest.raises(CorruptRecordError, match=words):
        check(with_fields(BATCHES[NONE], **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"last_offset_delta": 25}, "20 records, and last_offset_delta 25"),
        ({"attributes": 0x08}, "only a broker sets"),
        ({"attributes": 0x20}, "only a broker sets"),
        ({"attributes": 0x40}, "only a broker sets"),
        ({"producer_id": 4}, "both must be 0 or more where there is a producer_id"),
        ({"producer_id": 4, "producer_epoch": 1}, "both must be 0 or more"),
        ({"producer_id": 4, "base_sequence": 1}, "both must be 0 or more"),
    ],
)
def test_what_a_log_may_hold_a_producer_may_not_send(changes: dict[str, int], words: str) -> None:
    batch = with_fields(BATCHES[NONE], **changes)
    check(batch)
    with pytest.raises(CorruptRecordError, match=words):
        check(batch, from_producer=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"base_sequence": 0},
        {"producer_epoch": 0, "base_sequence": 0},
        {"producer_id": 4, "producer_epoch": 0, "base_sequence": 7},
    ],
    ids=["aiokafka without idempotence", "KafkaJS without idempotence", "idempotent"],
)
def test_epoch_and_sequence_count_only_where_there_is_a_producer_id(
    changes: dict[str, int],
) -> None:
    batch = with_fields(BATCHES[NONE], **changes)
    for header in (check(batch, from_producer=True), check(batch)):
        assert header.last_sequence == (-1 if header.producer_id == -1 else 26)


@pytest.mark.parametrize("changes", [{"base_offset": 5}, {"base_offset": -1}, {"leader_epoch": 9}])
def test_a_producers_base_offset_and_leader_epoch_say_nothing(changes: dict[str, int]) -> None:
    header = check(with_fields(BATCHES[NONE], **changes), from_producer=True)
    assert (header.base_offset, header.leader_epoch) == (0, -1)


def test_a_wrong_crc_says_both() -> None:
    with pytest.raises(CorruptRecordError, match=r"says CRC 0x0000002a, and its bytes have 0x"):
        check(with_fields(BATCHES[NONE], crc=42))


def test_an_empty_batch_that_compaction_left_is_whole() -> None:
    """It keeps a producer's sequence when all its records are gone."""
    batch = with_body(b"", count=0, last_offset_delta=9)
    assert check(batch).end_offset == 10
    assert list(records(batch)) == []


def test_bytes_after_a_batch_are_refused() -> None:
    with pytest.raises(CorruptRecordError, match="says"):
        check(BATCHES[NONE] + b"x")
    with pytest.raises(CorruptRecordError, match="says"):
        records(BATCHES[NONE] + b"x")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("00" * 7, "its"),
        ("0c00000001010000", "bytes follow"),
        ("0b000000010100", "its length"),
        ("7e000000010100", "its length"),
        ("0c000001010100", "its offset"),  # offset delta -1
        ("0c000002010100", "its offset"),  # offset delta 1 of 0
        ("0c000000030100", "its key's length"),  # -2
        ("0c000000010300", "its value's length"),  # -2
        ("0c000000400100", "end before the last|length of its parts"),
        ("0c000000010101", "its number of headers"),  # -1
        ("0c00000001017e", "its number of headers"),  # 63
        ("1000000001010201" + "00", "a header's null key"),
        ("12000000010102" + "02ff" + "01", "not UTF-8"),
        ("1a00" + "ff" * 9 + "01" + "00010100", "its timestamp|its length|of its parts"),
        ("ffffffffff7f", "more than 32 bits"),
        ("2000" + "ff" * 10 + "01" + "00010100", "more than 64 bits"),
    ],
)
def test_an_impossible_record_is_named(body: str, words: str) -> None:
    data = bytes.fromhex(body)
    batch = with_body(data) if len(data) >= 7 else with_body(compress(ZSTD, data), codec=ZSTD)
    with pytest.raises(CorruptRecordError) as raised:
        list(records(batch))
    assert re.search(words, str(raised.value)), str(raised.value)


def test_a_timestamp_beyond_64_bits_is_refused() -> None:
    delta = ((1 << 63) - 1) << 1
    raw = bytearray()
    while delta >= 0x80:
        raw.append(delta & 0x7F | 0x80)
        delta >>= 7
    raw.append(delta)
    body = b"\0" + bytes(raw) + b"\0\1\1\0"
    with pytest.raises(CorruptRecordError, match="its timestamp"):
        list(records(with_body(bytes((len(body) * 2,)) + body)))


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_record_count_that_lies_allocates_nothing(codec: int) -> None:
    """A compressed body may hold any number of records, so only reading it can tell."""
    batch = with_body(compress(codec, b"\x0c\0\0\0\1\1\0"), codec=codec, count=2**31 - 1)

    def read() -> None:
        with pytest.raises(CorruptRecordError):
            list(records(batch))

    assert peak_bytes(read) < 1 << 20


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_that_decompresses_to_more_than_is_allowed_is_corrupt(codec: int) -> None:
    batch = with_body(compress(codec, bytes(1 << 20)), codec=codec)
    for read in (
        lambda: records(batch, size_max=(1 << 20) - 1),
        lambda: record_bytes(batch, parse_header(batch), size_max=(1 << 20) - 1),
    ):
        with pytest.raises(CorruptRecordError, match="1048575"):
            read()
