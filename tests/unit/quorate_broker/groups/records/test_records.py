"""Records of __consumer_offsets: the same bytes as Kafka's, and no other error for bad bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.errors import CorruptRecordError, UnsupportedError
from quorate_broker.groups.records.classic import ClassicMemberValue, ClassicValue
from quorate_broker.groups.records.keys import (
    ClassicKey,
    CurrentKey,
    GroupKey,
    Key,
    MemberKey,
    OffsetKey,
    TargetKey,
    TargetMemberKey,
    decode_key,
    encode_key,
)
from quorate_broker.groups.records.values import (
    STABLE,
    UNREVOKED_PARTITIONS,
    ClassicMetadata,
    CurrentValue,
    GroupValue,
    MemberValue,
    OffsetValue,
    TargetMemberValue,
    TargetValue,
    Value,
)
from tests.unit.quorate_broker.groups.records.kafka_vectors import VECTORS

ONE = bytes(range(1, 17))
TWO = bytes(range(17, 33))
OFFSET, AT_MS, NOTE = 1_234_567_890_123, 1_700_000_000_123, "note ü"

KEYS: dict[str, Key] = {
    "key-offset": OffsetKey("gruppe-ä", "orders", 7),
    "key-group": GroupKey("g"),
    "key-member": MemberKey("g", "m1"),
    "key-target": TargetKey("g"),
    "key-target-member": TargetMemberKey("g", "m1"),
    "key-current": CurrentKey("g", "m1"),
    "key-classic": ClassicKey("g"),
}


def classic(version: int) -> ClassicValue:
    """Return a classic group with as much as a value of this version tells."""
    return ClassicValue(
        "consumer",
        7,
        "range",
        "m1",
        AT_MS if version >= 2 else -1,
        (
            ClassicMemberValue(
                "m1",
                "i1" if version >= 3 else None,
                "c",
                "/10.0.0.1",
                300_000 if version >= 1 else -1,
                45_000,
                b"\1\2\3",
                b"\4\5",
            ),
            ClassicMemberValue("m2", None, "", "h", 1 if version >= 1 else -1, 2, b"", b""),
        ),
    )


#: What we write exactly as Kafka does.
VALUES: dict[str, Value] = {
    "offset-v4": OffsetValue(OFFSET, 5, NOTE, AT_MS, ONE),
    "offset-v4-no-id": OffsetValue(3, -1, "", 9),
    "offset-long-metadata": OffsetValue(0, -1, "k" * 200, 0, TWO),
    "group": GroupValue(12, -77),
    "group-no-hash": GroupValue(1),
    "member": MemberValue("i1", "r1", "c", "/10.0.0.1", ("a", "b"), "x.*", 300_000, "uniform"),
    "member-classic": MemberValue(
        None,
        None,
        "c",
        "h",
        ("a",),
        None,
        5,
        None,
        classic=ClassicMetadata(45_000, (("range", b"\x01\x02\x03"),)),
    ),
    "member-nulls": MemberValue(None, None, "", "h", (), None, -1, None),
    "classic-v3": classic(3),
    "classic-empty-v3": ClassicValue("consumer", 8, None, None, 5),
    "target": TargetValue(12, AT_MS),
    "target-no-time": TargetValue(12),
    "target-member": TargetMemberValue(frozenset({(ONE, 0), (ONE, 1), (ONE, 300), (TWO, 2)})),
    "target-member-empty": TargetMemberValue(frozenset()),
    "current": CurrentValue(
        12, 11, UNREVOKED_PARTITIONS, {(ONE, 0): 10, (ONE, 1): 12}, {(TWO, 2): 9}
    ),
}

#: What we only read: of older versions, or with fields that we pass over.
READ: dict[str, Value] = {
    **{f"offset-v{version}": OffsetValue(OFFSET, -1, NOTE, AT_MS) for version in range(3)},
    "offset-v3": OffsetValue(OFFSET, 5, NOTE, AT_MS),
    **{f"classic-v{version}": classic(version) for version in (0, 1, 2, 4)},
    "current-no-epochs": CurrentValue(12, 11, STABLE, {(ONE, 4): 12}, {}),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_the_bytes_that_kafka_writes(name: str) -> None:
    assert encode_key(KEYS[name]).hex() == VECTORS[name]
    assert decode_key(bytes.fromhex(VECTORS[name])) == KEYS[name]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_has_the_bytes_that_kafka_writes(name: str) -> None:
    value = VALUES[name]
    assert value.encode().hex() == VECTORS[name]
    assert type(value).decode(bytes.fromhex(VECTORS[name])) == value


@pytest.mark.parametrize("name", READ)
def test_values_that_only_kafka_writes_are_read(name: str) -> None:
    assert type(READ[name]).decode(bytes.fromhex(VECTORS[name])) == READ[name]


@pytest.mark.parametrize("name", ["key-regex"])
def test_a_key_of_another_type_is_passed_over(name: str) -> None:
    assert decode_key(bytes.fromhex(VECTORS[name])) is None


def test_every_vector_of_kafka_is_compared() -> None:
    assert set(VECTORS) == {*KEYS, *VALUES, *READ, "key-regex"}


@pytest.mark.parametrize("name", [*VALUES, *READ])
def test_a_value_that_ends_too_early_is_corrupt(name: str) -> None:
    data = bytes.fromhex(VECTORS[name])
    kind = type({**VALUES, **READ}[name])
    for size in range(len(data)):
        with pytest.raises(CorruptRecordError):
            kind.decode(data[:size])


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_ends_too_early_is_corrupt(name: str) -> None:
    data = bytes.fromhex(VECTORS[name])
    for size in range(len(data)):
        with pytest.raises(CorruptRecordError):
            decode_key(data[:size])


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_a_newer_version_is_refused_and_not_misread(name: str) -> None:
    data = b"\0\x09" + bytes.fromhex(VECTORS[name])[2:]
    with pytest.raises(UnsupportedError, match="version"):
        type(VALUES[name]).decode(data)


def test_an_unknown_tagged_field_is_passed_over() -> None:
    data = bytes.fromhex(VECTORS["group-no-hash"])
    assert GroupValue.decode(data[:-1] + bytes.fromhex("01050161")) == GroupValue(1)


READERS: list[Callable[[bytes], object]] = [
    decode_key,
    *(kind.decode for kind in {type(value) for value in VALUES.values()}),
]


@settings(deadline=None)
@given(st.sampled_from(READERS), st.binary(max_size=60))
def test_whatever_the_bytes_are_the_reader_says_corrupt_or_unsupported(
    read: Callable[[bytes], object], data: bytes
) -> None:
    with contextlib.suppress(CorruptRecordError, UnsupportedError):
        read(data)


@settings(deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(-1, 2**31 - 1),
    st.text(max_size=300),
    st.integers(0, 2**62),
    st.integers(0, 2**31 - 1),
)
def test_an_offset_is_read_as_it_was_written(
    offset: int, epoch: int, metadata: str, at_ms: int, partitions: int
) -> None:
    value = OffsetValue(offset, epoch, metadata, at_ms, ONE, partitions)
    assert OffsetValue.decode(value.encode()) == value


def test_what_an_offset_has_beyond_kafkas_fields_is_a_tag_that_kafka_passes_over() -> None:
    kafkas = bytes.fromhex(VECTORS["offset-v4"])
    ours = OffsetValue(OFFSET, 5, NOTE, AT_MS, ONE, 300).encode()
    one_tag, two_tags = bytes([1, 0, 16]) + ONE, bytes([2, 0, 16]) + ONE
    tag_10_000_with_300 = bytes.fromhex("904e02ac02")
    assert kafkas.endswith(one_tag)
    assert ours == kafkas.removesuffix(one_tag) + two_tags + tag_10_000_with_300
