"""The assignors by name."""

from __future__ import annotations

from typing import Final

from quorate_broker.groups.assignors import rack_uniform, range, uniform
from quorate_broker.groups.assignors.values import Assignor

#: The assignor of a group whose members name none.
DEFAULT: Final = "uniform"
#: A member computes the assignment, by a function that its application brought.
CLIENT: Final = "client"
RACK_UNIFORM: Final = "rack-uniform"
ASSIGNORS: Final[dict[str, Assignor]] = {
    DEFAULT: uniform.assign,
    "range": range.assign,
    RACK_UNIFORM: rack_uniform.assign,
}
