"""The checks that a broker makes on batches before they enter a log.

The bytes that come from a client or from another broker may be anything. After these checks every
consumer can read the batches in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    RecordTooLargeError,
)
from quorate.record import batch as record_batch
from quorate.record import compression
from quorate.record.batch import BatchHeader
from quorate.record.recompression import codec_of, recompressed
from quorate_quorum.configs import TopicConfig
from quorate_quorum.disk import Disk

Buffer = bytes | bytearray | memoryview
Write = tuple[BatchHeader, Sequence[Buffer]]

NO_TIMESTAMP = -1
#: A batch is decoded in a thread if its records may have more bytes than this.
DECODED_IN_A_TURN_BYTES = 32 * 1024
#: The same limit for a batch that is recompressed. Recompression takes ten times as long or more.
RECOMPRESSED_IN_A_TURN_BYTES = 4 * 1024
#: The most large batches that are decoded at the same time.
DECODED_AT_A_TIME = 2
#: A batch of gzip up to this size can be read, whatever size it decompresses to.
SURELY_READABLE_BYTES = record_batch.DECOMPRESSED_BYTES_MAX // compression.size_bound(
    compression.GZIP, b"x"
)
#: Batches that are checked in one turn of the loop. So many small batches take about 5 ms.
BATCHES_A_TURN = 500


def must_be_decoded(batch: Buffer, config: TopicConfig) -> bool:
    """Return whether the leader must decode a batch with a Decoder before it appends the batch.

    The leader must decode it if the topic is compacted or has another codec. It must also decode a
    large batch of gzip, because only decompressing tells whether a consumer can read the batch.
    """
    codec = config.codec
    if codec is None and len(batch) <= SURELY_READABLE_BYTES:
        return config.compacts
    came = codec_of(batch)
    return (
        config.compacts
        or (codec is not None and came != codec)
        or (came == compression.GZIP and len(batch) > SURELY_READABLE_BYTES)
    )


class Decoder:
    """Decodes batches before their append, for all partitions of a broker.

    A large batch is decoded in one of the disk's threads, at most `DECODED_AT_A_TIME` at the same
    time: each may take several times 64 MiB of memory, and the other threads must stay free for
    reading and syncing.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._threads = asyncio.Semaphore(DECODED_AT_A_TIME)

    async def decoded(self, batch: Buffer, config: TopicConfig) -> Buffer:
        """Check the records of a producer's batch.

        Return the batch, recompressed if the topic says so. Raises the errors of `from_producer`.
        """
        header = _checked(batch, config)
        in_a_turn = DECODED_IN_A_TURN_BYTES
        if config.codec not in (None, compression.NONE, header.codec):
            in_a_turn = RECOMPRESSED_IN_A_TURN_BYTES
        if record_batch.decompressed_size_bound(batch, header) > in_a_turn:
            async with self._threads:
                return await self._disk.in_thread(_decoded, batch, header, config)
        made = _decoded(batch, header, config)
        await asyncio.sleep(0)
        return made


def from_producer(
    batch: Buffer, config: TopicConfig, now_ms: int, *, is_decoded: bool = False
) -> tuple[BatchHeader, Buffer, int]:
    """Check a producer's batch. Return (header, batch to write, time of the append or -1).

    With LogAppendTime the batch to write is a stamped copy, otherwise the given batch.
    `is_decoded`: a Decoder has returned the batch, so its decompressed size is known to be allowed.
    Raises RecordTooLargeError, CorruptRecordError, InvalidTimestampError or InvalidRequestError.
    """
    header = _checked(batch, config)
    bound = 0 if is_decoded else record_batch.decompressed_size_bound(batch, header)
    # refuse a batch that no consumer could read
    if bound > record_batch.DECOMPRESSED_BYTES_MAX:
        raise RecordTooLargeError(
            f"a batch that may decompress to {bound} bytes; "
            f"{record_batch.DECOMPRESSED_BYTES_MAX} are allowed: send smaller batches"
        )
    if header.is_transactional:
        raise InvalidRequestError("a transactional batch: transactions are not known here")
    if config.message_timestamp_type == "LogAppendTime":
        stamped = record_batch.with_log_append_time(batch, now_ms)
        return record_batch.parse_header(stamped, from_producer=True), stamped, now_ms
    latest_ms = now_ms + config.message_timestamp_after_max_ms
    if header.max_timestamp > latest_ms:
        raise InvalidTimestampError(
            f"timestamp {header.max_timestamp} lies beyond {latest_ms} "
            "(message.timestamp.after.max.ms)"
        )
    return header, batch, NO_TIMESTAMP


