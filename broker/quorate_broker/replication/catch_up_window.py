"""Bounds the bytes of one follower's stream that catch up, by the delay of its in-sync chunks.

A machine. The rules:

* The base is the delay of an in-sync chunk that no catch-up chunk delays. A faster chunk lowers the
  base at once. Only a period in which nothing caught up can raise it: so a queue that catching up
  makes is never part of the base, however long catching up lasts.
* If even the fastest in-sync chunk of a period takes DELAY_MS_MAX longer than the base, the window
  is halved, down to WINDOW_BYTES_MIN. It grows again when in-sync chunks are in time.
* A base that nothing has confirmed for BASE_AGE_MS may be too low: a route that changes makes each
  chunk slower, for good. If in-sync chunks are late, catching up then pauses until the base is
  measured anew, at most for PAUSE_MS_MAX.

The caller gives the time in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The smallest window: a replica must catch up, however busy its broker is.
WINDOW_BYTES_MIN = 256 << 10
#: In-sync chunks are late if even the fastest one of a period takes so much longer than the base.
DELAY_MS_MAX = 25
#: The shortest period over which the fastest one is searched.
PERIOD_MS = 50
#: Without an acknowledgement of an in-sync chunk for this time, catching up has the stream alone.
ALONE_AFTER_MS = 1000
#: The age of a base that must be measured anew if in-sync chunks are late.
BASE_AGE_MS = 10_000
#: The longest pause for a measurement. One takes two round trips and a period.
PAUSE_MS_MAX = 2_000


@dataclass(slots=True)
class CatchUpWindow:
    """The bytes of catching up that may be under way: see the module."""

    bytes_max: int
    size: int = WINDOW_BYTES_MIN
    #: Whether the last period was too slow for the in-sync partitions.
    is_late: bool = False
    #: The base. None: nothing was acknowledged yet.
    base_ms: int | None = None
    #: When the base was measured, or met by a chunk.
    _confirmed_ms: int = 0
    #: The fastest in-sync chunk of this period, and whether any was sent while nothing caught up.
    _fastest_ms: int | None = None
    _is_clear: bool = False
    _period_ends_ms: int = 0
    #: Since when no chunk catches up; and since when none of their bytes is in the pipe, either.
    #: None: not now.
    _idle_from_ms: int | None = None
    _clear_from_ms: int | None = None
    _alone_from_ms: int = 0
    _paused_until_ms: int = 0

    def is_paused(self, now_ms: int) -> bool:
        """Return whether no chunk that catches up may begin, because the base is measured."""
        return now_ms < min(self._paused_until_ms, self._alone_from_ms)

    def catch_up_began(self) -> None:
        """Take note that a chunk that catches up is read."""
        self._idle_from_ms = self._clear_from_ms = None

    def in_sync_acknowledged(self, took_ms: int, now_ms: int, *, catches_up: bool) -> None:
        """Take note of how long an in-sync chunk took, and whether any chunk catches up."""
        self._took(took_ms, now_ms)
        self._alone_from_ms = now_ms + ALONE_AFTER_MS
        fastest = self._fastest_ms
        self._fastest_ms = took_ms if fastest is None else min(fastest, took_ms)
        if catches_up:
            self.catch_up_began()
        self._is_clear |= self._was_clear(now_ms - took_ms, now_ms)
        if now_ms >= self._period_ends_ms:
            self._end_period(self._fastest_ms, now_ms)

    def catch_up_acknowledged(self, size: int, took_ms: int, now_ms: int) -> None:
        """Grow by what was acknowledged; by a quarter if in-sync partitions use the stream."""
        self._took(took_ms, now_ms)
        if now_ms >= self._alone_from_ms:
            self.size += size
        elif not self.is_late:
            self.size += size // 4
        self.size = min(self.size, self.bytes_max)

    def _took(self, took_ms: int, now_ms: int) -> None:
        if self.base_ms is None or took_ms <= self.base_ms:
            self.base_ms = took_ms
            self._confirmed_ms = now_ms

    def _was_clear(self, sent_ms: int, now_ms: int) -> bool:
        """Return whether no catch-up byte was in the pipe when an in-sync chunk was sent.

        A chunk that was sent when nothing caught up any more comes out of the pipe after all bytes
        that were sent before it. Those of a chunk that counts as slow may be among them.
        """
        if self._idle_from_ms is None:
            self._idle_from_ms = now_ms
        elif self._clear_from_ms is None and sent_ms >= self._idle_from_ms:
            self._clear_from_ms = now_ms
        return self._clear_from_ms is not None and sent_ms >= self._clear_from_ms

    def _end_period(self, fastest_ms: int, now_ms: int) -> None:
        if self._is_clear:
            self.base_ms = fastest_ms
            self._confirmed_ms = self._paused_until_ms = now_ms
        assert self.base_ms is not None
        self.is_late = fastest_ms > self.base_ms + DELAY_MS_MAX
        if self.is_late:
            self.size = max(self.size // 2, WINDOW_BYTES_MIN)
            if now_ms >= self._confirmed_ms + BASE_AGE_MS:
                self._confirmed_ms = now_ms
                self._paused_until_ms = now_ms + PAUSE_MS_MAX
        # what was sent before the window shrank is still under way for about this long
        self._period_ends_ms = now_ms + max(PERIOD_MS, fastest_ms)
        self._fastest_ms = None
        self._is_clear = False
