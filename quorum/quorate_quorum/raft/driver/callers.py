"""The peers' requests that wait for the machine's answers, each known by its event's number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from quorate.errors import OverloadedError

CALLERS_MAX = 4096


class Callers:
    """Gives each request a number, and finds the request to which an answer belongs."""

    def __init__(self) -> None:
        self._asked: dict[int, Asked] = {}
        self._number = 0

    def asked(self) -> Asked:
        """Return a new request, as a context manager. OverloadedError if CALLERS_MAX wait."""
        if len(self._asked) >= CALLERS_MAX:
            raise OverloadedError(f"{CALLERS_MAX} requests of voters wait already")
        self._number += 1
        asked = Asked(self._number, lambda: self._asked.pop(asked.number))
        self._asked[asked.number] = asked
        return asked

    def tell(self, number: int, answer: object) -> None:
        """Give an answer to the request with that number, if it still waits."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.tell(answer)

    def fail(self, error: Exception) -> None:
        """Fail every request with `error`, because the machine gives no more answers."""
        for asked in self._asked.values():
            asked.fail(error)


class Asked:
    """One request, which may get several answers.

    A new answer replaces an earlier one that was not taken yet: only the newest one counts.
    """

    def __init__(self, number: int, forget: Callable[[], object]) -> None:
        self.number = number
        self._forget = forget
        self._next: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    async def answer(self) -> Any:
        """Wait for the next answer. If the machine has stopped, raise the error that `fail` got."""
        told = self._next
        answer = await told
        if self._next is told:
            self._next = told.get_loop().create_future()
        return answer

    def tell(self, answer: object) -> None:
        self._unsaid().set_result(answer)

    def fail(self, error: Exception) -> None:
        failed = self._unsaid()
        failed.set_exception(error)
        # Read the error: the caller may be gone, and asyncio would log it as never retrieved.
        failed.exception()

    def _unsaid(self) -> asyncio.Future[Any]:
        if self._next.done():
            self._next = self._next.get_loop().create_future()
        return self._next
