"""A follower's wait for a frame grows over a congested link, and shrinks again."""

from __future__ import annotations

import pytest

from quorate_broker.replication.patience import DOUBLINGS_MAX, Patience


def test_each_silence_doubles_the_wait_up_to_a_bound() -> None:
    patience = Patience(2.0)
    waits = []
    for _ in range(DOUBLINGS_MAX + 2):
        waits.append(patience.silence_s)
        patience.was_silent()
    assert waits == [2, 4, 8, 16, 32, 64, 64]
    assert patience.room(8 << 20) == 256 << 10


@pytest.mark.parametrize("frame_s", [3, 9, 30])
def test_a_frame_that_takes_long_arrives_at_last(frame_s: float) -> None:
    """The fault: the same frame is asked for again and again, and each time given up."""
    patience = Patience(2.0)
    tries = 0
    while frame_s > patience.silence_s:
        tries += 1
        patience.began(0.0)
        patience.heard(0.25)  # a frame without batches comes first, and proves nothing
        patience.was_silent()
    assert tries <= DOUBLINGS_MAX


def test_quick_frames_shorten_the_wait_again() -> None:
    patience = Patience(2.0, doublings=3)
    patience.began(0.0)
    for now_s in range(1, 100):
        patience.heard(float(now_s))
    assert patience.doublings == 0


def test_slow_frames_do_not() -> None:
    patience = Patience(2.0, doublings=3)
    patience.began(0.0)
    for now_s in range(0, 400, 5):
        patience.heard(float(now_s))
    assert patience.doublings == 3
