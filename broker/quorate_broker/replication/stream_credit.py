"""Divides the bytes of one follower's stream between its partitions.

A machine. The partitions whose ISR has the follower are in sync: producers wait for them. The
others catch up. The rules:

* Each kind has its own room for bytes that the follower has not acknowledged. So neither takes
  the room of the other.
* In-sync chunks go first. While both kinds wait, catching up gets one byte of CATCH_UP_SHARE.
* If the follower acknowledges its in-sync chunks late, the link or the follower is busy. Then the
  window for catching up shrinks: see CatchUpWindow.
* A chunk that is read or written for longer than LATE_MS belongs to a slow partition. It moves to a
  room of its own, always, so that it does not take the room of the other partitions. The fuller
  this room, the smaller the next chunks: the other partitions of a dead disk are not known yet.
* What slow partitions have beyond their room comes out of the other rooms, down to
  WINDOW_BYTES_MIN each. So new reads wait, not the partitions that the slow ones stand before.
* A read reserves room for a batch as large as the partition's last ones. The largest batch of
  another partition does not count. One that is larger than a room is alone in it.

While slow partitions have at most ROOMS - 1 rooms, all chunks together have at most ROOMS *
bytes_max bytes. Beyond that each slow partition adds its one chunk, of SLOW_CHUNK_BYTES_MIN or one
batch: bounded by the partitions of the stream. A batch that is larger than what its read reserved
is sent whole and comes on top. The caller gives the time in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate_broker.replication.catch_up_window import WINDOW_BYTES_MIN, CatchUpWindow

#: The size of a frame, and of the largest chunk. Messages of this size cost least per byte.
FRAME_BYTES = 1 << 20
#: The smallest chunk that is read, however many partitions wait; and if some are slow.
CHUNK_BYTES_MIN = 64 << 10
SLOW_CHUNK_BYTES_MIN = 16 << 10
#: The rooms of a stream, of bytes_max each: in sync, catching up, and two for slow partitions.
ROOMS = 4
#: While both kinds wait, one byte of so many is for catching up.
CATCH_UP_SHARE = 4
#: After this time a chunk is that of a slow partition.
LATE_MS = 1000
#: The most reads of one kind at the same time, without those of slow partitions.
READS_MAX = 64


def room_of_a_stream(bytes_max: int, streams: int) -> int:
    """Return the size of one room of a stream, if so many streams share `bytes_max` bytes.

    >>> room_of_a_stream(64 << 20, 2) >> 20, room_of_a_stream(64 << 20, 8) >> 20
    (8, 2)
    """
    return max(bytes_max // (ROOMS * max(streams, 1)), WINDOW_BYTES_MIN)


def next_batch_max(batch_max: int, size: int, read_max: int) -> int:
    """Return the size of a batch to expect, after a read of `read_max` bytes returned `size`.

    A larger one counts at once. It is forgotten by an eighth with each chunk.

    >>> next_batch_max(0, 9 << 20, 1 << 20) >> 20, next_batch_max(9 << 20, 100, 1 << 20) >> 20
    (9, 7)
    """
    older = batch_max - batch_max // 8
    newer = size if size > read_max else 0
    return max(older if older > CHUNK_BYTES_MIN else 0, newer)


@dataclass(slots=True, eq=False)
class Chunk:
    """Batches of one partition, from the begin of their read until they are acknowledged."""

    is_in_sync: bool
    #: The bytes that count: those reserved for the read; after the read, those that were read.
    size: int
    #: When the read began, or when the chunk was sent.
    since_ms: int
    #: The bytes to read, or one batch if that is larger.
    read_max: int = 0
    #: The size of a batch to expect in the partition's next chunk; 0: none larger than a chunk.
    batch_max: int = 0
    is_sent: bool = False
    #: Whether it has moved to the room of slow partitions.
    is_late: bool = False


@dataclass(slots=True)
class StreamCredit:
    """The chunks of one stream that are read, wait for a frame, or were sent: see the module.

    Invariants: `bytes_out` is the sum of all chunks that began and did not end. Each chunk counts
    in exactly one room.
    """

    #: The room of each kind, in bytes, at least WINDOW_BYTES_MIN. Slow partitions have twice as
    #: much, together.
    bytes_max: int
    window: CatchUpWindow = field(init=False)
    #: Bytes out of each kind, by is_in_sync, without those of slow partitions.
    _out: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    _late_out: int = 0
    #: Reads of each kind, without those of slow partitions.
    _reads: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    #: Chunks that are read or were sent, in time, the oldest first.
    _waiting: dict[Chunk, None] = field(default_factory=dict)
    #: The bytes that catching up may send before the next in-sync chunk.
    _owed: int = 0

    def __post_init__(self) -> None:
        self.window = CatchUpWindow(self.bytes_max)

    @property
    def bytes_out(self) -> int:
        """All bytes that were read or sent and are not acknowledged."""
        return self._out[True] + self._out[False] + self._late_out

    def set_bytes_max(self, bytes_max: int) -> None:
        """Change the room of each kind."""
        self.bytes_max = self.window.bytes_max = max(bytes_max, WINDOW_BYTES_MIN)

    # the way of a chunk

    def begin(
        self, *, is_in_sync: bool, waiting: int, now_ms: int, batch_max: int = 0
    ) -> Chunk | None:
        """Return the next chunk to read of one kind; None: there is no room.

        `waiting`: the partitions of this kind that wait, with this one. `batch_max`: that of the
        partition's last chunk.
        """
        if not is_in_sync and self.window.is_paused(now_ms):
            return None
        most = self._most(is_in_sync)
        room = most - self._out[is_in_sync]
        is_full = self._out[is_in_sync] > 0 and room < max(batch_max, CHUNK_BYTES_MIN)
        if is_full or self._reads[is_in_sync] >= READS_MAX:
            return None
        least = SLOW_CHUNK_BYTES_MIN if self._late_out else CHUNK_BYTES_MIN
        share = min(most // max(waiting, 2), FRAME_BYTES) * self._late_room // self._late_most
        read_max = max(min(share, room), least)
        size = max(read_max, batch_max)
        chunk = Chunk(is_in_sync, size, now_ms, read_max, batch_max)
        self._out[is_in_sync] += chunk.size
        self._reads[is_in_sync] += 1
        self._waiting[chunk] = None
        if not is_in_sync:
            self.window.catch_up_began()
        return chunk

    def read(self, chunk: Chunk, size: int) -> None:
        """Take note that the read has ended. The chunk waits for a frame now."""
        self._leave(chunk)
        chunk.batch_max = next_batch_max(chunk.batch_max, size, chunk.read_max)
        chunk.size = size
        self._enter(chunk)

    def sent(self, chunk: Chunk, now_ms: int) -> None:
        """Take note that the chunk is in a frame."""
        chunk.is_sent = True
        chunk.since_ms = now_ms
        if not chunk.is_late:
            self._waiting[chunk] = None

    def acknowledged(self, chunk: Chunk, now_ms: int) -> None:
        """End a chunk for whose partition the follower sent a new position."""
        if chunk.is_sent:
            took_ms = now_ms - chunk.since_ms
            if chunk.is_in_sync:
                catches_up = self._out[False] > 0
                self.window.in_sync_acknowledged(took_ms, now_ms, catches_up=catches_up)
            else:
                self.window.catch_up_acknowledged(chunk.size, took_ms, now_ms)
        self.drop(chunk)

    def drop(self, chunk: Chunk) -> None:
        """End a chunk that is not acknowledged."""
        self._leave(chunk)
        chunk.size = 0

    def left_isr(self, chunk: Chunk) -> None:
        """Count a chunk that was sent as catching up, because its follower has left the ISR."""
        if chunk.is_in_sync and chunk.is_sent and not chunk.is_late:
            self._out[True] -= chunk.size
            self._out[False] += chunk.size
            chunk.is_in_sync = False

    def move_late(self, now_ms: int) -> bool:
        """Move chunks of slow partitions to their own room. Return whether there were any."""
        moved = False
        while self._waiting:
            chunk = next(iter(self._waiting))
            if now_ms - chunk.since_ms < LATE_MS:
                break
            self._leave(chunk)
            chunk.is_late = moved = True
            self._enter(chunk)
        return moved

    # the order of frames

    def is_catch_up_next(self, in_sync: int, catch_up: int) -> bool:
        """Return whether the next chunk to send is one that catches up.

        The arguments are the sizes of the first chunk of each kind that is ready; 0: none is.
        """
        if not in_sync or not catch_up:
            return not in_sync
        return self._owed >= catch_up

    def taken(self, chunk: Chunk, *, both_wait: bool) -> None:
        """Take note that a chunk goes into a frame, and whether the other kind waits, too."""
        if chunk.is_in_sync:
            self._owed += chunk.size // (CATCH_UP_SHARE - 1) if both_wait else 0
        else:
            self._owed = max(0, self._owed - chunk.size) if both_wait else 0

    # internals

    @property
    def _late_most(self) -> int:
        return (ROOMS - 2) * self.bytes_max

    @property
    def _late_room(self) -> int:
        return max(self._late_most - self._late_out, 0)

    def _most(self, is_in_sync: bool) -> int:
        excess = max(self._late_out - self._late_most, 0)
        most = max(self.bytes_max - excess, WINDOW_BYTES_MIN)
        return most if is_in_sync else min(self.window.size, most)

    def _enter(self, chunk: Chunk) -> None:
        """Count a chunk in its room."""
        if chunk.is_late:
            self._late_out += chunk.size
        else:
            self._out[chunk.is_in_sync] += chunk.size

    def _leave(self, chunk: Chunk) -> None:
        """Take a chunk out of its room."""
        was_waiting = chunk in self._waiting
        self._waiting.pop(chunk, None)
        if chunk.is_late:
            self._late_out -= chunk.size
            return
        self._out[chunk.is_in_sync] -= chunk.size
        if was_waiting and not chunk.is_sent:
            self._reads[chunk.is_in_sync] -= 1
