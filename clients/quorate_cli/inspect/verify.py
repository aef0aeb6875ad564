"""Checks a node's files, each by itself and against each other. Writes nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from quorate.errors import CorruptRecordError, QuorateError, StorageError
from quorate.record.batch import BatchHeader
from quorate_cli.inspect.content import (
    DamagedError,
    batches,
    epochs_of,
    open_segment,
    producer_snapshot,
    slots_of,
    small_file,
)
from quorate_cli.inspect.dump import Bounds, Fault, Row, rows_of
from quorate_cli.inspect.node_files import is_metadata_log, kind_of
from quorate_quorum.disk import Disk
from quorate_quorum.log import epochs as epoch_file
from quorate_quorum.log.directory import (
    CORRUPT_FILE,
    CUTTING_FILE,
    DAMAGED_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    SYNCED_FILE,
)
from quorate_quorum.log.epochs import EpochCache
from quorate_quorum.log.events import decode_events
from quorate_quorum.log.index import OFFSET_ENTRY, TIME_ENTRY
from quorate_quorum.log.segment import (
    INDEX,
    LOG,
    SNAPSHOT,
    TIME_INDEX,
    Segment,
    file_name,
    offset_of,
)
from quorate_quorum.metadata_log import EpochChain
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, read_state
from quorate_quorum.snapshots import file as snapshot
from quorate_quorum.snapshots.file import SnapshotId


def note(file: str, what: str) -> Row:
    """Return a row with information that is no fault."""
    return {"kind": "note", "file": file, "what": what}


class _Walk:
    """The state of a walk through one log, segment by segment."""

    def __init__(self, newest: SnapshotId | None = None) -> None:
        self.epochs = EpochCache()
        #: For a metadata log: checks the epochs against its EpochStart events.
        self.chain = EpochChain(newest)
        self.start: int | None = None
        #: Offset at which the next batch must begin.
        self.end = 0

    def begin(self, path: str, base: int) -> list[Fault]:
        """Begin a segment; return a fault if its name does not follow the segment before."""
        if self.start is None:
            self.start = self.end = base
        expected, self.end = self.end, base
        if base == expected:
            return []
        return [Fault(path, 0, f"it begins at offset {base}, and {expected} is the next")]

    def wrong_place(self, header: BatchHeader) -> str | None:
        """Return why the next batch can't be at this place; None if it can."""
        if header.base_offset != self.end:
            return f"a batch at offset {header.base_offset}, and {self.end} is the next"
        if header.leader_epoch < self.epochs.last:
            return f"epoch {header.leader_epoch} after epoch {self.epochs.last}"
        return None

    def step(self, header: BatchHeader) -> None:
        """Add the next batch, good or bad: the batches after it are compared with it."""
        self.epochs.assign(header.leader_epoch, header.base_offset)
        self.end = max(self.end, header.end_offset)


async def check_file(disk: Disk, path: str, *, locked: bool) -> AsyncGenerator[Row, None]:
    """Yield the faults and notes of one file by itself."""
    kind = kind_of(path)
    if kind == "segment":
        walk = _Walk()
        async with aclosing(_check_segment(disk, path, walk, is_last=True, locked=locked)) as rows:
            async for row in rows:
                yield row
    elif kind == "snapshot":
        try:
            await snapshot.verify(disk, path, decode=True)
        except QuorateError as error:
            yield Fault(path, None, str(error)).row()
    elif kind == "snapshot-part":
        yield note(path, "half a snapshot: the next start removes it")
    elif kind not in ("unknown", "marker"):
        async with aclosing(rows_of(disk, path, Bounds())) as rows:
            async for row in rows:
                if row["kind"] == "fault":
                    yield row


async def check_directory(
    disk: Disk, directory: str, names: list[str], *, locked: bool
) -> AsyncGenerator[Row, None]:
    """Yield the faults and notes of a directory's files, by themselves and against each other."""
    bases = sorted(base for name in names if (base := offset_of(name, LOG)) is not None)
    for row in _leftovers(directory, names, bases):
        yield row
    walk = _Walk(_newest(names))
    segments = [file_name(base, LOG) for base in bases]
    others = [name for name in names if not name.endswith((LOG, INDEX, TIME_INDEX))]
    for name in (*others, *segments):
        path = f"{directory}/{name}"
        found = (
            check_file(disk, path, locked=locked)
            if name in others
            else _check_segment(disk, path, walk, is_last=name == segments[-1], locked=locked)
        )
        try:
            async with aclosing(found) as rows:
                async for row in rows:
                    yield row
        except FileNotFoundError:
            if not locked:
                raise
            yield note(path, "it went while this was read")
    async with aclosing(_check_together(disk, directory, names, walk, locked=locked)) as rows:
        async for row in rows:
            yield row


