"""The last run of a log directory: whether it stopped cleanly, its boot, whether a sync failed.

A log directory (not a log) has one `run` file and one `clean-stop` marker. A broker reads both at
its start, and reports them when it registers. Both stay unchanged until the registration is
applied. So if the broker crashes while it loads, its next start reads the same (KAFKA-10471). Then
`begin_run` writes this boot's id, and after that removes the marker, before the first append.

The file fits in one sector and keeps its size, so on a full disk it is overwritten in place. A
device writes a sector whole or not at all, and the CRC shows a damaged file.
"""

from __future__ import annotations

from dataclasses import dataclass

from crc32c import crc32c

from quorate.errors import StorageError
from quorate_quorum.disk import Disk, read_whole, replace_whole
from quorate_quorum.log.disk_errors import Scope, scope_of

RUN_FILE = "run"
MARKER_FILE = "clean-stop"
_VERSION = "1"
_NONE = "none"
_FILE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Run:
    """The last run of a log directory, as this run knows it."""

    #: Whether the last run synced and closed everything.
    marker_present: bool
    #: The id of the boot in which the last run began; None if it is not known.
    boot_id: str | None
    #: Whether a sync failed: later writes may be readable although no medium has them.
    sync_failed: bool
    #: Whether the machine has not been restarted since the last run. If so, the page cache still
    #: has all writes of that run.
    same_boot: bool
    #: Whether there was a last run at all.
    has_begun: bool = False

    @property
    def tail_intact(self) -> bool:
        """Whether all completed writes of the last run are still there."""
        return self.marker_present or self.same_boot


#: Used for a directory whose last run is not known.
UNKNOWN = Run(marker_present=False, boot_id=None, sync_failed=False, same_boot=False)
#: Used for a log that was not closed cleanly, and is opened again by the same run.
THIS_RUN = Run(marker_present=False, boot_id=None, sync_failed=False, same_boot=True)


async def read_run(disk: Disk, log_dir: str) -> Run:
    """Return what is known of the last run. StorageError if the file has an unknown version."""
    marker_present = await disk.exists(f"{log_dir}/{MARKER_FILE}")
    path = f"{log_dir}/{RUN_FILE}"
    if not await disk.exists(path):
        return Run(marker_present, None, sync_failed=False, same_boot=False)
    found = decode(path, await read_whole(disk, path))
    if found is None:  # no crash leaves half of the file, so the disk has damaged it: trust nothing
        return Run(
            marker_present=False, boot_id=None, sync_failed=True, same_boot=False, has_begun=True
        )
    boot_id, sync_failed = found
    same_boot = boot_id is not None and boot_id == disk.boot_id()
    return Run(marker_present, boot_id, sync_failed, same_boot, has_begun=True)


async def begin_run(disk: Disk, log_dir: str) -> None:
    """Begin this run's file. Call it after the registration is applied, before any append."""
    await _write(disk, log_dir, disk.boot_id(), sync_failed=False, sync=True)
    marker = f"{log_dir}/{MARKER_FILE}"
    if await disk.exists(marker):
        await disk.remove(marker)
        await disk.sync_directory(log_dir)


async def set_sync_failed(disk: Disk, log_dir: str) -> None:
    """Note that a sync failed, durably if the disk allows. Call this before the report."""
    try:
        await _write(disk, log_dir, disk.boot_id(), sync_failed=True, sync=True)
    except OSError:
        await _write(disk, log_dir, disk.boot_id(), sync_failed=True, sync=False)


async def write_marker(disk: Disk, log_dir: str) -> None:
    """Mark that this run stopped cleanly. Call it after all logs are synced and closed."""
    content = f"{disk.boot_id() or _NONE}\n".encode()
    await replace_whole(disk, f"{log_dir}/{MARKER_FILE}", content)


async def _write(
    disk: Disk, log_dir: str, boot_id: str | None, *, sync_failed: bool, sync: bool
) -> None:
    body = f"version={_VERSION}\nboot.id={boot_id or _NONE}\nsync.failed={sync_failed}\n".encode()
    content = (body + f"crc={crc32c(body):08x}\n".encode()).ljust(_FILE_BYTES, b"\n")
    path = f"{log_dir}/{RUN_FILE}"
    try:
        await replace_whole(disk, path, content, sync=sync)
    except OSError as error:
        has_place = await disk.exists(path) and await disk.size(path) == len(content)
        if scope_of(error) is not Scope.ROOM or not has_place:
            raise
        await _overwrite(disk, path, content, sync=sync)


async def _overwrite(disk: Disk, path: str, content: bytes, *, sync: bool) -> None:
    file = await disk.open(path)
    try:
        await file.overwrite(0, content)
        if sync:
            await file.sync()
    finally:
        await file.close()


def decode(path: str, content: bytes) -> tuple[str | None, bool] | None:
    """Return (boot id, whether a sync failed) of a `run` file; None if the file is damaged.

    StorageError if it has an unknown version.
    """
    body, mark, crc = content.rpartition(b"crc=")
    try:
        if not mark or int(crc, 16) != crc32c(body):
            return None
        fields = dict(line.split("=", 1) for line in body.decode("ascii").splitlines())
    except ValueError:
        return None
    if fields.get("version") != _VERSION:
        raise StorageError(
            f"{path} has version {fields.get('version')}; this program knows {_VERSION}: "
            "start the newer program that wrote it"
        )
    boot_id = fields.get("boot.id", _NONE)
    return (None if boot_id == _NONE else boot_id), fields.get("sync.failed") != "False"
