"""The controller's calls that wait for the machine: reads, and transfers of leadership."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quorate.errors import NotControllerError, OverloadedError

TRANSFERS_MAX = 4096


class Waiters:
    """Each waits for one Ready that answers it, or for the end of the reign or the node."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        #: The machine's id of a read -> the high watermark to apply before it is answered.
        self._reads: dict[int, asyncio.Future[int]] = {}
        #: A call that waits for a transfer -> the voter that it named.
        self._transfers: dict[asyncio.Future[int], int] = {}

    def add_read(self, read: int, future: asyncio.Future[int]) -> None:
        """Let a future wait for a read's confirmation. The machine bounds how many there are."""
        self._reads[read] = future
        future.add_done_callback(lambda _: self._reads.pop(read, None))

    def confirmed(self, read: int, high_watermark: int) -> None:
        """A majority has heard of that read."""
        if (future := self._reads.get(read)) is not None:
            _resolve(future, high_watermark)

    @contextmanager
    def transfer(self, named: int) -> Iterator[asyncio.Future[int]]:
        """Return what brings the voter that leads then; OverloadedError if too many wait."""
        if len(self._transfers) >= TRANSFERS_MAX:
            raise OverloadedError(f"{TRANSFERS_MAX} callers wait for a transfer already")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transfers[future] = named
        try:
            yield future
        finally:
            del self._transfers[future]

    def transfer_given_up(self, named: int, reason: str) -> None:
        """The voter that was named does not lead."""
        error = f"leadership did not go to voter {named}: {reason}; ask again"
        for future, voter in self._transfers.items():
            if voter == named and not future.done():
                future.set_exception(OverloadedError(error))

    def leader_known(self, leader_id: int) -> None:
        """A voter leads, the named one or another."""
        for future in self._transfers:
            _resolve(future, leader_id)

    def end_reign(self) -> None:
        """A read of a reign that is over could return stale data."""
        for read in self._reads.values():
            if not read.done():
                read.set_exception(NotControllerError(f"node {self._node_id} lost its reign"))

    def fail(self, error: Exception) -> None:
        """The node does nothing more."""
        self.end_reign()
        for future in self._transfers:
            if not future.done():
                future.set_exception(error)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