def _newest(names: list[str]) -> SnapshotId | None:
    whole = [found for name in names if (found := snapshot.id_of(name)) is not None]
    return max(whole, default=None)


def _leftovers(directory: str, names: list[str], bases: list[int]) -> list[Row]:
    """Return notes about files that a crash leaves, and the next start removes."""
    found = []
    if CUTTING_FILE in names:
        found.append(note(f"{directory}/{CUTTING_FILE}", "a cut was under way when it stopped"))
    if DAMAGED_FILE in names:
        found.append(
            note(f"{directory}/{DAMAGED_FILE}", "a start found the log damaged, and cut it")
        )
    if CORRUPT_FILE in names:
        found.append(
            note(f"{directory}/{CORRUPT_FILE}", "a bad batch was found; the next start cuts it off")
        )
    for name in names:
        for ending in (INDEX, TIME_INDEX):
            base = offset_of(name, ending)
            if base is not None and base not in bases:
                found.append(note(f"{directory}/{name}", "an index without its segment"))
    return found


async def _check_segment(
    disk: Disk, path: str, walk: _Walk, *, is_last: bool, locked: bool
) -> AsyncGenerator[Row, None]:
    segment = await open_segment(disk, path)
    is_metadata = is_metadata_log(path)
    position = 0
    try:
        for fault in walk.begin(path, segment.base_offset):
            yield fault.row()
        indexes = [
            _IndexCheck(disk, segment, path.removesuffix(LOG) + INDEX, is_time=False),
            _IndexCheck(disk, segment, path.removesuffix(LOG) + TIME_INDEX, is_time=True),
        ]
        for fault in [fault for index in indexes for fault in await index.load()]:
            yield fault.row()
        async with aclosing(batches(segment)) as found:
            async for position, header, wrong in found:
                torn = wrong is not None and position + header.size == segment.size
                if torn and is_last and locked:
                    yield note(path, f"byte {position}: the last write is under way, or torn")
                    return
                wrong = wrong or walk.wrong_place(header)
                if is_metadata:
                    wrong = wrong or await _wrong_events(segment, position, header, walk.chain)
                walk.step(header)
                if wrong is not None:
                    yield Fault(path, position, wrong).row()
                for fault in [one for index in indexes for one in index.step(position, header)]:
                    yield fault.row()
                position += header.size
        for fault in [fault for index in indexes for fault in index.finish()]:
            yield fault.row()
    except CorruptRecordError as error:
        if is_last and locked:
            yield note(path, f"byte {position}: the last write is under way, or torn: {error}")
        else:
            what = f"{error}; {segment.size - position} bytes to the end are no batches"
            yield Fault(path, position, what).row()
    finally:
        await segment.file.close()


async def _wrong_events(
    segment: Segment, position: int, header: BatchHeader, chain: EpochChain
) -> str | None:
    batch = await segment.file.read_at(position, header.size)
    try:
        decode_events(batch)
        chain.inspect(header, batch)
    except QuorateError as error:
        return str(error)
    return None


class _IndexCheck:
    """Compares an index with the batches of its segment, in one pass over both."""

    def __init__(self, disk: Disk, segment: Segment, path: str, *, is_time: bool) -> None:
        self._disk = disk
        self._base = segment.base_offset
        self._path = path
        self._layout = TIME_ENTRY if is_time else OFFSET_ENTRY
        self._is_time = is_time
        self._data = b""
        self._at = 0

    async def load(self) -> list[Fault]:
        """Read the index. A missing index is no fault."""
        if not await self._disk.exists(self._path):
            return []
        try:
            self._data = await small_file(self._disk, self._path)
        except DamagedError as error:
            return [Fault(self._path, None, str(error))]
        extra = len(self._data) % self._layout.size
        if extra:
            whole = len(self._data) - extra
            self._data = self._data[:whole]
            return [Fault(self._path, whole, f"{extra} bytes at its end are no entry")]
        return []

    def step(self, position: int, header: BatchHeader) -> list[Fault]:
        """Compare the next batch with the entries up to it."""
        faults = []
        while self._at < len(self._data):
            entry = self._layout.unpack_from(self._data, self._at)
            if self._is_time:
                time, relative = entry
                here, there = header.last_offset, self._base + relative
                found, said = header.max_timestamp, time
                name = f"offset {there}, timestamp {said}"
            else:
                relative, there = entry
                here, found, said = position, header.last_offset, self._base + relative
                name = f"offset {said}, position {there}"
            if there > here:
                break
            if there < here or found != said:
                faults.append(Fault(self._path, self._at, f"no batch has {name}"))
            self._at += self._layout.size
        return faults

    def finish(self) -> list[Fault]:
        """Return a fault if entries are left after the last batch."""
        left = (len(self._data) - self._at) // self._layout.size
        if not left:
            return []
        return [Fault(self._path, self._at, f"{left} entries lie beyond the segment's last batch")]


