"""Passes committed batches to the listener, in order, and then the reign that begins there.

Where the log begins above what was applied, the snapshot that stands for the rest comes first: at
the start of a run, and when one was installed.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Protocol

from quorate.errors import SnapshotNotFoundError
from quorate.record import batch as record_batch
from quorate_quorum.log.log import Log
from quorate_quorum.raft.driver.listener import RaftListener
from quorate_quorum.raft.machine.events import Applied, Event
from quorate_quorum.raft.machine.ready import Ready, Reign
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.snapshots.store import Snapshots

#: Passed to the listener in one turn of the loop: a few milliseconds of work, or one batch.
APPLY_BYTES = 16 * 1024


class Applying(Protocol):
    """The part of RaftLoop that the applier needs."""

    @property
    def snapshot(self) -> SnapshotId | None: ...
    @property
    def log_start_offset(self) -> int: ...
    def step(self, event: Event) -> None: ...


class Applier:
    """`run` is the task, `proceed` says how far it may go.

    A reign is told only after the listener has everything below its first record: a controller that
    decided earlier would decide on an old image.
    """

    def __init__(
        self, node: Applying, metadata_log: Log, snapshots: Snapshots, listener: RaftListener
    ) -> None:
        self._node = node
        self._log = metadata_log
        self._snapshots = snapshots
        self._listener = listener
        self._reign: Reign | None = None
        self._wants_applied: int | None = None
        self._wake = asyncio.Event()
        #: One past what is committed and written here.
        self.readable_end = 0
        #: One past the last record that the listener was told.
        self.applied_end = 0
        #: The reign that the listener knows of.
        self.told_epoch: int | None = None

    def proceed(self, ready: Ready) -> None:
        """Go on as the machine says."""
        if ready.reign is not None:
            self._reign = ready.reign
        self.readable_end = max(self.readable_end, ready.readable_end)
        if ready.wants_applied is not None:
            self._wants_applied = ready.wants_applied
        self._wake.set()

    def end_reign(self) -> None:
        """Tell the listener that the reign is over, if it was told that it began."""
        self._reign = None
        told, self.told_epoch = self.told_epoch, None
        if told is not None:
            self._listener.lost_leadership(told)

    async def run(self) -> None:
        """Work for good. StorageError if the disk fails."""
        if self._node.snapshot is not None:
            await self._pass_snapshot(self._node.snapshot)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self.applied_end < self.readable_end:
                await self._pass_more()
                if self.applied_end < self.readable_end:
                    await asyncio.sleep(0)
            reign = self._reign
            if reign is not None and self.applied_end >= reign.since:
                self._reign = None
                self.told_epoch = reign.epoch
                self._listener.became_leader(reign.epoch, reign.handed_over_for_silence)
            if self._wants_applied is not None and self.applied_end >= self._wants_applied:
                self._wants_applied = None
                self._node.step(Applied())

    async def read(self, offset: int, end: int, bytes_max: int) -> bytes:
        """Return committed batches; empty if they are gone, for a snapshot stands for them now.

        A cut above them makes the log ask for another try.
        """
        while offset >= max(self._node.log_start_offset, self._log.log_start_offset):
            truncations = self._log.truncations
            data = await self._log.read(offset, end=end, bytes_max=bytes_max)
            if data:
                return data
            is_gone = offset < self._log.log_start_offset
            assert is_gone or truncations != self._log.truncations, f"nothing to read at {offset}"
        return b""

    async def _pass_more(self) -> None:
        if self.applied_end < self._node.log_start_offset:
            assert self._node.snapshot is not None, "it stands for what is not in the log"
            await self._pass_snapshot(self._node.snapshot)
            return
        end = self.readable_end
        data = await self.read(self.applied_end, end, APPLY_BYTES)
        batches = list(record_batch.split(data))
        if batches:  # else the log has begun anew meanwhile
            self.applied_end = batches[-1][0].end_offset
            self._listener.committed([bytes(batch) for _, batch in batches], end)

    async def _pass_snapshot(self, snapshot: SnapshotId) -> None:
        """Pass it whole, also if a newer one is installed meanwhile; that one comes next."""
        is_begun = False
        try:
            async with aclosing(self._snapshots.parts(snapshot)) as parts:
                async for part in parts:
                    is_begun = True
                    self._listener.snapshot_part(part)
        except SnapshotNotFoundError:
            if is_begun or self._node.snapshot == snapshot:
                raise
            return
        self.applied_end = snapshot.offset
        self._listener.snapshot_end(*snapshot)
