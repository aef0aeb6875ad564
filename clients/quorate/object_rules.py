"""Rules for arguments that are objects of Python: a path, a mapping, an object of a class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quorate.plain_values import UTF8_TEXT, has_utf8
from quorate.settings import refused


@dataclass(frozen=True, slots=True)
class Object:
    """An object of one class."""

    kind: type
    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> Any:
        if not isinstance(given, self.kind):
            said = f"an object of the class {self.kind.__name__}"
            raise TypeError(refused(call, name, said, given))
        return given


@dataclass(frozen=True, slots=True)
class FilePath:
    """The path of a file or a folder, as a string or an os.PathLike."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> Any:
        said = "a path, as a string or a pathlib.Path"
        if not isinstance(given, str | os.PathLike):
            raise TypeError(refused(call, name, said, given))
        if given == "":
            raise ValueError(refused(call, name, said, given))
        return given


@dataclass(frozen=True, slots=True)
class ByName:
    """A mapping of names to values, which are checked later."""

    doc: str = ""

    def check(self, call: str, name: str, given: Any) -> dict[str, Any]:
        said = "a mapping of names to values"
        if not isinstance(given, Mapping):
            raise TypeError(refused(call, name, said, given))
        for key in given:
            if not isinstance(key, str):
                raise TypeError(refused(call, f"a name in {name}", "a string", key))
            if not has_utf8(key):
                raise ValueError(refused(call, f"a name in {name}", UTF8_TEXT, key))
        return dict(given)


def data_of(call: str, given: object) -> bytes:
    """Return the argument `data` of a deserializer as bytes."""
    if not isinstance(given, bytes | bytearray | memoryview):
        raise TypeError(refused(f"{call}.deserialize", "data", "bytes", given))
    return bytes(given)
