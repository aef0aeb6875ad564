"""The records that threads have sent, and that the loop has not put into its buffer yet.

Threads append, and the loop takes all at once. A thread wakes the loop only if no thread has done
so since the last take, so a thread that sends faster than the loop runs costs one wake-up for many
records.

The handler of a signal may raise at any line of a put. Then the put's record may be in the inbox or
not, and the inbox must work on: no bulk that is half changed gets a further record, the loop counts
anew what it takes, and a wake-up counts as sent only when it was.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from quorate.errors import OverloadedError, QuorateError
from quorate.model import Header
from quorate.producer.bulk import Bulk
from quorate.record.column_builder import RecordColumns
from quorate.sync.background import SIGNAL_LATE_S

#: Most records of a bulk. The loop gives back the room of a bulk when it has put all of them into
#: its buffer.
BULK_RECORDS_MAX: Final = 1000


class Inbox:
    """Records in the order of `put`, `bytes_max` bytes of them at most.

    Records that follow one another, and have the same topic and partition, are in one bulk.
    """

    def __init__(
        self,
        bytes_max: int,
        wake: Callable[[], None],
        is_loop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_loop` tells whether the calling thread is the loop's, which makes the room.

        `clock` gives the time of the loop to any thread. The loop's own may be of its last turn.
        """
        self.bytes_max = bytes_max
        self._wake = wake
        self._is_loop = is_loop
        self._clock = clock
        self._bulks: deque[Bulk] = deque()
        #: The last bulk, to which the next record may be added.
        self._open: Bulk | None = None
        #: Whether the loop was woken since the last take.
        self._is_told = False
        #: Number of records that were ever put in, and taken out.
        self.puts = 0
        self._taken = 0
        #: Of the records here, and of those that the loop has taken and has not done with.
        self._bytes_held = 0
        #: Of those that the loop has taken alone.
        self._bytes_taken = 0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting = 0
        self._closed: QuorateError | None = None

    def put(
        self,
        topic: str,
        partition: int | None,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        size: int,
        timeout_s: float,
    ) -> tuple[Bulk, int]:
        """Append a record of at most `size` bytes. Return its bulk, and its index there.

        Waits while there is no room; a record larger than the inbox goes in alone. Raises
        OverloadedError after `timeout_s`, in the loop's thread at once: it would wait for itself.
        Raises the error that was given to close(), and InvalidTimestampError.
        """
        with self._lock:
            if self._bytes_held + size > self.bytes_max:
                self._wait(size, timeout_s)
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            bulk = self._open
            self._open = None  # a signal may end this put while only some columns have the record
            if (
                bulk is None
                or bulk.topic != topic
                or bulk.partition != partition
                or len(bulk.records.values) >= BULK_RECORDS_MAX
            ):
                bulk = Bulk(topic, partition, RecordColumns(), self._clock())
            records = bulk.records
            if timestamp_ms != records.time_ms or key is not None or headers or records.keys:
                index = records.append(timestamp_ms, key, value, headers, size)
            else:  # all that `append` does for a record like the one before it
                index = len(records.values)
                records.values.append(value)
                records.size += size
            if index == 0:
                self._bulks.append(bulk)
            self._open = bulk
            self._bytes_held += size
            self.puts += 1
            if not self._is_told:
                self._tell()
        return bulk, index

    def put_all(self, bulk: Bulk, timeout_s: float) -> None:
        """Append the records of a bulk, as `put` does one. Its records have their sizes."""
        size = bulk.records.size
        with self._lock:
            if self._bytes_held + size > self.bytes_max:
                self._wait(size, timeout_s)
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            self._open = None
            bulk.arrived_at = self._clock()
            self._bulks.append(bulk)
            self._bytes_held += size
            self.puts += len(bulk.records.values)
            if not self._is_told:
                self._tell()

    def _tell(self) -> None:
        """Wake the loop. Call it under the lock, so that no take comes between the two lines."""
        self._wake()
        self._is_told = True

    def _wait(self, size: int, timeout_s: float) -> None:
        if self._closed is None and self._bytes_held and self._is_loop():
            raise OverloadedError(
                "the record was not sent: the buffer (buffer_memory) is full, and a callback can't"
                " wait for room: let it hand the record to another thread"
            )
        deadline = self._clock() + timeout_s
        self._waiting += 1
        try:
            while self._closed is None and self._bytes_held + size > self.bytes_max:
                left_s = deadline - self._clock()
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

    def take(self) -> deque[Bulk]:
        """Return all bulks, oldest first. Their bytes stay counted until give_back()."""
        with self._lock:
            found, self._bulks = self._bulks, deque()
            self._open = None
            self._is_told = False
            self._taken += sum(len(bulk.records.values) for bulk in found)
            self._bytes_taken += sum(bulk.records.size for bulk in found)
            self.puts, self._bytes_held = self._taken, self._bytes_taken
        return found

    def give_back(self, size: int) -> None:
        """Count `size` bytes no more. Called for what was taken, when it is elsewhere."""
        with self._lock:
            self._bytes_held -= size
            self._bytes_taken -= size
            if self._waiting:
                self._room.notify_all()

    def close(self, error: QuorateError) -> None:
        """Refuse all further items with `error`, and end all waits."""
        with self._lock:
            self._closed = error
            self._room.notify_all()


def parts_of(
    topic: str, partition: int | None, records: RecordColumns, bytes_max: int
) -> Iterator[Bulk]:
    """Yield the records in bulks of at most `bytes_max`, or of one record."""
    bounds = records.bounds()
    start, count = 0, len(bounds) - 1
    while start < count:
        end = min(start + BULK_RECORDS_MAX, count)
        fitting = bisect_right(bounds, bounds[start] + bytes_max, start, end + 1) - 1
        stop = max(fitting, start + 1)
        part = RecordColumns()
        part.extend(records, start, stop, bounds[stop] - bounds[start])
        yield Bulk(topic, partition, part)
        start = stop
