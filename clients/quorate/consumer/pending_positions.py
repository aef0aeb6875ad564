"""The return value of calls that choose positions."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any


class PendingPositions:
    """Await it to have the positions fixed. Without await, background tasks look them up."""

    __slots__ = ("_settle",)

    def __init__(self, settle: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._settle = settle

    def __await__(self) -> Generator[Any, None, None]:
        return self._settle().__await__()
