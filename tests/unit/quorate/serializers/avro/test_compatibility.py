"""Which data can be read with which schema, and which schema may follow which."""

from __future__ import annotations

import re
from typing import Any

import pytest

from quorate.serializers import AvroSchema, Compatibility, unreadable
from quorate.serializers.avro.compatibility import incompatibilities
from tests.unit.quorate.serializers.avro.builders import array, enum, fixed, logical, map_of, record

PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]
PROMOTED = {
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
}


@pytest.mark.parametrize("writer", PRIMITIVES)
@pytest.mark.parametrize("reader", PRIMITIVES)
def test_a_primitive_is_read_as_itself_and_where_it_may_be_promoted(
    writer: str, reader: str
) -> None:
    expected = writer == reader or (writer, reader) in PROMOTED
    for around in (lambda one: one, array, map_of, lambda one: ["null", array(one)]):
        found = unreadable(AvroSchema(around(writer)), AvroSchema(around(reader)))
        assert (found == []) is expected
    found = unreadable(AvroSchema(writer), AvroSchema([fixed(1), reader]))
    assert (found == []) is expected


A = ("a", "int")
TREE = record(("value", "int"), ("children", array("s.R")))
TREE_OF_LONG = record(("value", "long"), ("children", array("s.R")))
TREE_OF_TEXT = record(("value", "string"), ("children", array("s.R")))
#: A list of A that ends in a list of B, and so on; the second differs at the end.
TWO = record(("b", record(("a", ["null", "s.R"]), ("x", "int"), name="s.B")))
TWO_OTHER = record(("b", record(("a", ["null", "s.R"]), ("x", "string"), name="s.B")))

MILLIS, MICROS = logical("long", "timestamp-millis"), logical("long", "timestamp-micros")


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return logical("bytes", "decimal", precision=precision, scale=scale)


CENTS = decimal(4, 2)

