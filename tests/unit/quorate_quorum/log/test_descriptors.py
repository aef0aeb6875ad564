"""A disk keeps few files open, and its users do not notice."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from quorate.errors import StorageError
from quorate_quorum.disk import File, SyncError
from quorate_quorum.log import real_disk
from quorate_quorum.log.descriptors import OPEN_MAX, OPEN_MIN, Descriptors, share_of_limit
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.log.slots import SlotFile
from tests.unit.quorate_quorum.log.builders import batch

FEW = 4


@pytest.fixture
async def disk() -> AsyncIterator[RealDisk]:
    disk = RealDisk(open_max=FEW)
    yield disk
    disk.close()


def open_in(folder: Path) -> int:
    """Count the descriptors that this process has in a folder."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(folder) in os.readlink(entry)
        except FileNotFoundError:
            continue
    return count


async def made(disk: RealDisk, folder: Path, count: int) -> list[File]:
    return [await disk.open(f"{folder}/f{number}", create=True) for number in range(count)]


async def test_a_file_that_was_synced_before_it_was_closed_is_not_opened_to_be_synced(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = await made(disk, tmp_path, 2 * FEW)
    synced: list[int] = []
    monkeypatch.setattr(real_disk, "_fdatasync", synced.append)
    for file in files:
        await file.append((b"bytes",))
    for file in files:
        await file.sync()
    assert len(synced) == len(files)
    for file in files:
        await file.sync()
    assert len(synced) == len(files)
    await files[0].overwrite(0, b"other")
    await files[0].sync()
    assert len(synced) == len(files) + 1


async def test_a_file_that_this_process_has_not_synced_is_synced(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last process may have ended before it synced what it wrote."""
    (tmp_path / "f").write_bytes(b"of the last process")
    synced: list[int] = []
    monkeypatch.setattr(real_disk, "_fdatasync", synced.append)
    await (await disk.open(f"{tmp_path}/f")).sync()
    assert len(synced) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_files_are_used_in_any_order_and_few_are_open(
    disk: RealDisk, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    files = await made(disk, tmp_path, 5 * FEW)
    contents = [bytearray() for _ in files]
    for step in range(600):
        at = chance.randrange(len(files))
        file, content = files[at], contents[at]
        match chance.randrange(6):
            case 0 | 1:
                data = chance.randbytes(chance.randrange(1, 50))
                assert await file.append((data,)) == len(content)
                content += data
            case 2:
                position = chance.randrange(len(content) + 1)
                await file.overwrite(position, b"over")
                content[position : position + 4] = b"over"
            case 3:
                size = chance.randrange(len(content) + 1)
                await file.truncate(size)
                del content[size:]
            case 4:
                await file.sync()
            case _:
                assert await file.read_at(0, 10_000) == content
        assert file.size == len(content)
        assert len(disk.descriptors) <= FEW
        if step % 50 == 0:
            assert open_in(tmp_path) <= FEW
    for file, content in zip(files, contents, strict=True):
        assert await file.read_at(0, 10_000) == content
        await file.close()
        await file.close()
    assert open_in(tmp_path) == len(disk.descriptors) == 0


async def test_files_used_at_once_are_not_taken_away(disk: RealDisk, tmp_path: Path) -> None:
    files = await made(disk, tmp_path, 5 * FEW)
    piece = bytes(real_disk.APPEND_IN_LINE_BYTES_MAX + 1)  # so it goes to the pool

    async def use(file: File) -> None:
        for number in range(4):
            assert await file.append((bytes([number]),)) == number * (len(piece) + 1)
            await file.append((piece,))
            await file.sync()
            assert (await file.read_at(number * (len(piece) + 1), 1))[0] == number

    await asyncio.gather(*(use(file) for file in files))
    for file in files:
        await file.close()
    assert open_in(tmp_path) == 0


async def test_what_was_written_is_synced_before_its_file_is_closed(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a write that fails later is not reported: a later sync would succeed."""
    synced: list[int] = []
    monkeypatch.setattr(real_disk, "_fdatasync", synced.append)
    files = await made(disk, tmp_path, FEW)
    for file in files:
        await file.append((b"x",))
    more = [await disk.open(f"{tmp_path}/more", create=True)]
    assert len(synced) == FEW, "the oldest files are synced together"
    more += [await disk.open(f"{tmp_path}/more{number}", create=True) for number in range(3)]
    assert len(synced) == FEW, "what is synced is closed without another sync"
    assert open_in(tmp_path) == FEW
    for file in (*files, *more):
        await file.close()


async def test_concurrent_openers_share_the_syncs_before_closes(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(real_disk, "_fdatasync", synced.append)
    files = await made(disk, tmp_path, FEW)
    for file in files:
        await file.append((b"x",))
    paths = [f"{tmp_path}/more{number}" for number in range(FEW)]
    more = await asyncio.gather(*(disk.open(path, create=True) for path in paths))
    assert len(synced) == FEW
    for file in (*files, *more):
        await file.close()


async def test_a_closed_file_is_not_opened_to_be_synced_for_a_close(
    disk: RealDisk, tmp_path: Path
) -> None:
    """The open would wait for room, which this very sync has to make: no file opened any more."""
    first, *others = await made(disk, tmp_path, FEW + 1)
    assert isinstance(first, real_disk.RealFile)
    open_before = open_in(tmp_path)
    await first.settle()
    assert open_in(tmp_path) == open_before
    for file in (first, *others):
        await file.close()


async def test_slot_files_are_closed_between_writes_and_cost_no_sync(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each replica has several: they would take the descriptors of the files of batches."""
    synced: list[int] = []
    monkeypatch.setattr(real_disk, "_fdatasync", synced.append)
    slots = [SlotFile(disk, f"{tmp_path}/slot{number}") for number in range(3 * FEW)]
    for offset in range(3):
        for slot in slots:
            await slot.write(offset, 1)
            assert open_in(tmp_path) == 0
    assert synced == []
    again = SlotFile(disk, f"{tmp_path}/slot0")
    await again.load()
    assert again.value == (2, 1)


async def test_a_file_whose_sync_failed_when_it_was_closed_is_of_no_use(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "for the test")

    first, *others = await made(disk, tmp_path, FEW)
    await first.append((b"x",))
    for file in others:
        await file.append((b"x",))
    monkeypatch.setattr(real_disk, "_fdatasync", fails)
    more = await disk.open(f"{tmp_path}/more", create=True)
    monkeypatch.setattr(real_disk, "_fdatasync", os.fdatasync)
    for use in (first.sync, lambda: first.append((b"y",)), lambda: first.read_at(0, 1)):
        with pytest.raises(SyncError):
            await use()
    await more.append((b"y",))
    for file in (first, *others, more):
        await file.close()


async def test_another_file_at_its_path_is_not_taken_for_it(disk: RealDisk, tmp_path: Path) -> None:
    first = await disk.open(f"{tmp_path}/first", create=True)
    await first.append((b"mine",))
    await first.sync()
    others = await made(disk, tmp_path, FEW)
    (tmp_path / "other").write_bytes(b"not mine")
    (tmp_path / "other").rename(tmp_path / "first")
    with pytest.raises(FileNotFoundError):
        await first.read_at(0, 4)
    for file in (first, *others):
        await file.close()


async def test_a_process_without_descriptors_gives_up_idle_ones(tmp_path: Path) -> None:
    disk = RealDisk(open_max=10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, hard))
    try:
        files = await made(disk, tmp_path, 200)
        for file in files:
            await file.append((b"x",))
            await file.sync()
            assert await file.read_at(0, 9) == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for file in files:
        await file.close()
    disk.close()


def test_a_disk_takes_half_of_what_the_process_may_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
        assert share_of_limit() == 500
        resource.setrlimit(resource.RLIMIT_NOFILE, (90, hard))
        assert share_of_limit() == OPEN_MIN
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert OPEN_MIN <= share_of_limit() <= OPEN_MAX


async def test_many_logs_share_few_open_files(disk: RealDisk, tmp_path: Path) -> None:
    config = LogConfig(segment_bytes=300)
    logs = [await Log.open(disk, f"{tmp_path}/t-{number}", config) for number in range(12)]
    for offset in range(12):
        for log in logs:
            await log.append([batch(offset, time=1)])
            await log.checkpoint_high_watermark(offset, 1)
        assert open_in(tmp_path) <= FEW + 1, "a sync opens a directory"
    for log in logs:
        assert await log.offset_for_time(1, end=12) == (0, 1)
        await log.truncate(9)
        await log.sync()
        await log.close(clean=True)
    assert open_in(tmp_path) == 0
    for number in range(12):
        log = await Log.open(disk, f"{tmp_path}/t-{number}", config)
        assert log.log_end_offset == 9
        await log.close(clean=True)
    with pytest.raises(StorageError):
        await log.append([batch(9)])


async def test_many_writers_of_many_files_all_come_to_an_end(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that came when the syncs were done, and not noted as done, looked for ever."""
    monkeypatch.setattr(real_disk, "_fdatasync", lambda descriptor: None)
    files = await made(disk, tmp_path, 16 * FEW)

    async def write(file: File) -> None:
        for _ in range(20):
            await file.append((b"x",))

    async with asyncio.timeout(20):
        await asyncio.gather(*(write(file) for file in files))
    assert [file.size for file in files] == [20] * len(files)
    files.append(await disk.open(f"{tmp_path}/one-more", create=True))
    assert open_in(tmp_path) <= FEW
    for file in files:
        await file.close()


class WrittenAgain:
    """A file that its owner writes to during each sync, so that it is never synced."""

    is_idle = True
    is_synced = False

    def __init__(self, syncing: Callable[[], None]) -> None:
        self._syncing = syncing

    def release(self) -> None:
        raise AssertionError("it is not synced")

    async def settle(self) -> None:
        self._syncing()


async def test_a_call_in_the_turn_in_which_the_syncs_end_comes_to_an_end() -> None:
    """It found the syncs that had ended, and waited for them again and again, without a turn."""
    loop = asyncio.get_running_loop()
    descriptors = Descriptors(open_max=1)
    calls: list[asyncio.Task[None]] = []

    def call_again() -> None:
        if len(calls) < 2:
            loop.call_soon(lambda: calls.append(loop.create_task(descriptors.make_room())))

    descriptors.used(WrittenAgain(call_again))
    calls.append(loop.create_task(descriptors.make_room()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(calls) == 2
    await asyncio.gather(*calls)


@pytest.mark.parametrize("is_owner_first", [False, True])
async def test_a_sync_beside_a_failed_sync_before_a_close_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_owner_first: bool
) -> None:
    """The kernel reports lost bytes to only one of two syncs that overlap."""
    disk = RealDisk(threads=1)  # so the syncs end in the order of the calls
    (file,) = await made(disk, tmp_path, 1)
    assert isinstance(file, real_disk.RealFile)
    await file.append((b"x",))
    fails = iter((False, True) if is_owner_first else (True, False))

    def fdatasync(descriptor: int) -> None:
        if next(fails):
            raise OSError(errno.EIO, "for the test")

    monkeypatch.setattr(real_disk, "_fdatasync", fdatasync)
    calls = [file.settle(), file.sync()]
    if is_owner_first:
        calls.reverse()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[0 if is_owner_first else 1], SyncError)
    await file.close()
    disk.close()


async def test_a_sync_of_what_is_synced_waits_for_the_settle_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settle may get the only report of lost bytes that a sync beside it seems to cover."""
    disk = RealDisk(threads=3)
    (file,) = await made(disk, tmp_path, 1)
    assert isinstance(file, real_disk.RealFile)
    await file.append((b"x",))
    gates = [threading.Event(), threading.Event()]
    calls = iter(range(3))

    def fdatasync(descriptor: int) -> None:
        number = next(calls)
        gates[number].wait(20)
        if number == 0:
            raise OSError(errno.EIO, "for the test")

    monkeypatch.setattr(real_disk, "_fdatasync", fdatasync)
    settling = asyncio.ensure_future(file.settle())
    await asyncio.sleep(0)
    first = asyncio.ensure_future(file.sync())
    gates[1].set()
    while not file.is_synced:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    second = asyncio.ensure_future(file.sync())
    await asyncio.sleep(0.01)
    assert not second.done()
    gates[0].set()
    await settling
    for call in (first, second):
        with pytest.raises(SyncError):
            await call
    await file.close()
    disk.close()
