"""The disk of one bare Raft machine: hard state, log and newest snapshot, as values.

It does what log and storage do with files. Every batch holds one record.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Batch, Below, Ledger
from quorate_quorum.raft.machine.ready import Save
from quorate_quorum.raft.machine.voters import VoterSet


@dataclass
class Disk:
    """The state that outlives a run. A power loss takes a random part of what is not synced."""

    hard_state: HardState = field(default_factory=HardState)
    log: list[Batch] = field(default_factory=list)
    log_start: int = 0
    synced_end: int = 0
    snapshot: Below | None = None

    @property
    def log_end(self) -> int:
        return self.log_start + len(self.log)

    def write(self, save: Save) -> None:
        """Carry out a save without its sync (as storage.Storage does)."""
        if save.begin_at is not None:
            self.log, self.log_start, self.synced_end = [], save.begin_at, save.begin_at
        if save.truncate_to is not None:
            del self.log[save.truncate_to - self.log_start :]
            self.synced_end = min(self.synced_end, save.truncate_to)
        for one in save.batches:
            assert one.base_offset == self.log_end, (one.base_offset, self.log_end)
            self.log.append(one)

    def lose_power(self, chance: random.Random) -> None:
        kept = chance.randint(self.synced_end, self.log_end)
        del self.log[kept - self.log_start :]

    def keep(self, snapshot: Below) -> None:
        if self.snapshot is None or self.snapshot.offset < snapshot.offset:
            self.snapshot = snapshot

    def below(self, offset: int) -> Below:
        """Return a snapshot of everything below an offset in the log."""
        before = self.log[: offset - self.log_start]
        initial = VoterSet() if self.snapshot is None else self.snapshot.voters
        newest = next((one.voters for one in reversed(before) if one.voters), initial)
        return Below(offset, before[-1].epoch, newest)

    def cut_below(self, offset: int) -> None:
        del self.log[: offset - self.log_start]
        self.log_start = offset

    def read_ledger(self) -> Ledger:
        """Return what a new run knows of the log (as storage.read_ledger does)."""
        below = self.snapshot
        if below is not None and not self._reaches(below):
            self.log, self.log_start = [], below.offset
        ledger = Ledger()
        if self.log_start > 0:
            assert below is not None, "the log begins above 0, and no snapshot is there"
            ledger.begin_above(below, log_start=self.log_start)
        for one in self.log:
            ledger.append(one)
        if below is not None:
            ledger.snapshot = below
            ledger.high_watermark = max(ledger.high_watermark, below.offset)
        self.synced_end = ledger.written_end = ledger.synced_end = ledger.log_end_offset
        return ledger

    def _reaches(self, below: Below) -> bool:
        if self.log_start == below.offset:
            return True
        return (
            self.log_start < below.offset <= self.log_end
            and self.log[below.offset - 1 - self.log_start].epoch == below.epoch
        )
