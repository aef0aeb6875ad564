"""What a follower holds of a stream: in time, or late on a slow disk."""

from __future__ import annotations

from quorate_broker.replication.held_bytes import HeldBytes, room_beside
from quorate_broker.replication.stream_credit import LATE_MS, ROOMS, room_of_a_stream

MIB = 1 << 20


def test_bytes_that_are_held_for_long_count_as_late() -> None:
    held = HeldBytes()
    held.received(1, 10, 0)
    held.received(2, 20, 500)

    assert held.next_late_ms(LATE_MS - 1) == LATE_MS
    assert (held.in_time, held.late) == (30, 0)
    assert held.next_late_ms(LATE_MS) == LATE_MS + 500
    assert (held.in_time, held.late) == (20, 10)

    held.let_go(1)
    held.let_go(2)

    assert held.next_late_ms(LATE_MS) is None
    assert (held.in_time, held.late, held.size) == (0, 0, 0)


def test_late_bytes_do_not_stop_the_stream_unless_all_streams_hold_too_much() -> None:
    held = HeldBytes()
    held.received(1, 100, 0)
    assert not held.has_room(50, 100, 1_000)

    held.next_late_ms(LATE_MS)
    held.received(2, 50, LATE_MS)

    assert held.has_room(50, 150, 1_000)
    assert not held.has_room(50, 1_001, 1_000)


def test_the_rooms_of_all_streams_shrink_by_what_late_bytes_hold_too_much() -> None:
    """The stream was alone and filled its rooms for slow partitions; then three others began."""
    bytes_max, streams = 64 * MIB, 4
    late = [bytes_max // 2, 0, 0, 0]
    fair = room_of_a_stream(bytes_max, streams)

    room = room_of_a_stream(room_beside(bytes_max, fair, late, ROOMS), streams)

    slow = ROOMS // 2
    most = sum(max(one, slow * fair) + (ROOMS - slow) * room for one in late)
    assert most <= bytes_max
    assert room == MIB
