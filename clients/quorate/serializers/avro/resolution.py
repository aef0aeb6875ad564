"""Which data can be read with which schema: the rules of Avro 1.12, section "Schema Resolution".

The compatibility of two schemas and the reading of a value use the same rules. Where the
specification leaves a choice, they are those of Avro for Java:

* Of a reader's union the branch of the writer's own type is taken, a named type by its full name.
  If it can't be read so, the first branch that can is taken.
* Names of types match without their namespaces, or if the reader's type has the writer's full name
  as an alias. A field matches by its name, or by an alias of the reader's field.

Logical types are the same, or one side has none; see logical.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate.serializers.avro.logical import clash
from quorate.serializers.avro.types import (
    MISSING,
    Array,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Type,
    Union,
    described,
)

#: What a writer's primitive type may be read as, beside itself.
PROMOTIONS: Final = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why some data can't be read."""

    #: Where, as "shop.Order.lines[]".
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class Resolution:
    """Answers for one writer's and one reader's schema, and all types in them."""

    def __init__(self) -> None:
        #: Pairs of records, by identity, that are readable; those under examination, too. A record
        #: that contains itself is readable if nothing else speaks against it. In their order.
        self._readable: dict[tuple[int, int], tuple[Record, Record]] = {}
        #: The others, with their problems. Both are looked at once: types may be used many times.
        self._unreadable: dict[tuple[int, int], list[Problem]] = {}

    def problems(self, writer: Type, reader: Type, place: str = "") -> list[Problem]:
        """Return why a reader may be unable to read data of the writer; an empty list: it is able.

        Every branch and every symbol that the writer may write counts.
        """
        match writer, reader:
            case Union(), _:
                return [
                    problem
                    for branch in writer.branches
                    for problem in self.problems(branch, reader, place)
                ]
            case _, Union():
                return self._of_branches(writer, reader, place)[1]
            case Primitive(), Primitive():
                if reader.kind == writer.kind or reader.kind in PROMOTIONS.get(writer.kind, ()):
                    return _of_logical(writer, reader, place)
            case Array(), Array():
                return self.problems(writer.items, reader.items, f"{place}[]")
            case Map(), Map():
                return self.problems(writer.values, reader.values, f"{place}{{}}")
            case Named(), Named() if writer.__class__ is reader.__class__:
                return self._of_named(writer, reader, place)
        return [
            Problem(place, f"the writer's {described(writer)} can't be read as {described(reader)}")
        ]

    def branch(self, writer: Type, reader: Union) -> Type | None:
        """Return the branch of the reader's union for data of a writer's type that is no union."""
        return self._of_branches(writer, reader, "")[0]

    def _of_branches(
        self, writer: Type, reader: Union, place: str
    ) -> tuple[Type | None, list[Problem]]:
        branches = ", ".join(map(described, reader.branches))
        said = (
            f"no branch of the reader's union ({branches}) reads the writer's {described(writer)}"
        )
        why = ""
        for branch in sorted(reader.branches, key=lambda one: not _is_same(writer, one)):
            problems = self.problems(writer, branch)
            if not problems:
                return branch, []
            if _is_same(writer, branch):
                if clash(writer, branch):  # another branch would take the bare number for a value
                    return None, [Problem(place, one.message) for one in problems]
                why = ": " + "; ".join(map(str, problems))
        return None, [Problem(place, said + why)]

    def _of_named(self, writer: Named, reader: Named, place: str) -> list[Problem]:
        if not reader.is_called_as(writer):
            return [
                Problem(
                    place,
                    f"the writer's {writer.name} is not {reader.name}, which has no alias of this "
                    "name",
                )
            ]
        match writer, reader:
            case Fixed(), Fixed() if writer.size != reader.size:
                said = f"{writer.name} has {writer.size} bytes, and the reader's has {reader.size}"
                return [Problem(place, said)]
            case Enum(), Enum():
                unknown = [one for one in writer.symbols if one not in reader.symbols]
                if unknown and reader.default is None:
                    said = f"the reader's {reader.name} has no default, and no {', '.join(unknown)}"
                    return [Problem(place, said)]
            case Record(), Record():
                return self._of_records(writer, reader)
            case Fixed(), Fixed():
                return _of_logical(writer, reader, place)
        return []

    def _of_records(self, writer: Record, reader: Record) -> list[Problem]:
        pair = (id(writer), id(reader))
        if pair in self._readable:
            return []
        if pair in self._unreadable:
            return self._unreadable[pair][:1]
        self._readable[pair] = writer, reader
        sources = fields_of(writer, reader)
        problems: list[Problem] = []
        for field, source in zip(reader.fields, sources, strict=True):
            place = f"{reader.name}.{field.name}"
            if source is not None:
                problems += self.problems(source.type, field.type, place)
            elif field.default is MISSING:
                problems.append(
                    Problem(place, "the writer has no such field, and no default is set")
                )
        if problems:
            # what was found readable since may rest upon this pair
            while self._readable.popitem()[0] != pair:
                pass
            self._unreadable[pair] = problems
        return problems


def _of_logical(writer: Type, reader: Type, place: str) -> list[Problem]:
    said = clash(writer, reader)
    return [Problem(place, said)] if said else []


def _is_same(writer: Type, reader: Type) -> bool:
    if isinstance(writer, Named):
        return writer.__class__ is reader.__class__ and writer.name == getattr(reader, "name", "")
    if isinstance(writer, Primitive):
        return isinstance(reader, Primitive) and reader.kind == writer.kind
    return writer.__class__ is reader.__class__


def fields_of(writer: Record, reader: Record) -> list[Field | None]:
    """Return the writer's field for each field of the reader; None: it has none."""
    written = {field.name: field for field in writer.fields}
    names = {field.name for field in reader.fields}
    found = []
    for field in reader.fields:
        # an alias does not take a field away from the one with its name
        others = [alias for alias in field.aliases if alias in written and alias not in names]
        found.append(written.get(field.name) or next((written[one] for one in others), None))
    return found
