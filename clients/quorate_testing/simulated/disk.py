"""One machine's disk in a simulated world: synced bytes, unsynced bytes, and crashes.

The disk is kept when the simulated processes that use it end. Every file has its durable bytes, the
bytes in the page cache, and the list of writes and truncates that no sync has covered. A directory
has the same for its entries, with creates, renames and removes. `crash_process` ends open files,
locks and writes under way. `lose_power` keeps the durable state and any part of the unsynced
changes, because a file system promises no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from quorate_quorum.disk import Buffer, File, Lock, SyncError, syncing
from quorate_testing.simulated import disk_content
from quorate_testing.simulated.disk_space import Space

T = TypeVar("T")

#: Called when an operation begins, with the operation's name and path. It may crash the disk, or
#: raise.
Hook = Callable[[str, str], None]
#: The longest name of a directory entry.
NAME_BYTES_MAX = 255


@dataclass(eq=False, slots=True)
class _UnderWay:
    """A write that has begun. After a crash any first part of it may be kept."""

    inode: disk_content.Inode
    position: int
    data: bytes


class SimulatedFile:
    """An open file of one simulated process."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: disk_content.Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._size = len(inode.cached)
        self._process = disk.process
        self._order = asyncio.Lock()
        self._closed = False

    @property
    def path(self) -> str:
        return self._path

    @property
    def size(self) -> int:
        return self._size

    async def append(self, pieces: Sequence[Buffer]) -> int:
        data = b"".join(pieces)
        async with self._order:
            position = self._size
            try:
                await self._write("append", position, data)
            except asyncio.CancelledError:
                self._size = position + len(data)
                raise
            self._size = position + len(data)
            return position

    async def overwrite(self, position: int, data: Buffer) -> None:
        async with self._order:
            await self._write("overwrite", position, bytes(data))
            self._size = max(self._size, position + len(data))

    async def read_at(self, position: int, length: int) -> bytes:
        self._check_open()
        await self._disk.begin("read", self._path)
        self._check_open()
        return bytes(self._inode.cached[position : position + length])

    async def truncate(self, size: int) -> None:
        async with self._order:
            self._check_open()
            await self._disk.begin("truncate", self._path)
            self._check_open()
            self._inode.do(disk_content.Truncate(size))
            self._size = size

    async def sync(self) -> None:
        self._check_open()
        covered = list(self._inode.pending)
        with syncing():
            await self._disk.begin("sync", self._path)
        self._check_open()
        inode = self._inode
        if self._disk.take_sync_failure():
            # Forget the changes: after a failed sync the kernel marks the pages clean. So reads
            # still see the bytes, but no later sync writes them.
            inode.pending = [change for change in inode.pending if change not in covered]
            raise SyncError(errno.EIO, "simulated: the sync failed", self._path)
        for change in covered:
            # skip a change that a concurrent sync has covered
            if change in inode.pending:
                disk_content.apply(inode.durable, change)
                inode.pending.remove(change)

    async def close(self) -> None:
        self._closed = True

    async def _write(self, name: str, position: int, data: bytes) -> None:
        self._check_open()
        under_way = _UnderWay(self._inode, position, data)
        self._disk.under_way.append(under_way)
        try:
            await self._disk.begin(name, self._path)
            self._check_open()
            grown = position + len(data) - len(self._inode.cached)
            self._disk.space.take(grown, self._path)
        except asyncio.CancelledError:
            # Finish the write even if the task does not wait any more, as the kernel does.
            if under_way in self._disk.under_way:
                self._inode.do(disk_content.Write(position, data))
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._disk.under_way.remove(under_way)
        self._inode.do(disk_content.Write(position, data))

    def _check_open(self) -> None:
        if self._closed or self._process != self._disk.process:
            raise OSError(errno.EBADF, "simulated: closed, or its process is gone", self._path)