async def _check_together(
    disk: Disk, directory: str, names: list[str], walk: _Walk, *, locked: bool
) -> AsyncGenerator[Row, None]:
    """Compare epochs, slots and snapshots with the log that was walked."""
    for name in names:
        path = f"{directory}/{name}"
        try:
            if name == epoch_file.FILE_NAME and walk.start is not None:
                for fault in _compare_epochs(path, await epochs_of(disk, path), walk, locked):
                    yield fault.row()
            elif name in (SYNCED_FILE, HIGH_WATERMARK_FILE, LOG_START_FILE):
                for row in _compare_slot(path, await slots_of(disk, path), walk, locked):
                    yield row
            elif offset_of(name, SNAPSHOT) is not None:
                for fault in _compare_producers(path, await producer_snapshot(disk, path), walk):
                    yield fault.row()
        except (DamagedError, QuorateError, FileNotFoundError):
            continue  # check_file has reported it, or the file is gone meanwhile
    if walk.epochs.entries and epoch_file.FILE_NAME not in names:
        path = f"{directory}/{epoch_file.FILE_NAME}"
        yield Fault(path, None, "it is missing, and the log has batches").row()
    if is_metadata_log(directory):
        for fault in await _check_voter(disk, directory, walk, _newest(names)):
            yield fault.row()


async def _check_voter(
    disk: Disk, directory: str, walk: _Walk, newest: SnapshotId | None
) -> list[Fault]:
    """Check the snapshot and the state file against a voter's log.

    A log that begins above 0 needs a snapshot up to its beginning. The state file has an epoch
    before any record of that epoch is written. But a snapshot of a later epoch may come first.
    """
    faults = []
    offset, epoch = newest or (0, 0)
    if (walk.start or 0) > offset:
        what = f"the log begins at {walk.start}, and no snapshot reaches up to it"
        faults.append(Fault(directory, None, what))
    try:
        state = await read_state(disk, directory)
    except StorageError:
        return faults  # check_file has reported it
    if walk.chain.epoch > max(state.epoch, epoch):
        is_there = await disk.exists(f"{directory}/{QUORUM_STATE}")
        said = f"it says epoch {state.epoch}" if is_there else "it is missing"
        what = f"{said}, and the log has epoch {walk.chain.epoch}"
        faults.append(Fault(f"{directory}/{QUORUM_STATE}", None, what))
    return faults


def _compare_slot(path: str, value: tuple[int, int] | None, walk: _Walk, locked: bool) -> list[Row]:
    if value is None or value[0] <= walk.end:
        return []
    if locked:
        return [note(path, "it moved on while this was read")]
    return [Fault(path, None, f"it says offset {value[0]}, and the log ends at {walk.end}").row()]


def _compare_producers(path: str, found: tuple[int, int, bytes], walk: _Walk) -> list[Fault]:
    offset, epoch, _ = found
    if walk.start is None or not walk.start < offset <= walk.end:
        return []
    of_log = walk.epochs.epoch_at(offset - 1)
    return [] if epoch == of_log else [Fault(path, None, f"epoch {epoch}; the log has {of_log}")]


def _compare_epochs(path: str, said: EpochCache, walk: _Walk, locked: bool) -> list[Fault]:
    """Compare a checkpoint with the log.

    The checkpoint is written before the batch, so it may have one more entry at the log's end.
    """
    assert walk.start is not None
    leading = [entry for entry in said.entries if entry[1] >= walk.end]
    if walk.end > walk.start:
        said.truncate_from_start(walk.start)
    known = [entry for entry in said.entries if entry[1] < walk.end]
    faults = []
    if known != walk.epochs.entries:
        what = f"it says (epoch, start) {known[:20]}, and the log has {walk.epochs.entries[:20]}"
        faults.append(Fault(path, None, what))
    if len(leading) > 1 and not locked:
        faults.append(Fault(path, None, f"{len(leading)} epochs begin beyond the log's end"))
    return faults
