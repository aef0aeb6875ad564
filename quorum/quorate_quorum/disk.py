"""The seam to the file system.

Paths are plain strings with "/" between the parts. Every method may raise OSError and nothing else.
A sync that fails raises SyncError. log/disk_errors.py says what each error means. The real disk is
in quorate_quorum.log.real_disk, the simulated one in quorate_testing.simulated.disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")


class SyncError(OSError):
    """A sync failed. The bytes may still be readable, but may not be on the medium."""


@contextmanager
def syncing() -> Iterator[None]:
    """Raise the errors of a sync as SyncErrors. The file or directory must be open already."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise SyncError(error.errno, error.strerror, error.filename) from error


class File(Protocol):
    """An open file. Appends are carried out in the order of their calls."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int:
        """The size of the file in bytes, including the appends under way."""

    async def append(self, pieces: Sequence[Buffer]) -> int:
        """Write the pieces at the end. Return the position of the first byte.

        The call returns after the page cache has the bytes. A short write raises OSError, and the
        file is cut back to its old end.
        """

    async def read_at(self, position: int, length: int) -> bytes:
        """Return `length` bytes from `position` on; fewer only at the end of the file."""

    async def overwrite(self, position: int, data: Buffer) -> None:
        """Write inside or at the end of the file. The other bytes stay."""

    async def truncate(self, size: int) -> None: ...

    async def sync(self) -> None:
        """Call fdatasync, so that this file's writes and truncates survive a power loss."""

    async def close(self) -> None: ...


class Lock(Protocol):
    """A held lock on a directory. The kernel releases it when the process ends."""

    def release(self) -> None: ...


class Disk(Protocol):
    """A file system, and the machine that it is on."""

    def in_thread(self, work: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """Run work that takes too long for the event loop in a thread. The work must not wait."""

    async def open(self, path: str, *, create: bool = False) -> File:
        """Open a file to read and write. FileNotFoundError if it is absent and not `create`."""

    async def exists(self, path: str) -> bool: ...

    async def size(self, path: str) -> int: ...

    async def unchanged_ms(self, path: str) -> int:
        """Return the milliseconds since a file last changed, by this machine's clock; 0 or more."""

    async def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted. FileNotFoundError if it does not exist."""

    async def make_directory(self, path: str) -> None:
        """Make a directory and its parents, if absent. They are durable when this returns."""

    async def rename(self, source: str, target: str) -> None:
        """Replace `target` atomically. Durable only after sync_directory of target's parent."""

    async def remove(self, path: str) -> None:
        """Remove a file."""

    async def remove_directory(self, path: str) -> None:
        """Remove a directory and everything in it."""

    async def sync_directory(self, path: str) -> None: ...

    async def lock(self, directory: str) -> Lock:
        """Lock a directory for this process. BlockingIOError if another process has locked it."""

    async def free_bytes(self, path: str) -> int: ...

    def boot_id(self) -> str | None:
        """Return the id of this run of the kernel; None if the platform has none."""


async def read_whole(disk: Disk, path: str) -> bytes:
    """Return a small file's bytes."""
    file = await disk.open(path)
    try:
        return await file.read_at(0, file.size)
    finally:
        await file.close()


async def replace_whole(disk: Disk, path: str, data: bytes, *, sync: bool = True) -> None:
    """Replace a small file atomically: temporary file, sync, rename, sync of the directory.

    Without the first sync, a power loss could leave an empty file under the name (KAFKA-15312).
    """
    temporary = path + ".tmp"
    if await disk.exists(temporary):
        await disk.remove(temporary)
    file = await disk.open(temporary, create=True)
    try:
        await file.append((data,))
        if sync:
            await file.sync()
    finally:
        await file.close()
    await disk.rename(temporary, path)
    if sync:
        await disk.sync_directory(path.rpartition("/")[0])
