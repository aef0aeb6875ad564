"""The guard of a log: one writer at a time, and no use after the first failed write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from quorate.errors import CorruptRecordError, StorageError
from quorate_quorum.log.disk_errors import ReopenError, TryAgainError, storage_error

log = structlog.get_logger(__name__)


class LogCorruptError(StorageError):
    """Bytes of the log are bad although a sync had covered them."""


class Guard:
    """Decides whether the log may be used now.

    After a write that failed half way, only a new open can find out what the log holds. So every
    later use raises the error of that write again. A failed read does not end the use of the log.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._writing = asyncio.Lock()
        #: The failure that ended the use of the log; None while it can be used.
        self.failure: StorageError | None = None
        self.is_closed = False

    def check(self) -> None:
        """Raise if the log can't be used any more."""
        if self.failure is not None:
            raise type(self.failure)(f"{self._directory}: failed before: {self.failure}")
        if self.is_closed:
            raise ReopenError(f"{self._directory}: the log is closed")

    async def close(self) -> None:
        """Refuse every later use, and wait for the write under way.

        A roll that went on would make the directory again after its replica was removed.
        """
        self.is_closed = True
        async with self._writing:
            pass

    @asynccontextmanager
    async def exclusive(self, what: str) -> AsyncIterator[None]:
        """Hold the right to write. Any failure except TryAgainError ends the use of the log."""
        async with self._writing:
            self.check()
            try:
                yield
            except TryAgainError:
                raise
            except StorageError as error:
                self.failure = self.failure or error
                raise
            except (OSError, CorruptRecordError) as error:
                raise self.fail(f"{what} failed", error) from error
            except BaseException:
                self.failure = self.failure or ReopenError(f"{what} was interrupted")
                raise

    def fail(self, what: str, error: OSError | CorruptRecordError) -> StorageError:
        """End the use of the log. Return the exception to raise."""
        failure = self.error(what, error, nothing_done=False)
        self.failure = self.failure or failure
        log.error("log failed", directory=self._directory, reason=str(failure))
        return failure

    def error(
        self, what: str, error: OSError | CorruptRecordError, *, nothing_done: bool
    ) -> StorageError:
        """Return the exception to raise. With `nothing_done`, the failed call changed nothing."""
        text = f"{self._directory}: {what}"
        if isinstance(error, CorruptRecordError):
            return LogCorruptError(f"{text}: {error}")
        return storage_error(text, error, nothing_done=nothing_done)
