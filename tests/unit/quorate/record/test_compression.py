"""The codecs together: round trips, hostile bytes, names and levels."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import CorruptRecordError, UnsupportedError
from quorate.record import compression
from quorate.record.compression import (
    CODECS,
    GZIP,
    LEVELS,
    LZ4,
    NONE,
    SNAPPY,
    ZSTD,
    codec_named,
    compress,
    decompress,
    size_bound,
)
from tests.unit.quorate.record.builders import TEXT

COMPRESSING = (GZIP, SNAPPY, LZ4, ZSTD)
codecs = st.sampled_from((NONE, *COMPRESSING))
blobs = st.binary(max_size=300) | st.tuples(
    st.binary(min_size=1, max_size=30), st.integers(0, 9000)
).map(lambda pair: pair[0] * pair[1])


@settings(deadline=None, max_examples=300)
@given(codecs, blobs)
def test_what_was_compressed_is_read_back(codec: int, data: bytes) -> None:
    for form in (data, bytearray(data), memoryview(data)):
        compressed = compress(codec, form)
        bound = size_bound(codec, compressed)
        assert bound >= len(data)
        for again in (compressed, bytearray(compressed), memoryview(compressed)):
            assert decompress(codec, again, bound) == data


@settings(deadline=None)
@given(st.sampled_from((GZIP, SNAPPY, ZSTD, NONE)), st.binary(max_size=5000), st.integers(0, 5000))
def test_decompression_gives_all_or_refuses(codec: int, data: bytes, size_max: int) -> None:
    compressed = compress(codec, memoryview(data))
    if len(data) <= size_max:
        assert decompress(codec, memoryview(compressed), size_max) == data
    else:
        with pytest.raises(CorruptRecordError, match=str(size_max)):
            decompress(codec, compressed, size_max)


@settings(deadline=None, max_examples=600)
@given(codecs, st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 255))
def test_any_compressed_bytes_do_no_harm(codec: int, data: bytes, tail: bytes, cut: int) -> None:
    compressed = compress(codec, data * 50)
    for hostile in (data, compressed[:cut] + tail, compressed + tail):
        with contextlib.suppress(CorruptRecordError):
            content = decompress(codec, hostile, 4096)
            assert len(content) <= min(4096, size_bound(codec, hostile))


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(COMPRESSING), st.data())
def test_changed_bytes_do_no_harm(codec: int, data: st.DataObject) -> None:
    compressed = bytearray(compress(codec, TEXT[:1000] * 3))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(compressed) - 1))
        compressed[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptRecordError):
        assert len(decompress(codec, compressed, 100_000)) <= 100_000


@pytest.mark.parametrize("codec", COMPRESSING)
def test_every_cut_is_corrupt_or_shorter(codec: int) -> None:
    """A chunk of snappy may end where the data ends; every other cut is seen."""
    compressed = compress(codec, TEXT[:40_000])
    for end in range(0, len(compressed), 7):
        try:
            content = decompress(codec, compressed[:end], 1 << 20)
        except CorruptRecordError:
            continue
        assert codec == SNAPPY
        assert len(content) in (0, 32_768)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_a_mebibyte_is_compressed_and_read_back(codec: int) -> None:
    data = (TEXT * 20)[: 1 << 20]
    compressed = compress(codec, data)
    assert len(compressed) < len(data) // 2
    assert decompress(codec, compressed, 2 << 20) == data


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_the_ends_of_the_levels_are_levels(codec: int) -> None:
    levels = LEVELS[codec]
    for level in (levels.least, levels.most, levels.default):
        assert levels.allow(level)
        assert decompress(codec, compress(codec, b"a" * 99, level), 1 << 20) == b"a" * 99
    assert not levels.allow(levels.most + 1)
    assert not levels.allow(min(levels.least, levels.default) - 1)


def test_the_levels_are_kafkas() -> None:
    assert {codec: levels.allowed for codec, levels in LEVELS.items()} == {
        GZIP: "-1, or 1 to 9",
        LZ4: "1 to 17",
        ZSTD: "-131072 to 22",
    }
    assert {codec: levels.default for codec, levels in LEVELS.items()} == {
        GZIP: -1,
        LZ4: 9,
        ZSTD: 3,
    }


def test_a_name_that_is_no_codec_says_what_there_is() -> None:
    with pytest.raises(UnsupportedError, match=r"'brotli'.*none, gzip, snappy, lz4, zstd"):
        codec_named("brotli")


@pytest.mark.parametrize("codec", [5, 7, -1])
def test_a_number_that_is_no_codec_says_what_there_is(codec: int) -> None:
    for action in (
        lambda: compress(codec, b""),
        lambda: size_bound(codec, b""),
        lambda: decompress(codec, b"", 1),
    ):
        with pytest.raises(UnsupportedError, match="there is none, gzip, snappy, lz4, zstd"):
            action()


def test_codecs_have_kafkas_numbers() -> None:
    assert CODECS == {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
    assert codec_named("zstd") == compression.ZSTD
