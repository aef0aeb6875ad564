"""Takes snapshots. The log is cut below a snapshot only after the snapshot is whole and durable.

The steps: close the active segment, because only closed segments can be removed; write the
snapshot; tell the machine; remove whole segments below it; remove older snapshots. A crash between
two steps leaves a snapshot at or above the log's start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from quorate.errors import InvalidRequestError, OverloadedError, StoppingError
from quorate_quorum.log.disk_errors import TryAgainError, is_passing
from quorate_quorum.log.log import Log
from quorate_quorum.raft.driver.applier import Applier
from quorate_quorum.raft.driver.bootstrap import read_bootstrap_hash
from quorate_quorum.raft.driver.loop import RaftLoop
from quorate_quorum.raft.driver.peers import Peers
from quorate_quorum.raft.machine.events import LogCut, SnapshotTaken
from quorate_quorum.snapshots.file import VERSION, SnapshotId
from quorate_quorum.snapshots.store import Snapshots
from quorate_quorum.v1.events_pb2 import MetadataEvent, SnapshotStart

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class SnapshotTaker:
    """Takes the snapshots of one voter. Call `end` before the log is closed."""

    _loop: RaftLoop
    _peers: Peers
    _applier: Applier
    _snapshots: Snapshots
    _log: Log
    #: Held while the log is changed. `end` waits for this lock, because an interrupted change makes
    #: the log unusable.
    _log_work: asyncio.Lock = field(default_factory=asyncio.Lock)
    _has_ended: bool = False

    async def take(self, offset: int, epoch: int, events: Iterable[MetadataEvent]) -> SnapshotId:
        """Write the image at a committed offset as a snapshot. Return the newest snapshot.

        `events` describe the image; `epoch` is the epoch of the image's last record. If a snapshot
        at or above `offset` exists, nothing is written.

        InvalidRequestError if the records below `offset` are not applied here, or `epoch` is wrong.
        OverloadedError if the disk is full.
        StoppingError if the node does not run.
        """
        self._check_running()
        if (newest := self._loop.snapshot) is not None and newest.offset >= offset:
            return newest
        held, applied_end = self._loop.raft.ledger.epoch_before(offset), self._applier.applied_end
        if not 0 < offset <= applied_end or held != epoch:
            raise InvalidRequestError(
                f"a snapshot of offset {offset} and epoch {epoch}: applied here is all below"
                f" {applied_end}, and the record before it is of epoch {held}"
            )
        work = self._write(SnapshotId(offset, epoch), events)
        await asyncio.wait([self._loop.tasks.spawn(work, "raft snapshot")])
        if (newest := self._loop.snapshot) is not None and newest.offset >= offset:
            return newest
        self._check_running()
        raise OverloadedError(f"node {self._loop.node_id} has no room on its disk for a snapshot")

    async def end(self) -> None:
        """Begin no more changes of the log, and wait for the change under way."""
        self._has_ended = True
        async with self._log_work:
            pass

    def _check_running(self) -> None:
        if not self._loop.is_running:
            raise StoppingError(f"node {self._loop.node_id} is not running")

    async def _write(self, snapshot: SnapshotId, events: Iterable[MetadataEvent]) -> None:
        """Write the snapshot and cut the log.

        If the disk is full, no snapshot is written, and the node goes on until the log itself has
        no room. Any other failure of the disk is raised: OSError or StorageError.
        """
        try:
            await self._close_segment()
            if not self._peers.history.bootstrap_hash:
                self._peers.learn_bootstrap_hash(await read_bootstrap_hash(self._log))
            await self._snapshots.take(self._start(snapshot), events)
        except (OSError, TryAgainError) as error:
            if isinstance(error, OSError) and not is_passing(error):
                raise
            log.warning("no room for a snapshot", snapshot=snapshot, error=str(error), repeats=True)
            return
        self._loop.step(SnapshotTaken(snapshot))
        await self._cut(snapshot.offset)
        await self._snapshots.keep(snapshot)
        log.info("snapshot taken", snapshot=snapshot, log_start_offset=self._log.log_start_offset)

    def _start(self, snapshot: SnapshotId) -> SnapshotStart:
        history = self._peers.history
        return SnapshotStart(
            version=VERSION,
            offset=snapshot.offset,
            epoch=snapshot.epoch,
            cluster_id=history.cluster_id,
            quorum_generation=history.quorum_generation,
            bootstrap_hash=history.bootstrap_hash,
        )

    async def _close_segment(self) -> None:
        async with self._log_work:
            if not self._has_ended:
                # Else a power loss could leave a log that ends below its snapshot.
                await self._log.sync()
                await self._log.roll()

    async def _cut(self, offset: int) -> None:
        async with self._log_work:
            if self._has_ended:
                return
            start = self._log.segment_base(offset)
            if start > self._log.log_start_offset:
                await self._log.move_start(start)
                await self._log.remove_below_start()
                self._loop.step(LogCut(start))
