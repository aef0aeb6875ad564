"""What a broker checks of batches before they enter a log.

Bytes from a client or from another broker may be anything. After these checks every consumer can
read what is in the log.
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
#: A batch is decoded in a thread if its records may take more bytes than this.
DECODED_IN_A_TURN_BYTES = 32 * 1024
#: The same for a batch that is recompressed, which takes ten times as long or more.
RECOMPRESSED_IN_A_TURN_BYTES = 4 * 1024
#: Large batches that are decoded at the same time.
DECODED_AT_A_TIME = 2
#: A batch of gzip of this size can be read, whatever it decompresses to.
SURELY_READABLE_BYTES = record_batch.DECOMPRESSED_BYTES_MAX // compression.size_bound(
    compression.GZIP, b"x"
)
#: Batches that are checked in one turn of the loop. That many small batches take about 5 ms.
BATCHES_A_TURN = 500


def must_be_decoded(batch: Buffer, config: TopicConfig) -> bool:
    """Return whether the leader must look into a batch before it appends it, by a Decoder.

    That is so on a topic that is compacted or has another codec, and for a batch of gzip of which
    only decompressing tells whether a consumer can read it.
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
    """Decodes the batches that a leader must look into, for all partitions of a broker.

    A large batch is decoded in one of the disk's threads, and at most `DECODED_AT_A_TIME` are: each
    may take several times 64 MiB, and the other threads are for reading and syncing.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._threads = asyncio.Semaphore(DECODED_AT_A_TIME)

    async def decoded(self, batch: Buffer, config: TopicConfig) -> Buffer:
        """Check a producer's batch by its records; return it, recompressed if the topic says so.

        Raises the errors of `from_producer`.
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
    """Check a producer's batch; return (header, batch to write, time of the append or -1).

    The batch to write is a stamped copy if the topic asks for LogAppendTime, else the given one.
    `is_decoded`: a Decoder has returned it, so its size is known to be right.
    Raises RecordTooLargeError, CorruptRecordError, InvalidTimestampError, InvalidRequestError.
    """
    header = _checked(batch, config)
    bound = 0 if is_decoded else record_batch.decompressed_size_bound(batch, header)
    if bound > record_batch.DECOMPRESSED_BYTES_MAX:  # no consumer could read it
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
    """Return (the leader's batches to append, what is wrong with the next batch or None).

    The returned batches are whole and follow this log, without a gap unless the leader's log
    `has_gaps`. A follower trusts its leader's decisions, but not the bytes: the leader's disk or
    the network may have changed them. An empty log (`is_empty`) may begin inside a batch, because
    records can be deleted up to any offset: the first batch may then begin below the log's end.
    The check gives the loop a turn now and then: a frame may hold thousands of small batches.
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
    """Decompress once, for all that is asked of the records."""
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
    """Check that each record has a key: a compacted topic keeps the last record of each key."""
    for index, record in enumerate(record_batch.decoded(data, position, header)):
        if record.key is None:
            raise InvalidRequestError(
                f"record {index} of {header.count} in its batch is without a key, and the topic is"
                " compacted: only the last record of each key is kept there"
            )
