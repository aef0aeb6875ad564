"""A batch under another codec: everything but the codec stays."""

from __future__ import annotations

import dataclasses

import pytest

from quorate.record.batch import BatchHeader, check, record_bytes, records
from quorate.record.compression import CODECS, GZIP, LZ4, NAMES, NONE, SNAPPY, ZSTD
from quorate.record.header_changes import with_log_append_time
from quorate.record.recompression import codec_of, recompressed
from tests.unit.quorate.record.kafka_batches import BASE_OFFSET, BATCHES, ROWS


def under(batch: bytes, codec: int, level: int | None = None) -> bytes:
    data, position = record_bytes(batch, check(batch))
    return recompressed(batch, memoryview(data)[position:], codec, level)


def without_codec(header: BatchHeader) -> BatchHeader:
    return dataclasses.replace(header, batch_length=0, crc=0, attributes=header.attributes & ~7)


@pytest.mark.parametrize("made", BATCHES, ids=str)
def test_a_batch_of_apache_kafka_is_read(made: tuple[str, int | None]) -> None:
    batch = bytes.fromhex(BATCHES[made])
    header = check(batch)
    assert (NAMES[header.codec], header.base_offset, header.count) == (made[0], BASE_OFFSET, 40)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 1, 5)
    assert list(records(batch)) == ROWS


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("made", BATCHES, ids=str)
def test_records_and_header_stay(made: tuple[str, int | None], codec: int) -> None:
    batch = bytes.fromhex(BATCHES[made])
    again = under(batch, codec)
    header = check(again)
    assert codec_of(again) == header.codec == codec
    assert without_codec(header) == without_codec(check(batch))
    assert list(records(again)) == ROWS


def test_the_flags_stay() -> None:
    batch = with_log_append_time(bytes.fromhex(BATCHES["lz4", None]), 1_800_000_000_000)
    for codec in (NONE, ZSTD):
        header = check(under(batch, codec))
        assert header.timestamp_type == "log_append_time"
        assert header.max_timestamp == 1_800_000_000_000


def test_all_ways_lead_to_the_same_plain_batch() -> None:
    plain = {under(bytes.fromhex(text), NONE) for text in BATCHES.values()}
    assert len(plain) == 1
    (batch,) = plain
    for codec in (GZIP, SNAPPY, LZ4, ZSTD):
        assert under(under(batch, codec), NONE) == batch


def test_a_level_is_obeyed() -> None:
    batch = under(bytes.fromhex(BATCHES["zstd", None]), NONE)
    for codec, small, large in ((GZIP, 9, 1), (LZ4, 17, 9), (ZSTD, 19, -50)):
        assert len(under(batch, codec, small)) < len(under(batch, codec, large))


def test_the_codec_is_obeyed_even_if_it_makes_the_batch_larger() -> None:
    """Apache Kafka does the same: every batch of a topic has the topic's codec."""
    batch = recompressed(bytes.fromhex(BATCHES["zstd", None]), b"x", NONE, None)
    for codec in (GZIP, SNAPPY, LZ4, ZSTD):
        larger = recompressed(batch, b"x", codec, None)
        assert len(larger) > len(batch)
        assert codec_of(larger) == codec


@pytest.mark.parametrize("data", [b"", bytes(22), bytes(23)])
def test_bytes_that_are_no_batch_have_no_codec(data: bytes) -> None:
    assert codec_of(data) == NONE
