"""Hostile bytes: they are refused in one way, and cost no more than their size."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from proto.kafka.notation import Api, Struct
from quorate_broker.listeners.kafka import codec
from quorate_broker.listeners.kafka.messages import metadata, produce
from quorate_broker.listeners.kafka.wire import ITEMS_MAX, MalformedRequest
from tests.unit.quorate_broker.listeners.kafka.random_messages import ALL, Case, cases_of

INT32_MAX = b"\x7f\xff\xff\xff"
#: A varint of five bytes: 2**31 - 1, one more than the greatest count.
COMPACT_INT32_MAX = b"\xff\xff\xff\xff\x07"


def mutations(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """Return variants of a message: bytes changed, left out, added, and the worst of lengths."""
    for _ in range(12):
        at = chance.randrange(len(data) + 1)
        end = at + chance.choice((1, 1, 2, 4, 16))
        yield data[:at] + chance.randbytes(end - at) + data[end:]
        yield data[:at] + data[end:]
        yield data[:at] + chance.randbytes(end - at) + data[at:]
        for worst in (INT32_MAX, COMPACT_INT32_MAX, b"\xff" * 4, b"\xff" * 9, b"\x80\0\0\0"):
            yield data[:at] + worst + data[at + len(worst) :]


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_changed_bytes_are_decoded_or_refused(api: Api) -> None:
    """Nothing but MalformedRequest is raised, on both sides of the connection."""
    for case in cases_of(api):
        seed = case.version
        chance = random.Random(seed)
        data = case.encode(case.draw(chance))
        for mutated in mutations(chance, data):
            try:
                case.is_refused(mutated)
            except Exception as error:
                pytest.fail(f"{case}, seed {seed}: {error!r} for {mutated.hex()}")


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_a_cut_message_and_bytes_left_over_are_refused(api: Api) -> None:
    for case in cases_of(api):
        chance = random.Random(case.version)
        data = case.encode(case.draw(chance))
        assert case.is_refused(data + b"\0"), case
        cuts = range(len(data)) if len(data) < 100 else chance.sample(range(len(data)), 100)
        for length in cuts:
            assert case.is_refused(data[:length]), f"{case}, cut at {length}"


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_what_stands_before_and_behind_the_message_is_not_read(api: Api) -> None:
    """A message that is cut must not go on in the bytes behind its end."""
    for case in cases_of(api):
        chance = random.Random(case.version)
        message = case.draw(chance)
        data = case.encode(message)
        decode = codec.messages_of(api.key).REQUEST_DECODERS[case.version]
        if not case.is_request or not data:
            continue
        framed = b"before" + data + b"behind"
        assert decode(framed, 6, 6 + len(data)) == message
        with pytest.raises(MalformedRequest):
            decode(framed, 6, 5 + len(data))


@pytest.mark.parametrize(
    "count", [b"\xff" * 8, b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\x01"]
)
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_count_above_the_bytes_left_costs_no_memory(count: bytes, size: int) -> None:
    data = count + bytes(size)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedRequest):
            metadata.REQUEST_DECODERS[12](data, 0, len(data))
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_count_of_the_older_encoding_above_the_bytes_left_costs_no_memory() -> None:
    data = INT32_MAX + bytes(100_000)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedRequest, match="2147483647 items in 100000 bytes"):
            metadata.REQUEST_DECODERS[0](data, 0, len(data))
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("api", ALL, ids=lambda api: api.name)
def test_small_items_cost_little_more_than_their_bytes(api: Api) -> None:
    """A request takes at most 64 times its bytes, above what its handling costs anyway."""
    module = codec.messages_of(api.key)
    for version in {api.flexible - 1, api.versions[-1]} & set(api.versions):
        case = Case(api, version, True)
        for message in crowded(case.struct, version, module, items=1000):
            data = case.encode(message)
            tracemalloc.start()
            try:
                assert case.decode(data) == message
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 64 * len(data) + 20_000, f"{case}: {len(data)} bytes cost {peak}"


def test_all_arrays_together_have_a_most_of_items() -> None:
    """Otherwise a request as large as a Produce request may be would cost gigabytes."""
    case = Case(ALL[0], 9, True)
    half = [produce.TopicProduceData()] * (ITEMS_MAX // 2)
    request = produce.ProduceRequest(topic_data=half)
    assert case.decode(case.encode(request)) == request
    partition = produce.PartitionProduceData()
    fuller = produce.TopicProduceData(partition_data=[partition] * (ITEMS_MAX // 2 + 1))
    request = produce.ProduceRequest(topic_data=[*half[1:], fuller])
    with pytest.raises(MalformedRequest, match=f"at most {ITEMS_MAX} items"):
        case.decode(case.encode(request))


def test_a_varint_has_at_most_five_bytes() -> None:
    """Others read on: 400 KB of 0xff made a number of 2.8 million bits, in seconds."""
    data = b"\xff" * 4_000
    counted = Counted(data)
    with pytest.raises(MalformedRequest, match="more than 5 bytes"):
        metadata.REQUEST_DECODERS[12](counted, 0, len(data))
    assert counted.reads < 10


def test_a_section_of_tagged_fields_is_no_longer_than_its_bytes() -> None:
    case = next(case for case in cases_of(ALL[3]) if case.is_request and case.version == 12)
    data = case.encode(metadata.MetadataRequest(topics=None))[:-1]
    tagged = data + COMPACT_INT32_MAX + b"\x05\0" * 50
    counted = Counted(tagged)
    with pytest.raises(MalformedRequest):
        metadata.REQUEST_DECODERS[12](counted, 0, len(tagged))
    assert counted.reads < 200


def test_unknown_tagged_fields_are_skipped() -> None:
    """KIP-482: a newer client may send them in any struct."""
    case = next(case for case in cases_of(ALL[3]) if case.is_request and case.version == 12)
    data = case.encode(metadata.MetadataRequest(topics=None))
    tagged = data[:-1] + b"\x02" + b"\x07\x03abc" + b"\xc8\x01\x00"
    assert case.decode(tagged) == metadata.MetadataRequest(topics=None)


def test_a_tagged_field_that_is_longer_than_its_size_is_refused() -> None:
    case = Case(ALL[1], 15, True)
    (module,) = {codec.messages_of(1)}
    message = module.FetchRequest(replica_state=module.ReplicaState(1, 2))
    data = case.encode(message)
    assert case.decode(data) == message
    # Tag 1, with a size of 13: two integers, and a section of tagged fields.
    assert data.count(b"\x01\x01\x0d") == 1
    for size in (0, 12, 14):
        assert case.is_refused(data.replace(b"\x01\x01\x0d", bytes((1, 1, size))))


def test_null_is_refused_where_a_version_does_not_allow_it() -> None:
    for field in ("topic_data", "name", "partition_data"):
        with pytest.raises(MalformedRequest, match=f"{field} is null"):
            produce.REQUEST_DECODERS[9](*frame_with_null(field))


def frame_with_null(field: str) -> tuple[bytes, int, int]:
    """Return a Produce request of version 9 in which this field is null."""
    head = b"\0" + b"\0\1" + b"\0\0\0\1"
    parts = {"topic_data": b"\2", "name": b"\2t", "partition_data": b"\1"}
    body = b""
    for name, data in parts.items():
        body += b"\0" if name == field else data
    frame = head + body + b"\0\0"
    return frame, 0, len(frame)


def smallest(struct: Struct, version: int, module: Any, **values: Any) -> Any:
    """Return a struct with the least bytes, except for the values that are given."""
    for field in struct.in_version(version):
        if version in field.nullable:
            values.setdefault(field.name, None)
        elif field.is_array:
            values.setdefault(field.name, [])
        elif field.struct:
            values.setdefault(field.name, smallest(field.struct, version, module))
    return getattr(module, struct.name)(**values)


def crowded(struct: Struct, version: int, module: Any, items: int) -> Iterator[Any]:
    """Return for each array a message in which it has so many items of the least bytes."""
    for field in struct.in_version(version):
        if not field.is_array:
            continue
        if field.struct is None:
            item: Any = "" if field.type == "string" else 0
            yield smallest(struct, version, module, **{field.name: [item] * items})
            continue
        item = smallest(field.struct, version, module)
        yield smallest(struct, version, module, **{field.name: [item] * items})
        for inner in crowded(field.struct, version, module, items):
            yield smallest(struct, version, module, **{field.name: [inner]})
        for inner in crowded(field.struct, version, module, 1):
            yield smallest(struct, version, module, **{field.name: [inner] * items})


class Counted(bytes):
    """Bytes that count how often they are read."""

    reads = 0

    def __getitem__(self, at: Any) -> Any:
        self.reads += 1
        return super().__getitem__(at)
