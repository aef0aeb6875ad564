"""The callers of a shard that wait for an answer of its machine."""

from __future__ import annotations

import asyncio
from itertools import count

from quorate.errors import QuorateError


class Callers:
    """Those that wait. Each is answered once: by a step, or by the error that drops the machine.

    A caller has a ticket. A step may park it; then a later step answers the ticket.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._tickets = count(1)

    def add(self) -> int:
        """Add a caller, and return its ticket."""
        ticket = next(self._tickets)
        self._waiting[ticket] = asyncio.get_running_loop().create_future()
        return ticket

    def answer(self, ticket: int, answer: object) -> None:
        """Answer a caller, unless it is answered or gone."""
        future = self._waiting.get(ticket)
        if future is not None and not future.done():
            future.set_result(answer)

    def is_answered(self, ticket: int) -> bool:
        """Whether the answer is there, so that `wait` takes no time."""
        future = self._waiting.get(ticket)
        return future is not None and future.done()

    async def answered(self, ticket: int) -> object:
        """Wait for the answer, which may be an error."""
        return await self._waiting[ticket]

    async def wait(self, ticket: int) -> object:
        """Wait for the answer. Raises it if it is an error."""
        found = await self.answered(ticket)
        if isinstance(found, QuorateError):
            raise found
        return found

    def remove(self, ticket: int) -> None:
        """Forget a caller: it has its answer, or is gone."""
        self._waiting.pop(ticket, None)

    def fail(self, error: QuorateError) -> None:
        """Answer all with an error."""
        for ticket in list(self._waiting):
            self.answer(ticket, error)
