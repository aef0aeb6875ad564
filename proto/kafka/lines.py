"""What the generators of decoders and of encoders share: lines of Python, names, runs of fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from proto.kafka.notation import Field

#: A name that is taken: by the parameters, by Python, or by what a module imports.
RESERVED = {
    "buffer",
    "position",
    "end",
    "message",
    "out",
    "append",
    "pieces",
    "null",
    "varint",
    "room",
}
#: The letter of a code of the module struct in the name of a function.
LETTERS = {"?": "o", "16s": "u"}


class Lines:
    """The body of one function. Fields of fixed size wait in a run until `flush`."""

    def __init__(self, *, compact: bool) -> None:
        self.lines: list[str] = []
        #: Whether this version has the compact encoding and tagged fields.
        self.compact = compact
        #: The formats of the runs, and the names from the library that are used.
        self.formats: set[str] = set()
        self._depth = 1
        self._names: dict[str, int] = {}
        self._run: list[tuple[str, str]] = []

    def emit(self, line: str) -> None:
        assert not self._run, "the run before is not flushed"
        self.lines.append("    " * self._depth + line)

    @contextmanager
    def block(self, line: str) -> Iterator[None]:
        """Emit a line, and indent what follows in the block."""
        self.emit(line)
        self._depth += 1
        yield
        self.flush()
        self._depth -= 1

    def name(self, wanted: str) -> str:
        """Return a name that this function does not have yet."""
        count = self._names.get(wanted, 0) + 1
        self._names[wanted] = count
        return wanted if count == 1 and wanted not in RESERVED else f"{wanted}_{count}"

    def add(self, code: str, value: str) -> None:
        """Add a field of fixed size to the run."""
        self._run.append((code, value))

    def flush(self) -> None:
        raise NotImplementedError

    def take_run(self) -> tuple[str, list[tuple[str, str]]]:
        """Return the run and its format, and begin a new one."""
        run, self._run = self._run, []
        layout = "".join(code for code, _ in run)
        return layout, run

    def is_nullable(self, field: Field, version: int) -> bool:
        return version in field.nullable or (field.type == "records" and bool(field.nullable))


def suffix_of(layout: str) -> str:
    """Return the format of a run as a part of a name.

    >>> suffix_of("hi16s?")
    'hiuo'
    """
    for code, letter in LETTERS.items():
        layout = layout.replace(code, letter)
    return layout


def constant_of(struct: str) -> str:
    """Return the name of the constant that has the defaults of a struct.

    >>> constant_of("LeaderIdAndEpoch")
    'NO_LEADER_ID_AND_EPOCH'
    """
    return "NO_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", struct).upper()


def default_of(field: Field) -> str:
    """Return the default of a field as an expression."""
    if field.is_array:
        return field.default or "[]"
    if field.default is not None:
        return field.default
    if field.struct is not None:
        return constant_of(field.struct.name)
    zeros = {
        "bool": "False",
        "string": '""',
        "bytes": 'b""',
        "records": "None",
        "uuid": "NO_UUID",
        "float64": "0.0",
    }
    return zeros.get(field.type, "0")
