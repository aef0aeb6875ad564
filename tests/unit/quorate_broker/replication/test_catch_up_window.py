"""How many bytes of a stream may catch up: as many as do not delay its in-sync partitions."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from quorate_broker.replication.catch_up_window import (
    ALONE_AFTER_MS,
    BASE_AGE_MS,
    DELAY_MS_MAX,
    PAUSE_MS_MAX,
    PERIOD_MS,
    WINDOW_BYTES_MIN,
    CatchUpWindow,
)
from quorate_broker.replication.stream_credit import Chunk, StreamCredit

M = 8 << 20
KIB = 1 << 10


def test_the_window_shrinks_while_in_sync_chunks_are_late_and_grows_again() -> None:
    window = CatchUpWindow(M, size=M)
    window.in_sync_acknowledged(2, 0, catches_up=True)
    sizes = []
    for now_ms in range(100, 5000, 100):
        window.in_sync_acknowledged(2 + DELAY_MS_MAX + 1, now_ms, catches_up=True)
        window.catch_up_acknowledged(100 * KIB, 50, now_ms)
        sizes.append(window.size)
    assert sizes[0] == M // 2
    assert sizes[-1] == WINDOW_BYTES_MIN, "it does not grow while they are late"
    window.in_sync_acknowledged(2, 5000, catches_up=True)
    window.catch_up_acknowledged(100 * KIB, 50, 5000)
    assert window.size == WINDOW_BYTES_MIN + 25 * KIB


@pytest.mark.parametrize("catches_up", [False, True])
def test_one_slow_partition_does_not_shrink_the_window(catches_up: bool) -> None:
    """The fastest acknowledgement of a period counts: it tells of the link, not of a log."""
    window = CatchUpWindow(M, size=M)
    window.in_sync_acknowledged(2, 0, catches_up=catches_up)
    for now_ms in range(100, 2000, 10):
        took_ms = 2 if now_ms % 50 == 0 else 900
        window.in_sync_acknowledged(took_ms, now_ms, catches_up=catches_up)
    assert (window.size, window.base_ms) == (M, 2)


def test_a_far_broker_is_not_a_slow_one() -> None:
    window = CatchUpWindow(M, size=M)
    for now_ms in range(0, 2000, 100):
        window.in_sync_acknowledged(150, now_ms, catches_up=True)
    assert window.size == M


def test_alone_the_window_doubles_with_each_round() -> None:
    window = CatchUpWindow(M)
    window.in_sync_acknowledged(2, 0, catches_up=True)
    sizes = []
    for now_ms in range(ALONE_AFTER_MS, ALONE_AFTER_MS + 700, 100):
        window.catch_up_acknowledged(window.size, 10, now_ms)
        sizes.append(window.size // KIB)
    assert sizes == [512, 1024, 2048, 4096, 8192, 8192, 8192]


# the base


@pytest.mark.parametrize(
    ("catches_up", "base_ms"), [(False, 62), (True, 2)], ids=["nothing catches up", "catching up"]
)
def test_only_chunks_without_catching_up_raise_the_base(catches_up: bool, base_ms: int) -> None:
    window = CatchUpWindow(M)
    window.in_sync_acknowledged(2, 0, catches_up=catches_up)
    for now_ms in range(100, 5000, 100):
        window.in_sync_acknowledged(62, now_ms, catches_up=catches_up)
    assert window.base_ms == base_ms


def test_a_chunk_behind_bytes_that_catch_up_does_not_raise_the_base() -> None:
    """The last of them is acknowledged, or counts as slow; but its bytes may be in the pipe."""
    window = CatchUpWindow(M)
    for now_ms in (0, 100, 200):
        window.in_sync_acknowledged(2, now_ms, catches_up=False)
    window.catch_up_began()
    window.in_sync_acknowledged(500, 1000, catches_up=False)
    window.in_sync_acknowledged(500, 1499, catches_up=False)
    assert window.base_ms == 2, "it was sent before the first of them came back"
    window.in_sync_acknowledged(500, 1500, catches_up=False)
    window.in_sync_acknowledged(501, 2000, catches_up=False)
    assert window.base_ms == 2, "it was sent before one that was behind all of them came back"
    window.in_sync_acknowledged(60, 2600, catches_up=False)
    assert window.base_ms == 60


def late_until(window: CatchUpWindow, begin_ms: int, end_ms: int) -> None:
    for now_ms in range(begin_ms, end_ms, 10):
        window.in_sync_acknowledged(62, now_ms, catches_up=True)


def test_catching_up_pauses_to_measure_an_old_base_while_in_sync_chunks_are_late() -> None:
    window = CatchUpWindow(M)
    window.in_sync_acknowledged(2, 0, catches_up=True)
    late_until(window, 10, BASE_AGE_MS)
    assert not window.is_paused(BASE_AGE_MS - 1)
    late_until(window, BASE_AGE_MS, BASE_AGE_MS + 2 * PERIOD_MS)
    now_ms = BASE_AGE_MS + 2 * PERIOD_MS
    assert window.is_paused(now_ms)
    while window.is_paused(now_ms):
        window.in_sync_acknowledged(62, now_ms, catches_up=False)
        now_ms += 10
    assert window.base_ms == 62
    assert not window.is_late
    assert now_ms <= BASE_AGE_MS + 2 * PERIOD_MS + 4 * 62 + PERIOD_MS


@pytest.mark.parametrize(
    ("in_sync_for_ms", "wait_ms"),
    [(PAUSE_MS_MAX, PAUSE_MS_MAX), (0, ALONE_AFTER_MS)],
    ids=["a chunk that catches up remains", "in-sync chunks stop"],
)
def test_a_pause_ends_though_nothing_is_measured(in_sync_for_ms: int, wait_ms: int) -> None:
    window = CatchUpWindow(M)
    window.in_sync_acknowledged(2, 0, catches_up=True)
    now_ms = BASE_AGE_MS + 2 * PERIOD_MS
    late_until(window, 10, now_ms)
    late_until(window, now_ms, now_ms + in_sync_for_ms)
    assert window.is_paused(now_ms + wait_ms // 2)
    assert not window.is_paused(now_ms + wait_ms)
    assert window.base_ms == 2


def test_a_base_that_chunks_meet_needs_no_pause() -> None:
    window = CatchUpWindow(M)
    for now_ms in range(0, 10 * BASE_AGE_MS, 100):
        is_met = now_ms % (BASE_AGE_MS // 2) == 0
        window.in_sync_acknowledged(2 if is_met else 62, now_ms, catches_up=True)
        assert not window.is_paused(now_ms)


# over a link


@dataclass
class Link:
    """A link with a queue, in-sync chunks at a constant rate, and a backlog without an end."""

    bytes_per_ms: float
    delay_ms: int
    chance: random.Random
    credit: StreamCredit = field(default_factory=lambda: StreamCredit(M))
    now_ms: int = 0
    #: The bytes that caught up, and the delays of in-sync chunks.
    caught_up: int = 0
    delays: list[int] = field(default_factory=list)
    _free_ms: float = 0
    _under_way: deque[tuple[float, Chunk]] = field(default_factory=deque)

    def run(self, until_ms: int) -> None:
        while self.now_ms < until_ms:
            self.now_ms += 1
            while self._under_way and self._under_way[0][0] <= self.now_ms:
                self._acknowledge(self._under_way.popleft()[1])
            self.credit.move_late(self.now_ms)
            if self.now_ms % 10 == 0:
                self._begin(is_in_sync=True)
            while self._begin(is_in_sync=False):
                pass

    def _begin(self, *, is_in_sync: bool) -> bool:
        chunk = self.credit.begin(is_in_sync=is_in_sync, waiting=4, now_ms=self.now_ms)
        if chunk is None:
            return False
        self.credit.read(chunk, 500 if is_in_sync else chunk.read_max)
        self.credit.sent(chunk, self.now_ms)
        self._free_ms = max(self._free_ms, self.now_ms) + chunk.size / self.bytes_per_ms
        arrives_ms = self._free_ms + 2 * self.delay_ms + self.chance.random() * 3
        latest_ms = self._under_way[-1][0] if self._under_way else 0
        self._under_way.append((max(arrives_ms, latest_ms), chunk))
        return True

    def _acknowledge(self, chunk: Chunk) -> None:
        if chunk.is_in_sync:
            self.delays.append(self.now_ms - chunk.since_ms)
        else:
            self.caught_up += chunk.size
        self.credit.acknowledged(chunk, self.now_ms)

    def take(self, until_ms: int) -> tuple[float, int]:
        """Return the rate of catching up until then, in bytes each ms, and the median delay."""
        began_ms, began = self.now_ms, self.caught_up
        self.delays.clear()
        self.run(until_ms)
        rate = (self.caught_up - began) / (until_ms - began_ms)
        return rate, sorted(self.delays)[len(self.delays) // 2]


@pytest.mark.parametrize(("before_ms", "after_ms"), [(1, 10), (1, 30), (1, 100), (30, 100)])
def test_after_the_delay_has_risen_for_good_catching_up_is_as_fast_as_if_it_was_always_so(
    before_ms: int, after_ms: int
) -> None:
    """The fault: compared with the fastest chunk ever, all are late, and the window stays small."""
    rates = []
    for first_ms in (before_ms, after_ms):
        link = Link(100_000, first_ms, random.Random(1))
        link.run(5_000)
        link.delay_ms = after_ms
        link.run(5_000 + BASE_AGE_MS + PAUSE_MS_MAX + 5_000)
        rates.append(link.take(link.now_ms + 30_000)[0])
    assert rates[0] > 0.8 * rates[1]


@pytest.mark.parametrize("bytes_per_ms", [2_000, 4_000, 20_000])
def test_however_long_it_takes_catching_up_delays_in_sync_chunks_no_more(bytes_per_ms: int) -> None:
    """The fault: the queue that catching up makes is taken for the link's, and it grows."""
    link = Link(bytes_per_ms, 1, random.Random(2))
    link.run(20_000)
    first_rate, first_ms = link.take(50_000)
    link.run(600_000)
    rate, delay_ms = link.take(630_000)
    assert delay_ms <= first_ms + 5
    assert rate > 0.9 * first_rate > 0.7 * bytes_per_ms
