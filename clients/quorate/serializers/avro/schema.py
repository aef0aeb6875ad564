"""A schema of Avro: its text, its types, its canonical form and its fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from quorate.errors import InvalidSchemaError
from quorate.serializers.avro.logical import clashes
from quorate.serializers.avro.parser import parse, unlike
from quorate.serializers.avro.types import (
    PRIMITIVES,
    Array,
    Enum,
    Fixed,
    Map,
    Named,
    Primitive,
    Type,
    Union,
)
from quorate.settings import refused

#: The CRC of nothing, which is also the polynomial (Avro 1.12, "Schema Fingerprints").
EMPTY: Final = 0xC15D213AA4D7A795


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (EMPTY if byte & 1 else 0)
    return byte


TABLE: Final = tuple(_row(byte) for byte in range(256))


def crc_64_avro(data: bytes) -> int:
    """Return Avro's CRC of 64 bits (the Rabin fingerprint), as an unsigned number.

    >>> hex(crc_64_avro(b'"int"'))
    '0x7275d51a3f395c8f'
    """
    crc = EMPTY
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc


def canonical_form(type: Type) -> str:
    """Return Avro's parsing canonical form: equal for schemas that write the same bytes.

    >>> canonical_form(parse({"type": "array", "doc": "many", "items": {"type": "int"}}))
    '{"type":"array","items":"int"}'
    """
    return _canonical(type, set())


def _canonical(type: Type, defined: set[str]) -> str:
    if isinstance(type, Named):
        if type.name in defined:
            return f'"{type.name}"'
        defined.add(type.name)
    match type:
        case Primitive():
            return f'"{type.kind}"'
        case Array():
            return f'{{"type":"array","items":{_canonical(type.items, defined)}}}'
        case Map():
            return f'{{"type":"map","values":{_canonical(type.values, defined)}}}'
        case Union():
            return f"[{','.join(_canonical(branch, defined) for branch in type.branches)}]"
        case Fixed():
            return f'{{"name":"{type.name}","type":"fixed","size":{type.size}}}'
        case Enum():
            symbols = ",".join(f'"{symbol}"' for symbol in type.symbols)
            return f'{{"name":"{type.name}","type":"enum","symbols":[{symbols}]}}'
        case _:
            fields = ",".join(
                f'{{"name":"{field.name}","type":{_canonical(field.type, defined)}}}'
                for field in type.fields
            )
            return f'{{"name":"{type.name}","type":"record","fields":[{fields}]}}'


def _decoded(text: str) -> Any:
    """Return the JSON of a schema. The name of a primitive type may stand without quotes."""
    if text in PRIMITIVES:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        said = f"the schema is not JSON: {error}"
        if text[:1] not in ("{", "[", '"'):
            said += f", and the type {text[:40]!r} is not defined: it is {unlike(text, PRIMITIVES)}"
        raise InvalidSchemaError(said) from None


class AvroSchema:
    """A schema that was checked. Equal schemas have the same JSON; the order of keys is ignored.

    The schema is given as JSON text, or as what json.loads makes of it. Raises InvalidSchemaError.

    >>> AvroSchema('{"type": "int", "doc": "pieces"}').fingerprint == AvroSchema("int").fingerprint
    True
    """

    __slots__ = ("canonical", "fingerprint", "text", "type")

    def __init__(self, schema: str | Mapping[str, Any] | list[Any]) -> None:
        decoded: Any = schema
        if isinstance(schema, str):
            decoded = _decoded(schema.strip())
        self.type = parse(decoded)
        #: The schema as JSON, without anything that does not belong to it.
        self.text = json.dumps(decoded, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.canonical = canonical_form(self.type)
        #: CRC-64-AVRO of the canonical form, which travels with each value.
        self.fingerprint = crc_64_avro(self.canonical.encode())

    def clashes_with(self, other: AvroSchema) -> list[str]:
        """Return why a fingerprint must not stand for both schemas; an empty list: it may.

        Logical types are not in the canonical form, so two schemas that write other values may
        have one fingerprint. A reader could not tell which of them a value was written with.
        """
        if not isinstance(other, AvroSchema):
            raise TypeError(refused("AvroSchema.clashes_with", "other", "an AvroSchema", other))
        if self.fingerprint != other.fingerprint or self.text == other.text:
            return []
        return clashes(self.type, other.type)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AvroSchema) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"AvroSchema({self.text})"


def as_schema(schema: AvroSchema | str | Mapping[str, Any] | list[Any]) -> AvroSchema:
    """Return a schema that may be given as JSON, too."""
    return schema if isinstance(schema, AvroSchema) else AvroSchema(schema)
