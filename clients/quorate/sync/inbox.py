"""The records that threads have sent, and that the loop has not put into its buffer yet.

Threads append, and the loop takes all at once. A thread wakes the loop only if the inbox was empty,
so a thread that sends faster than the loop runs costs one wake-up for many records.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from quorate.errors import OverloadedError, QuorateError
from quorate.sync.background import SIGNAL_LATE_S

T = TypeVar("T")


class Inbox(Generic[T]):
    """Items with a size in bytes each, at most `bytes_max` together, in the order of `put`."""

    def __init__(
        self, bytes_max: int, wake: Callable[[], None], is_loop: Callable[[], bool]
    ) -> None:
        """`is_loop` tells whether the calling thread is the loop's, which makes the room."""
        self.bytes_max = bytes_max
        self._wake = wake
        self._is_loop = is_loop
        self._items: deque[T] = deque()
        #: Number of items that were ever put in.
        self.puts = 0
        #: Of the items here, and of those that the loop has taken and has not done with.
        self._bytes_held = 0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting = 0
        self._closed: QuorateError | None = None

    def put(self, item: T, size: int, timeout_s: float) -> None:
        """Append an item. Wait while there is no room; one larger than the inbox goes in alone.

        Raises OverloadedError after `timeout_s`, in the loop's thread at once: it would wait for
        itself. Raises the error that was given to close().
        """
        with self._lock:
            if self._bytes_held and self._bytes_held + size > self.bytes_max:
                self._wait(size, timeout_s)
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            was_empty = not self._items
            self._items.append(item)
            self._bytes_held += size
            self.puts += 1
        if was_empty:
            self._wake()

    def _wait(self, size: int, timeout_s: float) -> None:
        if self._closed is None and self._is_loop():
            raise OverloadedError(
                "the record was not sent: the buffer (buffer_memory) is full, and a callback can't"
                " wait for room: let it hand the record to another thread"
            )
        deadline = time.monotonic() + timeout_s
        self._waiting += 1
        try:
            while self._closed is None and self._bytes_held + size > self.bytes_max:
                left_s = deadline - time.monotonic()
                if not self._bytes_held:
                    return
                if left_s <= 0:
                    raise OverloadedError(
                        "the record was not sent: the buffer (buffer_memory) was full for"
                        f" {timeout_s * 1000:.0f} ms"
                    )
                self._room.wait(min(left_s, SIGNAL_LATE_S))
        finally:
            self._waiting -= 1

    def take(self) -> deque[T]:
        """Return all items, oldest first. Their bytes stay counted until give_back()."""
        with self._lock:
            found, self._items = self._items, deque()
        return found

    def give_back(self, size: int) -> None:
        """Count `size` bytes no more. Called for what was taken, when it is elsewhere."""
        with self._lock:
            self._bytes_held -= size
            if self._waiting:
                self._room.notify_all()

    def close(self, error: QuorateError) -> None:
        """Refuse all further items with `error`, and end all waits."""
        with self._lock:
            self._closed = error
            self._room.notify_all()
