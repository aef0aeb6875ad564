"""Reads the records of one chunk: decoded in blocks, and given to the user in parts."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple

from quorate.consumer.partition_state import PartitionState
from quorate.errors import DeserializationError
from quorate.model import AnyRecord, Record
from quorate.record.batch import BatchHeader, check, decoder, record_bytes
from quorate.record.decoder import BLOCK_RECORDS, BatchDecoder, Columns
from quorate.serializers import Decode

#: Makes a record of a tuple with its fields. Record._make() takes a third longer.
_record = partial(tuple.__new__, Record)
_offset = attrgetter("offset")


class Deserializers(NamedTuple):
    """The user's deserializers of keys and values. None: the user gets the bytes."""

    key: Decode | None
    value: Decode | None


class ChunkReader:
    """The records of a partition's chunk from its position on. It moves the position.

    A block is decoded when its first record is asked for. The user's deserializers are called for
    one record at a time, when it is given. After an error the position is at the record that raised
    it, and this reader has ended: the next one begins with this record, unless a seek passes it.
    """

    def __init__(self, state: PartitionState, deserializers: Deserializers) -> None:
        self._state = state
        self._deserializers = deserializers
        self._deserializes = deserializers.key is not None or deserializers.value is not None
        #: Of the first batch of the chunk; None before the batch is checked.
        self._decoder: BatchDecoder | None = None
        #: Records with the bytes of keys and values. Those from `_next` on are not given yet.
        self._block: list[AnyRecord] = []
        self._next = 0
        self._end = 0

    def take_one(self) -> AnyRecord | None:
        """Return the next record; None at the end of the chunk.

        Raises DeserializationError, CorruptRecordError.
        """
        if not self._has_record():
            return None
        record = self._block[self._next]
        if self._deserializes:
            record = self._deserialized(record)
        self._next += 1
        state = self._state
        state.position, state.position_epoch = record.offset + 1, record.leader_epoch
        return record

    def take(self, records: list[AnyRecord], limit: int) -> int:
        """Append the next records to the list: `limit` of them, or fewer at the end of the chunk.

        Return how many these are. Raises the errors of take_one. The records before the error are
        in the list then.
        """
        left = limit
        if self._deserializes:
            while left > 0 and (record := self.take_one()) is not None:
                records.append(record)
                left -= 1
            return limit - left
        state = self._state
        while left > 0 and self._has_record():
            end = min(self._next + left, self._end)
            records += self._block[self._next : end]
            left -= end - self._next
            self._next = end
            last = self._block[end - 1]
            state.position, state.position_epoch = last.offset + 1, last.leader_epoch
        return limit - left

    def _has_record(self) -> bool:
        """Find the next record at or above the position. Return whether there is one."""
        position = self._state.position
        while True:
            if self._next < self._end:
                if self._block[self._next].offset >= position:
                    return True
                # the read began within a batch, or a seek passed records
                self._next = bisect_left(self._block, position, lo=self._next, key=_offset)
            elif not self._load():
                return False

    def _load(self) -> bool:
        """Decode the next block. Return False at the end of the chunk."""
        state = self._state
        while state.chunk:
            header, batch = state.chunk[0]
            if self._decoder is None:
                if header.end_offset <= state.position or header.is_control:
                    self._pass(header)
                    continue
                check(batch, header)
                state.reads(header)
                self._decoder = decoder(*record_bytes(batch, header), header)
            columns = self._decoder.next(BLOCK_RECORDS)
            if columns is not None:
                self._block = self._records(header, columns)
                self._next, self._end = 0, len(self._block)
                return True
            self._pass(header)
        return False

    def _records(self, header: BatchHeader, columns: Columns) -> list[AnyRecord]:
        offsets, timestamps_ms, keys, values, headers = columns
        topic, partition = self._state.topic_partition
        fields = zip(
            repeat(topic),
            repeat(partition),
            offsets,
            timestamps_ms,
            repeat(header.timestamp_type),
            keys,
            values,
            headers,
            repeat(header.leader_epoch),
            strict=False,
        )
        return list(map(_record, fields))

    def _pass(self, header: BatchHeader) -> None:
        self._decoder, self._block = None, []
        self._next = self._end = 0
        self._state.chunk.popleft()
        self._state.passes(header)

    def _deserialized(self, raw: AnyRecord) -> AnyRecord:
        topic, partition, offset, timestamp_ms, kind, key, value, headers, epoch = raw
        of = self._deserializers
        try:
            if of.key is not None and key is not None:
                key = of.key(topic, key)
            if of.value is not None and value is not None:
                value = of.value(topic, value)
        except Exception as error:
            raise self._refused(raw, error) from error
        return _record((topic, partition, offset, timestamp_ms, kind, key, value, headers, epoch))

    def _refused(self, raw: AnyRecord, error: Exception) -> DeserializationError:
        # There may be no records between the position and this record. Move the position to this
        # record.
        self._state.position = raw.offset
        topic, partition = raw.topic, raw.partition
        return DeserializationError(
            f"the record at offset {raw.offset} of {topic}-{partition} does not deserialize: "
            f"{type(error).__name__}: {error}. It is next again; its bytes are in this error's key "
            f"and value, and seek(TopicPartition({topic!r}, {partition}), {raw.offset + 1}) goes "
            "past it",
            topic=topic,
            partition=partition,
            offset=raw.offset,
            timestamp_ms=raw.timestamp_ms,
            key=raw.key,
            value=raw.value,
            headers=raw.headers,
        )
