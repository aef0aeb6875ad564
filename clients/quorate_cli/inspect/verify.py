"""Checks a node's files, each alone and against each other. Nothing is written."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from quorate.errors import CorruptRecordError, QuorateError, StorageError
from quorate.record.batch import BatchHeader
from quorate_cli.inspect import content
from quorate_cli.inspect.dump import Bounds, fault, rows_of, show
from quorate_cli.inspect.node_files import is_metadata_log, kind_of
from quorate_quorum.disk import Disk
from quorate_quorum.log import epochs as epoch_file
from quorate_quorum.log.checksum import Checksummer, checksum_of
from quorate_quorum.log.directory import (
    CLEANED_FILE,
    COMPACTED_FILE,
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
    CHECKSUM,
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


@dataclass(slots=True)
class Findings:
    """Prints faults, and notes that are no faults, as soon as they are found."""

    as_json: bool
    #: Whether a running node uses the directory. Then a write that is under way is no fault.
    locked: bool
    faults: int = 0

    def fault(self, file: str, position: int | None, what: str) -> None:
        """Print a fault. `position` is its byte in the file; None: the whole file is at fault."""
        self.faults += 1
        show(fault(file, position, what), as_json=self.as_json)

    def note(self, file: str, what: str) -> None:
        """Print a note, which is no fault."""
        show({"kind": "note", "file": file, "what": what}, as_json=self.as_json)


class _Walk:
    """What is known of one log while its segments are read in order."""

    def __init__(
        self, found: Findings, newest: SnapshotId | None = None, *, has_gaps: bool = False
    ) -> None:
        self.found = found
        self._has_gaps = has_gaps
        self.epochs = EpochCache()
        #: For a metadata log: checks the batches' epochs against the EpochStart events.
        self.chain = EpochChain(newest)
        self.start: int | None = None
        #: The offset at which the next batch must begin.
        self.end = 0

    def begin(self, path: str, base: int) -> None:
        """Begin a segment.

        It is a fault if its base offset is not the end of the segment before.
        """
        if self.start is None:
            self.start = self.end = base
        if base != self.end:
            self.found.fault(path, 0, f"it begins at offset {base}, and {self.end} is the next")
        self.end = base

    def wrong_place(self, header: BatchHeader) -> str | None:
        """Return why the next batch cannot come here; None if it can."""
        is_apart = header.base_offset > self.end and not self._has_gaps
        if header.base_offset < self.end or is_apart:
            return f"a batch at offset {header.base_offset}, and {self.end} is the next"
        if header.leader_epoch < self.epochs.last:
            return f"epoch {header.leader_epoch} after epoch {self.epochs.last}"
        return None

    def starts_at(self, log_start: int) -> None:
        """Take note of the start. If it is in a gap behind the last batch, the log is empty."""
        if self._has_gaps:
            self.end = max(self.end, log_start)

    def step(self, header: BatchHeader) -> None:
        """Add the next batch, good or bad. The batches after it are compared with it."""
        self.epochs.assign(header.leader_epoch, header.base_offset)
        self.end = max(self.end, header.end_offset)


async def check_file(disk: Disk, path: str, found: Findings) -> None:
    """Check one file alone."""
    kind = kind_of(path)
    if kind == "segment":
        directory = path.rpartition("/")[0] or "."
        has_gaps = await disk.exists(f"{directory}/{COMPACTED_FILE}")
        await _check_segment(disk, path, _Walk(found, has_gaps=has_gaps), is_last=True)
    elif kind == "snapshot":
        try:
            await snapshot.verify(disk, path, decode=True)
        except QuorateError as error:
            found.fault(path, None, str(error))
    elif kind == "snapshot-part":
        found.note(path, "half a snapshot: the next start removes it")
    elif kind not in ("unknown", "marker", "compaction-part"):
        async with aclosing(rows_of(disk, path, Bounds())) as rows:
            async for row in rows:
                if row["kind"] == "fault":
                    found.fault(path, row["position"], row["what"])


async def check_directory(disk: Disk, directory: str, names: list[str], found: Findings) -> None:
    """Check a directory's files, each alone and against each other."""
    bases = sorted(base for name in names if (base := offset_of(name, LOG)) is not None)
    _tell_leftovers(directory, names, bases, found)
    walk = _Walk(found, _newest(names), has_gaps=COMPACTED_FILE in names)
    segments = [file_name(base, LOG) for base in bases]
    others = [name for name in names if not name.endswith((LOG, INDEX, TIME_INDEX))]
    for name in (*others, *segments):
        path = f"{directory}/{name}"
        try:
            if name in others:
                await check_file(disk, path, found)
            else:
                await _check_segment(disk, path, walk, is_last=name == segments[-1])
        except FileNotFoundError:
            if not found.locked:
                raise
            found.note(path, "it went while this was read")
    await _check_together(disk, directory, names, walk)


