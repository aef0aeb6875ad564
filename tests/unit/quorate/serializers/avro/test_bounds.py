"""Bytes and values that would take a process down are refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from quorate.errors import InvalidSchemaError
from quorate.serializers import Avro, AvroSchema
from quorate.serializers.avro.bounds import NESTED_MAX, check_bytes, is_recursive, is_unbounded
from tests.unit.quorate.serializers.avro.builders import array, enum, fixed, map_of, record

LINKED = record(("next", ["null", "s.R"]))
TREE = record(("value", "int"), ("below", array("s.R")))
#: A record of itself through another record, a map and a union.
WIDE = record(("m", map_of(["null", record(("up", ["string", "s.R"]), name="s.Q")])))
ALL = record(
    ("n", "null"),
    ("o", "boolean"),
    ("i", "int"),
    ("l", "long"),
    ("f", "float"),
    ("d", "double"),
    ("b", "bytes"),
    ("s", "string"),
    ("x", fixed(3)),
    ("e", enum("A", "B")),
    ("a", array("long")),
    ("m", map_of("string")),
    ("r", ["null", "s.R"]),
)
VALUE = {
    "n": None,
    "o": True,
    "i": -5,
    "l": 1 << 60,
    "f": 1.5,
    "d": 2.5,
    "b": b"abc",
    "s": "\u00eb",
    "x": b"123",
    "e": "B",
    "a": [1, -1, 1 << 40],
    "m": {"k": "v", "": ""},
}


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = {"next": value}
    return value


def test_types_that_contain_themselves_and_items_without_bytes_are_found() -> None:
    schema: Any
    for schema in (LINKED, TREE, WIDE, ALL):
        assert is_recursive(AvroSchema(schema).type)
        assert is_unbounded(AvroSchema(schema).type)
    empty = record(("a", "null"), ("b", record(name="s.E")), name="s.N")
    for schema in (array("null"), array(fixed(0)), record(("a", array(empty)))):
        assert not is_recursive(AvroSchema(schema).type)
        assert is_unbounded(AvroSchema(schema).type)
    twice: Any = record(("a", record(("x", "int"), name="s.I")), ("b", array("s.I")))
    for schema in ("int", array("int"), map_of("null"), array(["null"]), twice):
        assert not is_unbounded(AvroSchema(schema).type)


def test_a_value_that_is_nested_too_deeply_is_refused_and_the_process_lives() -> None:
    """fastavro overflows the stack of C: the test runs it in a process of its own."""
    program = """
from quorate.serializers import Avro
serde = Avro({"type": "record", "name": "R", "fields": [{"name": "n", "type": ["null", "R"]}]})
header = serde.serialize("topic", {"n": None})[:10]
for depth in (1_000, 100_000, 1_000_000):
    try:
        serde.deserialize("topic", header + b"\\x02" * depth + b"\\x00")
    except ValueError as error:
        print(error)
value = None
for _ in range(100_000):
    value = {"n": value}
try:
    serde.serialize("topic", value)
except ValueError as error:
    print(error)
while value is not None:
    value = value.pop("n")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the value is nested in more than 200 records") == 3
    assert done.stdout.count("the value is nested in more than 200 levels") == 1


def test_a_value_may_be_nested_to_the_bound() -> None:
    serde = Avro(LINKED, record(("next", ["null", "s.R"]), ("more", "int", {"default": 1})))
    value = nested(NESTED_MAX)
    data = serde.serialize("topic", value)
    assert Avro(LINKED).deserialize("topic", data) == value
    found = serde.deserialize("topic", data)
    for _ in range(NESTED_MAX):
        assert found["more"] == 1
        found = found["next"]
    assert found is None


def test_items_without_bytes_are_as_many_as_the_value_has_bytes() -> None:
    serde = Avro(record(("a", array("null")), ("b", "bytes")))
    header = serde.serialize("topic", {"a": [], "b": b""})[:10]
    many = bytes.fromhex("feffffffffffffffff01")  # (1 << 63) - 1
    with pytest.raises(ValueError, match="more items without bytes than bytes"):
        serde.deserialize("topic", header + many + b"\0\0")
    value = {"a": [None] * 12, "b": b""}
    assert serde.deserialize("topic", serde.serialize("topic", value)) == value


def test_the_walk_ends_where_the_value_ends() -> None:
    serde = Avro(ALL)
    value = {**VALUE, "r": {**VALUE, "r": None}}
    data = serde.serialize("topic", value)
    assert serde.deserialize("topic", data) == value
    for size in range(10, len(data)):
        with pytest.raises(ValueError, match=r"the value (is cut off|has)"):
            check_bytes(serde.schema.type, data[:size], 10)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x04", "the value has branch 2 of 2"),
        (b"\x01", "the value has branch -1 of 2"),
        (b"\xff" * 11, "the value is cut off"),
    ],
)
def test_a_branch_that_is_not_there_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_bytes(AvroSchema(LINKED).type, data, 0)


def test_a_schema_that_is_nested_by_names_is_refused_as_one_that_is_nested_in_its_text() -> None:
    chain: list[Any] = [record(("x", "int"), name="s.R0")]
    chain += [record(("x", f"s.R{number - 1}"), name=f"s.R{number}") for number in range(1, 5000)]
    with pytest.raises(InvalidSchemaError, match="nested too deeply: at most 100 levels"):
        AvroSchema(chain)
    AvroSchema(chain[:90])
