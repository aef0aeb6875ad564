"""The table of epochs: at which offset each leader_epoch begins.

By this table a replica whose log diverges finds where to cut its log (KIP-101). The file
`leader-epoch-checkpoint` is written before the first record of a new epoch is visible. Nothing
depends on the file: an open notices if it is missing, torn or old, and builds it again from the
batches, each of which has its epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from crc32c import crc32c

FILE_NAME = "leader-epoch-checkpoint"
_VERSION = "1"


class EpochCache:
    """Epochs in order, with the offset at which each begins. Both grow strictly.

    An epoch without a record has no entry. With such an entry, two logs might disagree about where
    the epoch begins, and a follower would search for ever for the offset at which the logs diverge
    (KAFKA-10706).
    """

    def __init__(self, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._epochs: list[int] = []
        self._starts: list[int] = []
        for epoch, start in entries:
            self.assign(epoch, start)

    @property
    def entries(self) -> list[tuple[int, int]]:
        """The pairs (epoch, start offset), in order."""
        return list(zip(self._epochs, self._starts, strict=True))

    @property
    def last(self) -> int:
        """The epoch of the newest record; -1 if there is none."""
        return self._epochs[-1] if self._epochs else -1

    def assign(self, epoch: int, start: int) -> bool:
        """Note that a batch of `epoch` begins at `start`. Return whether the epoch is new.

        >>> cache = EpochCache()
        >>> cache.assign(1, 0), cache.assign(1, 5), cache.assign(3, 9)
        (True, False, True)
        >>> cache.assign(4, 9), cache.entries  # epoch 3 turned out to be empty
        (True, [(1, 0), (4, 9)])
        """
        if epoch <= self.last:
            return False
        while self._starts and self._starts[-1] >= start:
            self._epochs.pop()
            self._starts.pop()
        self._epochs.append(epoch)
        self._starts.append(start)
        return True

    def epoch_at(self, offset: int) -> int:
        """Return the epoch of the record at `offset`, which must be in the log; -1 if not known."""
        index = bisect_right(self._starts, offset) - 1
        return self._epochs[index] if index >= 0 else -1

    def below(self, end: int) -> EpochCache:
        """Return the epochs that begin below `end`."""
        return EpochCache(one for one in self.entries if one[1] < end)

    def fits(self, expected: EpochCache, *, start: int, has_gaps: bool) -> bool:
        """Return whether these epochs, found in a log's batches, are `expected`, from `start` on.

        With gaps, the start may lie in one, where the batches do not tell the epoch. Then only what
        begins behind the start is compared.

        >>> found = EpochCache([(1, 0), (3, 9)])
        >>> found.fits(EpochCache([(1, 6), (3, 9)]), start=6, has_gaps=False)
        True
        >>> found.fits(EpochCache([(3, 6)]), start=6, has_gaps=True)
        True
        """
        if not expected.entries:
            return True
        if has_gaps:
            above = [one for one in self.entries if one[1] >= start]
            is_known = all(expected.epoch_at(offset) == epoch for epoch, offset in above)
            return is_known and all(one in above for one in expected.entries if one[1] > start)
        from_start = EpochCache(self.entries)
        from_start.truncate_from_start(start)
        return from_start.entries == expected.entries

    def end_offset_for(self, epoch: int, log_end: int) -> tuple[int, int] | None:
        """Return the largest known epoch not above `epoch`, and the offset at which it ends.

        None if there are no epochs, or if `epoch` is above the last one, whose end is not known. An
        epoch below the first one ends where the first one begins, as in Kafka.

        >>> EpochCache([(1, 0), (4, 9)]).end_offset_for(3, 20)
        (1, 9)
        """
        if not self._epochs or epoch > self.last:
            return None
        if epoch == self.last:
            return epoch, log_end
        index = bisect_right(self._epochs, epoch) - 1
        if index < 0:
            return epoch, self._starts[0]
        return self._epochs[index], self._starts[index + 1]

    def truncate_from_end(self, end: int) -> bool:
        """Forget the epochs that begin at or above `end`. Return whether there were any."""
        before = len(self._starts)
        while self._starts and self._starts[-1] >= end:
            self._epochs.pop()
            self._starts.pop()
        return len(self._starts) != before

    def truncate_from_start(self, start: int) -> bool:
        """Forget the epochs that end at or below `start`. The epoch at `start` now begins there.

        Return whether anything changed.
        """
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self._starts[index] == start == self._starts[0]:
            return False
        del self._epochs[:index], self._starts[:index]
        self._starts[0] = start
        return True

    def begin_at(self, start: int) -> None:
        """Let the first epoch begin at `start`, if it begins above it.

        A compacted log may hold no batch at its start. The batches that are left do not tell the
        epoch there, and no epoch before the first one is known.
        """
        if self._starts and self._starts[0] > start:
            self._starts[0] = start

    def encode(self) -> bytes:
        lines = [_VERSION, str(len(self._epochs))]
        lines += [f"{epoch} {start}" for epoch, start in self.entries]
        body = "\n".join(lines) + "\n"
        return f"{body}crc {crc32c(body.encode()):08x}\n".encode()


def decode(content: bytes) -> EpochCache | None:
    """Return the epochs in a checkpoint file; None if it is not whole, or of another version."""
    body, mark, crc = content.rpartition(b"crc ")
    try:
        if not mark or int(crc, 16) != crc32c(body):
            return None
        lines = body.decode("ascii").splitlines()
        if lines[0] != _VERSION or int(lines[1]) != len(lines) - 2:
            return None
        entries = [(int(epoch), int(start)) for epoch, start in map(str.split, lines[2:])]
    except (ValueError, IndexError):
        return None
    cache = EpochCache(entries)
    return cache if cache.entries == entries else None


def misfit(epoch: int, started: int | None, before: int | None) -> str | None:
    """Return why a metadata batch of `epoch` can't follow one of epoch `before`; None if it can.

    `started` is the epoch that the batch's EpochStart event names; None if it has no such event.
    `before` is -1 for the first batch of the log, and None if the epoch before is not known.

    >>> misfit(3, 3, 1), misfit(3, None, 3), misfit(0, None, -1)
    (None, None, None)
    >>> misfit(4, None, 3)
    'it says epoch 4, and no EpochStart since epoch 3 begins that'
    >>> misfit(5, 4, 3)
    'it says epoch 5, and its EpochStart begins epoch 4'
    """
    if started is None:
        if before is None or epoch == max(before, 0):
            return None
        return f"it says epoch {epoch}, and no EpochStart since epoch {max(before, 0)} begins that"
    if before is not None and started <= before:
        return f"its EpochStart begins epoch {started} after epoch {before}"
    if epoch != started:
        return f"it says epoch {epoch}, and its EpochStart begins epoch {started}"
    return None
