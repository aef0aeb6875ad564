"""Models: a register and a list that execute one operation at a time."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from quorate_testing.linearizability.history import UNKNOWN


class Model(Protocol):
    """The sequential object whose behaviour the system must show. States are hashable values."""

    @property
    def initial(self) -> Hashable:
        """The state before the first operation."""

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        """Return whether `input` in `state` can give `output`, and the state after it.

        Every input can give the output UNKNOWN.
        """

    def is_read(self, input: Any) -> bool:
        """Return whether this input never changes a state."""


@dataclass(frozen=True, slots=True)
class Read:
    """Return the whole value of a register, or of a list (as a tuple or list)."""

    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Write:
    """Set a register. The model accepts any output."""

    value: Hashable
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Cas:
    """Set a register to `value` if its value is `expected`. The output is whether it was set."""

    expected: Hashable
    value: Hashable
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Append:
    """Append to a list. The output is the position, or None if the system returns none."""

    value: Hashable
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Register:
    """A register with Read, Write and Cas."""

    initial: Hashable = None

    def step(self, state: Hashable, input: Any, output: Any) -> tuple[bool, Hashable]:
        match input:
            case Read():
                return output is UNKNOWN or output == state, state
            case Write(value):
                return True, value
            case Cas(expected, value):
                done = state == expected
                return output is UNKNOWN or output is done, value if done else state
        raise TypeError(f"a register takes Read, Write and Cas, not {input!r}")

    def is_read(self, input: Any) -> bool:
        return isinstance(input, Read)


@dataclass(frozen=True, slots=True)
class AppendList:
    """A list with Read and Append."""

    initial: tuple[Hashable, ...] = ()

    def step(
        self, state: tuple[Hashable, ...], input: Any, output: Any
    ) -> tuple[bool, tuple[Hashable, ...]]:
        match input:
            case Read():
                return output is UNKNOWN or tuple(output) == state, state
            case Append(value):
                told = output is not UNKNOWN and output is not None
                return not told or output == len(state), (*state, value)
        raise TypeError(f"a list takes Read and Append, not {input!r}")

    def is_read(self, input: Any) -> bool:
        return isinstance(input, Read)


def by_key(input: Any) -> Hashable:
    """Return the key of one of the inputs above. Use it as the argument `key` of check()."""
    key: Hashable = input.key
    return key
