"""The controller's calls that wait for the machine: reads, and transfers of leadership."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quorate.errors import NotControllerError, OverloadedError

TRANSFERS_MAX = 4096


class Waiters:
    """The waiting calls. Each ends with its answer in a Ready, or when the reign or node ends."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        #: A read's number at the machine -> the future that gets the high watermark to apply first.
        self._reads: dict[int, asyncio.Future[int]] = {}
        #: The future of a call that waits for a transfer -> the voter that the call named.
        self._transfers: dict[asyncio.Future[int], int] = {}

    def add_read(self, read: int, future: asyncio.Future[int]) -> None:
        """Let a future wait for a read's confirmation. The machine bounds the number of reads."""
        self._reads[read] = future
        future.add_done_callback(lambda _: self._reads.pop(read, None))

    def confirmed(self, read: int, high_watermark: int) -> None:
        """Complete a read, because a majority has heard the leader since the read began."""
        if (future := self._reads.get(read)) is not None:
            _resolve(future, high_watermark)

    @contextmanager
    def transfer(self, named: int) -> Iterator[asyncio.Future[int]]:
        """Return the future of the next leader's id. OverloadedError if too many wait."""
        if len(self._transfers) >= TRANSFERS_MAX:
            raise OverloadedError(f"{TRANSFERS_MAX} callers wait for a transfer already")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transfers[future] = named
        try:
            yield future
        finally:
            del self._transfers[future]

    def transfer_given_up(self, named: int, reason: str) -> None:
        """Fail the calls that named this voter, because it did not become the leader."""
        error = f"leadership did not go to voter {named}: {reason}; ask again"
        for future, voter in self._transfers.items():
            if voter == named and not future.done():
                future.set_exception(OverloadedError(error))

    def leader_known(self, leader_id: int) -> None:
        """Complete all transfers, because a voter leads. It may be another than the named one."""
        for future in self._transfers:
            _resolve(future, leader_id)

    def end_reign(self) -> None:
        """Fail the reads, because the reign is over: they could return stale data."""
        for read in self._reads.values():
            if not read.done():
                read.set_exception(NotControllerError(f"node {self._node_id} lost its reign"))

    def fail(self, error: Exception) -> None:
        """Fail all waiting calls, because the node has stopped."""
        self.end_reign()
        for future in self._transfers:
            if not future.done():
                future.set_exception(error)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
