"""The notation of messages.txt, and the model that generate.py reads from it.

    api 9 OffsetFetch 1-10 flexible 6+      key, name, versions, versions with the compact encoding
    request                                 the fields of the request follow; then `response`
      group_id string 1-7                   a field: name, type, versions
      topics [OffsetFetchTopic]?2+ 1-7      an array of structs; in versions from 2 it may be null
        name string                         a field of the struct, one step further in
      member_id string? 9+ = null           may be null in all its versions; default
      epoch int64 9+ tag 1 = -1             a tagged field
      struct TopicPartitions                a struct that several fields have

Where versions are left out, the field is in all versions of what it stands in. Without a default,
the default is zero, false, the empty string, the empty array, a struct of defaults; of records, it
is null. Types: bool, int8, int16, uint16, int32, int64, float64, uuid, string, bytes, records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

FIXED: Final = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
FIELD: Final = re.compile(
    r"(?P<name>\w+) (?P<open>\[?)(?P<type>\w+)\]?(?P<null>\?(?P<nullable>[\d+-]*))?"
    r"(?: (?P<versions>\d[\d+-]*))?(?: tag (?P<tag>\d+))?(?: = (?P<default>.+))?"
)
API: Final = re.compile(r"api (\d+) (\w+) ([\d-]+)(?: flexible (\d+)\+)?")


def versions_of(text: str | None, bounds: range) -> range:
    """Return the versions that "3", "3-5", "3+" or nothing means within the bounds."""
    if not text:
        return bounds
    first, dash, last = text.rstrip("+").partition("-")
    end = bounds.stop if text.endswith("+") else int(last if dash else first) + 1
    return range(int(first), end)


@dataclass(frozen=True)
class Field:
    """One field. `type` is that of an item if the field is an array."""

    name: str
    type: str
    is_array: bool
    versions: range
    #: The versions in which it may be null.
    nullable: range
    tag: int | None
    #: As Python writes it; None: of the type.
    default: str | None
    struct: Struct | None

    @property
    def code(self) -> str | None:
        """The code of the module struct for an item of fixed size."""
        return FIXED.get(self.type)


@dataclass
class Struct:
    """A message, or a part of one, over all versions."""

    name: str
    fields: list[Field] = field(default_factory=list)

    def in_version(self, version: int) -> list[Field]:
        """Return the fields without a tag, in order."""
        return [each for each in self.fields if version in each.versions and each.tag is None]

    def tagged(self, version: int) -> list[Field]:
        """Return the fields with a tag, in the order of their tags."""
        found = [each for each in self.fields if version in each.versions and each.tag is not None]
        return sorted(found, key=lambda each: each.tag or 0)

    def structs(self) -> Iterator[Struct]:
        """Return the structs that this one contains, each after its own parts; itself last."""
        for each in self.fields:
            if each.struct is not None:
                yield from each.struct.structs()
        yield self


@dataclass
class Api:
    """A request and its response."""

    key: int
    name: str
    versions: range
    #: The first version with the compact encoding; beyond the last one: none.
    flexible: int
    request: Struct
    response: Struct

    @property
    def module(self) -> str:
        """The name of the Python module."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower()


class Reader:
    """Reads the lines of messages.txt."""

    def __init__(self, text: str) -> None:
        stripped = (line.rstrip() for line in text.splitlines())
        self._lines = [line for line in stripped if line and not line.startswith("#")]
        self._at = 0
        self._structs: dict[str, Struct] = {}

    def apis(self) -> Iterator[Api]:
        """Return all APIs."""
        while self._at < len(self._lines):
            found = API.fullmatch(self._take())
            assert found, f"no line of an API: {self._lines[self._at - 1]}"
            key, name, text, flexible = found.groups()
            versions = versions_of(text, range(0))
            request = self._message("request", name + "Request", versions)
            response = self._message("response", name + "Response", versions)
            first = int(flexible) if flexible else versions.stop
            yield Api(int(key), name, versions, first, request, response)

    def _take(self) -> str:
        self._at += 1
        return self._lines[self._at - 1].strip()

    def _depth(self, at: int) -> int:
        if at >= len(self._lines):
            return -1
        line = self._lines[at]
        return (len(line) - len(line.lstrip())) // 2

    def _message(self, word: str, name: str, versions: range) -> Struct:
        assert self._take() == word
        self._structs = {}
        # Fields may name a struct of which the lines come later.
        for line in self._lines[self._at :]:
            if not line.startswith(" "):
                break
            if line.startswith("  struct "):
                common = line.split()[1]
                self._structs[common] = Struct(common)
        message = Struct(name)
        self._fields(message, versions, 1)
        return message

    def _fields(self, parent: Struct, bounds: range, depth: int) -> None:
        while self._depth(self._at) == depth:
            line = self._take()
            if line.startswith("struct "):
                self._fields(self._structs[line.split()[1]], bounds, depth + 1)
            else:
                parent.fields.append(self._field(line, bounds, depth))

    def _field(self, line: str, bounds: range, depth: int) -> Field:
        found = FIELD.fullmatch(line)
        assert found, f"no field: {line}"
        versions = versions_of(found["versions"], bounds)
        nullable = versions_of(found["nullable"], versions) if found["null"] else range(0)
        kind, default = found["type"], found["default"]
        struct = None
        if kind[0].isupper():
            struct = self._structs.setdefault(kind, Struct(kind))
            self._fields(struct, versions, depth + 1)
        if default is not None:
            default = repr({"null": None, "true": True}.get(default, default))
            default = default if default[0] != "'" else repr(json.loads(found["default"]))
        return Field(
            name=found["name"],
            type=kind,
            is_array=bool(found["open"]),
            versions=versions,
            nullable=nullable,
            tag=int(found["tag"]) if found["tag"] else None,
            default=default,
            struct=struct,
        )


def read(text: str) -> list[Api]:
    """Return the APIs of messages.txt."""
    return list(Reader(text).apis())
