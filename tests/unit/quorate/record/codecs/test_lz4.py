"""LZ4: one frame of independent blocks, whose headers may lie."""

from __future__ import annotations

import struct

import cramjam
import pytest

from quorate.errors import CorruptRecordError
from quorate.record.codecs import lz4
from quorate.record.compression import LZ4, OversizeError, compress, decompress
from tests.unit.quorate.record.builders import TEXT, peak_bytes

MAGIC = b"\x04\x22\x4d\x18"
#: Kafka's header: independent blocks of 64 KiB, no checksums; and the checksum of the header.
KAFKA = MAGIC + b"\x60\x40\x82"
END = bytes(4)
MIB = 1 << 20


def block(data: bytes) -> bytes:
    body = bytes(cramjam.lz4.compress_block(data, store_size=False))
    return struct.pack("<I", len(body)) + body


def stored(data: bytes) -> bytes:
    return struct.pack("<I", len(data) | 1 << 31) + data


def test_independent_blocks_of_64_kib_are_written() -> None:
    data = compress(LZ4, TEXT)
    assert data[:4] == MAGIC
    assert data[4] >> 5 == 0b011  # version 1, independent blocks
    assert data[4] & 0b1101 == 0  # no content size, content checksum or dictionary
    assert data[5] == 0x40


@pytest.mark.parametrize("level", range(1, 18))
def test_every_level_is_read_back(level: int) -> None:
    data = compress(LZ4, TEXT, level)
    assert decompress(LZ4, data, 2 * MIB) == TEXT


def test_kafkas_default_level_is_the_fast_compressor_and_the_others_the_strong_one() -> None:
    fast = len(compress(LZ4, TEXT))
    assert len(compress(LZ4, TEXT, 9)) == fast
    for level in (1, 3, 8, 10, 17):
        assert len(compress(LZ4, TEXT, level)) < fast
    assert len(compress(LZ4, TEXT, 17)) < len(compress(LZ4, TEXT, 3))


def test_the_bound_is_exact_for_blocks_that_are_full_or_stored() -> None:
    full = TEXT[: 64 << 10]
    assert lz4.size_bound(KAFKA + block(full) * 3 + stored(b"abc") + END) == 3 * len(full) + 3
    assert lz4.size_bound(KAFKA + END) == 0
    assert decompress(LZ4, KAFKA + END, 0) == b""


def test_a_bomb_is_refused_by_its_headers() -> None:
    bomb = KAFKA + block(bytes(64 << 10)) * 4096 + END

    def read() -> None:
        with pytest.raises(OversizeError, match="may decompress to 268435456 bytes; 1048576"):
            decompress(LZ4, bomb, MIB)

    assert peak_bytes(read) < MIB


def test_a_content_size_that_lies_is_not_believed() -> None:
    """2**60 bytes in the header of a small frame: what the blocks can hold is what counts."""
    header = MAGIC + b"\x68\x40" + struct.pack("<Q", 1 << 60)
    for checksum in range(256):  # one of them is the right one

        def read(checksum: int = checksum) -> None:
            lie = header + bytes((checksum,)) + stored(b"hello") + END
            assert lz4.size_bound(lie) == 5
            with pytest.raises(CorruptRecordError, match="does not decompress"):
                decompress(LZ4, lie, 1 << 40)

        assert peak_bytes(read) < MIB


def test_a_content_size_that_is_too_small_is_no_way_past_the_bound() -> None:
    header = MAGIC + b"\x68\x40" + struct.pack("<Q", 3)
    for checksum in range(256):
        with pytest.raises(CorruptRecordError, match="does not decompress"):
            decompress(LZ4, header + bytes((checksum,)) + block(bytes(60_000)) + END, MIB)


def test_a_block_that_holds_more_than_the_largest_is_corrupt() -> None:
    with pytest.raises(CorruptRecordError, match="does not decompress"):
        decompress(LZ4, KAFKA + block(bytes(65_537)) + END, MIB)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", "is cut"),
        (MAGIC[:3], "is cut"),
        (KAFKA, "is cut"),
        (KAFKA + stored(b"abc"), "is cut"),
        (KAFKA + stored(b"abc") + END[:3], "is cut"),
        (KAFKA + struct.pack("<I", 100) + b"abc" + END, "is cut"),
        (MAGIC + b"\x64\x40\xa7" + stored(b"abc") + END, "is cut"),  # no content checksum
        (KAFKA + stored(b"abc") + END + b"x", "1 bytes follow the frame"),
        ((KAFKA + stored(b"abc") + END) * 2, "18 bytes follow the frame"),
        (b"\x02\x21\x4c\x18" + struct.pack("<I", 4) + b"\x30abc", "legacy"),
        (b"\x50\x2a\x4d\x18" + bytes(4) + KAFKA + END, "does not begin with a frame"),
        (b"abcdefghijkl", "does not begin with a frame"),
        (MAGIC + b"\xa0\x40\x82" + END, "version 2"),
        (MAGIC + b"\x40\x40\xc0" + stored(b"abc") + END, "linked blocks"),
        (MAGIC + b"\x61\x40" + bytes(4) + b"\0" + END, "dictionary"),
        (MAGIC + b"\x60\x30\x82" + END, "blocks of size 3; 4 to 7"),
        (KAFKA + struct.pack("<I", 65_537) + bytes(65_537) + END, "a block of 65537 bytes"),
        (KAFKA + struct.pack("<I", 0x7FFFFFFF) + END, "a block of 2147483647 bytes"),
        (MAGIC + b"\x60\x40\x83" + stored(b"abc") + END, "does not decompress"),
        (KAFKA + struct.pack("<I", 3) + b"\xff\xff\xff" + END, "does not decompress"),
    ],
)
def test_what_is_not_one_whole_frame_is_corrupt(damaged: bytes, words: str) -> None:
    with pytest.raises(CorruptRecordError, match=words):
        decompress(LZ4, damaged, MIB)


def test_a_broken_checksum_of_a_block_or_of_the_content_is_corrupt() -> None:
    for checked in (True, False):
        compressor = cramjam.lz4.Compressor(level=0, content_checksum=checked, block_linked=False)
        compressor.compress(TEXT)
        data = bytearray(bytes(compressor.finish()))
        assert decompress(LZ4, data, 2 * MIB) == TEXT
        data[-1 if checked else -5] ^= 1  # the content's, else that of the last block
        with pytest.raises(CorruptRecordError, match="does not decompress"):
            decompress(LZ4, data, 2 * MIB)


def test_many_small_blocks_are_refused_without_walking_them_all() -> None:
    with pytest.raises(CorruptRecordError, match="more than 8192 blocks"):
        lz4.size_bound(KAFKA + stored(b"a") * 200_000 + END)