#: Writer, reader, what the problem says; empty: there is none.
TABLE: list[tuple[Any, Any, str]] = [
    # fields
    (record(A), record(A, ("b", "string", {"default": "x"})), ""),
    (record(A), record(A, ("b", ["null", "int"], {"default": None})), ""),
    (record(A), record(A, ("b", "string")), r"s.R.b: the writer has no such field, and no default"),
    (record(A, ("b", "string")), record(A), ""),
    (record(A, ("b", "string")), record(("b", "string"), A), ""),
    (record(A), record(), ""),
    (record(A), record(("a", "long")), ""),
    (record(("a", "long")), record(A), "s.R.a: the writer's long can't be read as int"),
    (record(A), record(("a", "string", {"default": "x"})), "s.R.a: the writer's int can't"),
    (record(A), record(("a", ["null", "int"])), ""),
    (record(("a", ["null", "int"])), record(A), "s.R.a: the writer's null can't be read as int"),
    # names and aliases of fields
    (record(A), record(("n", "int", {"aliases": ["a"]})), ""),
    (record(A), record(("n", "string", {"aliases": ["a"]})), "s.R.n: the writer's int"),
    (record(("n", "int")), record(("a", "int", {"aliases": ["b"]})), "s.R.a: the writer has no"),
    (record(A), record(A, ("n", "string", {"aliases": ["a"], "default": ""})), ""),
    # names of types
    (record(A, name="s.R"), record(A, name="t.R"), ""),
    (record(A, name="s.R"), record(A, name="s.Q"), "the writer's s.R is not s.Q, which has no ali"),
    (record(A, name="s.R"), record(A, name="s.Q", aliases=["R"]), ""),
    (record(A, name="s.R"), record(A, name="t.Q", aliases=["s.R"]), ""),
    (record(A, name="s.R"), record(A, name="t.Q", aliases=["R"]), "the writer's s.R is not t.Q"),
    (enum("A", name="x.E"), enum("A", name="y.E"), ""),
    (enum("A", name="E"), enum("A", name="D"), "the writer's E is not D"),
    (enum("A", name="E"), enum("A", name="D", aliases=["E"]), ""),
    (fixed(4), fixed(4, name="G"), "the writer's F is not G"),
    (fixed(4), fixed(4, name="G", aliases=["F"]), ""),
    (fixed(4), fixed(5), "F has 4 bytes, and the reader's has 5"),
    (fixed(4, name="R"), enum("A", name="R"), "the writer's fixed R can't be read as enum R"),
    (fixed(4, name="R"), record(name="R"), "the writer's fixed R can't be read as record R"),
    (fixed(4), "bytes", "the writer's fixed F can't be read as bytes"),
    (enum("A"), "string", "the writer's enum E can't be read as string"),
    # symbols
    (enum("A", "B"), enum("B", "A", "C"), ""),
    (enum("A", "B", "C"), enum("A"), "the reader's E has no default, and no B, C"),
    (enum("A", "B", "C"), enum("A", default="A"), ""),
    (enum("A", "B", default="A"), enum("A"), "the reader's E has no default, and no B"),
    # collections
    (array("int"), array("long"), ""),
    (array("int"), array("string"), r"\[\]: the writer's int can't be read as string"),
    (map_of("int"), map_of("string"), r"\{\}: the writer's int can't be read as string"),
    (array("int"), map_of("int"), "the writer's array can't be read as map"),
    (array("int"), "int", "the writer's array can't be read as int"),
    (record(("x", array(map_of("int")))), record(("x", array(map_of("null")))), r"s.R.x\[\]\{\}: "),
    # unions
    (["int", "string"], ["string", "int"], ""),
    (["int", "string"], ["bytes", "long"], ""),
    (["int", "string"], ["int"], r"no branch of the reader's union \(int\) reads .* string"),
    (["int"], "int", ""),
    (["int", "long"], "long", ""),
    (["int", "long"], "int", "the writer's long can't be read as int"),
    ("int", ["null", "double"], ""),
    ("string", ["null", "int"], r"no branch .*\(null, int\) reads the writer's string"),
    ([], "int", ""),
    (record(A), ["null", record(A, ("b", "int"))], "no branch .*: s.R.b: the writer has no such"),
    (record(A), [record(("b", "int"), name="q.R"), record(A, name="t.R")], ""),
    (
        [record(A), record(("b", "int"), name="s.Q")],
        [record(A), record(("b", "int"), name="s.Q")],
        "",
    ),
    # records in records, and in themselves
    (record(("r", record(A, name="I"))), record(("r", record(("a", "long"), name="I"))), ""),
    (record(("r", record(A, name="I"))), record(("r", record(("b", "int"), name="I"))), "s.I.b: "),
    (TREE, TREE, ""),
    (TREE, TREE_OF_LONG, ""),
    (TREE_OF_LONG, TREE, "s.R.value: the writer's long can't be read as int"),
    (TREE, TREE_OF_TEXT, "s.R.value: the writer's int can't be read as string"),
    (TWO, TWO, ""),
    (TWO, TWO_OTHER, "s.B.x: the writer's int can't be read as string"),
    # a bare value may be read
    (MILLIS, "long", ""),
    ("int", MILLIS, ""),
    (CENTS, "bytes", ""),
    ("bytes", CENTS, ""),
    # logical types are the same, or no value is
    (MILLIS, MILLIS, ""),
    (CENTS, CENTS, ""),
    (
        MILLIS,
        MICROS,
        "^the writer's timestamp-millis can't be read as timestamp-micros: logical",
    ),
    (
        MICROS,
        MILLIS,
        "timestamp-micros can't be read as timestamp-millis: .* must be equal, or",
    ),
    (MILLIS, logical("long", "local-timestamp-millis"), "can't be read as local-timestamp-millis"),
    (
        CENTS,
        decimal(4, 4),
        r"^the writer's decimal\(4, 2\) can't be read as decimal\(4, 4\): decimals",
    ),
    (CENTS, decimal(6, 2), "decimals must have the same precision and scale"),
    (logical("bytes", "decimal", precision=4), decimal(4, 0), ""),
    (logical("int", "time-millis"), logical("long", "time-micros"), "time-millis can't be read"),
    (logical("string", "uuid"), CENTS, "the writer's uuid can't be read as decimal"),
    (
        fixed(8, logicalType="decimal", precision=4, scale=2),
        fixed(8, logicalType="decimal", precision=4, scale=3),
        r"decimal\(4, 2\) can't be read as decimal\(4, 3\)",
    ),
    (record(("a", MILLIS)), record(("a", MICROS)), "^s.R.a: the writer's timestamp-millis can't"),
    (array(MILLIS), array(MICROS), r"^\[\]: the writer's timestamp-millis can't"),
    (["null", MILLIS], ["null", MICROS], "^the writer's timestamp-millis can't"),
    (MILLIS, ["null", MICROS, "double"], "^the writer's timestamp-millis can't"),
    # those that are not known, or stand at another type, are ignored
    (logical("long", "foo"), MICROS, ""),
    (logical("long", "foo"), logical("long", "bar"), ""),
    (logical("long", "date"), MICROS, ""),
    (logical("bytes", "decimal", precision=0), CENTS, ""),
]