class SimulatedLock:
    """A lock on a directory that a process has taken."""

    def __init__(self, disk: SimulatedDisk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._process = disk.process

    def release(self) -> None:
        if self._process == self._disk.process:
            self._disk.locks.pop(self._directory, None)


class SimulatedDisk:
    """One machine's disk. Every random draw comes from `chance`. Latencies are in seconds."""

    def __init__(
        self, chance: random.Random, *, latency_max: float = 0.0, hook: Hook | None = None
    ) -> None:
        self._chance = chance
        self._root = disk_content.Directory()
        self._boot = 1
        self._failing_syncs = 0
        self.space = Space(self._used)
        #: Every operation takes a random time up to this maximum, plus `slow`.
        self.latency_max = latency_max
        self.slow = 0.0
        #: The additional time of each sync of a file or a directory.
        self.slow_sync = 0.0
        #: Returns the additional time of an operation, by its name and its path.
        self.slow_path: Callable[[str, str], float] = _no_delay
        self.hook = hook
        #: The number of the present process. Operations on open files of an earlier process fail.
        self.process = 1
        self.under_way: list[_UnderWay] = []
        self.locks: dict[str, SimulatedLock] = {}

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Do the work in the loop.

        A simulation has no threads, and long work takes no virtual time.
        """
        await asyncio.sleep(0)
        return work(*arguments)

    # Faults and views for tests.

    def copy(self) -> SimulatedDisk:
        """Return another disk with the same content and draws. No process may use this disk."""
        assert not self.under_way and not self.locks, "a process uses the disk"  # noqa: PT018
        made = copy.copy(self)
        made._chance = copy.copy(self._chance)
        made._root = disk_content.copy(self._root, {})
        made.space = self.space.copy(made._used)
        made.under_way, made.locks = [], {}
        return made

    def crash_process(self) -> None:
        """End the process. Completed writes stay, and a write under way is cut at any byte."""
        for write in self.under_way:
            kept = self._chance.randint(0, len(write.data))
            if kept:
                write.inode.do(disk_content.Write(write.position, write.data[:kept]))
        self.under_way.clear()
        self.locks.clear()
        self.process += 1

    def lose_power(self) -> None:
        """Cut the power.

        Each change that no sync has covered may survive, completely or in part.
        """
        self.crash_process()
        self._boot += 1
        self._failing_syncs = 0
        disk_content.lose_power(self._root, self._chance)

    def flip_bit(self, path: str, position: int, bit: int = 0) -> None:
        """Flip a bit on the medium and in the page cache."""
        inode = self._inode(path)
        for content in (inode.cached, inode.durable):
            if position < len(content):
                content[position] ^= 1 << bit

    def fail_next_sync(self, count: int = 1) -> None:
        """Let the next syncs of files fail. The unsynced changes are lost at a power loss."""
        self._failing_syncs += count

    @property
    def has_failing_sync(self) -> bool:
        """Whether a next sync will fail."""
        return self._failing_syncs > 0

    def fill(self, free: int | None = 0) -> None:
        """Leave `free` bytes of room, after which writes raise ENOSPC. None: there is no limit."""
        self.space.free = free

    def limit(self, directory: str, size: int | None) -> None:
        """Let the files under a directory have at most `size` bytes together; None: any number.

        In contrast to `fill`, a removed or cut file gives its bytes back.
        """
        if size is None:
            self.space.limits.pop(directory, None)
        else:
            self.space.limits[directory] = size

    def mend(self) -> None:
        """Make the disk fast, with room, without planned failures. Damaged bytes stay so."""
        self.slow, self.slow_sync, self.slow_path = 0.0, 0.0, _no_delay
        self._failing_syncs = 0
        self.space.mend()

    def unsynced(self) -> Sequence[tuple[str, int, int]]:
        """Return (path, position, bytes) of each write that no sync has covered, by path."""
        return [
            (path, change.position, len(change.data))
            for path, inode in self._files("", self._root)
            for change in inode.pending
            if isinstance(change, disk_content.Write) and change.data
        ]

    def files(self) -> Sequence[tuple[str, int]]:
        """Return the path and size of every file, as a process would see them, by path."""
        return [(path, len(inode.cached)) for path, inode in self._files("", self._root)]

    def names(self, directory: str) -> tuple[str, ...]:
        """Return the names in a directory, as a process would see them; () if there is none."""
        found = self._find(directory)
        return tuple(found.cached) if isinstance(found, disk_content.Directory) else ()

    def content(self, path: str) -> bytes:
        """Return a file's bytes, as a process would see them."""
        return bytes(self._inode(path).cached)

    def put(self, path: str, data: bytes) -> None:
        """Replace a file's bytes durably, as an operator could."""
        inode = self._inode(path)
        inode.cached[:] = data
        inode.durable[:] = data
        inode.pending.clear()

    def lose_directory(self, path: str) -> None:
        """Remove a directory and its content durably, as an operator could."""
        directory, name = self._place(path)
        for change in list(directory.pending):
            disk_content.enter(
                directory.durable, change
            )  # otherwise a pending change could bring the name back
        directory.pending.clear()
        for entries in (directory.cached, directory.durable):
            entries.pop(name, None)

    # The Disk protocol.

    async def open(self, path: str, *, create: bool = False) -> File:
        await self.begin("open", path)
        directory, name = self._place(path)
        node = directory.cached.get(name)
        if node is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "simulated: no such file", path)
            await self.begin("create", path)
            _check_name(path)
            node = disk_content.Inode()
            directory.do(disk_content.Entry(name, node))
        if isinstance(node, disk_content.Directory):
            raise IsADirectoryError(errno.EISDIR, "simulated: is a directory", path)
        return SimulatedFile(self, path, node)

    async def exists(self, path: str) -> bool:
        return self._find(path) is not None

    async def size(self, path: str) -> int:
        return len(self._inode(path).cached)

    async def unchanged_ms(self, path: str) -> int:
        return max(0, int((disk_content.now_s() - self._inode(path).changed_s) * 1000))

    async def list(self, directory: str) -> list[str]:
        return sorted(self._directory(directory).cached)

    async def make_directory(self, path: str) -> None:
        await self.begin("make_directory", path)
        _check_name(path)
        here = self._root
        parents = []
        for name in _parts(path):
            parents.append(here)
            node = here.cached.get(name)
            if node is None:
                node = disk_content.Directory()
                here.do(disk_content.Entry(name, node))
            if isinstance(node, disk_content.Inode):
                raise NotADirectoryError(errno.ENOTDIR, "simulated: is a file", path)
            here = node
        with syncing():
            await self.begin("sync_directory", path)
        for parent in parents:
            parent.sync(len(parent.pending))

    async def rename(self, source: str, target: str) -> None:
        await self.begin("rename", source)
        _check_name(target)
        from_directory, old = self._place(source)
        to_directory, new = self._place(target)
        node = from_directory.cached.get(old)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "simulated: no such file", source)
        if from_directory is to_directory:
            from_directory.do(disk_content.Entry(new, node, gone=old))
        else:
            to_directory.do(disk_content.Entry(new, node))
            from_directory.do(disk_content.Entry(None, None, gone=old))

    async def remove(self, path: str) -> None:
        await self.begin("remove", path)
        self._inode(path)
        directory, name = self._place(path)
        directory.do(disk_content.Entry(None, None, gone=name))

    async def remove_directory(self, path: str) -> None:
        await self.begin("remove_directory", path)
        self._directory(path)
        directory, name = self._place(path)
        directory.do(disk_content.Entry(None, None, gone=name))

    async def sync_directory(self, path: str) -> None:
        directory = self._directory(path)
        covered = len(directory.pending)
        with syncing():
            await self.begin("sync_directory", path)
        directory.sync(covered)

    async def lock(self, directory: str) -> Lock:
        self._directory(directory)
        if directory in self.locks:
            raise BlockingIOError(errno.EAGAIN, "simulated: another process has it", directory)
        taken = SimulatedLock(self, directory)
        self.locks[directory] = taken
        return taken

    async def free_bytes(self, path: str) -> int:
        return self.space.left(path)

    def boot_id(self) -> str | None:
        return f"boot-{self._boot}"

    # For SimulatedFile.

    async def begin(self, name: str, path: str) -> None:
        """Begin an operation: call the hook, wait for the latency, fail if the process ended."""
        process = self.process
        if self.hook is not None:
            self.hook(name, path)
        delay = self._chance.uniform(0, self.latency_max) if self.latency_max else 0.0
        delay += self.slow + self.slow_path(name, path)
        delay += self.slow_sync if name in ("sync", "sync_directory") else 0.0
        if delay:
            await asyncio.sleep(delay)
        if process != self.process:
            raise OSError(errno.EBADF, "simulated: the process is gone", path)

    def take_sync_failure(self) -> bool:
        if not self._failing_syncs:
            return False
        self._failing_syncs -= 1
        return True

    def _used(self, path: str) -> int:
        found = self._find(path)
        if not isinstance(found, disk_content.Directory):
            return 0
        return sum(len(inode.cached) for _, inode in self._files(path, found))

    def _files(
        self, path: str, directory: disk_content.Directory
    ) -> Iterator[tuple[str, disk_content.Inode]]:
        for name in sorted(directory.cached):
            node = directory.cached[name]
            inside = f"{path}/{name}"
            if isinstance(node, disk_content.Directory):
                yield from self._files(inside, node)
            else:
                yield inside, node

    def _place(self, path: str) -> tuple[disk_content.Directory, str]:
        parent, _, name = path.rstrip("/").rpartition("/")
        return self._directory(parent), name

    def _find(self, path: str) -> disk_content.Inode | disk_content.Directory | None:
        here: disk_content.Inode | disk_content.Directory = self._root
        for name in _parts(path):
            if isinstance(here, disk_content.Inode) or name not in here.cached:
                return None
            here = here.cached[name]
        return here

    def _directory(self, path: str) -> disk_content.Directory:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "simulated: no such directory", path)
        if isinstance(node, disk_content.Inode):
            raise NotADirectoryError(errno.ENOTDIR, "simulated: is a file", path)
        return node

    def _inode(self, path: str) -> disk_content.Inode:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "simulated: no such file", path)
        if isinstance(node, disk_content.Directory):
            raise IsADirectoryError(errno.EISDIR, "simulated: is a directory", path)
        return node


def _no_delay(_operation: str, _path: str) -> float:
    return 0.0


def _check_name(path: str) -> None:
    if any(len(name.encode()) > NAME_BYTES_MAX for name in _parts(path)):
        raise OSError(errno.ENAMETOOLONG, "simulated: a name is too long", path)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
