"""The Disk seam on a real file system: quick calls run in line, the others in a pool of threads.

To hand a small append, or a read from the page cache, to a thread costs more than the call itself.
So both run in line, and block the event loop for microseconds. Reads that would miss the cache,
large appends, every sync and the removal of files go to a pool of threads, one for each device.
Appends, overwrites and truncates of one file keep the order of their calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from quorate_quorum.disk import Buffer, File, Lock, SyncError, syncing
from quorate_quorum.log.descriptors import Descriptors
from quorate_quorum.log.shared_syncs import SharedSyncs

T = TypeVar("T")

#: The largest in-line append: half a millisecond of copying, which a thread would not shorten.
APPEND_IN_LINE_BYTES_MAX = 1024 * 1024
#: After an in-line append that was slower than this, the next appends go to the pool, because the
#: disk is busy.
APPEND_IN_LINE_SECONDS_MAX = 0.005
APPENDS_IN_POOL_AFTER_A_SLOW_ONE = 64
#: The page cache is probed at the first and last byte of a read, and at this distance in between.
PROBE_EVERY_BYTES = 256 * 1024
#: A larger read goes to the pool even if it is cached: the copy would stall the event loop.
READ_IN_LINE_BYTES_MAX = 4 * 1024 * 1024
#: The most pieces that the kernel takes in one write (IOV_MAX).
PIECES_MAX = 1024
LOCK_FILE = ".lock"
#: The key of the threads for work that waits for no device.
NO_DEVICE = -1

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class RealFile:
    """A file of the operating system. Its descriptor may be closed between two operations.

    If it is closed, the next operation opens the file again.
    """

    def __init__(self, disk: RealDisk, path: str, descriptor: int, flags: int) -> None:
        self._disk = disk
        self._path = path
        #: The open descriptor; -1 while it is closed.
        self._descriptor = descriptor
        self._flags = flags & ~os.O_CREAT
        found = os.fstat(descriptor)
        self._identity = (found.st_dev, found.st_ino)
        #: The number of changes of the file, and how many of them a sync has covered.
        self._changes = self._synced_changes = 0
        #: Whether this object has synced the file. If not, perhaps the last process has not either.
        self._was_synced = False
        self._sync_failure: SyncError | None = None
        #: The settle() under way; None if there is none.
        self._settling: asyncio.Future[None] | None = None
        #: The position of the next append. It is beyond the file's end while the pool appends.
        self._size = found.st_size
        self._order = asyncio.Lock()
        #: The number of operations in the pool. While they run, the descriptor must stay open: the
        #: kernel could give its number to another file.
        self._in_pool = 0
        self._idle: asyncio.Future[None] | None = None
        self._closed = False
        self._appends_for_pool = 0
        self._probe = bytearray(1)

    @property
    def path(self) -> str:
        return self._path

    @property
    def size(self) -> int:
        return self._size

    async def append(self, pieces: Sequence[Buffer]) -> int:
        self._check_open()
        length = sum(map(len, pieces))
        is_taken = self._descriptor < 0 or self._order.locked()
        if is_taken or length > APPEND_IN_LINE_BYTES_MAX or self._appends_for_pool:
            self._appends_for_pool = max(0, self._appends_for_pool - 1)
            async with self._order:
                await self._ready()
                position = self._size
                self._size += length
                try:
                    await self._change(_write_all, pieces, position, length)
                except OSError:
                    self._size = position
                    raise
                return position
        self._disk.descriptors.used(self)
        position = self._size
        started = time.perf_counter()
        self._changes += 1
        _write_all(self._descriptor, pieces, position, length)
        self._size = position + length
        if time.perf_counter() - started > APPEND_IN_LINE_SECONDS_MAX:
            self._appends_for_pool = APPENDS_IN_POOL_AFTER_A_SLOW_ONE
        return position

    async def read_at(self, position: int, length: int) -> bytes:
        self._check_open()
        length = min(length, self._size - position)
        if length <= 0:
            return b""
        await self._ready()
        if length <= READ_IN_LINE_BYTES_MAX and self._is_cached(position, length):
            found = os.pread(self._descriptor, length, position)
            if len(found) == length:
                return found
        return await self._in_thread(_read_all, self._descriptor, position, length)

    async def overwrite(self, position: int, data: Buffer) -> None:
        self._check_open()
        async with self._order:
            await self._ready()
            if len(data) <= APPEND_IN_LINE_BYTES_MAX:
                self._changes += 1
                _overwrite_all(self._descriptor, data, position)
            else:
                await self._change(_overwrite_all, data, position)
            self._size = max(self._size, position + len(data))

    async def truncate(self, size: int) -> None:
        self._check_open()
        async with self._order:
            await self._ready()
            await self._change(os.ftruncate, size)
            self._size = size

    async def sync(self) -> None:
        self._check_open()
        if self._was_synced and self.is_synced:
            # A broker has many logs that were synced before their files were closed. To open each
            # file again, and to make the disk flush its cache, would take a stop many seconds.
            await self._settled()
            return
        await self._ready()
        await self._sync_open()
        await self._settled()

    async def _settled(self) -> None:
        """Wait for the settle() under way. Raises its SyncError.

        The kernel reports lost bytes to one of two syncs that overlap. If that was settle(), no
        other sync of that time counts.
        """
        if self._settling is not None:
            await asyncio.wait([self._settling])
        self._check_syncs()

    async def _sync_open(self) -> None:
        covered = self._changes
        with syncing():
            await self._in_thread(_fdatasync, self._descriptor)
        self._synced_changes = max(self._synced_changes, covered)
        self._was_synced = True

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._in_pool:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        self.release()

    # -- for Descriptors

    @property
    def is_idle(self) -> bool:
        return not self._in_pool and not self._order.locked()

    @property
    def is_synced(self) -> bool:
        return self._changes == self._synced_changes

    def release(self) -> None:
        self._disk.descriptors.gone(self)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    async def settle(self) -> None:
        # Do not open the file here: that may have to wait for this very call. A file that was
        # closed meanwhile is synced.
        if self._descriptor < 0:
            return
        settling = self._settling = asyncio.get_running_loop().create_future()
        try:
            await self._sync_open()
        except SyncError as error:
            # Keep the error for the next use of the file, because no caller waits now.
            self._sync_failure = error
            self._synced_changes = self._changes
        finally:
            self._settling = None
            settling.set_result(None)

    async def _ready(self) -> None:
        """Open the descriptor if it is closed. The caller must use it before its next await."""
        self._check_open()
        if self._descriptor < 0:
            await self._disk.descriptors.make_room()
            self._check_open()
        if self._descriptor < 0:
            descriptor = self._disk.descriptors.open(self._path, self._flags)
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) != self._identity:
                os.close(descriptor)
                raise OSError(errno.ENOENT, "another file is there now", self._path)
            self._descriptor = descriptor
        self._disk.descriptors.used(self)

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self._path)
        self._check_syncs()

    def _check_syncs(self) -> None:
        if self._sync_failure is not None:
            failure = self._sync_failure
            raise SyncError(failure.errno, failure.strerror, self._path)

    async def _change(self, work: Callable[..., T], *arguments: object) -> T:
        """Change the file in the pool. A sync that begins meanwhile may not cover the change."""
        self._changes += 1
        try:
            return await self._in_thread(work, self._descriptor, *arguments)
        finally:
            self._changes += 1

    def _is_cached(self, position: int, length: int) -> bool:
        """Return whether the page cache seems to hold the range.

        A page between two probes may be missing: to read it blocks the event loop for a short time.
        """
        if _NOWAIT is None or not self._disk.probes:
            return False
        probe = (self._probe,)
        try:
            for place in range(position, position + length, PROBE_EVERY_BYTES):
                os.preadv(self._descriptor, probe, place, _NOWAIT)
            os.preadv(self._descriptor, probe, position + length - 1, _NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            self._disk.probes = False  # this file system can't be probed: always use the pool
            return False
        return True

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Run work in the pool. If the caller is cancelled, the work still runs to its end."""
        self._in_pool += 1
        done = self._disk.in_thread_of(self._identity[0], work, *arguments)
        done.add_done_callback(self._left_pool)
        return await asyncio.shield(done)

    def _left_pool(self, done: asyncio.Future[T]) -> None:
        self._in_pool -= 1
        if not done.cancelled():
            # Read the error, so that asyncio does not report it as never retrieved. A caller
            # that still waits gets the error, too.
            done.exception()
        if not self._in_pool and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


