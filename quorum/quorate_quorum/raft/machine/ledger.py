"""The ledger is what the machine knows of its log: ends, epochs and voters, but no bytes.

The machine decides appends and cuts, and the driver carries them out later. The ledger is the log
as it will be after that. `written_end` and `synced_end` say how much is on the disk now.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from quorate_quorum.raft.machine.voters import VoterSet
from quorate_quorum.snapshots.file import SnapshotId


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the metadata log whose CRC was checked, and what the machine must know of it."""

    base_offset: int
    end_offset: int
    epoch: int
    data: bytes
    voters: VoterSet | None = None  # the voters of the batch's newest Voters event
    epoch_start: int | None = None  # the epoch that the batch's EpochStart event begins


class Below(NamedTuple):
    """What the machine must know of a snapshot, which replaces the log below `offset`."""

    offset: int
    epoch: int  # the epoch of the record before `offset`
    voters: VoterSet

    @property
    def id(self) -> SnapshotId:
        return SnapshotId(self.offset, self.epoch)


class Ledger:
    """The metadata log, as the machine knows it.

    Invariants: high_watermark, written_end and synced_end are never above log_end_offset. A log
    that begins above 0 has a snapshot at or above its start. No snapshot is above high_watermark.
    """

    __slots__ = (
        "_epochs",
        "_voters",
        "bootstrap_end",
        "high_watermark",
        "log_end_offset",
        "log_start_offset",
        "snapshot",
        "synced_end",
        "truncations",
        "written_end",
    )

    def __init__(self) -> None:
        #: The first offset that the log holds. The records below it are in the snapshot.
        self.log_start_offset = 0
        self.log_end_offset = 0
        #: Every record below this offset is in the page cache, and may be read and sent.
        self.written_end = 0
        #: Every record below this offset survives a power loss, and may be acknowledged and
        #: counted.
        self.synced_end = 0
        #: One past the last committed record. As in Raft, it is not stored on disk. A run begins
        #: with the records that are committed by definition (the bootstrap batch, the newest
        #: snapshot). The replica learns of further commits from a leader, or by its own reign.
        self.high_watermark = 0
        #: The number of cuts of the log. If a write or sync began before a cut, its completion is
        #: ignored: the records that it covers may have been replaced.
        self.truncations = 0
        #: The end of the bootstrap batch, with which every initial voter is formatted; 0: the log
        #: does not hold it.
        self.bootstrap_end = 0
        #: The newest whole snapshot on this disk; None if there is none.
        self.snapshot: Below | None = None
        #: (epoch, first offset), both ascending. After a cut the first entry is of the record just
        #: below the log's start: a follower's log may end exactly there.
        self._epochs: list[tuple[int, int]] = []
        #: (base offset of the batch, set), ascending. Older sets are kept, because a cut of the
        #: log's end can remove the newest set.
        self._voters: list[tuple[int, VoterSet]] = []

    @property
    def last_epoch(self) -> int:
        """The epoch of the last record; -1 if there is none."""
        return self._epochs[-1][0] if self._epochs else -1

    @property
    def voters(self) -> VoterSet:
        """The newest set in the log, committed or not (KIP-853: a set counts when appended)."""
        return self._voters[-1][1] if self._voters else VoterSet()

    @property
    def are_voters_committed(self) -> bool:
        """Whether the newest set is committed, so that no cut can take it back."""
        return not self._voters or self._voters[-1][0] < self.high_watermark

    @property
    def voters_before_change(self) -> VoterSet:
        """The set before the newest change, while a cut can still take that change back.

        Empty if the newest change is committed. At most one change is uncommitted, because a change
        may begin only after the commit of the change before.
        """
        is_open = len(self._voters) > 1 and not self.are_voters_committed
        return self._voters[-2][1] if is_open else VoterSet()

    @property
    def holds_only_bootstrap(self) -> bool:
        """Whether the log holds no more than the bootstrap batch, or is empty."""
        return self.log_end_offset <= self.bootstrap_end

    def begin_above(self, below: Below, *, log_start: int) -> None:
        """Start from a snapshot and an empty log that begins at `log_start`.

        The caller then appends the log's batches, also those below the snapshot's end. The newest
        voters at that end are those of the snapshot.
        """
        assert self.log_end_offset == 0, "an empty ledger"
        assert 0 < log_start <= below.offset, (log_start, below.offset)
        self.snapshot = below
        self.log_start_offset = self.log_end_offset = log_start
        self._voters = [(log_start - 1, below.voters)]
        self._epochs = [(below.epoch, log_start - 1)] if log_start == below.offset else []

    def begin_anew(self, below: Below) -> None:
        """Drop all records, and let the log go on at the end of a snapshot.

        The snapshot's records are durable and committed, so every end moves to the snapshot's end.
        """
        assert below.offset > self.high_watermark, (below.offset, self.high_watermark)
        self.log_end_offset = 0
        self.begin_above(below, log_start=below.offset)
        self.high_watermark = self.written_end = self.synced_end = below.offset
        self.bootstrap_end = 0
        self.truncations += 1

    def note_snapshot(self, snapshot: SnapshotId) -> None:
        """Note a new snapshot of committed records on this disk, if it is the newest."""
        if self.snapshot is None or self.snapshot.offset < snapshot.offset:
            assert snapshot.offset <= self.high_watermark, (snapshot, self.high_watermark)
            assert snapshot.epoch == self.epoch_before(snapshot.offset), snapshot
            self.snapshot = Below(*snapshot, self._voters_before(snapshot.offset))

    def cut_below(self, log_start: int) -> None:
        """Let the log begin at `log_start`. The epoch of the record before it stays known."""
        if log_start <= self.log_start_offset:
            return  # the log begins higher already: a snapshot has replaced it
        assert self.snapshot is not None, "nothing is cut without a snapshot"
        assert log_start <= self.snapshot.offset, (log_start, self.snapshot.offset)
        epoch, voters = self.epoch_before(log_start), self._voters_before(log_start)
        self._epochs = [(epoch, log_start - 1), *(e for e in self._epochs if e[1] >= log_start)]
        self._voters = [(log_start - 1, voters), *(v for v in self._voters if v[0] >= log_start)]
        self.log_start_offset = log_start

    def append(self, batch: Batch) -> None:
        """Add a batch at the end. The caller has checked the batch's offset and epoch."""
        assert batch.base_offset == self.log_end_offset, (batch.base_offset, self.log_end_offset)
        assert batch.epoch >= self.last_epoch, (batch.epoch, self.last_epoch)
        if batch.epoch > self.last_epoch:
            self._epochs.append((batch.epoch, batch.base_offset))
        if batch.base_offset == 0 and batch.epoch == 0:
            self.bootstrap_end = batch.end_offset
            self.high_watermark = max(self.high_watermark, batch.end_offset)
        if batch.voters is not None:
            self._voters.append((batch.base_offset, batch.voters))
        self.log_end_offset = batch.end_offset

    def truncate(self, end_offset: int) -> None:
        """Cut the log to `end_offset`, and forget the epochs and voter sets of the cut records.

        If a cut voter set stayed, votes would be counted by a set that was never committed
        (KIP-853).
        """
        assert self.high_watermark <= end_offset <= self.log_end_offset
        self.log_end_offset = end_offset
        self.written_end = min(self.written_end, end_offset)
        self.synced_end = min(self.synced_end, end_offset)
        self.truncations += 1
        while self._epochs and self._epochs[-1][1] >= end_offset:
            self._epochs.pop()
        while self._voters and self._voters[-1][0] >= end_offset:
            self._voters.pop()

    def end_offset_for(self, epoch: int) -> tuple[int, int]:
        """Return the newest epoch at or below the given one, and the offset at which it ends.

        Return (-1, log_start_offset) if every epoch in this log is newer than the given one.
        """
        index = bisect_right(self._epochs, epoch, key=lambda entry: entry[0])
        if index == 0:
            return -1, self.log_start_offset
        end = self._epochs[index][1] if index < len(self._epochs) else self.log_end_offset
        return self._epochs[index - 1][0], end

    def _voters_before(self, offset: int) -> VoterSet:
        """Return the newest voter set in the records below the offset."""
        return next((s for base, s in reversed(self._voters) if base < offset), VoterSet())

    def epoch_before(self, offset: int) -> int:
        """Return the epoch of the record before the offset; -1 if that record is not known."""
        index = bisect_right(self._epochs, offset - 1, key=lambda entry: entry[1])
        return self._epochs[index - 1][0] if index else -1

    def is_up_to_date(self, last_epoch: int, log_end_offset: int) -> bool:
        """Return whether a log with that last epoch and end is as complete as this log.

        The rule is Raft's (5.4.1). The epoch counts first: a longer log of an older epoch may lack
        records that were committed in a newer epoch.
        """
        return (last_epoch, log_end_offset) >= (self.last_epoch, self.log_end_offset)

    def epochs(self) -> tuple[tuple[int, int], ...]:
        """Return (epoch, first offset) pairs, oldest first."""
        return tuple(self._epochs)
