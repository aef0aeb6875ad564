"""Which schema may follow which ones in a subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from quorate.errors import IncompatibleSchemaError
from quorate.serializers.avro.resolution import Resolution
from quorate.serializers.avro.schema import AvroSchema


class Compatibility(StrEnum):
    """The rule for the next schema of a subject; the names are those of other registries."""

    #: Every schema may follow.
    NONE = "NONE"
    #: Programs with the new schema read what was written with the one before: update readers first.
    BACKWARD = "BACKWARD"
    #: Programs with the schema before read what is written with the new one: update writers first.
    FORWARD = "FORWARD"
    #: Both.
    FULL = "FULL"
    #: The same, with all schemas before.
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"


def unreadable(writer: AvroSchema, reader: AvroSchema) -> list[str]:
    """Return why `reader` may be unable to read data of `writer`; an empty list: it is able.

    >>> unreadable(AvroSchema("int"), AvroSchema("long"))
    []
    >>> unreadable(AvroSchema("long"), AvroSchema("int"))
    ["the writer's long can't be read as int"]
    """
    return [str(problem) for problem in Resolution().problems(writer.type, reader.type)]


def check_fingerprint(schema: AvroSchema, known: Iterable[AvroSchema], said: str) -> None:
    """Raise IncompatibleSchemaError if the fingerprint stands for a schema with other values.

    `said`: what was asked. No rule allows it: a value has no more than the fingerprint with it.
    """
    for one in known:
        problems = one.clashes_with(schema)
        if problems:
            listed = "".join(f"\n* {problem}" for problem in problems)
            raise IncompatibleSchemaError(
                f"{said}: a known schema has the same fingerprint, {schema.fingerprint:016x}, and "
                "other logical types, so no reader could tell by which of the two a value was "
                "written; no rule allows that. Give the changed field (or the record) another name"
                f":{listed}",
                tuple(problems),
            )


def incompatibilities(
    new: AvroSchema, before: Sequence[AvroSchema], rule: Compatibility
) -> tuple[str, ...]:
    """Return why a schema must not follow the versions before, 1 to n; empty: it may.

    >>> incompatibilities(AvroSchema("int"), [AvroSchema("long")], Compatibility.BACKWARD)
    ("the new schema can't read data of version 1: the writer's long can't be read as int",)
    """
    if rule is Compatibility.NONE or not before:
        return ()
    numbered = list(enumerate(before, 1))
    if not rule.value.endswith("_TRANSITIVE"):
        numbered = numbered[-1:]
    direction = rule.value.removesuffix("_TRANSITIVE")
    found = []
    for version, old in reversed(numbered):
        if direction in ("BACKWARD", "FULL"):
            said = f"the new schema can't read data of version {version}"
            found += [f"{said}: {one}" for one in unreadable(old, new)]
        if direction in ("FORWARD", "FULL"):
            said = f"version {version} can't read data of the new schema"
            found += [f"{said}: {one}" for one in unreadable(new, old)]
    return tuple(found)
