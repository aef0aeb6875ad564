"""The operations of a history: their inputs, outputs and times."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Unknown(Enum):
    """The output of an operation whose answer was lost. It matches every output of the model."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "?"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, from its invocation to its return (if it returned).

    Times are numbers in one order for all processes. If one operation returns at the same time at
    which another is invoked, the two overlap. If the outcome is not known, `returned` is None and
    the output UNKNOWN: the operation may take effect at any time after its invocation, or never. An
    operation that certainly had no effect is left out of a history.
    """

    process: Hashable
    invoked: float
    returned: float | None
    input: Any
    output: Any = UNKNOWN

    def __post_init__(self) -> None:
        if self.returned is not None and self.returned < self.invoked:
            raise ValueError(f"{self} returned before it was invoked")

    @property
    def is_known(self) -> bool:
        return self.returned is not None

    def relaxed(self) -> Operation:
        """Return the operation as if its answer were lost, which is easier to explain."""
        return replace(self, returned=None, output=UNKNOWN)

    def is_twin_of(self, other: Operation) -> bool:
        """Return whether both operations have not returned, and have the same input and output."""
        unknown = not self.is_known and not other.is_known
        return unknown and (self.input, self.output) == (other.input, other.output)

    def __str__(self) -> str:
        until = "..." if self.returned is None else f"{self.returned:g}"
        return f"[{self.invoked:g}, {until}] process {self.process}: {self.input} -> {self.output}"


class History:
    """Records operations as they happen. Times are numbers that count the calls to this object.

    >>> history = History()
    >>> call = history.invoked(1, "open the door")
    >>> history.returned(call, "it is open")
    >>> print(history.operations()[0])
    [1, 2] process 1: open the door -> it is open
    """

    def __init__(self) -> None:
        self._operations: dict[int, Operation] = {}
        self._now = 0

    def __len__(self) -> int:
        return len(self._operations)

    def invoked(self, process: Hashable, input: Any) -> int:
        """Note that a call begins. Return its number, for returned() or had_no_effect()."""
        self._now += 1
        self._operations[self._now] = Operation(process, self._now, None, input)
        return self._now

    def returned(self, number: int, output: Any) -> None:
        """Note the answer of a call."""
        self._now += 1
        operation = self._operations[number]
        if operation.is_known:
            raise ValueError(f"{operation} returned already")
        self._operations[number] = replace(operation, returned=self._now, output=output)

    def had_no_effect(self, number: int) -> None:
        """Note that a call certainly had no effect, and will never have one.

        Do not call this method if it is not certain.
        """
        del self._operations[number]

    def operations(self) -> list[Operation]:
        """Return the operations. An operation that has not returned has an unknown outcome."""
        return list(self._operations.values())
