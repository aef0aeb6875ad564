"""What a broker checks of batches before they enter a log."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import random
import struct
from collections.abc import Callable
from typing import TypeVar

import pytest
from crc32c import crc32c

from quorate.errors import CorruptRecordError, InvalidRequestError, RecordTooLargeError
from quorate.record.batch import (
    DECOMPRESSED_BYTES_MAX,
    HEADER_BYTES,
    BatchBuilder,
    parse_header,
    records,
)
from quorate.record.compression import CODECS, GZIP, NAMES, NONE, ZSTD
from quorate.record.recompression import codec_of
from quorate_broker.replica.checks import (
    DECODED_AT_A_TIME,
    SURELY_READABLE_BYTES,
    Buffer,
    Decoder,
    from_leader,
    from_producer,
    must_be_decoded,
)
from quorate_quorum.configs import DEFAULT_TOPIC_CONFIG, TopicConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_testing.simulated.disk import SimulatedDisk

T = TypeVar("T")

PLAIN = DEFAULT_TOPIC_CONFIG
COMPACT = TopicConfig(cleanup_policy="compact")
NOW_MS = 10


def batch_of(codec: int, *values: bytes, key: bytes | None = b"k") -> bytes:
    builder = BatchBuilder(codec=codec)
    for value in values:
        builder.append(1, key, value)
    return builder.build()


def with_body(codec: int, body: bytes) -> bytes:
    """Return a batch of one record that says it has this compressed body."""
    made = bytearray(batch_of(NONE, b"v")[:HEADER_BYTES] + body)
    struct.pack_into(">h", made, 21, codec)
    struct.pack_into(">i", made, 8, len(made) - 12)
    struct.pack_into(">I", made, 17, crc32c(bytes(made[21:])))
    return bytes(made)


async def accepted(batch: Buffer, config: TopicConfig = PLAIN) -> Buffer:
    """Check a batch as the leader does; return what it appends."""
    looked_into = must_be_decoded(batch, config)
    if looked_into:
        batch = await Decoder(RealDisk()).decoded(batch, config)
    return from_producer(batch, config, NOW_MS, is_decoded=looked_into)[1]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_a_batch_is_accepted_just_when_it_can_be_read(codec: int) -> None:
    """Brokers and readers have the same bound: an acknowledged batch can be read."""
    config = TopicConfig(max_message_bytes=2 * DECOMPRESSED_BYTES_MAX)
    for size, fits in ((DECOMPRESSED_BYTES_MAX - 100, True), (DECOMPRESSED_BYTES_MAX + 1, False)):
        if codec == NONE and not fits:
            continue  # max.message.bytes is at most 64 MiB
        batch = batch_of(codec, bytes(size), key=None)
        if fits:
            await accepted(batch, config)
            assert len(next(records(batch)).value or b"") == size
        else:
            with pytest.raises(RecordTooLargeError, match="67108864"):
                await accepted(batch, config)
            with pytest.raises(CorruptRecordError, match="67108864"):
                next(records(batch))


async def test_members_of_gzip_are_counted_together() -> None:
    """Each is small; together they are more than a consumer reads."""
    member = gzip.compress(bytes(16 << 20))
    for count, fits in ((4, True), (5, False)):
        batch = with_body(GZIP, member * count)
        assert len(batch) > SURELY_READABLE_BYTES
        if fits:
            assert await accepted(batch) == batch
        else:
            with pytest.raises(RecordTooLargeError, match="more than the 67108864 bytes"):
                await accepted(batch)


async def test_a_large_batch_of_gzip_is_not_taken_unseen() -> None:
    batch = with_body(GZIP, bytes(SURELY_READABLE_BYTES + 1))
    assert must_be_decoded(batch, PLAIN)
    with pytest.raises(RecordTooLargeError):
        from_producer(batch, PLAIN, NOW_MS)
    with pytest.raises(CorruptRecordError, match="does not decompress"):
        await accepted(batch)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_batch_goes_unseen_where_nothing_is_asked_of_its_records(codec: int) -> None:
    batch = batch_of(codec, b"v" * 1000)
    assert codec_of(batch) == codec
    assert not must_be_decoded(batch, PLAIN)
    assert must_be_decoded(batch, COMPACT)
    for name, number in CODECS.items():
        config = TopicConfig(compression_type="uncompressed" if name == "none" else name)
        assert must_be_decoded(batch, config) == (number != codec)


@pytest.mark.parametrize("data", [b"", bytes(22), bytes(60), b"\xff" * 61])
def test_bytes_that_are_no_batch_are_corrupt_whatever_is_asked(data: bytes) -> None:
    for config in (PLAIN, COMPACT, TopicConfig(compression_type="zstd")):
        must_be_decoded(data, config)
        with pytest.raises(CorruptRecordError):
            from_producer(data, config, NOW_MS)


@pytest.mark.parametrize("config", [COMPACT, TopicConfig(compression_type="gzip")])
async def test_a_batch_that_does_not_decompress_is_refused_where_it_is_decoded(
    config: TopicConfig,
) -> None:
    with pytest.raises(CorruptRecordError):
        await accepted(with_body(ZSTD, b"no frame"), config)


async def test_only_a_few_large_batches_are_decoded_at_a_time() -> None:
    running: list[int] = [0]

    class WatchedDisk(SimulatedDisk):
        async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
            running.append(running[-1] + 1)
            await asyncio.sleep(0)
            running.append(running[-1] - 1)
            return work(*arguments)

    decoder = Decoder(WatchedDisk(random.Random(1)))
    batch = batch_of(NONE, b"a" * 100_000)
    made = await asyncio.gather(*(decoder.decoded(batch, COMPACT) for _ in range(10)))
    assert made == [batch] * 10
    assert max(running) == DECODED_AT_A_TIME
    assert len(running) == 21


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_a_record_without_key_is_found_under_every_codec(codec: int) -> None:
    await accepted(batch_of(codec, b"v" * 1000), COMPACT)
    with pytest.raises(InvalidRequestError, match="without a key"):
        await accepted(batch_of(codec, b"v" * 1000, key=None), COMPACT)


@pytest.mark.parametrize("config", [COMPACT, PLAIN], ids=["compact", "delete"])
@pytest.mark.parametrize("wanted", CODECS)
@pytest.mark.parametrize("came", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("size", [100, 5_000, 100_000], ids=["small", "medium", "large"])
async def test_a_batch_has_the_codec_of_its_topic(
    came: int, wanted: str, config: TopicConfig, size: int
) -> None:
    name = "uncompressed" if wanted == "none" else wanted
    config = dataclasses.replace(config, compression_type=name)
    batch = batch_of(came, b"a" * size, b"b" * size)
    made = await accepted(batch, config)
    assert NAMES[parse_header(made).codec] == wanted
    assert list(records(made)) == list(records(batch))


async def test_a_batch_that_recompression_makes_too_large_is_refused() -> None:
    config = TopicConfig(compression_type="uncompressed", max_message_bytes=2048)
    batch = batch_of(ZSTD, bytes(3000))
    assert len(batch) < 200
    with pytest.raises(
        RecordTooLargeError, match=r"compression\.type=uncompressed makes 30\d\d; max.message.bytes"
    ):
        await accepted(batch, config)


async def test_levels_of_the_topic_are_obeyed() -> None:
    value = b"".join(b'{"user":%d,"city":"Dortmund","amount":%d}' % (i, i * i) for i in range(999))
    batch = batch_of(NONE, value)
    for name, small, large in (("gzip", 9, 1), ("lz4", 17, 9), ("zstd", 19, -50)):
        sizes = [
            len(
                await accepted(
                    batch,
                    TopicConfig.of(
                        {"compression.type": name, f"compression.{name}.level": str(level)}, {}
                    ),
                )
            )
            for level in (small, large)
        ]
        assert sizes[0] < sizes[1]


def in_log(base_offset: int) -> bytes:
    builder = BatchBuilder()
    builder.append(0, b"k", b"v")
    return builder.build(base_offset=base_offset, leader_epoch=1)


async def taken(data: bytes, *, has_gaps: bool) -> tuple[list[int], str | None]:
    writes, fault = await from_leader(
        data, log_end_offset=5, last_epoch=0, leader_epoch=1, has_gaps=has_gaps
    )
    return [header.base_offset for header, _ in writes], fault


@pytest.mark.parametrize("first", [5, 7])
async def test_a_follower_takes_gaps_only_from_a_leader_whose_log_is_compacted(first: int) -> None:
    data = in_log(first) + in_log(9)
    assert await taken(data, has_gaps=True) == ([first, 9], None)
    alone = [first] if first == 5 else []
    offsets, fault = await taken(data, has_gaps=False)
    assert offsets == alone
    assert fault is not None


async def test_a_batch_that_goes_back_is_refused_even_from_a_compacted_log() -> None:
    offsets, fault = await taken(in_log(7) + in_log(7), has_gaps=True)
    assert (offsets, fault) == ([7], "a batch at 7; 8 is next")
