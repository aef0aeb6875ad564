"""The memory of requests that are read and not handled yet, for all connections of a broker.

It is the budget of the Produce operation: bytes that were read from producers and are not appended,
over all listeners. A connection whose request needs more memory waits while the budget is used up.
One connection may then go on, until its request is handled: otherwise the halves of many large
requests could fill the budget, and none would ever be handled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Budget(Protocol):
    """The part of operations.produce.ByteBudget that is used here."""

    @property
    def held(self) -> int: ...
    @property
    def is_full(self) -> bool: ...
    def take(self, size: int) -> None: ...
    def give_back(self, size: int) -> None: ...
    def when_room(self, wake: Callable[[], None]) -> None: ...


class Reader(Protocol):
    """A connection, as far as the budget knows it."""

    def wake(self) -> None:
        """Look again whether there is room."""


class ReadBudget:
    """Lets connections take memory. See the module."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.take = budget.take
        self.give_back = budget.give_back
        #: The connection that may go on although the budget is used up.
        self._favoured: Reader | None = None
        self._waiting: dict[Reader, None] = {}

    @property
    def held(self) -> int:
        """The bytes that are taken and not given back."""
        return self._budget.held

    def admits(self, reader: Reader) -> bool:
        """Return whether a connection may take memory now. If not, it is woken later."""
        if not self._budget.is_full or self._favoured is reader:
            return True
        if self._favoured is None:
            self._favoured = reader
            return True
        if not self._waiting:
            self._budget.when_room(self._wake_all)
        self._waiting[reader] = None
        return False

    def is_done(self, reader: Reader) -> None:
        """Take note that a connection has handled its request, or is closed."""
        self._waiting.pop(reader, None)
        if self._favoured is reader:
            self._favoured = None
            self._wake_all()

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for reader in waiting:
            reader.wake()
