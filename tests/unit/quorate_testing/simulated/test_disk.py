"""The Disk seam: what both kinds do alike, and what the simulated one loses and keeps."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quorate_quorum.disk import Disk, read_whole, replace_whole
from quorate_quorum.log.real_disk import RealDisk
from quorate_testing.simulated.disk import SimulatedDisk


@pytest.fixture(params=["simulated", "real"])
async def disk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Disk, str]]:
    if request.param == "simulated":
        simulated = SimulatedDisk(random.Random(1), latency_max=0.001)
        await simulated.make_directory("/data")
        yield simulated, "/data"
    else:
        real = RealDisk()
        yield real, str(tmp_path)
        real.close()


async def test_files_are_appended_read_overwritten_and_cut(disk: tuple[Disk, str]) -> None:
    on, root = disk
    with pytest.raises(FileNotFoundError):
        await on.open(f"{root}/a")
    file = await on.open(f"{root}/a", create=True)
    assert await file.append((b"one", b"", bytearray(b"two"))) == 0
    assert await file.append((memoryview(b"three"),)) == 6
    assert file.size == 11
    assert await file.read_at(3, 100) == b"twothree"
    assert await file.read_at(11, 5) == b""
    await file.overwrite(1, b"NE")
    await file.truncate(6)
    await file.sync()
    assert await file.append((b"!",)) == 6
    assert await read_whole(on, f"{root}/a") == b"oNEtwo!"
    await file.close()
    await file.close()
    with pytest.raises(OSError, match="closed"):
        await file.read_at(0, 1)
    await replace_whole(on, f"{root}/a", b"new")
    await on.make_directory(f"{root}/x/y")
    assert await on.list(root) == ["a", "x"]
    assert await on.size(f"{root}/a") == 3
    await on.remove(f"{root}/a")
    await on.remove_directory(f"{root}/x")
    assert await on.list(root) == []
    assert await on.free_bytes(root) > 0
    assert on.boot_id() == on.boot_id()


async def test_appends_called_at_once_keep_their_order(disk: tuple[Disk, str]) -> None:
    on, root = disk
    file = await on.open(f"{root}/a", create=True)
    pieces = [bytes([index]) * (400_000 if index % 3 == 0 else 10) for index in range(12)]
    places = await asyncio.gather(*(file.append((piece,)) for piece in pieces))
    assert places == [sum(map(len, pieces[:index])) for index in range(12)]
    assert await read_whole(on, f"{root}/a") == b"".join(pieces)
    await file.close()


async def test_a_directory_is_locked_once(disk: tuple[Disk, str]) -> None:
    on, root = disk
    lock = await on.lock(root)
    with pytest.raises(BlockingIOError):
        await on.lock(root)
    lock.release()
    (await on.lock(root)).release()


async def test_more_pieces_than_one_write_takes_and_reads_from_the_pool(tmp_path: Path) -> None:
    real = RealDisk()
    file = await real.open(f"{tmp_path}/a", create=True)
    pieces = [bytes([index % 256]) for index in range(3000)]
    await file.append(pieces)
    real.probes = False
    assert await file.read_at(0, 5000) == b"".join(pieces)
    reading = asyncio.ensure_future(file.read_at(0, 3000))
    await asyncio.sleep(0)
    await file.close()  # waits: the descriptor must not be used again under the reader
    assert len(await reading) == 3000
    real.close()


async def test_a_short_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RealDisk()
    file = await real.open(f"{tmp_path}/a", create=True)
    await file.append((b"whole",))
    written = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: written(fd, [buffers[0][:2]], at))
    with pytest.raises(OSError, match="short write"):
        await file.append((b"more",))
    monkeypatch.undo()
    assert await read_whole(real, f"{tmp_path}/a") == b"whole"
    assert await file.append((b"more",)) == 5
    await file.close()
    real.close()


async def simulated(seed: int = 1) -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory("/d")
    await disk.sync_directory("/")
    return disk


async def test_a_process_crash_keeps_what_was_written_and_closes_files_and_locks() -> None:
    disk = await simulated()
    file = await disk.open("/d/a", create=True)
    await file.append((b"written",))
    await disk.lock("/d")
    boot = disk.boot_id()
    disk.crash_process()
    with pytest.raises(OSError, match="process is gone"):
        await file.append((b"late",))
    (await disk.lock("/d")).release()
    assert disk.content("/d/a") == b"written"
    assert disk.boot_id() == boot


async def test_a_crash_tears_the_write_under_way_anywhere() -> None:
    lengths: list[int] = []
    for seed in range(40):
        disk = await simulated(seed)
        file = await disk.open("/d/a", create=True)
        disk.hook = lambda name, _, disk=disk: disk.crash_process() if name == "append" else None
        with pytest.raises(OSError, match="process is gone"):
            await file.append((b"0123456789",))
        content = disk.content("/d/a")
        assert b"0123456789".startswith(content)
        lengths.append(len(content))
    assert min(lengths) == 0
    assert max(lengths) == 10
    assert len({*lengths}) > 5


async def test_a_power_loss_keeps_what_was_synced_and_any_part_of_the_rest() -> None:
    found: list[bytes | None] = []
    for seed in range(60):
        disk = await simulated(seed)
        file = await disk.open("/d/a", create=True)
        await file.append((b"s" * 600,))
        await file.sync()
        await disk.sync_directory("/d")
        await file.append((b"u" * 1500,))
        await (await disk.open("/d/b", create=True)).sync()
        await disk.rename("/d/b", "/d/c")
        boot = disk.boot_id()
        disk.lose_power()
        content = disk.content("/d/a")
        assert content[:600] == b"s" * 600
        assert not content[600:].strip(b"u\0")
        found.append(content[600:])
        assert len(await disk.list("/d")) in (1, 2)
        assert disk.boot_id() != boot
    assert b"" in found
    assert b"u" * 1500 in found
    assert any(one and b"\0" in one for one in found), "holes where sectors were not written"


async def test_a_synced_file_without_a_synced_name_may_be_gone() -> None:
    there: list[bool] = []
    for seed in range(20):
        disk = await simulated(seed)
        file = await disk.open("/d/a", create=True)
        await file.append((b"x",))
        await file.sync()
        disk.lose_power()
        there.append(await disk.exists("/d/a"))
    assert True in there
    assert False in there


async def test_after_a_failed_sync_the_bytes_read_well_and_a_later_sync_saves_nothing() -> None:
    disk = await simulated()
    file = await disk.open("/d/a", create=True)
    await disk.sync_directory("/d")
    await file.append((b"doomed",))
    disk.fail_next_sync()
    with pytest.raises(OSError, match="sync failed"):
        await file.sync()
    assert await file.read_at(0, 6) == b"doomed"
    await file.sync()
    disk.lose_power()
    assert disk.content("/d/a") == b""


async def test_a_disk_says_what_no_sync_has_covered() -> None:
    disk = await simulated()
    file = await disk.open("/d/a", create=True)
    await file.append((b"synced",))
    await file.sync()
    await file.append((b"not yet",))
    assert disk.unsynced() == [("/d/a", 6, 7)]
    assert disk.files() == [("/d/a", 13)]
    await file.sync()
    assert disk.unsynced() == []


async def test_only_syncs_are_slow_and_a_mended_disk_is_as_new() -> None:
    disk = await simulated()
    file = await disk.open("/d/a", create=True)
    loop = asyncio.get_running_loop()
    disk.slow_sync = 0.01
    started = loop.time()
    await file.sync()
    await disk.sync_directory("/d")
    assert loop.time() - started >= 0.02
    disk.fill(0)
    disk.fail_next_sync(5)
    disk.mend()
    await file.append((b"x",))
    await file.sync()


async def test_a_disk_fills_up_flips_bits_and_slows_down() -> None:
    disk = await simulated()
    file = await disk.open("/d/a", create=True)
    disk.fill(4)
    await file.append((b"1234",))
    with pytest.raises(OSError, match="no space") as caught:
        await file.append((b"5",))
    assert caught.value.errno == errno.ENOSPC
    assert file.size == 4
    disk.flip_bit("/d/a", 1, bit=7)
    assert await file.read_at(0, 4) == b"1\xb234"
    disk.slow = 0.001
    loop = asyncio.get_running_loop()
    started = loop.time()
    await file.read_at(0, 1)
    assert loop.time() > started


async def test_a_directory_with_a_limit_gives_the_bytes_of_removed_files_back() -> None:
    disk = await simulated()
    await disk.make_directory("/e")
    disk.limit("/d", 4)
    file = await disk.open("/d/a", create=True)
    await file.append((b"1234",))
    assert await disk.free_bytes("/d") == 0
    with pytest.raises(OSError, match="no space") as caught:
        await file.append((b"5",))
    assert caught.value.errno == errno.ENOSPC
    elsewhere = await disk.open("/e/a", create=True)
    await elsewhere.append((b"12345",))
    await file.truncate(1)
    await file.append((b"567",))
    await disk.remove("/d/a")
    assert await disk.free_bytes("/d") == 4


async def test_the_same_seed_gives_the_same_disk() -> None:
    def content(disk: SimulatedDisk) -> bytes:
        disk.lose_power()
        return disk.content("/d/a")

    found = []
    for _ in range(2):
        disk = await simulated(7)
        file = await disk.open("/d/a", create=True)
        await disk.sync_directory("/d")
        for _ in range(5):
            await file.append((b"x" * 700,))
        found.append(content(disk))
    assert found[0] == found[1]
