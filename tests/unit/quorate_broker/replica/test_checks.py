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

from quorate.aio.turns import Turns
from quorate.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    RecordTooLargeError,
)
from quorate.record.batch import (
    DECOMPRESSED_BYTES_MAX,
    HEADER_BYTES,
    TIMESTAMP_MIN,
    BatchBuilder,
    check,
    find_by_time,
    parse_header,
    records,
)
from quorate.record.compression import CODECS, GZIP, NAMES, NONE, ZSTD, compress
from quorate.record.record import encode_varint
from quorate_broker.replica.checks import (
    DECOMPRESSED_IN_A_TURN_BYTES,
    LARGE_AT_A_TIME,
    RECORDS_A_UNIT,
    RECORDS_AT_A_TIME,
    REFUSED_RECORDS_MAX,
    Buffer,
    ProducerBatches,
    from_leader,
    from_producer,
)
from quorate_broker.replica.produce_queue import APPEND_UNITS_A_TURN
from quorate_quorum.configs import DEFAULT_TOPIC_CONFIG, TopicConfig
from quorate_quorum.disk import Disk
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


async def accepted(
    batch: Buffer, config: TopicConfig = PLAIN, *, disk: Disk | None = None, now_ms: int = NOW_MS
) -> Buffer:
    """Check a batch as the leader does; return what it appends."""
    batches = ProducerBatches(disk or RealDisk(), Turns(APPEND_UNITS_A_TURN))
    header, made = await batches.readable(batch, config)
    return from_producer(header, made, config, now_ms)[1]


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
    part = 16 << 20
    for count, fits in ((4, True), (5, False)):
        data = batch_of(NONE, bytes(count * part - 100))[HEADER_BYTES:]
        members = (gzip.compress(data[at : at + part]) for at in range(0, len(data), part))
        batch = with_body(GZIP, b"".join(members))
        if fits:
            assert await accepted(batch) == batch
        else:
            with pytest.raises(RecordTooLargeError, match="more than the 67108864 bytes"):
                await accepted(batch)


