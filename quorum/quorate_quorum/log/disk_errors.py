"""What an error of the operating system is about, and what therefore stops: one table for all.

Nearly every call on a disk may end in an OSError, and few of them mean that the disk is broken. The
scope of an error says how much of a node it takes with it:

    FILE       one name or file: what it belongs to stops, or does without it
    ROOM       there is no room now: nothing is taken until there is
    PROCESS    this process has too many files open, or no memory: tried again
    DIRECTORY  the disk: every replica in the log directory goes elsewhere

An errno that the table does not name counts as the disk's: to leave a good disk costs a copy, to
stay on a bad one costs records. After a failed sync there is no way to learn what is on the medium,
so every SyncError is the disk's, whatever its errno.
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
    """How much of a node an error is about. See the module."""

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
    """Nothing was done; the same call may go well later."""


class DiskFullError(TryAgainError):
    """There is no room; the log is as it was, and goes on when there is."""


class ProcessLimitError(TryAgainError):
    """The process has no open files, or no memory, to spare; the log is as it was."""


class ReopenError(StorageError):
    """The log is of no use until it is opened again; its disk is not to blame."""


def scope_of(error: OSError) -> Scope:
    """Return what an error is about.

    >>> scope_of(OSError(errno.EMFILE, "")), scope_of(OSError(errno.ENAMETOOLONG, ""))
    (<Scope.PROCESS: 'process'>, <Scope.FILE: 'file'>)
    >>> scope_of(OSError(errno.ENOSPC, "")), scope_of(SyncError(errno.ENOSPC, ""))
    (<Scope.ROOM: 'room'>, <Scope.DIRECTORY: 'directory'>)
    """
    if error.errno is None or isinstance(error, SyncError):
        return Scope.DIRECTORY
    return TABLE.get(error.errno, Scope.DIRECTORY)


def is_passing(error: OSError) -> bool:
    """Whether the same call may go well later: there was no room, or too much was open."""
    return scope_of(error) in (Scope.ROOM, Scope.PROCESS)


def is_of_disk(error: OSError) -> bool:
    """Whether the disk is to be given up."""
    return scope_of(error) is Scope.DIRECTORY


def blames_disk(error: OSError | StorageError) -> bool:
    """Whether the disk is to be given up, for an error of a log too: a bare StorageError."""
    return is_of_disk(error) if isinstance(error, OSError) else type(error) is StorageError


def storage_error(text: str, error: OSError, *, nothing_done: bool = False) -> StorageError:
    """Return what to raise for an error, by its scope: a bare StorageError means the disk.

    `nothing_done`: all is as it was before the call, so what passes may be tried again.
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
    """Around work that changes nothing if it fails: what passes may be tried again."""
    try:
        yield
    except OSError as error:
        raise storage_error(text, error, nothing_done=True) from error


@contextmanager
def done_without(what: str, directory: str) -> Iterator[None]:
    """Go on without something that can be made again; only a failed disk is an error here."""
    try:
        yield
    except OSError as error:
        if is_of_disk(error):
            raise
        log.warning("done without", what=what, directory=directory, reason=str(error))
