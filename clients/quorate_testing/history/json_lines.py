"""Histories as files: an operation a line, in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from quorate_testing.history.operations import Operation

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Operation)


class HistoryError(ValueError):
    """A file is not a history. The message names the file and the line."""


def line(operation: Operation) -> bytes:
    """Return an operation as a line of JSON."""
    return _ENCODER.encode(operation) + b"\n"


def save(path: Path | str, operations: Iterable[Operation]) -> None:
    """Write a history into a file."""
    with Path(path).open("wb") as file:
        file.writelines(line(operation) for operation in operations)


def load(*paths: Path | str) -> list[Operation]:
    """Return the history of all clients that wrote these files, in the order of starts.

    The last line of a file may be cut off: its client was killed. Raises HistoryError.
    """
    operations = [operation for path in paths for operation in _load(Path(path))]
    operations.sort(key=lambda operation: operation.start)
    return operations


def _load(path: Path) -> list[Operation]:
    operations: list[Operation] = []
    places: dict[int, int] = {}  # number -> index in operations
    with path.open("rb") as file:
        for count, text in enumerate(file, 1):
            try:
                operation = _DECODER.decode(text)
            except msgspec.DecodeError as error:
                if not text.endswith(b"\n"):
                    break  # only the last line has no end: the write of it was cut off
                raise HistoryError(
                    f"{path}, line {count}: {error}. A line is one operation, as "
                    f"quorate_testing.history.save() writes it"
                ) from None
            if operation.number is None:
                operations.append(operation)
                continue
            place = places.setdefault(operation.number, len(operations))
            if place == len(operations):
                operations.append(operation)
            else:
                operations[place] = operation
    return operations
