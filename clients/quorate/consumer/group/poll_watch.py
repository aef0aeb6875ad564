"""Watches whether the application asks for records. A machine.

The watch is cheap for the reader: each ask only counts. The time is looked at by `has_stopped`,
which is called regularly. So the answer comes late by up to the time between two calls.
"""

from __future__ import annotations


class PollWatch:
    """Whether the application has asked within the last `interval_ms`.

    While a callback of the application runs, asking does not count: nothing is given to the
    application from the partitions that the callback is about. A callback has the whole interval.
    """

    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        #: Number of asks so far.
        self.asks = 0
        #: Number of asks that wait for records now.
        self.waiting = 0
        #: Whether a callback of the application runs.
        self.in_callback = False
        self._seen_asks = -1
        self._seen_ms = 0

    def callback_begins(self, now_ms: int) -> None:
        """Note that a callback of the application begins."""
        self.in_callback, self._seen_ms = True, now_ms

    def callback_ends(self) -> None:
        """Note that the callback has ended. Its time counts no more."""
        self.in_callback, self._seen_asks = False, -1

    def has_stopped(self, now_ms: int) -> bool:
        """Return whether the application has not asked, or a callback runs, for too long."""
        if not self.in_callback and (self.waiting or self.asks != self._seen_asks):
            self._seen_asks, self._seen_ms = self.asks, now_ms
            return False
        return now_ms - self._seen_ms > self.interval_ms