class RealLock:
    """An flock on a file in the directory. The kernel releases it when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RealDisk:
    """The machine's own file system. Close it to end its threads.

    At most `open_max` files are open, and never more than half of this process's limit. Each device
    has up to `threads` threads of its own: those of a slow or dead device wait for it, and the
    files on others must not wait with them.
    """

    def __init__(self, *, threads: int = 8, open_max: int | None = None) -> None:
        self.descriptors = Descriptors(open_max)
        self._threads = threads
        #: By the number of the device; NO_DEVICE: for work that waits for none.
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._directory_syncs = SharedSyncs(lambda path: self._at(path, _sync_directory))
        #: Whether reads may probe the page cache. False if the file system does not support that.
        self.probes = True
        self._boot_id = _read_boot_id()

    def in_thread(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return self.in_thread_of(NO_DEVICE, work, *arguments)

    def in_thread_of(
        self, device: int, work: Callable[..., T], *arguments: object
    ) -> asyncio.Future[T]:
        """Run work that waits for a device in one of the device's threads."""
        pool = self._pools.get(device)
        if pool is None:
            pool = ThreadPoolExecutor(self._threads, thread_name_prefix="disk")
            self._pools[device] = pool
        return asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    def _at(self, path: str, work: Callable[..., T]) -> asyncio.Future[T]:
        """Run work on a path in a thread of its device."""
        try:
            device = os.stat(path).st_dev
        except OSError:
            device = NO_DEVICE  # the work fails, too, and says why
        return self.in_thread_of(device, work, path)

    async def open(self, path: str, *, create: bool = False) -> File:
        return await self._open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0))

    async def exists(self, path: str) -> bool:
        return os.path.exists(path)

    async def size(self, path: str) -> int:
        return os.stat(path).st_size

    async def unchanged_ms(self, path: str) -> int:
        return max(0, int((time.time() - os.stat(path).st_mtime) * 1000))

    async def list(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    async def make_directory(self, path: str) -> None:
        await self.in_thread(_make_directory, path)

    async def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    async def remove(self, path: str) -> None:
        await self._at(path, os.remove)

    async def remove_directory(self, path: str) -> None:
        await self._at(path, shutil.rmtree)

    async def sync_directory(self, path: str) -> None:
        await self._directory_syncs.sync(path)

    async def lock(self, directory: str) -> Lock:
        path = os.path.join(directory, LOCK_FILE)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return RealLock(descriptor)

    async def free_bytes(self, path: str) -> int:
        found = await self._at(path, os.statvfs)
        return found.f_bavail * found.f_frsize

    async def _open(self, path: str, flags: int) -> File:
        await self.descriptors.make_room()
        file = RealFile(self, path, self.descriptors.open(path, flags), flags)
        self.descriptors.used(file)
        return file

    def boot_id(self) -> str | None:
        return self._boot_id

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=True)