def _newest(names: list[str]) -> SnapshotId | None:
    whole = [found for name in names if (found := snapshot.id_of(name)) is not None]
    return max(whole, default=None)


#: File -> what its presence tells. A crash leaves these files, and the next start removes them.
LEFTOVERS = {
    CUTTING_FILE: "a cut was under way when it stopped",
    DAMAGED_FILE: "a start found the log damaged, and cut it",
    CORRUPT_FILE: "a bad batch was found; the next start cuts it off",
}


def _tell_leftovers(directory: str, names: list[str], bases: list[int], found: Findings) -> None:
    for name, what in LEFTOVERS.items():
        if name in names:
            found.note(f"{directory}/{name}", what)
    for name in names:
        for ending in (INDEX, TIME_INDEX, CHECKSUM):
            base = offset_of(name, ending)
            if base is not None and base not in bases:
                what = "a checksum" if ending == CHECKSUM else "an index"
                found.note(f"{directory}/{name}", f"{what} without its segment")
        if kind_of(name) == "compaction-part":
            found.note(f"{directory}/{name}", "a compaction was under way when it stopped")


async def _check_segment(disk: Disk, path: str, walk: _Walk, *, is_last: bool) -> None:
    found = walk.found
    segment = await content.open_segment(disk, path)
    is_metadata = is_metadata_log(path)
    may_be_torn = is_last and found.locked
    position = 0
    try:
        walk.begin(path, segment.base_offset)
        indexes = [_IndexCheck(disk, segment, path, is_time, found) for is_time in (False, True)]
        for index in indexes:
            await index.load()
        summed = Checksummer(segment.base_offset)
        async with aclosing(content.batches(segment)) as listed:
            async for position, header, wrong in listed:
                summed.add(header)
                if may_be_torn and wrong and await content.is_torn(segment, position, walk.end):
                    found.note(path, f"byte {position}: the last write is under way, or torn")
                    return
                wrong = wrong or walk.wrong_place(header)
                if is_metadata:
                    wrong = wrong or await _wrong_events(segment, position, header, walk.chain)
                walk.step(header)
                if wrong is not None:
                    found.fault(path, position, wrong)
                for index in indexes:
                    index.step(position, header)
                position += header.size
        for index in indexes:
            index.finish()
        known = await checksum_of(disk, path.removesuffix(LOG) + CHECKSUM)
        if known is not None and known != summed.result():
            found.fault(path, None, f"it has {summed.result()}, and compaction wrote {known}")
    except CorruptRecordError as error:
        if may_be_torn and await content.is_torn(segment, position, walk.end):
            found.note(path, f"the last write is under way, or torn: {error}")
        else:
            left = segment.size - position
            what = f"{error}; no batch can be found by its length in the {left} bytes from there on"
            found.fault(path, position, what)
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

    def __init__(
        self, disk: Disk, segment: Segment, path: str, is_time: bool, found: Findings
    ) -> None:
        self._disk = disk
        self._base = segment.base_offset
        self._path = path.removesuffix(LOG) + (TIME_INDEX if is_time else INDEX)
        self._layout = TIME_ENTRY if is_time else OFFSET_ENTRY
        self._is_time = is_time
        self._found = found
        self._data = b""
        self._at = 0

    async def load(self) -> None:
        """Read the index. A missing index is no fault."""
        if not await self._disk.exists(self._path):
            return
        try:
            self._data = await content.small_file(self._disk, self._path)
        except content.DamagedError as error:
            return self._found.fault(self._path, None, str(error))
        extra = len(self._data) % self._layout.size
        if extra:
            whole = len(self._data) - extra
            self._data = self._data[:whole]
            self._found.fault(self._path, whole, f"{extra} bytes at its end are no entry")

    def step(self, position: int, header: BatchHeader) -> None:
        """Compare the next batch with the index entries up to it."""
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
                self._found.fault(self._path, self._at, f"no batch has {name}")
            self._at += self._layout.size

    def finish(self) -> None:
        """Report a fault if entries are left after the last batch."""
        left = (len(self._data) - self._at) // self._layout.size
        if left:
            what = f"{left} entries lie beyond the segment's last batch"
            self._found.fault(self._path, self._at, what)


