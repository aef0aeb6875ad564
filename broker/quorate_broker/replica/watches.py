"""The functions that streams register at a partition, which calls them after a change."""

from __future__ import annotations

from collections.abc import Callable


class Watches:
    """Functions to call when something changes, in the order of their registration."""

    def __init__(self) -> None:
        self._wakes: dict[int, Callable[[], None]] = {}
        self._registrations = 0

    def __len__(self) -> int:
        return len(self._wakes)

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Register `wake`. Return a function that removes it, which is safe to call twice."""
        self._registrations += 1
        number = self._registrations
        self._wakes[number] = wake

        def unwatch() -> None:
            self._wakes.pop(number, None)

        return unwatch

    def wake(self) -> None:
        """Call all registered functions."""
        for wake in tuple(self._wakes.values()):
            wake()
