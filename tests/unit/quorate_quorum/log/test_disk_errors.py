"""What each error of the operating system costs: a file, a log, a disk, or time."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from quorate.errors import QuorateError, StorageError
from quorate_quorum.disk import SyncError
from quorate_quorum.log.disk_errors import (
    TABLE,
    DiskFullError,
    ReopenError,
    Scope,
    TryAgainError,
    done_without,
    scope_of,
    storage_error,
)
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_testing.simulated.disk import Hook, SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    PATH,
    append,
    batch,
    new_disk,
)

#: One errno of each scope, and the scope.
EXAMPLES = (
    (errno.EMFILE, Scope.PROCESS),
    (errno.ENFILE, Scope.PROCESS),
    (errno.ENOMEM, Scope.PROCESS),
    (errno.ENOSPC, Scope.ROOM),
    (errno.EDQUOT, Scope.ROOM),
    (errno.EFBIG, Scope.ROOM),
    (errno.ENAMETOOLONG, Scope.FILE),
    (errno.EACCES, Scope.FILE),
    (errno.EIO, Scope.DIRECTORY),
    (errno.EROFS, Scope.DIRECTORY),
)


def test_every_error_of_a_sync_is_the_disks() -> None:
    for number in errno.errorcode:
        assert scope_of(SyncError(number, "for the test")) is Scope.DIRECTORY


class TestTable:
    @pytest.mark.parametrize(("number", "scope"), EXAMPLES)
    def test_an_errno_says_how_much_stops(self, number: int, scope: Scope) -> None:
        assert scope_of(OSError(number, "for the test")) is scope

    def test_what_nobody_listed_is_the_disks(self) -> None:
        assert scope_of(OSError("no errno")) is Scope.DIRECTORY
        for number in (set(errno.errorcode) - set(TABLE)) | {99_999}:
            assert scope_of(OSError(number, "for the test")) is Scope.DIRECTORY

    def test_only_the_disks_errors_are_bare_storage_errors(self) -> None:
        for number in errno.errorcode:
            error = OSError(number, "for the test")
            scope = scope_of(error)
            for nothing_done in (True, False):
                raised = storage_error("x", error, nothing_done=nothing_done)
                assert (type(raised) is StorageError) == (scope is Scope.DIRECTORY)
                assert isinstance(raised, TryAgainError) == (
                    nothing_done and scope in (Scope.ROOM, Scope.PROCESS)
                )

    def test_what_can_be_made_again_is_done_without_unless_the_disk_fails(self) -> None:
        for number, scope in EXAMPLES:
            if scope is Scope.DIRECTORY:
                with pytest.raises(OSError, match="for the test"), done_without("x", "/data"):
                    raise OSError(number, "for the test")
            else:
                with done_without("x", "/data"):
                    raise OSError(number, "for the test")


def failing(
    number: int, at: int, seen: list[str], operation: Callable[[str], bool] = lambda name: True
) -> Hook:
    """Return a hook that notes all operations and fails the one at index `at` with `number`."""

    def hook(name: str, path: str) -> None:
        if operation(name):
            seen.append(name)
            if len(seen) == at + 1:
                raise OSError(number, "for the test", path)

    return hook


async def life(disk: SimulatedDisk, appended: list[int], kept: list[int]) -> Log:
    """Use a log in every way; note the ends that it had, and the end that it surely keeps."""
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
    for offset in range(6):
        await log.append([batch(offset)])
        appended.append(offset + 1)
    await log.checkpoint_high_watermark(3, 1)
    await log.sync()
    kept[:] = [4]
    await log.truncate(4)
    appended.append(4)
    for offset in range(4, 8):
        await log.append([batch(offset, epoch=2)])
        appended.append(offset + 1)
    await log.move_start(2)
    await log.remove_below_start()
    await log.read(3, end=8, bytes_max=99)
    await log.offset_for_time(5, end=8)
    await log.close(clean=True)
    return log


class TestLog:
    @pytest.mark.parametrize(("number", "scope"), EXAMPLES)
    async def test_only_the_disks_errors_end_in_a_bare_storage_error(
        self, number: int, scope: Scope
    ) -> None:
        """At each operation of `life` in turn. What was written is there afterwards."""
        at = 0
        while True:
            disk = SimulatedDisk(random.Random(at))
            await disk.make_directory("/data")
            seen: list[str] = []
            appended, kept = [0], [0]
            disk.hook = failing(number, at, seen)
            error: QuorateError | None = None
            try:
                await life(disk, appended, kept)
            except QuorateError as raised:
                error = raised
            disk.hook = None
            if len(seen) <= at:
                assert at > 100
                return
            where = f"{errno.errorcode[number]} at {at}: {seen[at]}"
            if scope is Scope.DIRECTORY or "sync" in seen[at]:
                assert error is None or type(error) is StorageError, where
            else:
                assert error is None or isinstance(error, TryAgainError | ReopenError), where
            disk.crash_process()  # all that it held open is closed
            again = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
            ends = {appended[-1], appended[-1] + 1} if error is not None else {8}
            assert again.log_end_offset in ends | set(kept) | {6}, where
            await again.close(clean=False)
            at += 1

    async def test_bytes_that_are_no_batches_are_never_a_failed_disk(self) -> None:
        disk = SimulatedDisk(random.Random(1))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
        for offset in range(8):
            await log.append([batch(offset)])
        await log.close(clean=True)
        for name in await disk.list(PATH):
            if name.endswith((".index", ".timeindex")):
                await disk.remove(f"{PATH}/{name}")
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
        disk.flip_bit(f"{PATH}/{0:020d}.log", 16, bit=5)
        with pytest.raises(LogCorruptError):
            await log.offset_for_time(0, end=8)
        await log.close(clean=False)

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.ENOMEM])
    async def test_a_failed_question_about_age_is_an_error_of_the_log(self, number: int) -> None:
        """The question is asked outside the guard's turn. A bare OSError stopped the broker."""
        disk = await new_disk()
        log = await Log.open(disk, PATH, LogConfig())
        await append(log, 1)
        await log.close(clean=False)
        log = await Log.open(disk, PATH, LogConfig())

        async def failed(path: str) -> int:
            raise OSError(number, "simulated", path)

        disk.unchanged_ms = failed  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            await log.roll_if_due()
        with pytest.raises(StorageError):
            await log.segments()
        del disk.unchanged_ms
        await append(log, 1)  # nothing was done
        await log.close(clean=True)

    async def test_a_log_is_opened_and_cut_on_a_full_disk(self) -> None:
        disk = SimulatedDisk(random.Random(1))
        await disk.make_directory("/data")
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400))
        for offset in range(9):
            await log.append([batch(offset, epoch=1 + offset // 5)])
        disk.fill(0)
        await log.truncate(7)
        with pytest.raises(DiskFullError):
            await log.append([batch(7, epoch=4)])
        disk.crash_process()
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400))
        assert (log.log_end_offset, log.last_epoch) == (7, 2)
        await log.sync()  # the file `synced` needs room, too, but is only a lower bound
        assert log.synced_end == 7
        await log.close(clean=True)
        disk.lose_power()
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400))
        assert log.log_end_offset == 7
        disk.fill(None)
        await log.append([batch(7, epoch=4)])
        assert log.epochs.entries == [(1, 0), (2, 5), (4, 7)]
        await log.close(clean=True)


