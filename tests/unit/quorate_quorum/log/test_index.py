"""The two indexes of a segment, as they are read from a disk that may have damaged them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from quorate_quorum.log.index import OFFSET_ENTRY, PIECE_ROWS, TIME_ENTRY, SegmentIndex


def rows(index: SegmentIndex) -> tuple[bytes, bytes]:
    return index.encode_offsets(), index.encode_times()


def by_hand(
    layout: object, content: bytes, before: tuple[int, int], below: int
) -> Iterator[tuple[int, int]]:
    """Yield the entries that may follow one another, one by one."""
    assert layout in (OFFSET_ENTRY, TIME_ENTRY)
    entry = OFFSET_ENTRY if layout is OFFSET_ENTRY else TIME_ENTRY
    whole = len(content) - len(content) % entry.size
    for first, second in entry.iter_unpack(content[:whole]):
        if not (first > before[0] and before[1] < second < below):
            return
        before = (first, second)
        yield before


@pytest.mark.parametrize("seed", range(40))
def test_an_index_is_believed_up_to_the_first_entry_that_can_not_be(seed: int) -> None:
    chance = random.Random(seed)
    index = SegmentIndex(10)
    count = chance.choice((0, 1, 5, PIECE_ROWS, PIECE_ROWS + 7))
    for number in range(count):
        index.add(number * 3, number * 20 + 1, 20, number * 2)
    offsets, times = (bytearray(content) for content in rows(index))
    for content in (offsets, times):
        if content and chance.random() < 0.7:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del content[chance.randrange(len(content) + 1) :]
    segment_bytes = chance.choice((1 << 30, count * 10))
    good = list(by_hand(OFFSET_ENTRY, bytes(offsets), (-1, 0), segment_bytes))
    good_times = list(by_hand(TIME_ENTRY, bytes(times), (-(1 << 63) - 1, -1), 1 << 32))
    loaded = SegmentIndex(10)
    for _ in loaded.load(bytes(offsets), bytes(times), segment_bytes):
        pass
    loaded.truncate(1 << 32)
    if len(good_times) < len(times) // TIME_ENTRY.size:  # offsets beyond the good times go, too
        last = good_times[-1][1] if good_times else -1
        good = [entry for entry in good if entry[0] <= last]
    good = good if good_times else []
    covered = good[-1][0] if good else -1
    good_times = [entry for entry in good_times if entry[1] <= covered]
    assert list(OFFSET_ENTRY.iter_unpack(loaded.encode_offsets())) == good
    assert list(TIME_ENTRY.iter_unpack(loaded.encode_times())) == good_times


def test_an_index_is_loaded_in_turns() -> None:
    index = SegmentIndex(10)
    for number in range(3 * PIECE_ROWS):
        index.add(number, number * 20 + 1, 20, number)
    assert sum(1 for _ in SegmentIndex(10).load(*rows(index), 1 << 30)) >= 4