async def from_leader(
    batches: Buffer,
    *,
    log_end_offset: int,
    last_epoch: int,
    leader_epoch: int,
    has_gaps: bool = False,
    is_empty: bool = False,
) -> tuple[list[Write], str | None]:
    """Return the batches of a leader's answer to append, and why the next batch is bad, or None.

    The returned batches are whole and follow this log, without a gap unless the leader's log
    `has_gaps`. A follower trusts its leader's decisions, but not the bytes: the leader's disk or
    the network may have changed them. An empty log (`is_empty`) may begin inside a batch, because
    records can be deleted up to any offset. Then the first batch may begin below the log's end. A
    frame may have thousands of small batches, so the check yields to the loop from time to time.
    """
    writes: list[Write] = []
    offset, epoch = log_end_offset, last_epoch
    try:
        for _, batch in record_batch.split(batches):
            header = record_batch.check(batch)
            is_across = is_empty and not writes and header.base_offset < offset < header.end_offset
            is_apart = header.base_offset > offset and not has_gaps
            if is_apart or (header.base_offset < offset and not is_across):
                return writes, f"a batch at {header.base_offset}; {offset} is next"
            if not epoch <= header.leader_epoch <= leader_epoch:
                return writes, (
                    f"a batch of leader_epoch {header.leader_epoch}; "
                    f"{epoch} to {leader_epoch} may be"
                )
            writes.append((header, (batch,)))
            if len(writes) % BATCHES_A_TURN == 0:
                await asyncio.sleep(0)
            offset, epoch = header.end_offset, header.leader_epoch
    except CorruptRecordError as error:
        return writes, str(error)
    return writes, None


def _checked(batch: Buffer, config: TopicConfig) -> BatchHeader:
    if len(batch) > config.max_message_bytes:
        raise RecordTooLargeError(
            f"a batch of {len(batch)} bytes; max.message.bytes is {config.max_message_bytes}"
        )
    return record_batch.check(batch, from_producer=True)


def _decoded(batch: Buffer, header: BatchHeader, config: TopicConfig) -> Buffer:
    """Decompress a batch once, for all checks of its records. Return the batch to append."""
    try:
        data, position = record_batch.record_bytes(batch, header)
    except compression.OversizeError as error:
        raise RecordTooLargeError(f"{error}: send smaller batches") from None
    if config.compacts:
        _check_keys(data, position, header)
    if config.codec in (None, header.codec):
        return batch
    made = recompressed(batch, memoryview(data)[position:], config.codec, config.codec_level)
    if len(made) > config.max_message_bytes:
        raise RecordTooLargeError(
            f"a batch of {len(batch)} bytes, which compression.type={config.compression_type} "
            f"makes {len(made)}; max.message.bytes is {config.max_message_bytes}"
        )
    return made


def _check_keys(data: bytes, position: int, header: BatchHeader) -> None:
    """Raise an error unless each record has a key, because compaction needs the key."""
    for index, record in enumerate(record_batch.decoded(data, position, header)):
        if record.key is None:
            raise InvalidRequestError(
                f"record {index} of {header.count} in its batch is without a key, and the topic is"
                " compacted: only the last record of each key is kept there"
            )
