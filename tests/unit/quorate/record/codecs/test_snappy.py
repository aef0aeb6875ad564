"""snappy: xerial's chunks and raw blocks, whose sizes may lie."""

from __future__ import annotations

import struct

import cramjam
import pytest

from quorate.errors import CorruptRecordError
from quorate.record.codecs import snappy
from quorate.record.compression import SNAPPY, OversizeError, compress, decompress
from tests.unit.quorate.record.builders import TEXT, peak_bytes

HEADER = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
MIB = 1 << 20


def raw(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def chunk(block: bytes) -> bytes:
    return struct.pack(">i", len(block)) + block


def test_a_xerial_stream_of_32_kib_chunks_is_written() -> None:
    parts = [TEXT[start : start + 32_768] for start in range(0, len(TEXT), 32_768)]
    assert len(parts) > 2
    assert compress(SNAPPY, TEXT) == HEADER + b"".join(chunk(raw(part)) for part in parts)


def test_both_forms_are_read() -> None:
    for data in (compress(SNAPPY, TEXT), raw(TEXT)):
        assert snappy.size_bound(data) == len(TEXT)
        assert decompress(SNAPPY, data, len(TEXT)) == TEXT
        with pytest.raises(OversizeError, match=f"may decompress to {len(TEXT)} bytes"):
            decompress(SNAPPY, data, len(TEXT) - 1)


def test_versions_with_the_wrong_end_first_are_read() -> None:
    stream = b"\x82SNAPPY\0" + struct.pack("<ii", 1, 1) + chunk(raw(b"abc"))
    assert decompress(SNAPPY, stream, 3) == b"abc"


def test_chunks_of_any_size_are_read() -> None:
    stream = HEADER + b"".join(chunk(raw(part)) for part in (b"", b"a" * 100_000, b"b"))
    assert decompress(SNAPPY, stream, MIB) == b"a" * 100_000 + b"b"
    assert decompress(SNAPPY, HEADER, 0) == b""


def test_a_bomb_is_refused_by_its_headers() -> None:
    block = raw(bytes(64 * MIB))
    for bomb in (block, HEADER + chunk(block) * 4):

        def read(bomb: bytes = bomb) -> None:
            with pytest.raises(OversizeError, match="1048576 are allowed"):
                decompress(SNAPPY, bomb, MIB)

        assert peak_bytes(read) < MIB


@pytest.mark.parametrize("claim", [b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x20"])
def test_a_size_that_a_block_can_not_hold_allocates_nothing(claim: bytes) -> None:
    """A few bytes that claim 64 MiB or 4 GiB."""
    for lie in (claim + b"\0abc", HEADER + chunk(claim + b"\0abc")):

        def read(lie: bytes = lie) -> None:
            with pytest.raises(CorruptRecordError, match="can not hold"):
                decompress(SNAPPY, lie, 64 * MIB)

        assert peak_bytes(read) < MIB


def test_a_size_that_is_not_that_of_the_content_is_corrupt() -> None:
    block = raw(TEXT)
    for size in (len(TEXT) - 1, len(TEXT) + 1):
        claim = bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14))
        with pytest.raises(CorruptRecordError, match="does not decompress"):
            decompress(SNAPPY, claim + block[3:], MIB)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", "has no size"),
        (b"\xff\xff\xff\xff\xff\x01", "has no size"),
        (b"\x80", "has no size"),
        (HEADER[:12], "is cut"),
        (HEADER + b"\0\0", "is cut"),
        (HEADER + chunk(b""), "has no size"),
        (HEADER + struct.pack(">i", -1), "says -1 bytes"),
        (HEADER + struct.pack(">i", 9) + b"abc", "says 9 bytes, and 3 follow"),
        (HEADER + struct.pack(">i", 2**31 - 1) + b"abc", "says 2147483647 bytes"),
        (HEADER + chunk(raw(b"abc")) + HEADER + chunk(raw(b"abc")), "says -"),
        (raw(b"abc") + b"x", "does not decompress"),
        (raw(TEXT)[:-1], "does not decompress|can not hold"),
    ],
)
def test_what_is_not_whole_chunks_is_corrupt(damaged: bytes, words: str) -> None:
    with pytest.raises(CorruptRecordError, match=words):
        decompress(SNAPPY, damaged, MIB)


def test_many_empty_chunks_are_refused_without_walking_them_all() -> None:
    assert snappy.size_bound(HEADER + chunk(b"\0") * 8192) == 0
    with pytest.raises(CorruptRecordError, match="more than 8192 blocks"):
        snappy.size_bound(HEADER + chunk(b"\0") * 200_000)
