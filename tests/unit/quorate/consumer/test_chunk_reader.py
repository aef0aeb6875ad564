"""How the records of one chunk are given to the user: in parts, up to an error, past a seek."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from crc32c import crc32c

from quorate.consumer.chunk_reader import ChunkReader, Deserializers
from quorate.consumer.partition_state import Batch, PartitionState
from quorate.errors import CorruptRecordError, DeserializationError
from quorate.model import AnyRecord
from quorate.record.batch import CONTROL, HEADER_BYTES, parse_header
from tests.unit.quorate.consumer.builders import batch, fetch, state_at

#: The place of the CRC in a batch.
CRC_AT = 17
PLAIN = Deserializers(None, None)


def reading(
    *batches: Batch, offset: int = 0, deserializers: Deserializers = PLAIN
) -> tuple[PartitionState, ChunkReader]:
    state = state_at(offset=offset)
    fetch(state, 1, *batches)
    state.take()
    return state, ChunkReader(state, deserializers)


def taken(reader: ChunkReader, limit: int) -> list[int]:
    """Return the offsets of the next records."""
    records: list[AnyRecord] = []
    count = reader.take(records, limit)
    assert count == len(records)
    return [record.offset for record in records]


@pytest.mark.parametrize("limit", [1, 7, 600, 5000])
def test_the_position_follows_what_was_given_over_batches_and_blocks(limit: int) -> None:
    state, reader = reading(batch(0, 1000), batch(1000, 3, epoch=2))
    found: list[int] = []
    while part := taken(reader, limit):
        found += part
        assert (state.position, state.position_epoch) == (found[-1] + 1, 2 * (found[-1] >= 1000))
    assert found == list(range(1003))
    assert not state.chunk


def test_single_records_and_many_come_from_the_same_place() -> None:
    _, reader = reading(batch(0, 10))
    first = reader.take_one()
    assert first is not None
    assert first.offset == 0
    assert taken(reader, 4) == [1, 2, 3, 4]
    second = reader.take_one()
    assert second is not None
    assert second.offset == 5
    assert taken(reader, 100) == [6, 7, 8, 9]
    assert reader.take_one() is None


def test_a_seek_within_the_chunk_passes_records_that_are_decoded_already() -> None:
    state, reader = reading(batch(0, 100), batch(100, 100))
    assert taken(reader, 2) == [0, 1]
    state.seek(50)
    assert taken(reader, 2) == [50, 51]
    state.seek(150)
    assert taken(reader, 100) == list(range(150, 200))


def test_a_read_begins_within_a_batch() -> None:
    _, reader = reading(batch(0, 1000), offset=700)
    assert taken(reader, 3) == [700, 701, 702]


def test_records_before_a_refused_one_are_given_and_the_next_reader_begins_with_it() -> None:
    def decode(topic: str, data: bytes) -> str:
        if state.position == 3:
            raise ValueError("odd")
        return data.decode()

    state, reader = reading(batch(0, 5), deserializers=Deserializers(None, decode))
    records: list[AnyRecord] = []
    with pytest.raises(DeserializationError) as caught:
        reader.take(records, 5)
    assert [record.value for record in records] == ["v"] * 3
    assert (state.position, caught.value.offset) == (3, 3)
    assert taken(ChunkReader(state, PLAIN), 5) == [3, 4]


def test_a_deserializer_is_called_for_a_record_when_it_is_given() -> None:
    seen: list[str] = []

    def decode(topic: str, data: bytes) -> bytes:
        seen.append(topic)
        return data

    _, reader = reading(batch(0, 5), deserializers=Deserializers(None, decode))
    assert reader.take_one() is not None
    assert seen == ["t"]
    assert taken(reader, 2) == [1, 2]
    assert seen == ["t"] * 3


def test_records_before_an_impossible_one_are_given() -> None:
    _, data = batch(0, 40)
    broken = bytearray(data)
    size = (len(data) - HEADER_BYTES) // 40
    broken[HEADER_BYTES + 20 * size + 3] = 2  # the offset of another record
    struct.pack_into(">I", broken, CRC_AT, crc32c(broken[CRC_AT + 4 :]))
    whole = memoryview(broken)
    state, reader = reading((parse_header(whole), whole))
    records: list[AnyRecord] = []
    with pytest.raises(CorruptRecordError):
        reader.take(records, 40)
    assert [record.offset for record in records] == list(range(20))
    assert state.position == 20


@pytest.mark.parametrize("place", [0, 1, 2])
def test_control_records_are_passed_and_never_given(place: int) -> None:
    """A reader that waits for the record before the high watermark would else wait for ever."""
    batches = [batch(number) for number in range(3)]
    header, data = batches[place]
    batches[place] = (replace(header, attributes=header.attributes | CONTROL), data)
    state, reader = reading(*batches)
    assert taken(reader, 10) == [number for number in range(3) if number != place]
    assert state.position == 3


def test_a_wrong_crc_gives_no_record() -> None:
    header, data = batch(0, 40)
    broken = bytearray(data)
    broken[-2] ^= 1
    _, reader = reading((header, memoryview(broken)))
    records: list[AnyRecord] = []
    with pytest.raises(CorruptRecordError):
        reader.take(records, 1)
    assert records == []