@pytest.mark.parametrize(("writer", "reader", "said"), TABLE, ids=range(len(TABLE)))
def test_a_reader_can_read_a_writer(writer: Any, reader: Any, said: str) -> None:
    problems = unreadable(AvroSchema(writer), AvroSchema(reader))
    if not said:
        assert problems == []
    else:
        assert len(problems) == 1
        assert re.search(said, problems[0]), problems


def test_every_problem_is_told() -> None:
    writer = record(("a", "int"), ("b", "int"), ("e", enum("A", "B")))
    reader = record(("a", "string"), ("c", "int"), ("e", enum("A")))
    assert unreadable(AvroSchema(writer), AvroSchema(reader)) == [
        "s.R.a: the writer's int can't be read as string",
        "s.R.c: the writer has no such field, and no default is set",
        "s.R.e: the reader's s.E has no default, and no B",
    ]


def test_a_schema_whose_types_are_used_many_times_over_is_checked_in_no_time() -> None:
    """Without a memory of the pairs of records the check would take 2 to the 40 steps."""

    def tower(last: str) -> dict[str, Any]:
        inner: Any = record(("x", last), name="s.R0")
        for number in range(1, 41):
            below = f"s.R{number - 1}"
            inner = record(("one", inner), ("two", ["null", below]), name=f"s.R{number}")
        return inner  # type: ignore[no-any-return]

    assert unreadable(AvroSchema(tower("int")), AvroSchema(tower("long"))) == []
    found = unreadable(AvroSchema(tower("int")), AvroSchema(tower("string")))
    assert found[0] == "s.R0.x: the writer's int can't be read as string"


def test_unions_within_unions_are_checked_in_no_time() -> None:
    def nest(last: str) -> Any:
        inner: Any = last
        for _ in range(45):
            inner = ["null", array(inner)]
        return inner

    assert len(unreadable(AvroSchema(nest("int")), AvroSchema(nest("string")))) == 1


BASE = record(A)
WITH_DEFAULT = record(A, ("b", "int", {"default": 0}))
WITHOUT_DEFAULT = record(A, ("b", "int"))
WIDER = record(("a", "long"))

#: Schemas before, the new one, and the rules that allow it.
RULES: list[tuple[list[Any], Any, set[str]]] = [
    ([], BASE, {"BACKWARD", "FORWARD", "FULL"}),
    ([BASE], WITH_DEFAULT, {"BACKWARD", "FORWARD", "FULL"}),
    ([BASE], WITHOUT_DEFAULT, {"FORWARD"}),
    ([WITHOUT_DEFAULT], BASE, {"BACKWARD"}),
    ([WITH_DEFAULT], BASE, {"BACKWARD", "FORWARD", "FULL"}),
    ([BASE], WIDER, {"BACKWARD"}),
    ([WIDER], BASE, {"FORWARD"}),
    ([BASE], record(("a", "string")), set()),
    ([BASE], record(("b", "int", {"default": 0}), A), {"BACKWARD", "FORWARD", "FULL"}),
]


@pytest.mark.parametrize(("before", "new", "allowed"), RULES, ids=range(len(RULES)))
def test_a_rule_allows_a_schema(before: list[Any], new: Any, allowed: set[str]) -> None:
    for rule in Compatibility:
        found = incompatibilities(AvroSchema(new), [AvroSchema(one) for one in before], rule)
        name = rule.value.removesuffix("_TRANSITIVE")
        assert (not found) is (name == "NONE" or name in allowed), (rule, found)


def test_transitive_rules_look_at_all_versions() -> None:
    """b loses its default in version 3, which reads version 2, and not version 1."""
    before = [AvroSchema(BASE), AvroSchema(WITH_DEFAULT)]
    new = AvroSchema(WITHOUT_DEFAULT)
    assert incompatibilities(new, before, Compatibility.BACKWARD) == ()
    assert incompatibilities(new, before, Compatibility.FULL) == ()
    assert incompatibilities(new, before, Compatibility.FORWARD_TRANSITIVE) == ()
    expected = (
        "the new schema can't read data of version 1: s.R.b: the writer has no such field, and no "
        "default is set",
    )
    assert incompatibilities(new, before, Compatibility.BACKWARD_TRANSITIVE) == expected
    assert incompatibilities(new, before, Compatibility.FULL_TRANSITIVE) == expected


def test_a_refusal_names_the_direction() -> None:
    new, before = AvroSchema("int"), [AvroSchema("long")]
    assert incompatibilities(AvroSchema("long"), [new], Compatibility.FORWARD) == (
        "version 1 can't read data of the new schema: the writer's long can't be read as int",
    )
    assert incompatibilities(new, before, Compatibility.FULL)[0].startswith("the new schema can't")
