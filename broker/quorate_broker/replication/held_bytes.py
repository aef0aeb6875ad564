"""The bytes that a follower has received over one stream and has not written yet.

A machine. What is held for LATE_MS belongs to a slow partition, for example on a dead disk. The
leader counts it in a room of its own (see StreamCredit), and so does the follower: it is late, and
does not count against the other partitions of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate_broker.replication.stream_credit import LATE_MS


@dataclass(slots=True)
class HeldBytes:
    """The bytes of one stream: see the module. The caller gives the time in milliseconds.

    Invariant: `in_time + late` is the size of all that is held.
    """

    in_time: int = 0
    late: int = 0
    #: What is in time, the oldest first: its name -> its size, and when it was received.
    _in_time: dict[int, tuple[int, int]] = field(default_factory=dict)
    _late: dict[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.in_time + self.late

    def received(self, name: int, size: int, now_ms: int) -> None:
        """Hold so many bytes under a name that nothing else has until it is let go."""
        if not size:
            return
        self._in_time[name] = size, now_ms
        self.in_time += size

    def let_go(self, name: int) -> None:
        """Hold these bytes no longer: they are written or dropped."""
        size, _ = self._in_time.pop(name, (0, 0))
        self.in_time -= size
        self.late -= self._late.pop(name, 0)

    def has_room(self, most: int, all_held: int, all_max: int) -> bool:
        """Return whether more may be received: whether what is in time, and all, is in bounds."""
        return self.in_time <= most and all_held <= all_max

    def next_late_ms(self, now_ms: int) -> int | None:
        """Count as late what is; return when the next bytes will be. None: nothing is in time."""
        while self._in_time:
            name, (size, since_ms) = next(iter(self._in_time.items()))
            if now_ms < since_ms + LATE_MS:
                return since_ms + LATE_MS
            del self._in_time[name]
            self._late[name] = size
            self.in_time -= size
            self.late += size
        return None


def room_beside(bytes_max: int, fair: int, late: list[int], rooms: int) -> int:
    """Return what is left for the rooms of all streams beside the late bytes of each.

    `fair` is the room of a stream without late bytes, and half of the rooms are for late ones. A
    stream that had more room before other streams began may hold more: so much less is left.

    >>> room_beside(8_000, 500, [900, 1_000, 0, 0], 4), room_beside(8_000, 500, [1_600, 0, 0, 0], 4)
    (8000, 6800)
    """
    excess = sum(max(0, one - rooms // 2 * fair) for one in late)
    return max(0, bytes_max - 2 * excess)