async def test_a_full_disk_leaves_a_log_as_it_was() -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=300))
    await append(log, 4)
    disk.fill(0)
    for _ in range(3):
        with pytest.raises(StorageError, match="full"):
            await log.append([batch(4, epoch=2)])
    assert (log.log_end_offset, log.last_epoch) == (4, 1)
    disk.fill(None)
    await log.append([batch(4, epoch=3)])
    await log.close(clean=True)
    again = await Log.open(disk, PATH, LogConfig(segment_bytes=300))
    assert (again.log_end_offset, again.epochs.entries) == (5, [(1, 0), (3, 4)])
    await again.close(clean=True)


async def test_a_log_of_one_segment_gives_its_bytes_back_on_a_full_disk() -> None:
    """A disk may be full of segments that were never closed, so no close has made the slot."""
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, LogConfig())
    for offset in range(6):
        await log.append([batch(offset)])
    disk.fill()
    await log.move_start(6)
    assert await log.roll_if_due()
    await log.remove_below_start()
    assert (log.log_start_offset, log.segment_base(0), log.size) == (6, 6, 0)
    await log.close(clean=False)


async def test_a_full_disk_still_deletes_old_records() -> None:
    """Retention is what makes room, so it needs none: the slot was made when a segment closed."""
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, PATH, LogConfig(segment_bytes=250))
    for offset in range(6):
        await log.append([batch(offset)])
    await log.sync()
    disk.fill()
    await log.move_start(4)
    await log.remove_below_start()
    assert log.log_start_offset == 4
    assert log.segment_base(0) == 4
    await log.close(clean=False)
