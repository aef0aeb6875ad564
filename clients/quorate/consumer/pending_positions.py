"""What a call returns that says where to read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any


class PendingPositions:
    """Awaited, the positions are known and fixed; not awaited, they are looked up meanwhile."""

    __slots__ = ("_settle",)

    def __init__(self, settle: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._settle = settle

    def __await__(self) -> Generator[Any, None, None]:
        return self._settle().__await__()
