"""What the streams at a partition share: errors that name the leader, and calls at news."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quorate.errors import QuorateError
from quorate.v1.common_pb2 import LeaderHint

E = TypeVar("E", bound=QuorateError)


def hinted(error: E, hint: LeaderHint) -> E:
    """Return the error with the current leader attached to it (KIP-951)."""
    error.hint = hint  # type: ignore[attr-defined]
    return error


def hint_of(error: BaseException) -> LeaderHint | None:
    """Return the current leader, if the error names it."""
    return getattr(error, "hint", None)


class Watches:
    """Functions to call when something changes; in order of their registration."""

    def __init__(self) -> None:
        self._wakes: dict[int, Callable[[], None]] = {}
        self._registrations = 0

    def __len__(self) -> int:
        return len(self._wakes)

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Register `wake`; return the function that ends that, which is safe to call twice."""
        self._registrations += 1
        number = self._registrations
        self._wakes[number] = wake

        def unwatch() -> None:
            self._wakes.pop(number, None)

        return unwatch

    def wake(self) -> None:
        """Call all of them."""
        for wake in tuple(self._wakes.values()):
            wake()
