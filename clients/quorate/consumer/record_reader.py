"""Decodes the bytes that a broker sent into the records that a user gets."""

from __future__ import annotations

from collections.abc import Iterator

from quorate.consumer.partition_state import Batch, PartitionState
from quorate.errors import CorruptRecordError, DeserializationError
from quorate.model import AnyRecord, Record
from quorate.record.batch import NONE, BatchHeader, check, parse_header, records
from quorate.record.record import RawRecord
from quorate.serializers import Decode


def whole_batches(
    data: memoryview, fetch_offset: int, *, leader_epoch: int, gaps: bool = False
) -> tuple[list[Batch], int]:
    """Return the batches of a fetch answer, and their size in bytes.

    The first batch must begin at fetch_offset, and each further batch at the end of the batch
    before it. No CRC covers an offset, and a flipped bit in an offset would hide records silently.
    With `gaps` (the log is compacted) a batch may begin above this offset.

    No CRC covers the leader_epoch either. So it must be at most `leader_epoch`, the epoch of the
    leader that answered, and it must never fall. Otherwise a consumer would believe a flipped epoch
    and send it in each later fetch, and no leader would know it.

    The first bad or incomplete batch ends the list. It is then the first batch of the next answer,
    and CorruptRecordError says what is wrong with it. The CRC is checked later, when the records
    are read.
    """
    found: list[Batch] = []
    position, expected, epoch = 0, fetch_offset, NONE
    while position < len(data):
        try:
            header = _following(data, position, expected, gaps=gaps)
            if not epoch <= header.leader_epoch <= leader_epoch:
                raise CorruptRecordError(
                    f"the batch at offset {header.base_offset} says leader_epoch "
                    f"{header.leader_epoch}; {epoch} to {leader_epoch} may be"
                )
        except CorruptRecordError:
            if found:
                break
            raise
        end = position + header.size
        found.append((header, data[position:end]))
        position, expected, epoch = end, header.end_offset, header.leader_epoch
    return found, position


def _following(data: memoryview, position: int, expected: int, *, gaps: bool) -> BatchHeader:
    """Return the header of the batch that has offset `expected`, or with `gaps` follows it."""
    header = parse_header(data, position)
    if expected >= header.end_offset or (expected < header.base_offset and not gaps):
        raise CorruptRecordError(
            f"where offset {expected} should be is a batch of offsets "
            f"{header.base_offset} to {header.last_offset}"
        )
    if header.size > len(data) - position:
        raise CorruptRecordError(
            f"the batch with offset {expected} says {header.size} bytes, and "
            f"{len(data) - position} came"
        )
    return header


class RecordReader:
    """Decodes batches into records, with the user's deserializers."""

    def __init__(self, decode_key: Decode | None, decode_value: Decode | None) -> None:
        self._decode_key = decode_key
        self._decode_value = decode_value

    def read(self, state: PartitionState) -> Iterator[AnyRecord]:
        """Yield the records of a partition's chunk from its position on, and move the position.

        After an error the position is at the record that raised it. The next read begins with this
        record; a seek can pass it. Raises DeserializationError, CorruptRecordError.
        """
        topic, partition = state.topic_partition
        decode_key, decode_value = self._decode_key, self._decode_value
        chunk = state.chunk
        while chunk:
            header, batch = chunk[0]
            if header.end_offset > state.position and not header.is_control:
                check(batch, header)
                timestamp_type, epoch = header.timestamp_type, header.leader_epoch
                state.reads(header)
                for raw in records(batch, header):
                    offset, timestamp_ms, key, value, headers = raw
                    if offset < state.position:
                        continue
                    try:
                        if decode_key is not None and key is not None:
                            key = decode_key(topic, key)
                        if decode_value is not None and value is not None:
                            value = decode_value(topic, value)
                    except Exception as error:
                        raise _refused(state, raw, error) from error
                    state.position, state.position_epoch = offset + 1, epoch
                    yield Record(
                        topic,
                        partition,
                        offset,
                        timestamp_ms,
                        timestamp_type,
                        key,
                        value,
                        headers,
                        epoch,
                    )
            chunk.popleft()
            state.passes(header)


def _refused(state: PartitionState, raw: RawRecord, error: Exception) -> DeserializationError:
    # There may be no records between the position and this record. Move the position to this
    # record.
    state.position = raw.offset
    topic, partition = state.topic_partition
    return DeserializationError(
        f"the record at offset {raw.offset} of {topic}-{partition} does not deserialize: "
        f"{type(error).__name__}: {error}. It is next again; its bytes are in this error's key and "
        f"value, and seek(TopicPartition({topic!r}, {partition}), {raw.offset + 1}) goes past it",
        topic=topic,
        partition=partition,
        offset=raw.offset,
        timestamp_ms=raw.timestamp_ms,
        key=raw.key,
        value=raw.value,
        headers=raw.headers,
    )
