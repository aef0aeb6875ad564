"""Reads one voter's disk for a recovery. Nothing is written or cut.

The same bytes count as at a start of the node: the newest snapshot, and after it the log up to its
first bad batch. Bad bytes below the last known sync are damage, because a crash leaves no bad bytes
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from quorate.errors import StorageError
from quorate.record.batch import BatchHeader
from quorate_quorum.disk import Disk
from quorate_quorum.log.directory import SYNCED_FILE
from quorate_quorum.log.identity import Identity, read_identity
from quorate_quorum.log.segment import LOG, Segment, file_name, offset_of
from quorate_quorum.log.slots import SlotFile
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.metadata.voters import VoterImage
from quorate_quorum.metadata_log import EpochChain
from quorate_quorum.node.config import ConfigError, QuorumConfig
from quorate_quorum.node.features import Known
from quorate_quorum.raft.driver.bootstrap import bootstrap_hash, metadata_directory
from quorate_quorum.raft.driver.quorum_state import read_state
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.snapshots import file as files
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import SnapshotStart


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """The contents of the disk of a voter that does not run."""

    log_dir: str
    identity: Identity
    #: The voter's endpoint in its present configuration.
    endpoint: str
    hard_state: HardState
    #: The image of all records on the disk, committed or not. `image.offset` is the log's end,
    #: `image.epoch` the epoch of the last record.
    image: MetadataImage
    log_start_offset: int
    #: All records below this offset are known to be committed.
    high_watermark: int
    #: The newest snapshot of the disk's own generation.
    snapshot: SnapshotId | None
    bootstrap_hash: bytes
    #: One past the records that `storage format` wrote.
    bootstrap_end: int
    #: Every voter that a Voters event on this disk names, the newest set first.
    voters_named: tuple[VoterImage, ...]
    #: The first snapshot of the next generation, if an earlier recovery was interrupted.
    begun: SnapshotStart | None

    @property
    def me(self) -> VoterImage:
        """The node of this disk, as a voter."""
        return VoterImage(self.identity.node_id, self.identity.directory_id, self.endpoint)

    @property
    def is_voter(self) -> bool:
        """Whether this disk's node is in the newest voter set on the disk."""
        return any((v.id, v.directory_id) == self.key for v in self.image.voters)

    @property
    def key(self) -> tuple[int, bytes]:
        """The node's id and directory, which identify a voter."""
        return self.identity.node_id, self.identity.directory_id


async def read_survivor(disk: Disk, config: QuorumConfig, known: Known) -> Survivor:
    """Read a voter's disk.

    ConfigError if the disk is not a voter's.
    UnknownLevelError if a newer program wrote it.
    Another QuorateError if it is damaged.
    OSError if it can't be read.
    """
    log_dir = config.log_dirs[0]
    identity = await read_identity(disk, log_dir, node_id=config.node_id)
    directory = metadata_directory(log_dir)
    if not await disk.exists(directory):
        raise ConfigError(f"{log_dir} holds no metadata log: it is no voter's, or never took part")
    reading = _Reading(disk, directory, known)
    begun = await reading.snapshots(identity)
    await reading.log()
    image = reading.loader.image
    return Survivor(
        log_dir=log_dir,
        identity=identity,
        endpoint=config.advertised,
        hard_state=await read_state(disk, directory),
        image=image,
        log_start_offset=reading.log_start,
        high_watermark=max(reading.bootstrap_end, 0 if reading.base is None else reading.base[0]),
        snapshot=reading.base,
        bootstrap_hash=reading.bootstrap_hash,
        bootstrap_end=reading.bootstrap_end,
        voters_named=tuple(dict.fromkeys((*image.voters, *reversed(reading.named)))),
        begun=begun,
    )


