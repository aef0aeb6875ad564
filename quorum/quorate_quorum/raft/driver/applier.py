"""Passes committed batches to the RaftListener in order, and tells it when this node leads.

If the log begins above the applied records, the applier first passes the snapshot of the missing
records. This happens at the start of a run and after a snapshot was installed.
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

#: The most bytes passed to the RaftListener in one turn of the event loop: a few milliseconds of
#: work. A batch that is larger is passed alone.
APPLY_BYTES = 16 * 1024


class Applying(Protocol):
    """The part of RaftLoop that the applier needs."""

    @property
    def snapshot(self) -> SnapshotId | None: ...
    @property
    def log_start_offset(self) -> int: ...
    def step(self, event: Event) -> None: ...


class Applier:
    """Feeds the RaftListener. `run` is the task; `proceed` says how far it may apply records.

    The RaftListener is told of a reign only after it has all records up to the reign's first one.
    A controller that is told earlier would decide on an old image.
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
        #: One past the last record that is committed, and written to this node's log.
        self.readable_end = 0
        #: One past the last record that was passed to the RaftListener.
        self.applied_end = 0
        #: The epoch of the reign that the RaftListener knows of; None if it knows of no reign.
        self.told_epoch: int | None = None

    def proceed(self, ready: Ready) -> None:
        """Note up to which offset the task may apply records, and wake the task."""
        if ready.reign is not None:
            self._reign = ready.reign
        self.readable_end = max(self.readable_end, ready.readable_end)
        if ready.wants_applied is not None:
            self._wants_applied = ready.wants_applied
        self._wake.set()

    def end_reign(self) -> None:
        """Tell the RaftListener that the reign is over, if it knows of that reign."""
        self._reign = None
        told, self.told_epoch = self.told_epoch, None
        if told is not None:
            self._listener.lost_leadership(told)

    async def run(self) -> None:
        """Apply committed records until cancelled. StorageError if the disk fails."""
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
        """Return committed batches from `offset` on; empty if a snapshot has replaced them.

        `end` is a committed offset; the result has at least one batch, whatever `bytes_max` is. If
        the log is cut during a read of the disk, that read returns nothing, and is repeated.
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
        if batches:  # if empty, a snapshot has replaced the log during the read
            self.applied_end = batches[-1][0].end_offset
            self._listener.committed([bytes(batch) for _, batch in batches], end)

    async def _pass_snapshot(self, snapshot: SnapshotId) -> None:
        """Pass a whole snapshot. If a newer one is installed meanwhile, `run` passes that next."""
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