async def _check_together(disk: Disk, directory: str, names: list[str], walk: _Walk) -> None:
    """Compare epochs, slots and snapshots with the log that was read."""
    log_start = await _log_start(disk, directory, names, walk)
    walk.starts_at(log_start)
    for name in names:
        path = f"{directory}/{name}"
        try:
            if name == epoch_file.FILE_NAME and walk.start is not None:
                _compare_epochs(path, await content.epochs_of(disk, path), walk, log_start)
            elif name in (SYNCED_FILE, HIGH_WATERMARK_FILE, LOG_START_FILE, CLEANED_FILE):
                _compare_slot(path, await content.slots_of(disk, path), walk)
            elif offset_of(name, SNAPSHOT) is not None:
                _compare_producers(path, await content.producer_snapshot(disk, path), walk)
        except (content.DamagedError, QuorateError, FileNotFoundError):
            # skip it: check_file has reported the fault, or the file was removed meanwhile
            continue
    if walk.epochs.entries and epoch_file.FILE_NAME not in names:
        path = f"{directory}/{epoch_file.FILE_NAME}"
        walk.found.fault(path, None, "it is missing, and the log has batches")
    if is_metadata_log(directory):
        await _check_voter(disk, directory, walk, _newest(names))


async def _log_start(disk: Disk, directory: str, names: list[str], walk: _Walk) -> int:
    """Return the start of the log for readers. A segment must begin at this offset or below."""
    if LOG_START_FILE not in names:
        return 0
    path = f"{directory}/{LOG_START_FILE}"
    try:
        said = await content.slots_of(disk, path)
    except (content.DamagedError, QuorateError, FileNotFoundError):
        return 0  # check_file has reported the fault, or the file was removed meanwhile
    if said is None:
        return 0
    if walk.start is not None and walk.start > max(said) and not walk.found.locked:
        what = f"it says offset {said[0]}, and the first segment begins at {walk.start}"
        walk.found.fault(path, None, what)
    return said[0]


async def _check_voter(disk: Disk, directory: str, walk: _Walk, newest: SnapshotId | None) -> None:
    """Check the snapshot and the state file against a voter's log.

    A log that begins above 0 needs a snapshot up to its beginning. The state file has an epoch
    before any record of that epoch is written, but a snapshot of a later epoch may come first.
    """
    offset, epoch = newest or (0, 0)
    if (walk.start or 0) > offset:
        what = f"the log begins at {walk.start}, and no snapshot reaches up to it"
        walk.found.fault(directory, None, what)
    try:
        state = await read_state(disk, directory)
    except StorageError:
        # check_file has reported the fault
        return
    if walk.chain.epoch > max(state.epoch, epoch):
        is_there = await disk.exists(f"{directory}/{QUORUM_STATE}")
        said = f"it says epoch {state.epoch}" if is_there else "it is missing"
        what = f"{said}, and the log has epoch {walk.chain.epoch}"
        walk.found.fault(f"{directory}/{QUORUM_STATE}", None, what)


def _compare_slot(path: str, value: tuple[int, int] | None, walk: _Walk) -> None:
    if value is None or value[0] <= walk.end:
        return
    if walk.found.locked:
        walk.found.note(path, "it moved on while this was read")
    else:
        what = f"it says offset {value[0]}, and the log ends at {walk.end}"
        walk.found.fault(path, None, what)


def _compare_producers(path: str, said: tuple[int, int, bytes], walk: _Walk) -> None:
    offset, epoch, _ = said
    if walk.start is None or not walk.start < offset <= walk.end:
        return
    of_log = walk.epochs.epoch_at(offset - 1)
    if epoch != of_log:
        walk.found.fault(path, None, f"epoch {epoch}; the log has {of_log}")


def _compare_epochs(path: str, said: EpochCache, walk: _Walk, log_start: int) -> None:
    """Compare a leader-epoch checkpoint with the log, from the log's start on.

    The checkpoint is written before the batch, so it may have one entry more, at the log's end.
    """
    assert walk.start is not None
    first = max(walk.start, log_start)
    of_log = EpochCache(walk.epochs.entries)
    of_log.truncate_from_start(first)
    leading = [entry for entry in said.entries if entry[1] >= walk.end]
    if walk.end > first:
        said.truncate_from_start(max([first, *[start for _, start in of_log.entries[:1]]]))
    known = [entry for entry in said.entries if entry[1] < walk.end]
    expected = [entry for entry in of_log.entries if entry[1] < walk.end]
    if known != expected:
        what = f"it says (epoch, start) {known[:20]}, and the log has {expected[:20]}"
        walk.found.fault(path, None, what)
    if len(leading) > 1 and not walk.found.locked:
        walk.found.fault(path, None, f"{len(leading)} epochs begin beyond the log's end")