class ReadOnlyDisk(RealDisk):
    """A disk for tools that only read a node's files. It refuses every call that changes a file."""

    async def open(self, path: str, *, create: bool = False) -> File:
        if create:
            raise _read_only(path)
        return await self._open(path, os.O_RDONLY | os.O_CLOEXEC)

    async def make_directory(self, path: str) -> None:
        raise _read_only(path)

    async def rename(self, source: str, target: str) -> None:
        raise _read_only(target)

    async def remove(self, path: str) -> None:
        raise _read_only(path)

    async def remove_directory(self, path: str) -> None:
        raise _read_only(path)

    async def sync_directory(self, path: str) -> None:
        raise _read_only(path)

    async def lock(self, directory: str) -> Lock:
        raise _read_only(directory)


def _read_only(path: str) -> OSError:
    return OSError(errno.EROFS, "opened for reading only", path)


def _read_boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None


def _make_directory(path: str) -> None:
    """Make a directory and its parents durably."""
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        _make_directory(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    _sync_directory(parent)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with syncing():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, pieces: Sequence[Buffer], position: int, length: int) -> None:
    """Write all pieces at `position`, the end of the file, or leave the file as it was."""
    written = 0
    try:
        for first in range(0, len(pieces), PIECES_MAX):
            group = pieces[first : first + PIECES_MAX]
            wanted = sum(map(len, group))
            got = os.pwritev(descriptor, group, position + written)
            written += got
            if got != wanted:
                raise OSError(errno.ENOSPC, f"short write: {written} of {length} bytes")
    except OSError:
        with contextlib.suppress(OSError):  # the first error is raised, not this one
            os.ftruncate(descriptor, position)
        raise


def _overwrite_all(descriptor: int, data: Buffer, position: int) -> None:
    if os.pwrite(descriptor, data, position) != len(data):
        raise OSError(errno.ENOSPC, f"short write of {len(data)} bytes")


def _read_all(descriptor: int, position: int, length: int) -> bytes:
    """Read `length` bytes, or up to the end of the file. One call of pread may return fewer."""
    found = os.pread(descriptor, length, position)
    if len(found) == length or not found:
        return found
    pieces = [found]
    have = len(found)
    while have < length:
        found = os.pread(descriptor, length - have, position + have)
        if not found:
            break
        pieces.append(found)
        have += len(found)
    return b"".join(pieces)
