"""Builders for the tests of the log: a disk, batches of one size, an observer."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchBuilder, BatchHeader, parse_header
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.run_file import Run
from quorate_quorum.log.segment import CHUNK_BATCHES_MAX
from quorate_testing.simulated.disk import SimulatedDisk

PATH = "/data/t-0"
FIRST = f"{PATH}/00000000000000000000.log"
#: The process was killed, and the machine has not booted since.
SAME_BOOT = Run(marker_present=False, boot_id="boot-1", sync_failed=False, same_boot=True)
SALVAGE = LogConfig(verify_all=True, salvage=True)
#: Several times as many batches as a scan looks at in one turn.
BATCHES = 8 * CHUNK_BATCHES_MAX


async def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    await disk.sync_directory("/")
    return disk


def batch(
    offset: int, epoch: int = 1, *, value: bytes = b"v" * 40, time: int | None = None
) -> tuple[BatchHeader, Sequence[bytes]]:
    """Return a batch of one record, by default of 109 bytes, whose timestamp is its offset."""
    builder = BatchBuilder()
    builder.append(offset if time is None else time, b"k", value)
    data = builder.build(base_offset=offset, leader_epoch=epoch)
    return parse_header(data), (data,)


async def append(log: Log, count: int, epoch: int = 1) -> None:
    for offset in range(log.log_end_offset, log.log_end_offset + count):
        await log.append([batch(offset, epoch)])


async def filled(
    disk: SimulatedDisk, config: LogConfig, count: int = BATCHES, *, at_once: int = 100
) -> Log:
    """Return an observed log with `count` batches."""
    log = await Log.open(disk, PATH, config, observer=Seen())
    for start in range(0, count, at_once):
        await log.append([batch(offset) for offset in range(start, min(start + at_once, count))])
    return log


class Seen:
    """An observer that knows which batches it was shown, and how many since it was restored."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.observed = 0

    def observe(self, header: BatchHeader) -> None:
        self.offsets.append(header.base_offset)
        self.observed += 1

    def reset(self) -> None:
        self.offsets = []
        self.observed = 0

    def snapshot(self) -> bytes:
        return array("q", self.offsets).tobytes()

    def restore(self, data: bytes) -> None:
        if len(data) % 8:
            raise CorruptRecordError("of another release")
        self.offsets = list(array("q", data))


async def reopened(disk: SimulatedDisk, run: Run, config: LogConfig | None = None) -> Log:
    log = await Log.open(disk, PATH, config or LogConfig(), run=run)
    await log.close(clean=False)
    return log


class CrashAt:
    """A hook of a disk: its process ends at the operation of that number, or its power fails."""

    def __init__(
        self, disk: SimulatedDisk, number: int, *, power: bool, quiet: tuple[str, ...] = ()
    ) -> None:
        self._disk = disk
        self._left = number
        self._power = power
        self._quiet = quiet
        disk.hook = self

    def __call__(self, name: str, path: str) -> None:
        if name in self._quiet:
            return
        self._left -= 1
        if self._left == 0:
            self._disk.lose_power() if self._power else self._disk.crash_process()
            raise OSError(5, "the end")

    def end(self) -> bool:
        """Stop counting; return whether there was a crash."""
        self._disk.hook = None
        return self._left <= 0
