"""One change of the source that a named test must catch."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` occurs exactly once in the file; the named tests fail once it is `new`."""

    rule: str
    fault: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
