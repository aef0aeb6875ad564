"""Schemas: what is one, its canonical form, its fingerprint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quorate.errors import InvalidSchemaError
from quorate.serializers import AvroSchema

RECORD = {"type": "record", "name": "foo", "fields": []}

#: Schema, canonical form, fingerprint (signed), as Avro's own implementations have them.
TABLE: list[tuple[Any, str, int]] = [
    ("null", '"null"', 7195948357588979594),
    ("boolean", '"boolean"', -6970731678124411036),
    ({"type": "int", "doc": "pieces"}, '"int"', 8247732601305521295),
    ('"long"', '"long"', -3434872931120570953),
    ("float", '"float"', 5583340709985441680),
    ("double", '"double"', -8181574048448539266),
    ({"type": "bytes", "logicalType": "decimal"}, '"bytes"', 5746618253357095269),
    ("string", '"string"', -8142146995180207161),
    ("[ ]", "[]", -1241056759729112623),
    (["int"], '["int"]', -5232228896498058493),
    (["int", {"type": "boolean"}], '["int","boolean"]', 5392556393470105090),
    (RECORD, '{"name":"foo","type":"record","fields":[]}', -4824392279771201922),
    (
        {**RECORD, "doc": "x", "aliases": ["bar"]},
        '{"name":"foo","type":"record","fields":[]}',
        -4824392279771201922,
    ),
    (
        {**RECORD, "namespace": "x.y"},
        '{"name":"x.y.foo","type":"record","fields":[]}',
        5916914534497305771,
    ),
    (
        {**RECORD, "name": "a.b.foo", "namespace": "x.y"},
        '{"name":"a.b.foo","type":"record","fields":[]}',
        -4616218487480524110,
    ),
    (
        {**RECORD, "fields": [{"type": {"type": "boolean"}, "name": "f1", "default": True}]},
        '{"name":"foo","type":"record","fields":[{"name":"f1","type":"boolean"}]}',
        7843277075252814651,
    ),
    (
        {"type": "enum", "name": "foo", "symbols": ["A1", "A2"], "namespace": "x.y.z"},
        '{"name":"x.y.z.foo","type":"enum","symbols":["A1","A2"]}',
        -4448647247586288245,
    ),
    (
        {"type": "fixed", "name": "foo", "size": 15},
        '{"name":"foo","type":"fixed","size":15}',
        1756455273707447556,
    ),
    (
        {"type": "array", "items": {"type": "null"}},
        '{"type":"array","items":"null"}',
        -589620603366471059,
    ),
    (
        {"values": "string", "type": "map"},
        '{"type":"map","values":"string"}',
        -8732877298790414990,
    ),
    (
        {
            "type": "record",
            "name": "PigValue",
            "fields": [{"name": "value", "type": ["null", "int", "long", "PigValue"]}],
        },
        '{"name":"PigValue","type":"record","fields":'
        '[{"name":"value","type":["null","int","long","PigValue"]}]}',
        -1759257747318642341,
    ),
]


@pytest.mark.parametrize(("given", "canonical", "fingerprint"), TABLE)
def test_a_schema_has_this_canonical_form_and_fingerprint(
    given: Any, canonical: str, fingerprint: int
) -> None:
    schema = AvroSchema(given)
    assert schema.canonical == canonical
    assert schema.fingerprint == fingerprint % (1 << 64)
    assert AvroSchema(canonical).canonical == canonical


def test_names_belong_to_the_namespace_around_them() -> None:
    schema = AvroSchema(
        {
            "type": "record",
            "name": "a.Outer",
            "fields": [
                {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
                {"name": "again", "type": "E"},
                {"name": "f", "type": {"type": "fixed", "name": "b.F", "size": 1}},
                {
                    "name": "r",
                    "type": {
                        "type": "record",
                        "name": "R",
                        "namespace": "",
                        "fields": [
                            {"name": "g", "type": {"type": "fixed", "name": "G", "size": 2}},
                            {"name": "up", "type": "a.Outer"},
                        ],
                    },
                },
                {"name": "s", "type": "R"},
            ],
        }
    )
    fields = {one["name"]: one["type"] for one in json.loads(schema.canonical)["fields"]}
    assert fields["e"]["name"] == fields["again"] == "a.E"
    assert fields["f"]["name"] == "b.F"
    assert fields["r"]["name"] == fields["s"] == "R"
    assert [one["type"] for one in fields["r"]["fields"]] == [
        {"name": "G", "type": "fixed", "size": 2},
        "a.Outer",
    ]


def test_schemas_are_equal_by_their_json() -> None:
    one, other = AvroSchema({"type": "int", "doc": "x"}), AvroSchema('{"doc": "x", "type": "int"}')
    assert one == other
    assert len({one, other, AvroSchema("int")}) == 2
    assert repr(AvroSchema("int")) == 'AvroSchema("int")'


def field(type: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "s.R", "fields": [{"name": "f", "type": type, **more}]}


NESTED: Any = "int"
for _ in range(2000):
    NESTED = {"type": "array", "items": NESTED}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "the schema is not JSON"),
        (7, "must be a name of a type, an object with a type, or a list of types .* not 7"),
        ("integer\n", "not JSON: .* type 'integer' is not defined: .*; did you mean \"int\""),
        ("hello", r"is not JSON: .* 'hello' is not defined: it is no primitive type \(null, .*\)"),
        ('"strng"', "the type 'strng' is not defined before; .*; did you mean \"string\"?"),
        ({"type": "recrd"}, "the type 'recrd' is not defined before; .*; did you mean \"record\"?"),
        ({"type": "array"}, '"items" is missing'),
        ({"type": "map"}, '"values" is missing'),
        ({"name": "x"}, '"type" is missing'),
        (["int", "int"], "a union has each type once, and int is there again"),
        (["int", ["null"]], r"the schema\[1\]: a union must not be directly in a union"),
        ({"type": "record", "fields": []}, '"name" must be .* not None'),
        ({"type": "record", "name": "a-b", "fields": []}, "\"name\" must be .* not 'a-b'"),
        ({"type": "record", "name": "int", "fields": []}, "not be that of a primitive type"),
        ({"type": "record", "name": "R", "namespace": "a..b", "fields": []}, '"namespace" must be'),
        ({"type": "record", "name": "R"}, 'record R: "fields" must be a list of fields, not None'),
        ({"type": "record", "name": "R", "fields": [7]}, "field 0 of record R: must be an object"),
        ({"type": "record", "name": "R", "fields": [{"name": "1"}]}, "field 0 of record R: .*'1'"),
        ({"type": "record", "name": "R", "fields": [{"name": "f"}]}, 'field f of .*"type" is mis'),
        (field("x"), "field f of record s.R: the type 'x' is not defined before; .*: s.R"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "f", "type": "int"}] * 2},
            "the field 'f' is there twice",
        ),
        (field("int", default="1"), "field f of record s.R: \"default\" must be .* int, not '1'"),
        (field("int", default=1 << 31), '"default" must be'),
        (field("int", default=float("inf")), '"default" must be'),
        (field("boolean", default="true"), '"default" must be'),
        (field("bytes", default="\u0100"), '"default" must be'),
        (field(["null", "int"], default="x"), '"default" must be'),
        (field({"type": "array", "items": "int"}, default=[1, "2"]), '"default" must be'),
        (field({"type": "map", "values": "int"}, default={"a": None}), '"default" must be'),
        (field({"type": "fixed", "name": "F", "size": 2}, default="a"), '"default" must be'),
        (field({"type": "enum", "name": "E", "symbols": ["A"]}, default="B"), '"default" must be'),
        (field("s.R", default={}), "nested too deeply"),
        (field("int", aliases="g"), '"aliases" must be a list of names'),
        ({"type": "enum", "name": "E"}, 'enum E: "symbols" is missing'),
        ({"type": "enum", "name": "E", "symbols": ["A", "A"]}, "enum E: a symbol is there twice"),
        ({"type": "enum", "name": "E", "symbols": ["A-"]}, "enum E: a symbol must be letters"),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, "one of its symbols"),
        ({"type": "fixed", "name": "F", "size": -1}, 'fixed F: "size" must be a number of bytes'),
        ({"type": "fixed", "name": "F", "size": True}, 'fixed F: "size" must be'),
        (
            [
                {"type": "fixed", "name": "F", "size": 1},
                {"type": "enum", "name": "F", "symbols": []},
            ],
            "the type F is defined twice",
        ),
        (NESTED, "nested too deeply"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(given: Any, said: str) -> None:
    with pytest.raises(InvalidSchemaError, match=said):
        AvroSchema(given)


def test_a_logical_type_that_is_invalid_is_ignored() -> None:
    for wrong in ({}, {"precision": 0}, {"precision": 2, "scale": 3}, {"precision": "4"}):
        schema = AvroSchema({"type": "bytes", "logicalType": "decimal", **wrong})
        assert schema.type == AvroSchema("bytes").type


def test_a_primitive_type_may_stand_alone_in_a_line() -> None:
    assert AvroSchema(" int\n") == AvroSchema('"int"')
