"""The offset map knows the last offset of each key, in a fixed amount of memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate_broker.compaction.offset_map import HASH_BYTES, SLOT_BYTES, OffsetMap

SALT = bytes(HASH_BYTES)


@given(st.lists(st.binary(max_size=80), max_size=60))
def test_it_knows_the_last_offset_of_each_key(keys: list[bytes]) -> None:
    offsets = OffsetMap(SLOT_BYTES * 100, SALT)
    expected: dict[bytes, int] = {}
    for offset, key in enumerate(keys):
        offsets.put({key: offset})
        expected[key] = offset
    assert {key: offsets.get(key) for key in expected} == expected
    assert offsets.keys == len(expected)
    assert offsets.get(b"a key that was not put") == -1


def test_a_full_map_has_no_room_and_forgets_nothing() -> None:
    offsets = OffsetMap(SLOT_BYTES * 3000, SALT)
    for offset in range(offsets.keys_max):
        assert offsets.has_room(1)
        offsets.put({b"%d" % offset: offset})
    assert not offsets.has_room(1)
    assert all(offsets.get(b"%d" % offset) == offset for offset in range(offsets.keys_max))
    with pytest.raises(AssertionError):
        offsets.put({b"one more": 1})


def test_a_key_that_is_there_needs_no_room() -> None:
    offsets = OffsetMap(0, SALT)
    for offset in range(5):
        offsets.put({b"k": offset})
    assert (offsets.get(b"k"), offsets.keys) == (4, 1)


def test_keys_that_move_into_the_table_keep_their_last_offsets() -> None:
    offsets = OffsetMap(SLOT_BYTES * 100, SALT)
    long_key = b"k" * 65
    offsets.put({b"a": 1, b"b": 2, long_key: 3})
    offsets.put({b"a": 4, b"c": 5})
    assert {key: offsets.get(key) for key in (b"a", b"b", b"c", long_key)} == {
        b"a": 4,
        b"b": 2,
        b"c": 5,
        long_key: 3,
    }
    assert {4, 2, 5, 3} <= set(offsets.last_offsets())
    assert offsets.keys == 4
    assert sorted(offsets.last_offsets()) == [2, 3, 4, 5]
