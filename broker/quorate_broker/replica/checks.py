"""The checks that a broker makes on batches before they enter a log.

The bytes that come from a client or from another broker may be anything. After these checks every
consumer can read the batches in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

from quorate.aio.turns import Turns
from quorate.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidRequestError,
    InvalidTimestampError,
    QuorateError,
    RecordTooLargeError,
)
from quorate.record import batch as record_batch
from quorate.record import compression, header_changes
from quorate.record.batch import BatchHeader
from quorate.record.recompression import recompressed
from quorate.record.walks import NO_DELTA, check_records
from quorate_quorum.configs import TopicConfig
from quorate_quorum.disk import Disk

Buffer = bytes | bytearray | memoryview
Write = tuple[BatchHeader, Sequence[Buffer]]
#: Bytes that have the decompressed records of a batch, and the position of the first record.
RecordBytes = tuple[bytes, int]

NO_TIMESTAMP = -1
#: A batch is decompressed in a thread if its records may have more bytes than this.
DECOMPRESSED_IN_A_TURN_BYTES = 128 * 1024
#: The same limit for a batch that is recompressed. Recompression takes ten times as long or more.
RECOMPRESSED_IN_A_TURN_BYTES = 4 * 1024
#: The most large batches that are decompressed or recompressed at the same time.
LARGE_AT_A_TIME = 2
#: The most bytes that are searched for a record in order to name it in an error.
SEARCHED_IN_A_TURN_BYTES = 32 * 1024
#: Batches that are checked in one turn of the loop. So many small batches take about 5 ms.
BATCHES_A_TURN = 500
#: Records whose check takes as long as the check of one small batch.
RECORDS_A_UNIT = 32
#: The most records that are checked without a look at the other work of the loop.
RECORDS_AT_A_TIME = 4096
#: The most records that an error of a batch names, so that its answer stays small.
REFUSED_RECORDS_MAX = 1000
#: The most of them in its message.
RECORDS_IN_A_MESSAGE = 3

E = TypeVar("E", bound=QuorateError)


class ProducerBatches:
    """Checks the batches of producers, for all partitions of a broker.

    Every record is checked, because no other part of the system looks into a batch before its
    consumer does, and the consumer could not get past a record that it cannot decode.

    A large batch is decompressed in one of the disk's threads, at most `LARGE_AT_A_TIME` at the
    same time: each may take several times 64 MiB of memory, and the other threads must stay free
    for reading and syncing. `turns` counts the small batches that the loop checks in one turn.
    """

    def __init__(self, disk: Disk, turns: Turns) -> None:
        self._disk = disk
        self._turns = turns
        self._large = asyncio.Semaphore(LARGE_AT_A_TIME)

    async def readable(self, batch: Buffer, config: TopicConfig) -> tuple[BatchHeader, Buffer]:
        """Check that a consumer can read a batch. Return its header, and the batch to write.

        The batch to write is recompressed if the topic says so, and its max_timestamp is that of
        its records. Raises RecordTooLargeError, CorruptRecordError or InvalidTimestampError. Raises
        InvalidRequestError for a record without a key in a compacted topic.
        """
        try:
            return await self._readable(batch, config)
        except CorruptRecordError as error:
            if header_changes.agrees_with_its_crc(batch):
                raise InvalidRecordError(str(error)) from None
            raise

    async def _readable(self, batch: Buffer, config: TopicConfig) -> tuple[BatchHeader, Buffer]:
        if len(batch) > config.max_message_bytes:
            raise RecordTooLargeError(
                f"a batch of {len(batch)} bytes; max.message.bytes is {config.max_message_bytes}"
            )
        header = record_batch.check(batch, from_producer=True)
        recompresses = config.codec not in (None, header.codec)
        in_a_turn = DECOMPRESSED_IN_A_TURN_BYTES
        if recompresses and config.codec != compression.NONE:
            in_a_turn = RECOMPRESSED_IN_A_TURN_BYTES
        records = _small_record_bytes(batch, header)
        made = batch
        if records is not None and len(records[0]) <= in_a_turn:
            latest_ms = await self._check_records(records, header, config)
            if recompresses:
                made = _recompressed(batch, records, config)
        else:
            async with self._large:
                if records is None:
                    records = await self._disk.in_thread(_record_bytes, batch, header)
                latest_ms = await self._check_records(records, header, config)
                if recompresses:
                    made = await self._disk.in_thread(_recompressed, batch, records, config)
        if latest_ms != header.max_timestamp:
            made = header_changes.with_max_timestamp(made, latest_ms)
        if made is not batch:
            header = record_batch.parse_header(made, from_producer=True)
        return header, made

    async def _check_records(
        self, records: RecordBytes, header: BatchHeader, config: TopicConfig
    ) -> int:
        """Check every record. Return the latest time; -1 if all are from before 1970, or have none.

        What the batch says of it is not taken: Kafka's broker looks at the records, so that some
        clients leave it out. With a time that is too early, no search would find the records, and
        retention would delete them.
        """
        data, position = records
        latest = NO_DELTA
        without_key: list[int] | None = [] if config.compacts else None
        for first in range(0, header.count, RECORDS_AT_A_TIME):
            stop = min(first + RECORDS_AT_A_TIME, header.count)
            if stop - first >= RECORDS_A_UNIT:
                await self._turns.take((stop - first) // RECORDS_A_UNIT)
            position, delta = check_records(
                data,
                position,
                first=first,
                stop=stop,
                base_timestamp=header.base_timestamp,
                without_key=without_key,
            )
            latest = max(latest, delta)
        if position != len(data):
            raise CorruptRecordError(
                f"{len(data) - position} bytes follow the last of a batch's {header.count} records"
            )
        if without_key:
            raise _without_key(without_key)
        latest_ms = header.base_timestamp + latest
        if latest_ms > record_batch.TIMESTAMP_MAX:
            raise InvalidTimestampError(
                f"timestamp {latest_ms} of a batch lies beyond {record_batch.TIMESTAMP_MAX}"
            )
        return max(latest_ms, NO_TIMESTAMP)


def from_producer(
    header: BatchHeader, batch: Buffer, config: TopicConfig, now_ms: int
) -> tuple[BatchHeader, Buffer, int]:
    """Check the times of a readable batch. Return (header, batch to write, append time or -1).

    With LogAppendTime the batch to write is a stamped copy, otherwise the given batch.
    Raises InvalidTimestampError or InvalidRequestError.
    """
    if header.is_transactional:
        raise InvalidRequestError("a transactional batch: transactions are not known here")
    if config.message_timestamp_type == "LogAppendTime":
        stamped = header_changes.with_log_append_time(batch, now_ms)
        return record_batch.parse_header(stamped, from_producer=True), stamped, now_ms
    latest_ms = now_ms + config.message_timestamp_after_max_ms
    if header.max_timestamp > latest_ms:
        raise _too_late(latest_ms, header, batch)
    return header, batch, NO_TIMESTAMP


def _too_late(latest_ms: int, header: BatchHeader, batch: Buffer) -> InvalidTimestampError:
    """Name the records of a batch that are later than a time, unless that takes too long."""
    late: list[int] = []
    with suppress(CorruptRecordError):
        if record_batch.decompressed_size_bound(batch, header) <= SEARCHED_IN_A_TURN_BYTES:
            found = enumerate(record_batch.records(batch, header))
            late = [index for index, record in found if record.timestamp_ms > latest_ms]
    where = _named(late) if late else f"a batch of {header.count} records"
    return _because_of(
        late,
        InvalidTimestampError(
            f"timestamp {header.max_timestamp} of {where} lies beyond {latest_ms}"
            " (message.timestamp.after.max.ms)"
        ),
    )


def _without_key(indexes: Sequence[int]) -> InvalidRequestError:
    return _because_of(
        indexes,
        InvalidRequestError(
            f"{_named(indexes)} {'is' if len(indexes) == 1 else 'are'} without a key, and the topic"
            " is compacted: only the last record of each key is kept there"
        ),
    )


def _because_of(indexes: Sequence[int], error: E) -> E:
    error.refused_records = tuple(indexes[:REFUSED_RECORDS_MAX])
    return error


def _named(indexes: Sequence[int]) -> str:
    """Return what to call the records with these places in a batch.

    >>> _named([3])
    'record 3 of its batch'
    >>> _named([1, 2, 5, 8, 9])
    'records 1, 2, 5 (and 2 more) of its batch'
    """
    if len(indexes) == 1:
        return f"record {indexes[0]} of its batch"
    more = len(indexes) - RECORDS_IN_A_MESSAGE
    told = ", ".join(map(str, indexes[:RECORDS_IN_A_MESSAGE]))
    return f"records {told}{f' (and {more} more)' if more > 0 else ''} of its batch"


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


def _small_record_bytes(batch: Buffer, header: BatchHeader) -> RecordBytes | None:
    """Return the decompressed records; None if they may be too many bytes for one turn."""
    size_max = DECOMPRESSED_IN_A_TURN_BYTES
    if len(batch) > size_max:
        return None
    try:
        return record_batch.record_bytes(batch, header, size_max=size_max)
    except compression.OversizeError:
        return None


def _record_bytes(batch: Buffer, header: BatchHeader) -> RecordBytes:
    try:
        return record_batch.record_bytes(batch, header)
    except compression.OversizeError as error:
        raise RecordTooLargeError(f"{error}: send smaller batches") from None


def _recompressed(batch: Buffer, records: RecordBytes, config: TopicConfig) -> bytes:
    assert config.codec is not None
    data, position = records
    made = recompressed(batch, memoryview(data)[position:], config.codec, config.codec_level)
    if len(made) > config.max_message_bytes:
        raise RecordTooLargeError(
            f"a batch of {len(batch)} bytes, which compression.type={config.compression_type} "
            f"makes {len(made)}; max.message.bytes is {config.max_message_bytes}"
        )
    return made
