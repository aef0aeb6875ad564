"""Write messages.txt: the facts of Kafka's message schemas, in the notation of notation.py.

Usage: python proto/kafka/convert.py kafka-clients-4.3.1.jar > proto/kafka/messages.txt

Only facts are taken over: the order of the fields, their names, types, versions, tags and defaults.
A version that Kafka marks as unstable, and what only removed versions had, is left out.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The APIs that we serve, or may serve soon.
API_KEYS = (
    *range(0, 4),
    *range(8, 34),
    *range(35, 38),
    *range(42, 52),
    55,
    60,
    61,
    65,
    66,
    68,
    69,
    74,
    75,
)
HEADING = """\
# The messages of Kafka's protocol: facts of the schemas of {release}, in the notation that
# notation.py explains. Written by convert.py; generate.py makes Python of it.
"""


@dataclass(frozen=True)
class Versions:
    """An inclusive range of versions."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str, bounds: Versions) -> Versions:
        """Read "3", "3-5", "3+" or "none", and cut it to the bounds."""
        if text == "none":
            return cls(1, 0)
        first, dash, last = text.rstrip("+").partition("-")
        end = bounds.last if text.endswith("+") else int(last if dash else first)
        return cls(max(int(first), bounds.first), min(end, bounds.last))

    def __bool__(self) -> bool:
        return self.first <= self.last

    def text(self, bounds: Versions) -> str:
        """Return the shortest text of the range within the bounds; "" is all of them."""
        if self == bounds:
            return ""
        return f"{self.first}+" if self.last == bounds.last else self.range()

    def range(self) -> str:
        """Return "3" or "3-5"."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def snake(name: str) -> str:
    """Return a name of Kafka as Python writes it.

    >>> snake("IsrNodes"), snake("timeoutMs")
    ('isr_nodes', 'timeout_ms')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def default_of(field: dict[str, Any]) -> str:
    """Return the text of a default that is not the zero of its type."""
    value = field.get("default")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if value is None or text in {"", "0", "false"}:
        return ""
    if re.fullmatch(r"-?0x[0-9a-fA-F]+|-?\d+", text):
        return str(int(text, 0))
    return text if text in {"null", "true"} else json.dumps(text)


class Message:
    """One request or response, as lines."""

    def __init__(self, schema: dict[str, Any], bounds: Versions, renamed: dict[str, str]) -> None:
        self.lines = [str(schema["type"])]
        self._renamed = renamed
        self._fields(schema["fields"], bounds, 1)
        for common in schema.get("commonStructs", ()):
            self.lines.append(f"  struct {self._struct(common['name'])}")
            self._fields(common["fields"], bounds, 2)

    def _struct(self, name: str) -> str:
        return self._renamed.get(name, name)

    def _type(self, name: str) -> str:
        item = name.removeprefix("[]")
        item = self._struct(item) if item[0].isupper() else item
        return f"[{item}]" if name.startswith("[]") else item

    def _fields(self, fields: list[dict[str, Any]], bounds: Versions, depth: int) -> None:
        for field in fields:
            versions = Versions.parse(field["versions"], bounds)
            if versions:
                self._field(field, versions, bounds, depth)

    def _field(
        self, field: dict[str, Any], versions: Versions, bounds: Versions, depth: int
    ) -> None:
        kind = self._type(field["type"])
        nullable = Versions.parse(field.get("nullableVersions", "none"), versions)
        if nullable:
            kind += "?" + nullable.text(versions)
        parts = [snake(field["name"]), kind, versions.text(bounds)]
        if "tag" in field:
            assert Versions.parse(field["taggedVersions"], versions) == versions
            parts.append(f"tag {field['tag']}")
        if default := default_of(field):
            parts.append(f"= {default}")
        self.lines.append("  " * depth + " ".join(filter(None, parts)))
        self._fields(field.get("fields", []), versions, depth + 1)


def versions_of(schema: dict[str, Any]) -> Versions:
    """Return the versions of a message, without one that is still to be changed."""
    versions = Versions.parse(schema["validVersions"], Versions(0, 1 << 15))
    unstable = bool(schema.get("latestVersionUnstable"))
    return Versions(versions.first, versions.last - unstable)


def structs_of(schema: dict[str, Any]) -> set[str]:
    """Return the names of the structs that a message defines."""
    found = {common["name"] for common in schema.get("commonStructs", ())}
    fields = [*schema["fields"]]
    while fields:
        field = fields.pop()
        if "fields" in field:
            found.add(field["type"].removeprefix("[]"))
            fields += field["fields"]
    return found


def convert(jar: Path) -> str:
    """Return the notation of all APIs."""
    schemas: dict[tuple[int, str], dict[str, Any]] = {}
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"common/message/\w+(Request|Response)\.json", name):
                text = archive.read(name).decode()
                schema = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
                schemas[schema["apiKey"], schema["type"]] = schema
    lines = [HEADING.format(release=jar.stem)]
    for key in API_KEYS:
        request, response = schemas[key, "request"], schemas[key, "response"]
        assert request["flexibleVersions"] == response["flexibleVersions"]
        versions = versions_of(request)
        flexible = Versions.parse(request["flexibleVersions"], versions)
        head = f"api {key} {request['name'].removesuffix('Request')} {versions.range()}"
        lines.append(f"{head} flexible {flexible.first}+" if flexible else head)
        # Two structs of one API may share a name: each then begins with the name of its message.
        shared = structs_of(request) & structs_of(response)
        for schema in (request, response):
            renamed = {name: schema["name"] + name for name in shared}
            lines += Message(schema, versions, renamed).lines
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(convert(Path(sys.argv[1])))
