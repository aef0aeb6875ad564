"""The voter's disk: the metadata log, and the file that holds epoch and vote.

One task carries out the machine's decisions in order: the hard state first, then cuts and appends,
then one sync for all of them. Saves that arrive during a sync share the next sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from quorate.errors import StorageError
from quorate.record import batch as record_batch
from quorate_quorum.disk import Disk, replace_whole
from quorate_quorum.log.disk_errors import ProcessLimitError, Scope, scope_of
from quorate_quorum.log.epochs import misfit
from quorate_quorum.log.log import Log
from quorate_quorum.node.features import Known
from quorate_quorum.raft.driver.batches import parse_batches
from quorate_quorum.raft.driver.quorum_state import QUORUM_STATE, encode_state
from quorate_quorum.raft.machine.events import Event, HardStateSaved, Saved, Written
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.ledger import Batch, Below, Ledger
from quorate_quorum.raft.machine.ready import Save

log_line = structlog.get_logger(__name__)

SCAN_BYTES = 1 << 16  # the bytes per read when the log is opened; other tasks run between two reads
#: The most tries of one save, about one second. A leader that can't save for longer loses its
#: leadership anyway.
TRIES_MAX = 20
TRY_AGAIN_S = 0.05


async def read_ledger(
    log: Log, below: Below | None = None, *, known: Known | None = None
) -> Ledger:
    """Read the whole log, and return what the machine must know of it.

    If the log ends below the newest snapshot, or has a record of another epoch at the snapshot's
    end, the log is emptied and begins anew at the snapshot. Nothing is lost: the snapshot has the
    committed records.

    StorageError if the log begins above the snapshot.
    StorageError if a batch has an epoch that no EpochStart began.
    UnknownLevelError if the log sets a feature to a level that is not in `known`: a newer program
    wrote the log.
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
    """Append a batch that was read to the ledger, after a check of its epoch.

    open_metadata_log has already cut the torn end of the log, so a wrong epoch means damage.
    """
    before = ledger.last_epoch
    is_known = before >= 0 or batch.base_offset == 0
    reason = misfit(batch.epoch, batch.epoch_start, before if is_known else None)
    if reason is not None:
        raise StorageError(f"the metadata log is damaged at offset {batch.base_offset}: {reason}")
    ledger.append(batch)


def _reaches(log: Log, below: Below) -> bool:
    """Return whether the log holds the snapshot's last record, or begins just after that record."""
    if log.log_start_offset == below.offset:
        return True
    is_long_enough = log.log_end_offset >= below.offset
    return is_long_enough and log.epochs.epoch_at(below.offset - 1) == below.epoch


class Storage:
    """Carries out saves. Completions come back as events, in the order of the saves.

    If a save fails because the process is at a limit, nothing has changed, and the save is tried
    again for a while. On a full disk the node stops, as on a failed disk. A leader that went on
    without storage would stay the leader though it can commit nothing.
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
        """Take over the saves of one Ready. Its hard state replaces one that is not written yet."""
        if hard_state is not None:
            self._hard_state = (hard_state, version)
        if save is not None:
            self._saves.append(save)
        self._wake.set()

    def end(self) -> None:
        """Make `run` return after it has carried out the submitted saves."""
        self._is_ending = True
        self._wake.set()

    async def run(self) -> None:
        """Carry out saves until `end`. OSError or StorageError if the disk fails: the node stops.

        A failed sync is not tried again: the kernel may have dropped the pages, and would report
        the next sync as a success.
        """
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
    """Do the work. If this process is at a limit, try again up to TRIES_MAX times."""
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
