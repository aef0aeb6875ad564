"""The voter's disk: the metadata log and the file of epoch and vote.

One task carries out what the machine decided, in order: hard state first, then cuts and appends,
then one sync for all of them. What arrives during a sync shares the next one.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import structlog
from crc32c import crc32c
from google.protobuf.message import DecodeError

from quorate.errors import CorruptRecordError, StorageError
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader, parse_header
from quorate_quorum.log.disk import Disk, read_whole, replace_whole
from quorate_quorum.log.disk_errors import ProcessLimitError, Scope, scope_of
from quorate_quorum.log.epochs import misfit
from quorate_quorum.log.events import EVENTS_BYTES_MAX, decode_events
from quorate_quorum.log.log import Log
from quorate_quorum.metadata_log import epoch_started_by
from quorate_quorum.node.features import Known
from quorate_quorum.raft.machine.events import Event, HardStateSaved, Saved, Written
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Batch, Below, Ledger
from quorate_quorum.raft.machine.ready import Save
from quorate_quorum.raft.machine.voters import ReplicaKey, Voter, VoterSet
from quorate_quorum.snapshots.snapshot_file import SnapshotId
from quorate_quorum.v1.events_pb2 import MetadataEvent

log_line = structlog.get_logger(__name__)

Buffer = bytes | bytearray | memoryview

QUORUM_STATE = "quorum-state"
VERSION = 1
STATE = struct.Struct(
    ">"
    "B"  # version
    "i"  # epoch
    "?"  # is_behind
    "?"  # voted at all
    "i"  # id that the vote went to
    "16s"  # and its directory
    "i"  # first epoch in which it voted; 0: none
)
CRC = struct.Struct(">I")  # CRC-32C of all before it
SCAN_BYTES = 1 << 16  # of the log at open; between two of them the loop has a turn
#: A second in all: longer silence costs a leader its reign anyway.
TRIES_MAX = 20
TRY_AGAIN_S = 0.05
#: The first byte of an encoded MetadataEvent that holds Voters: field 2, length-delimited.
VOTERS_TAG = 0x12
FEATURE_TAG = 0x1A  # and one that holds a Feature: field 3


def encode_state(state: HardState) -> bytes:
    """Return the bytes of the quorum-state file."""
    vote = state.voted_for or ReplicaKey(0, b"")
    assert len(vote.directory_id) in (0, 16)
    data = STATE.pack(
        VERSION,
        state.epoch,
        state.is_behind,
        state.voted_for is not None,
        vote.id,
        vote.directory_id,
        state.first_vote_epoch,
    )
    return data + CRC.pack(crc32c(data))


def decode_state(data: bytes) -> HardState:
    """Return what the file says; StorageError if it is of another version, or damaged (R11)."""
    if data[:1] != bytes([VERSION]):
        raise StorageError(
            f"{QUORUM_STATE} has version {data[0] if data else 'none'}; this release reads"
            f" version {VERSION} only"
        )
    if len(data) != STATE.size + CRC.size:
        raise StorageError(f"{QUORUM_STATE} has {len(data)} bytes, not {STATE.size + CRC.size}")
    body, (crc,) = data[: STATE.size], CRC.unpack(data[STATE.size :])
    if crc32c(body) != crc:
        raise StorageError(f"{QUORUM_STATE} is damaged: its checksum does not fit")
    _, epoch, is_behind, voted, voter, directory_id, first_vote = STATE.unpack(body)
    vote = ReplicaKey(voter, directory_id) if voted else None
    return HardState(epoch, vote, is_behind, first_vote)


async def read_state(disk: Disk, directory: str) -> HardState:
    """Return epoch and vote; a voter that never met another has none."""
    path = f"{directory}/{QUORUM_STATE}"
    if not await disk.exists(path):
        return HardState()
    return decode_state(await read_whole(disk, path))


def parse_batches(payload: Buffer, known: Known | None = None) -> tuple[Batch, ...]:
    """Return the whole batches of a fetch answer or of the log; CorruptRecordError if damaged.

    With `known`, UnknownLevelError if they set a feature to another level than those.
    """
    batches = []
    for header, view in record_batch.split(payload):
        data = bytes(view)
        record_batch.check(data, header)
        voters, started = _news(header, data, known)
        batches.append(
            Batch(header.base_offset, header.end_offset, header.leader_epoch, data, voters, started)
        )
    return tuple(batches)


def _news(
    header: BatchHeader, data: bytes, known: Known | None
) -> tuple[VoterSet | None, int | None]:
    """Return what the machine must know of a batch: its newest voters, and the epoch it begins."""
    found = started = None
    for record in record_batch.records(data, header, size_max=EVENTS_BYTES_MAX):
        started = epoch_started_by(record.value, header) or started
        if known is not None and record.value and record.value[0] == FEATURE_TAG:
            decode_events(data, known)
        if not record.value or record.value[0] != VOTERS_TAG:
            continue
        try:
            event = MetadataEvent.FromString(record.value)
        except DecodeError as error:
            raise CorruptRecordError(f"a Voters event at {record.offset}: {error}") from None
        found = VoterSet(
            tuple(Voter(v.id, v.directory_id, v.endpoint) for v in event.voters.voters)
        )
        ids = [voter.id for voter in found.voters]
        if len(set(ids)) != len(ids):
            raise CorruptRecordError(f"the Voters event at {record.offset} names an id twice")
    return found, started


async def read_below(
    snapshot: SnapshotId, parts: AsyncGenerator[bytes, None], known: Known | None = None
) -> Below:
    """Read what the machine must know out of a snapshot's batches.

    CorruptRecordError if they name no voters; UnknownLevelError, as in read_ledger.
    """
    voters = VoterSet()
    async with aclosing(parts):
        async for part in parts:
            voters = _news(parse_header(part), part, known)[0] or voters
    if not voters.voters:
        raise CorruptRecordError(f"the snapshot at {snapshot.offset} names no voters")
    return Below(snapshot.offset, snapshot.epoch, voters)


async def read_ledger(
    log: Log, below: Below | None = None, *, known: Known | None = None
) -> Ledger:
    """Read the whole log and return what the machine must know of it.

    A log that does not reach up to the newest snapshot, or has another past there, begins anew at
    it: what the snapshot holds is committed. StorageError if the log begins above the snapshot, or
    a batch is of an epoch that none of its EpochStarts began; UnknownLevelError if it sets a
    feature to a level that is not `known`: a newer program wrote it.
    """
    start = log.log_start_offset
    if start > 0 and (below is None or below.offset < start):
        there = "no snapshot is there" if below is None else f"the newest snapshot ends {below[0]}"
        raise StorageError(f"the metadata log begins at {start}, and {there}")
    if below is not None and not _reaches(log, below):
        await log.truncate_fully_and_start_at(below.offset)
    ledger = Ledger()
    if below is not None and log.log_start_offset > 0:
        ledger.begin_above(below, log_start=log.log_start_offset)
    while ledger.log_end_offset < log.log_end_offset:
        data = await log.read(ledger.log_end_offset, end=log.log_end_offset, bytes_max=SCAN_BYTES)
        batches = parse_batches(data, known)
        if not batches:
            raise StorageError(f"the metadata log can't be read at {ledger.log_end_offset}")
        for batch in batches:
            _append_read(ledger, batch)
        await asyncio.sleep(0)
    if below is not None:
        ledger.snapshot = below
        ledger.high_watermark = max(ledger.high_watermark, below.offset)
    ledger.written_end = ledger.log_end_offset
    ledger.synced_end = min(log.synced_end, ledger.log_end_offset)
    return ledger


def _append_read(ledger: Ledger, batch: Batch) -> None:
    """Opening the log has looked at it already, and cut what may be cut (open_metadata_log)."""
    before = ledger.last_epoch
    is_known = before >= 0 or batch.base_offset == 0
    reason = misfit(batch.epoch, batch.epoch_start, before if is_known else None)
    if reason is not None:
        raise StorageError(f"the metadata log is damaged at offset {batch.base_offset}: {reason}")
    ledger.append(batch)


def check_state(state: HardState, ledger: Ledger, below: Below | None) -> None:
    """StorageError if the log names an epoch that the quorum-state file has not heard of.

    The file is on disk before a record of its epoch is (Storage carries a hard state out before
    the saves that came with it), so no crash leaves this: the file is not that of this log, and
    what it would have said of votes is lost. A snapshot may be of a newer epoch: what it holds is
    committed, whoever was voted for.
    """
    known = state.epoch if below is None else max(state.epoch, below.epoch)
    if ledger.last_epoch > known:
        raise StorageError(
            f"the metadata log holds records of epoch {ledger.last_epoch}, and {QUORUM_STATE}"
            f" says epoch {state.epoch}: the file is missing, or older than the log, and with it"
            " the votes of this disk are lost. Bring the file back, or give this voter a new"
            " disk and add it as a new voter"
        )


def _reaches(log: Log, below: Below) -> bool:
    """Say whether the log goes on where the snapshot ends."""
    if log.log_start_offset == below.offset:
        return True
    is_long_enough = log.log_end_offset >= below.offset
    return is_long_enough and log.epochs.epoch_at(below.offset - 1) == below.epoch


class Storage:
    """Carries out saves; completions come back as events, in the order of the saves.

    What fails because this process has too much open is tried again for a while: nothing was done.
    Without room a voter stops, as it does when its disk fails: it could neither vote nor follow,
    and one that leads would let nobody else.
    """

    def __init__(self, disk: Disk, log: Log, directory: str, step: Callable[[Event], None]) -> None:
        self._disk = disk
        self._log = log
        self._path = f"{directory}/{QUORUM_STATE}"
        self._step = step
        self._hard_state: tuple[HardState, int] | None = None
        self._saves: list[Save] = []
        self._wake = asyncio.Event()
        self._is_ending = False

    def submit(self, hard_state: HardState | None, version: int, save: Save | None) -> None:
        """Take over what one Ready asks for. A newer hard state replaces one not begun."""
        if hard_state is not None:
            self._hard_state = (hard_state, version)
        if save is not None:
            self._saves.append(save)
        self._wake.set()

    def end(self) -> None:
        """Finish what was submitted, then let run() return."""
        self._is_ending = True
        self._wake.set()

    async def run(self) -> None:
        """Work for good; OSError or StorageError when the disk fails (law 6: stop then)."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._hard_state is not None or self._saves:
                await self._carry_out()
            if self._is_ending:
                return

    async def _carry_out(self) -> None:
        state, self._hard_state = self._hard_state, None
        saves, self._saves = self._saves, []
        if state is not None:
            content = encode_state(state[0])
            await _patiently(lambda: replace_whole(self._disk, self._path, content))
            self._step(HardStateSaved(state[1]))
        for save in saves:
            await self._write(save)
        if saves:
            await _patiently(self._log.sync)
            last = saves[-1]
            self._step(Saved(last.epoch, last.end_offset, last.truncations))

    async def _write(self, save: Save) -> None:
        if save.begin_at is not None:
            await self._log.truncate_fully_and_start_at(save.begin_at)
        if save.truncate_to is not None:
            await self._log.truncate(save.truncate_to)
            assert self._log.log_end_offset == save.truncate_to, "a cut lies between batches"
        if save.batches:
            pieces = _pieces(save.batches)
            await _patiently(lambda: self._log.append(pieces))
            self._step(Written(self._log.log_end_offset, save.truncations))


async def _patiently(work: Callable[[], Awaitable[object]]) -> None:
    """Do it; where this process is at a limit that changes nothing, try again for a while."""
    for _ in range(TRIES_MAX - 1):
        try:
            await work()
        except ProcessLimitError as error:
            reason = str(error)
        except OSError as error:
            if scope_of(error) is not Scope.PROCESS:
                raise
            reason = str(error)
        else:
            return
        log_line.warning("a save is tried again", reason=reason)
        await asyncio.sleep(TRY_AGAIN_S)
    await work()


def _pieces(
    batches: Sequence[Batch],
) -> list[tuple[record_batch.BatchHeader, tuple[bytes, ...]]]:
    return [(record_batch.parse_header(batch.data), (batch.data,)) for batch in batches]
