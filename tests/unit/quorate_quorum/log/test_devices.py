"""Each device has threads of its own: those of a dead one wait for it alone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate_quorum.log import real_disk
from quorate_quorum.log.real_disk import RealDisk

THREADS = 2
DEVICE = 4711


class DeadDevice:
    """Files below `folder` are on a device of their own, whose syncs wait until it is mended."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = str(folder)
        self._mended = threading.Event()
        fstat, stat = os.fstat, os.stat
        monkeypatch.setattr(os, "fstat", lambda fd: self._seen(fstat(fd), path_of(fd)))
        monkeypatch.setattr(
            os, "stat", lambda path, **options: self._seen(stat(path, **options), str(path))
        )
        monkeypatch.setattr(real_disk, "_fdatasync", self._sync)

    def mend(self) -> None:
        self._mended.set()

    def _seen(self, found: os.stat_result, path: str) -> os.stat_result:
        if not path.startswith(self._folder):
            return found
        mode, inode, _device, *rest = found
        return os.stat_result((mode, inode, DEVICE, *rest))

    def _sync(self, descriptor: int) -> None:
        if path_of(descriptor).startswith(self._folder):
            self._mended.wait(20)


def path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


@pytest.fixture
def disk() -> Iterator[RealDisk]:
    made = RealDisk(threads=THREADS)
    yield made
    made.close()


async def test_syncs_that_wait_for_a_dead_device_stop_no_work_on_another(
    disk: RealDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: they take all threads, and then every sync and read of the node waits."""
    dead, good = tmp_path / "dead", tmp_path / "good"
    dead.mkdir()
    good.mkdir()
    device = DeadDevice(dead, monkeypatch)
    try:
        files = [await disk.open(f"{dead}/{n}", create=True) for n in range(2 * THREADS)]
        for file in files:
            await file.append((b"x",))
        waiting = [asyncio.ensure_future(file.sync()) for file in files]
        await asyncio.sleep(0)
        other = await disk.open(f"{good}/0", create=True)
        async with asyncio.timeout(10):
            await other.append((b"x",))
            await other.sync()
            await disk.sync_directory(str(good))
            await disk.free_bytes(str(good))
            assert await disk.in_thread(sum, [1, 2]) == 3
        assert not any(one.done() for one in waiting)
    finally:
        device.mend()
    await asyncio.gather(*waiting)
    for file in (*files, other):
        await file.close()
