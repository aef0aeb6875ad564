"""Downloads the snapshot that the machine wants, chunk after chunk, from the present leader.

One task does this for the life of the node. It keeps the received bytes until the machine wants
another snapshot, so the next leader has to send only the rest. A file is used only after it is
whole, checked, synced and renamed, and its directory is synced. Then the machine is told, and
decides whether it still wants this snapshot. A failed download is logged and tried again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from quorate.errors import (
    CorruptRecordError,
    DeadlineExceededError,
    QuorateError,
    UnsupportedError,
    raise_if_error,
)
from quorate.net.network import Connection, Network
from quorate_quorum.log.disk_errors import is_passing
from quorate_quorum.methods import FETCH_SNAPSHOT
from quorate_quorum.node.features import Known
from quorate_quorum.raft.driver.batches import read_below
from quorate_quorum.raft.driver.peers import Peers
from quorate_quorum.raft.driver.wire import to_history
from quorate_quorum.raft.machine.events import Downloaded, Event
from quorate_quorum.raft.machine.ledger import Below
from quorate_quorum.raft.machine.ready import Install
from quorate_quorum.snapshots.download import Download
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.snapshots.store import Snapshots
from quorate_quorum.v1 import raft_pb2

log = structlog.get_logger(__name__)

#: The pause before the next try to get a chunk.
RETRY_MS = 200
#: The pause before a download begins again, after damaged bytes or a full disk.
RESTART_MS = 2000


class Downloading(Protocol):
    """The part of RaftLoop that Downloads needs."""

    @property
    def snapshot(self) -> SnapshotId | None:
        """The newest snapshot that the machine uses."""

    def step(self, event: Event) -> None: ...


class Downloads:
    """The node's downloads. `run` is the task; `want` names the snapshot that the machine wants.

    `chunk_bytes` is the most that one request asks for; after a timeout the task asks for less.
    `timeout_ms` is the time that the leader has for one answer.
    """

    def __init__(
        self,
        loop: Downloading,
        peers: Peers,
        snapshots: Snapshots,
        network: Network,
        known: Known,
        *,
        chunk_bytes: int,
        timeout_ms: int,
    ) -> None:
        self._loop = loop
        self._peers = peers
        self._snapshots = snapshots
        self._network = network
        self._known = known
        self._chunk_bytes = self._chunk_bytes_max = chunk_bytes
        self._timeout_ms = timeout_ms
        self._wanted: Install | None = None
        self._changed = asyncio.Event()
        self._download: Download | None = None
        #: The last finished snapshot, kept because the machine may want it again.
        self._whole: Below | None = None
        self._connection: tuple[str, Connection] | None = None

    def want(self, install: Install | None) -> None:
        """From now on, fetch this snapshot only; with None, fetch nothing."""
        if install != self._wanted:
            self._wanted = install
            self._changed.set()

    async def run(self) -> None:
        """Download until cancelled. OSError (the disk) or UnknownLevelError stops the node."""
        try:
            while True:
                self._changed.clear()
                pause_ms = None if self._wanted is None else await self._go_on(self._wanted)
                await self._pause(pause_ms)
        finally:
            await self._disconnect()
            if self._download is not None:
                await self._download.discard()

    async def _pause(self, pause_ms: int | None) -> None:
        """Wait for `pause_ms` (None: for ever), or until another snapshot is wanted."""
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            if pause_ms != 0:
                await asyncio.wait((waiting,), timeout=pause_ms and pause_ms / 1000)
        finally:
            waiting.cancel()

    async def _go_on(self, install: Install) -> int:
        """Do the next part of the work: offer, finish or fetch. Return the next pause in ms."""
        if self._whole is not None and self._whole.id == install.snapshot:
            await self._offer(self._whole)
            return RETRY_MS
        download = await self._download_of(install.snapshot)
        try:
            if download.is_complete:
                await self._finish(download)
            else:
                await self._fetch(install, download)
        except (CorruptRecordError, UnsupportedError, OSError) as error:
            if isinstance(error, OSError) and not is_passing(error):
                raise
            await download.discard()
            return _failed(install, error, RESTART_MS)
        except QuorateError as error:
            if isinstance(error, DeadlineExceededError):
                self._chunk_bytes = max(self._chunk_bytes // 2, 1)
            await self._disconnect()
            return _failed(install, error, RETRY_MS)
        return 0

    async def _download_of(self, snapshot: SnapshotId) -> Download:
        download = self._download
        if download is None or download.snapshot != snapshot:
            if download is not None:
                await download.discard()
            download = self._download = self._snapshots.download(snapshot)
        return download

    async def _fetch(self, install: Install, download: Download) -> None:
        """Ask for the next chunk and write it."""
        request = raft_pb2.FetchSnapshotRequest(
            history=to_history(self._peers.history),
            epoch=install.epoch,
            snapshot=raft_pb2.SnapshotId(
                offset=install.snapshot.offset, epoch=install.snapshot.epoch
            ),
            position=download.position,
            max_bytes=self._chunk_bytes,
        )
        connection = await self._connect(install.endpoint)
        answer = await connection.unary(FETCH_SNAPSHOT, request, timeout_ms=self._timeout_ms)
        raise_if_error(answer.error)
        named = SnapshotId(answer.snapshot.offset, answer.snapshot.epoch)
        if named != install.snapshot or len(answer.chunk) > self._chunk_bytes:
            raise CorruptRecordError(
                f"{len(answer.chunk)} bytes of snapshot {named} came; asked for were at most"
                f" {self._chunk_bytes} of {install.snapshot}"
            )
        await download.add(answer.position, answer.chunk, size=answer.size)
        self._chunk_bytes = min(self._chunk_bytes * 2, self._chunk_bytes_max)

    async def _finish(self, download: Download) -> None:
        # Check the content before the file gets its name: at the next start, the node would open a
        # snapshot that this program can't use, and fail.
        below = await read_below(download.snapshot, download.parts(), self._known)
        history = self._peers.history
        start = await download.finish(
            cluster_id=history.cluster_id,
            quorum_generation=history.quorum_generation,
            bootstrap_hash=history.bootstrap_hash,
        )
        self._download = None
        self._peers.learn_bootstrap_hash(start.bootstrap_hash)
        self._whole = below
        await self._offer(below)

    async def _offer(self, below: Below) -> None:
        """Offer a finished snapshot to the machine. If it is installed, remove the older ones."""
        self._loop.step(Downloaded(below))
        if self._loop.snapshot == below.id:
            self._whole = None
            log.info("raft snapshot installed", snapshot=below.id)
            await self._snapshots.keep(below.id)

    async def _connect(self, endpoint: str) -> Connection:
        if self._connection is None or self._connection[0] != endpoint:
            await self._disconnect()
            self._connection = endpoint, self._network.connect(endpoint, purpose="data")
        return self._connection[1]

    async def _disconnect(self) -> None:
        known, self._connection = self._connection, None
        if known is not None:
            await known[1].close()


def _failed(install: Install, error: Exception, pause_ms: int) -> int:
    log.warning(
        "raft snapshot not downloaded",
        snapshot=install.snapshot,
        leader=install.endpoint,
        error=f"{type(error).__name__}: {error}",
        again_after_ms=pause_ms,
        repeats=True,
    )
    return pause_ms
