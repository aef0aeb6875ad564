"""The scope of each error of the operating system: one table that says what an error stops.

Nearly every call on a disk may end in an OSError, and few of these mean that the disk is broken.
The scope of an error says how much of a node the error stops:

    FILE       one name or file: its owner stops, or continues without it
    ROOM       the disk has no room: the node takes no more records until there is room
    PROCESS    this process has too many files open, or no memory: the caller tries again
    DIRECTORY  the disk: every replica in the log directory moves elsewhere

An errno that the table does not name has the scope DIRECTORY: leaving a good disk costs only a
copy, but staying on a bad disk loses records. After a failed sync it is unknown what is on the
medium. So every SyncError has the scope DIRECTORY, whatever its errno.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

import structlog

from quorate.errors import StorageError
from quorate_quorum.disk import SyncError

log = structlog.get_logger(__name__)


class Scope(Enum):
    """How much of a node an error stops; the module says what each scope means."""

    FILE = "file"
    ROOM = "room"
    PROCESS = "process"
    DIRECTORY = "directory"


def _numbers(names: str) -> set[int]:
    """Return the errnos of those names that this platform has."""
    return {getattr(errno, name) for name in names.split() if hasattr(errno, name)}


_ERRNOS: Final = {
    Scope.FILE: _numbers(
        "ENAMETOOLONG ENOENT EEXIST ENOTEMPTY EISDIR ENOTDIR ELOOP EMLINK EXDEV EACCES EPERM"
        " EBUSY ETXTBSY EINVAL EILSEQ EOVERFLOW EBADF"
    ),
    Scope.ROOM: _numbers("ENOSPC EDQUOT EFBIG"),
    Scope.PROCESS: _numbers("EMFILE ENFILE ENOMEM ENOBUFS ENOLCK EAGAIN EINTR"),
    Scope.DIRECTORY: _numbers(
        "EIO EROFS ENODEV ENXIO ESTALE EUCLEAN EREMOTEIO ENOMEDIUM ETIMEDOUT ESHUTDOWN ENOTCONN"
    ),
}
TABLE: Final = {number: scope for scope, numbers in _ERRNOS.items() for number in numbers}


class TryAgainError(StorageError):
    """Nothing was done. The same call may succeed later."""


class DiskFullError(TryAgainError):
    """The disk has no room. The log is as it was, and can be used again when there is room."""


class ProcessLimitError(TryAgainError):
    """The process can't open more files, or has no memory. The log is as it was."""


class ReopenError(StorageError):
    """The log can't be used until it is opened again. Its disk is not to blame."""


def scope_of(error: OSError) -> Scope:
    """Return the scope of an error.

    >>> scope_of(OSError(errno.EMFILE, "")), scope_of(OSError(errno.ENAMETOOLONG, ""))
    (<Scope.PROCESS: 'process'>, <Scope.FILE: 'file'>)
    >>> scope_of(OSError(errno.ENOSPC, "")), scope_of(SyncError(errno.ENOSPC, ""))
    (<Scope.ROOM: 'room'>, <Scope.DIRECTORY: 'directory'>)
    """
    if error.errno is None or isinstance(error, SyncError):
        return Scope.DIRECTORY
    return TABLE.get(error.errno, Scope.DIRECTORY)


def is_passing(error: OSError) -> bool:
    """Return whether the same call may succeed later: a full disk, or a limit of the process."""
    return scope_of(error) in (Scope.ROOM, Scope.PROCESS)


def is_of_disk(error: OSError) -> bool:
    """Return whether the node must stop using the disk."""
    return scope_of(error) is Scope.DIRECTORY


def blames_disk(error: OSError | StorageError) -> bool:
    """Return whether the node must stop using the disk: OSErrors by scope, a bare StorageError."""
    return is_of_disk(error) if isinstance(error, OSError) else type(error) is StorageError


def storage_error(text: str, error: OSError, *, nothing_done: bool = False) -> StorageError:
    """Return the exception to raise for an error, by its scope. For the disk: a bare StorageError.

    `nothing_done`: the failed call changed nothing. If is_passing(error), too, the exception is a
    TryAgainError.
    """
    scope = scope_of(error)
    if scope is Scope.DIRECTORY:
        return StorageError(f"{text}: {error}")
    if scope is Scope.ROOM and nothing_done:
        return DiskFullError(f"{text}: the disk is full: {error}")
    if scope is Scope.PROCESS and nothing_done:
        return ProcessLimitError(f"{text}: this process is at a limit: {error}")
    return ReopenError(f"{text}: {error}")


@contextmanager
def leaving_all_as_it_was(text: str) -> Iterator[None]:
    """Translate an OSError by storage_error. The block changes nothing if it fails."""
    try:
        yield
    except OSError as error:
        raise storage_error(text, error, nothing_done=True) from error


@contextmanager
def done_without(what: str, directory: str) -> Iterator[None]:
    """Log and ignore an OSError of the block, unless the node must stop using the disk."""
    try:
        yield
    except OSError as error:
        if is_of_disk(error):
            raise
        log.warning("done without", what=what, directory=directory, reason=str(error))