RECORD = bytes.fromhex("10000000026b0276 00")  # key b"k", value b"v"
#: Bodies of one record that a batch may say to have, and that no consumer can decode.
UNREADABLE = {
    "nothing": b"",
    "zeros": bytes(60),
    "ones": b"\xff" * 60,
    "cut": RECORD[:-1],
    "more than the batch says": RECORD * 2,
    "another offset": bytes.fromhex("10000002026b0276 00"),
    "an impossible key": bytes.fromhex("10000000036b0276 00"),
    "an impossible value": bytes.fromhex("10000000026b0376 00"),
    "a key beyond the record": bytes.fromhex("10000000106b0276 00"),
    "half of a header": bytes.fromhex("10000000026b0276 02"),
    "a header that is not UTF-8": bytes.fromhex("16000000026b0276 0202ff01"),
    "a header with a null key": bytes.fromhex("14000000026b0276 020101"),
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_a_batch_whose_records_no_consumer_can_decode_is_refused(
    codec: int, body: bytes
) -> None:
    batch = with_body(codec, compress(codec, body))
    with pytest.raises(CorruptRecordError):
        list(records(batch))
    with pytest.raises(CorruptRecordError):
        await accepted(batch)
    good = with_body(codec, compress(codec, RECORD))
    assert await accepted(good) == good


@pytest.mark.parametrize("codec", [one for one in CODECS.values() if one != NONE])
async def test_a_batch_that_does_not_decompress_is_refused(codec: int) -> None:
    for config in (PLAIN, COMPACT, TopicConfig(compression_type="gzip")):
        for body in (b"no frame", bytes(200_000)):
            with pytest.raises(CorruptRecordError):
                await accepted(with_body(codec, body), config)


@pytest.mark.parametrize("seed", range(5))
async def test_the_broker_takes_just_the_batches_that_consumers_can_decode(seed: int) -> None:
    """Bytes are changed at random; the CRC is right."""
    chance = random.Random(seed)
    outcomes = set()
    for _ in range(400):
        builder = BatchBuilder()
        for _ in range(chance.choice((1, 3, 70, 130))):
            builder.append(
                chance.choice((0, 5, 1 << 20, -1)),
                chance.choice((None, b"", b"key", bytes(70))),
                chance.choice((None, b"", b"value", bytes(130))),
                chance.choice(((), (("name", b"1"),), (("é", None), ("", b"")))),
            )
        data = bytearray(builder.build())
        for _ in range(chance.choice((0, 1, 1, 2))):
            data[chance.randrange(HEADER_BYTES, len(data))] = chance.randrange(256)
        struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
        try:
            list(records(data))
        except CorruptRecordError:
            outcomes.add("refused")
            with pytest.raises(CorruptRecordError):
                await accepted(data, now_ms=1 << 62)
        else:
            outcomes.add("taken")
            made = await accepted(data, now_ms=1 << 62)
            assert made[HEADER_BYTES:] == data[HEADER_BYTES:]
    assert outcomes == {"refused", "taken"}, f"seed {seed}"


async def test_many_records_are_checked_in_several_turns_of_the_loop() -> None:
    count = 4 * RECORDS_AT_A_TIME + 1
    units = Turns(RECORDS_AT_A_TIME // RECORDS_A_UNIT)
    turns = [0]

    def next_turn() -> None:
        turns[0] += 1
        turns[1:] = [asyncio.get_running_loop().call_soon(next_turn)]  # type: ignore[list-item]

    next_turn()
    batch = batch_of(NONE, *[b""] * count)
    assert (await ProducerBatches(RealDisk(), units).readable(batch, PLAIN))[1] == batch
    turns.pop().cancel()  # type: ignore[attr-defined]
    assert turns[0] >= 5


@pytest.mark.parametrize("data", [b"", bytes(22), bytes(60), b"\xff" * 61])
async def test_bytes_that_are_no_batch_are_corrupt_whatever_is_asked(data: bytes) -> None:
    for config in (PLAIN, COMPACT, TopicConfig(compression_type="zstd")):
        with pytest.raises(CorruptRecordError):
            await accepted(data, config)


async def test_only_a_few_large_batches_are_decompressed_at_a_time() -> None:
    running: list[int] = [0]

    class WatchedDisk(SimulatedDisk):
        async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
            running.append(running[-1] + 1)
            await asyncio.sleep(0)
            running.append(running[-1] - 1)
            return work(*arguments)

    batches = ProducerBatches(WatchedDisk(random.Random(1)), Turns(APPEND_UNITS_A_TURN))
    batch = batch_of(NONE, b"a" * DECOMPRESSED_IN_A_TURN_BYTES)
    made = await asyncio.gather(*(batches.readable(batch, COMPACT) for _ in range(10)))
    assert [one for _, one in made] == [batch] * 10
    assert max(running) == LARGE_AT_A_TIME
    assert len(running) == 21


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_a_record_without_key_is_found_under_every_codec(codec: int) -> None:
    await accepted(batch_of(codec, b"v" * 1000), COMPACT)
    with pytest.raises(InvalidRequestError, match="without a key") as refused:
        await accepted(batch_of(codec, b"v" * 1000, key=None), COMPACT)
    assert refused.value.refused_records == (0,)


async def test_all_records_without_a_key_are_named() -> None:
    builder = BatchBuilder()
    for number in range(100):
        builder.append(1, b"k" if number % 10 else None, b"v")
    with pytest.raises(InvalidRequestError, match=r"records 0, 10, 20 \(and 7 more\)") as refused:
        await accepted(builder.build(), COMPACT)
    assert refused.value.refused_records == tuple(range(0, 100, 10))


async def test_so_many_refused_records_of_a_batch_are_named() -> None:
    builder = BatchBuilder()
    for _ in range(REFUSED_RECORDS_MAX + 1):
        builder.append(1, None, b"v")
    with pytest.raises(InvalidRequestError) as refused:
        await accepted(builder.build(), COMPACT)
    assert refused.value.refused_records == tuple(range(REFUSED_RECORDS_MAX))


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


@pytest.mark.parametrize(
    ("size", "name"),
    [(1, "timestamp 10000000 of record 1 of its batch"), (40_000, "10000000 of a batch of 3")],
    ids=["small", "large"],
)
async def test_the_refusal_of_a_timestamp_names_the_record(size: int, name: str) -> None:
    """A large batch is not searched, because that would take too long."""
    builder = BatchBuilder()
    for time in (5, 10_000_000, 6):
        builder.append(time, b"k", bytes(size))
    with pytest.raises(InvalidTimestampError, match=name) as refused:
        await accepted(builder.build())
    assert refused.value.refused_records == ((1,) if size == 1 else ())


async def test_all_records_with_refused_timestamps_are_named() -> None:
    builder = BatchBuilder()
    for number in range(20):
        builder.append(10_000_000 if number in (3, 7) else 5, b"k", b"v")
    with pytest.raises(InvalidTimestampError) as refused:
        await accepted(builder.build())
    assert refused.value.refused_records == (3, 7)


TIMES = (1_000, 1_400, 1_200)


def batch_at(*times: int, codec: int = NONE, says: int | None = None) -> bytes:
    """Return a batch with records of these times. `says`: the max_timestamp in its header."""
    builder = BatchBuilder(codec=codec)
    for time in times:
        builder.append(time - min(times), b"k", bytes(99))
    made = bytearray(builder.build())
    struct.pack_into(">qq", made, 27, times[0], max(times) if says is None else says)
    struct.pack_into(">I", made, 17, crc32c(bytes(made[21:])))
    return bytes(made)


@pytest.mark.parametrize("says", [-1, 0, 1_000, 1_399, 1_401, 1 << 63, -(1 << 40)])
@pytest.mark.parametrize("wanted", ["producer", "zstd"])
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_the_latest_time_that_a_batch_says_is_that_of_its_records(
    codec: int, wanted: str, says: int
) -> None:
    """Some clients leave it out. Searches by time and retention look at nothing else."""
    batch = batch_at(*TIMES, codec=codec, says=min(says, (1 << 63) - 1))
    made = bytes(await accepted(batch, TopicConfig(compression_type=wanted), now_ms=2_000))
    header = check(made)
    assert (header.base_timestamp, header.max_timestamp) == (1_000, 1_400)
    assert [one.timestamp_ms for one in records(made)] == list(TIMES)
    assert find_by_time(made, header, 1_201) == (1, 1_400)
    assert (await from_leader(made, log_end_offset=0, last_epoch=-1, leader_epoch=0))[1] is None


async def test_a_batch_that_says_the_latest_time_of_its_records_is_not_changed() -> None:
    batch = batch_at(*TIMES)
    assert await accepted(batch, now_ms=2_000) is batch


async def test_a_record_of_the_future_is_refused_whatever_its_batch_says() -> None:
    with pytest.raises(InvalidTimestampError, match="timestamp 10000000 of record 1"):
        await accepted(batch_at(5, 10_000_000, says=5))


async def test_records_from_before_1970_are_taken() -> None:
    """Their latest time is none, as in Apache Kafka: a time below 0 cannot be searched for."""
    batch = batch_at(-5_000, -6_000, -4_000)
    made = bytes(await accepted(batch))
    assert check(made).max_timestamp == -1
    assert [one.timestamp_ms for one in records(made)] == [-5_000, -6_000, -4_000]


async def test_a_time_that_no_reader_could_add_to_is_refused() -> None:
    config = TopicConfig(message_timestamp_after_max_ms=(1 << 63) - 1)
    batch = batch_at(1 << 62, (1 << 62) + 1, says=5)
    with pytest.raises(InvalidTimestampError, match="4611686018427387905"):
        await accepted(batch, config)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_bytes_that_agree_with_their_checksum_and_are_no_records_have_their_own_error(
    codec: int,
) -> None:
    """Sending them again cannot help. Bytes that were changed on their way may be sent again."""
    for body in UNREADABLE.values():
        batch = with_body(codec, compress(codec, body))
        with pytest.raises(InvalidRecordError):
            await accepted(batch)
        changed = bytearray(batch)
        changed[HEADER_BYTES - 1] ^= 1
        with pytest.raises(CorruptRecordError) as error:
            await accepted(changed)
        assert not isinstance(error.value, InvalidRecordError)
    with pytest.raises(InvalidRecordError):
        await accepted(with_body(NONE, b""))


@pytest.mark.parametrize(
    ("base_ms", "delta"),
    [(TIMESTAMP_MIN - 1, 0), (0, TIMESTAMP_MIN - 1), (TIMESTAMP_MIN, -1 << 14), (5, -(1 << 62))],
)
async def test_a_time_that_compaction_could_not_subtract_from_is_refused(
    base_ms: int, delta: int
) -> None:
    body = bytes((0,)) + encode_varint(delta) + bytes.fromhex("00026b027600")
    batch = bytearray(with_body(NONE, encode_varint(len(body)) + body))
    struct.pack_into(">q", batch, 27, base_ms)
    struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
    with pytest.raises(InvalidRecordError, match="timestamp"):
        await accepted(batch)