class _Reading:
    """One pass over a metadata log's directory."""

    def __init__(self, disk: Disk, directory: str, known: Known) -> None:
        self._disk = disk
        self._directory = directory
        self._bad: str | None = None
        self.loader = Loader(known=known)
        self.base: SnapshotId | None = None
        self.log_start = self.log_end = 0
        self.bootstrap_hash = b""
        self.bootstrap_end = 0
        self.named: list[VoterImage] = []

    async def snapshots(self, identity: Identity) -> SnapshotStart | None:
        """Load the newest snapshot of the node's generation.

        Return the SnapshotStart of the next generation's first snapshot; None if it does not exist.
        """
        begun: SnapshotStart | None = None
        for snapshot in reversed(await files.list_snapshots(self._disk, self._directory)):
            path = files.path_of(self._directory, snapshot)
            start = await files.verify(self._disk, path)
            ahead = start.quorum_generation - identity.quorum_generation
            if start.cluster_id != identity.cluster_id or ahead not in (0, 1) or (begun and ahead):
                raise StorageError(
                    f"{path} is of cluster {start.cluster_id}, generation"
                    f" {start.quorum_generation}; this node is of {identity.cluster_id},"
                    f" generation {identity.quorum_generation}"
                )
            if ahead:
                begun = start
                continue
            self.base, self.bootstrap_hash = snapshot, start.bootstrap_hash
            await self._load_snapshot(path, snapshot)
            break
        return begun

    async def _load_snapshot(self, path: str, snapshot: SnapshotId) -> None:
        async with aclosing(files.parts(self._disk, path)) as parts:
            async for part in parts:
                self._apply(self.loader.load_snapshot_part, part)
        self._apply(self.loader.finish_snapshot, *snapshot)

    async def log(self) -> None:
        """Load the batches after the snapshot, up to the first bad one.

        StorageError if the bad batch is below the last known sync.
        """
        epoch = -1
        async with aclosing(self._batches()) as batches:
            async for header, batch in batches:
                if header.base_offset == 0 and header.leader_epoch == 0:
                    self.bootstrap_hash = bootstrap_hash(batch)
                    self.bootstrap_end = header.end_offset
                if self._has_another_past(header, epoch):
                    # Ignore the log: at a start, the node would begin it anew at the snapshot.
                    return
                epoch = header.leader_epoch
                if header.end_offset > self.loader.image.offset:
                    self._apply(self.loader.load, batch)
                await asyncio.sleep(0)
        slot = SlotFile(self._disk, f"{self._directory}/{SYNCED_FILE}")
        await slot.load()
        if self._bad is not None and slot.value is not None and self.log_end < slot.value[0]:
            raise StorageError(
                f"{self._bad}: the log is whole up to offset {self.log_end}, and"
                f" {slot.value[0]} was synced"
            )

    async def _batches(self) -> AsyncGenerator[tuple[BatchHeader, bytes], None]:
        """Yield the good batches in order, up to the first bad one."""
        names = await self._disk.list(self._directory)
        bases = sorted(base for name in names if (base := offset_of(name, LOG)) is not None)
        self.log_start = self.log_end = bases[0] if bases else 0
        chain = EpochChain(self.base)
        for base in bases:
            path = f"{self._directory}/{file_name(base, LOG)}"
            if base != self.log_end:
                self._bad = f"{path} follows offset {self.log_end}"
                return
            segment = Segment(self._disk, self._directory, base, await self._disk.open(path), 0)
            try:
                position = 0
                while position < segment.size:
                    chunk = await segment.scan(position, checked=True, inspect=chain.inspect)
                    for position, header in chunk.found:
                        if header.base_offset != self.log_end:
                            self._bad = f"{path}, byte {position}: a batch out of place"
                            return
                        self.log_end = header.end_offset
                        yield header, await segment.file.read_at(position, header.size)
                    position = chunk.position
                    if chunk.bad is not None:
                        self._bad = f"{path}, byte {position}: {chunk.bad}"
                        return
            finally:
                await segment.file.close()

    def _has_another_past(self, header: BatchHeader, epoch_before: int) -> bool:
        base = self.base
        if base is None or header.base_offset != base.offset or self.log_start == base.offset:
            return False
        return epoch_before != base.epoch

    def _apply(self, load: Callable[..., object], *arguments: object) -> None:
        try:
            load(*arguments)
        except AssertionError as error:
            raise StorageError(f"the metadata contradicts itself: {error}") from error
        for voter in self.loader.image.voters:
            if voter not in self.named:
                self.named.append(voter)
