"""gzip: members that are counted while they are inflated."""

from __future__ import annotations

import gzip as standard
import struct
import zlib

import pytest

from quorate.errors import CorruptRecordError
from quorate.record.codecs import gzip
from quorate.record.compression import GZIP, OversizeError, compress, decompress
from tests.unit.quorate.record.builders import TEXT, peak_bytes

MIB = 1 << 20


def test_others_read_what_is_written() -> None:
    assert standard.decompress(compress(GZIP, TEXT)) == TEXT


@pytest.mark.parametrize("level", [-1, *range(1, 10)])
def test_every_level_is_read_back(level: int) -> None:
    assert decompress(GZIP, compress(GZIP, TEXT, level), len(TEXT)) == TEXT


def test_a_higher_level_makes_it_smaller() -> None:
    assert len(compress(GZIP, TEXT, 9)) < len(compress(GZIP, TEXT, 1))


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_content_of_any_size_fits_the_pieces(size: int) -> None:
    data = (TEXT * (size // len(TEXT) + 1))[:size]
    assert decompress(GZIP, standard.compress(data), size) == data


def test_members_may_follow_each_other() -> None:
    joined = b"".join(standard.compress(part) for part in (b"a" * 70_000, b"", TEXT))
    assert decompress(GZIP, joined, MIB) == b"a" * 70_000 + TEXT


def test_the_bound_counts_all_members_together() -> None:
    joined = standard.compress(bytes(600)) * 2
    assert decompress(GZIP, joined, 1200) == bytes(1200)
    with pytest.raises(OversizeError, match="more than the 1199 bytes"):
        decompress(GZIP, joined, 1199)


def test_a_bomb_stops_at_the_bound() -> None:
    bomb = standard.compress(bytes(256 * MIB))

    def read() -> None:
        with pytest.raises(OversizeError, match="more than the 1048576 bytes that are allowed"):
            decompress(GZIP, bomb, MIB)

    assert peak_bytes(read) < 4 * MIB


def test_a_bomb_of_many_members_stops_at_the_bound() -> None:
    bomb = standard.compress(bytes(MIB)) * 200

    def read() -> None:
        with pytest.raises(OversizeError):
            decompress(GZIP, bomb, 10 * MIB)

    assert peak_bytes(read) < 16 * MIB


def test_many_empty_members_are_refused_without_reading_them_all() -> None:
    """Each costs a decoder, and gives no output that a bound could count."""
    member = standard.compress(b"")
    assert decompress(GZIP, member * 1024, 0) == b""
    with pytest.raises(CorruptRecordError, match="more than 1024 members"):
        decompress(GZIP, member * 1025, 0)


def test_no_bytes_become_more_than_the_bound() -> None:
    for size in (0, 1, 100, 10_000, 5 * MIB):
        data = standard.compress(bytes(size))
        assert size <= gzip.size_bound(data)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        standard.compress(TEXT)[:-1],
        standard.compress(TEXT)[:-8],
        standard.compress(TEXT)[:30],
        standard.compress(TEXT)[:5],
        standard.compress(TEXT) + b"x",
        standard.compress(TEXT) + bytes(64),
        standard.compress(TEXT)[:-4] + struct.pack("<I", len(TEXT) - 1),
        standard.compress(TEXT)[:-8] + bytes(4) + struct.pack("<I", len(TEXT)),
        zlib.compress(TEXT),
        zlib.compress(TEXT, wbits=-15),
    ],
    ids=[
        "empty",
        "cut in the trailer",
        "no trailer",
        "cut in the content",
        "cut in the header",
        "a byte behind",
        "zeros behind",
        "wrong size",
        "wrong checksum",
        "zlib",
        "bare deflate",
    ],
)
def test_what_is_not_whole_members_is_corrupt(damaged: bytes) -> None:
    with pytest.raises(CorruptRecordError):
        decompress(GZIP, damaged, MIB)
