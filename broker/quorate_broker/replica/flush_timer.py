"""The timer of one log for `flush.ms`: it says when the log must be synced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.clock import loop_ms
from quorate_broker.replica.replica import Replica
from quorate_quorum.configs import NEVER_MS
from quorate_quorum.log.log import Log


class FlushTimer:
    """Calls `due` when flush.ms has passed since the first append that no sync covers.

    A log whose records are all synced has no running timer, so an idle log costs nothing. Rules:

    * `_since_ms` is never later than the append of the first record that no sync covers. It may be
      earlier: a roll syncs, too, and does not tell the timer.
    * After `due` was called, nothing happens until `begin` or `again` is called.
    """

    def __init__(self, replica: Replica, log: Log, due: Callable[[], None]) -> None:
        self._replica = replica
        self._log = log
        self._due = due
        #: The loop's time of the append of the first record that is not synced, or an earlier time.
        #: None: all records are synced, or a sync is under way.
        self._since_ms: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False

    def appended(self) -> None:
        """Take note of an append."""
        if self._since_ms is None:
            self.look()

    def look(self) -> None:
        """Arm the timer, if it must run: after an open, and after a change of flush.ms."""
        if self._since_ms is None:
            if self._log.synced_end >= self._log.log_end_offset:
                return
            self._since_ms = loop_ms()
        self.stop()
        if not self._is_due and self._replica.config.flush_ms != NEVER_MS:
            self._arm(self._since_ms + self._replica.config.flush_ms)

    def begin(self) -> None:
        """Take note that a sync begins. Records that are appended from now on count anew."""
        self._is_due = False
        self._since_ms = None

    def again(self, after_ms: int) -> None:
        """Call `due` once more after that time, because the sync could not begin."""
        self._since_ms = loop_ms()
        self.stop()
        self._arm(loop_ms() + after_ms)

    def stop(self) -> None:
        """Stop the timer, if it runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when_ms: int) -> None:
        self._timer = asyncio.get_running_loop().call_at(when_ms / 1000, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._is_due = True
        self._due()
