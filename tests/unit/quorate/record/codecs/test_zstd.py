"""zstd: what the headers of hostile frames bound."""

from __future__ import annotations

import cramjam
import pytest

from quorate.errors import CorruptRecordError
from quorate.record.codecs import zstd
from quorate.record.compression import ZSTD, compress, decompress
from tests.unit.quorate.record.builders import TEXT, peak_bytes

MAGIC = b"\x28\xb5\x2f\xfd"
RAW_BLOCK = (5 << 3 | 1).to_bytes(3, "little") + b"hello"


def test_the_bound_of_our_own_frames_is_exact() -> None:
    assert zstd.size_bound(compress(ZSTD, TEXT)) == len(TEXT)


def test_a_bomb_stops_at_the_bound() -> None:
    bomb = bytes(cramjam.zstd.compress(bytes(256 << 20), level=3))
    assert len(bomb) < 64 << 10

    def read() -> None:
        with pytest.raises(
            CorruptRecordError, match="may decompress to 268435456 bytes; 1048576 are allowed"
        ):
            decompress(ZSTD, bomb, 1 << 20)

    assert peak_bytes(read) < 4 << 20


def test_a_frame_that_claims_a_huge_content_is_not_believed() -> None:
    """The claim of 2**60 bytes costs nothing: what the blocks can hold is what counts."""
    lie = MAGIC + b"\xc0" + b"\x58" + (1 << 60).to_bytes(8, "little") + RAW_BLOCK
    assert zstd.size_bound(lie) == 5

    def read() -> None:
        with pytest.raises(CorruptRecordError):
            decompress(ZSTD, lie, 1 << 30)

    assert peak_bytes(read) < 1 << 20


@pytest.mark.parametrize(
    "descriptor", [b"\x00\x89", b"\x00\xff", b"\xe0" + (1 << 40).to_bytes(8, "little")]
)
def test_a_frame_that_wants_a_huge_window_is_refused(descriptor: bytes) -> None:
    with pytest.raises(CorruptRecordError, match="window"):
        decompress(ZSTD, MAGIC + descriptor + RAW_BLOCK, 1 << 20)


def test_the_window_of_the_highest_level_is_read() -> None:
    """Kafka's producer does not tell the size of the content: level 22 then asks for 128 MiB."""
    assert decompress(ZSTD, MAGIC + b"\x00\x88" + RAW_BLOCK, 1 << 20) == b"hello"


def test_many_small_blocks_are_refused_without_walking_them_all() -> None:
    """Each is three bytes: a megabyte of them held up the broker's loop for a second."""
    header = MAGIC + b"\x00\x50"
    empty = (0).to_bytes(3, "little")
    last = (1).to_bytes(3, "little")
    assert zstd.size_bound(header + empty * 8_000 + last) == 0
    for hostile in (
        header + empty * 300_000 + last,
        (header + last) * 100_000,
        b"\x50\x2a\x4d\x18\0\0\0\0" * 100_000,
    ):
        with pytest.raises(CorruptRecordError, match="more than 8192 blocks"):
            zstd.size_bound(hostile)


def test_frames_may_follow_each_other() -> None:
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    frames = compress(ZSTD, b"a" * 1000) + skippable + compress(ZSTD, b"b" * 300_000)
    assert decompress(ZSTD, frames, 1 << 20) == b"a" * 1000 + b"b" * 300_000
