"""The serializer for Avro. Needs the extra `quorate[avro]`."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, cast

from quorate.errors import InvalidSchemaError, UnknownSchemaError
from quorate.serializers.avro.bounds import (
    check_bytes,
    check_nesting,
    is_recursive,
    is_unbounded,
)
from quorate.serializers.avro.checks import check_of
from quorate.serializers.avro.confluent import ConfluentRegistry
from quorate.serializers.avro.conversion import conversion, tagged
from quorate.serializers.avro.defaults import default_of
from quorate.serializers.avro.schema import AvroSchema, as_schema
from quorate.serializers.avro.sources import Given, SchemaSource, SchemaStore
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
)
from quorate.serializers.extras import missing
from quorate.settings import refused

try:
    import fastavro
    from fastavro.read import LOGICAL_READERS
except ModuleNotFoundError as error:
    raise missing("Avro", "fastavro", "avro") from error

#: Avro's single-object encoding: the marker, then the writer's fingerprint, then the value.
HEADER: Final = struct.Struct(
    "<"
    "2s"  # marker: C3 01
    "Q"  # fingerprint: CRC-64-AVRO of the writer's schema, little-endian
)
MARKER: Final = b"\xc3\x01"
#: What serializers of Confluent's registry write before the value.
CONFLUENT: Final = struct.Struct(
    ">"
    "b"  # magic: 0
    "I"  # schema id
)
#: The longest wait of a call outside an event loop for a schema that is looked for.
LOOKUP_MAX_S: Final = 30.0

#: The name of a logical type of ours: its values have their type beside them; see tagged().
TAG: Final = "quorate-branch"

Decode = Callable[[bytes, int], Any]


class Avro:
    """Serializer for values of an Avro schema. Each value has the fingerprint of its schema.

    `schema` is written, and read as well unless `reader_schema` is given. What was written with
    another schema is read by Avro's rules of resolution. `schemas` says where the schemas of other
    writers are found: a SchemaRegistry, a SchemaStore, or a list of schemas. `confluent`: the
    address of a registry of Confluent, or a ConfluentRegistry; with it, values that the serializers
    of Confluent wrote can be read, too.

        orders = Avro(ORDER, schemas=registry)
        Producer(value_serializer=orders)
    """

    def __init__(
        self,
        schema: Given,
        reader_schema: Given | None = None,
        *,
        schemas: SchemaSource | Iterable[Given] | None = None,
        confluent: ConfluentRegistry | str | None = None,
    ) -> None:
        self.schema = as_schema(schema)
        self.reader_schema = self.schema if reader_schema is None else as_schema(reader_schema)
        self._source = _source(schemas)
        self._confluent = ConfluentRegistry(confluent) if isinstance(confluent, str) else confluent
        self._header = HEADER.pack(MARKER, self.schema.fingerprint)
        self._parsed = parsed(self.schema, logical=True)
        self._check = check_of(self.schema.type)
        self._may_nest = is_recursive(self.schema.type)
        self._may_write = False
        self._decoders: dict[int, Decode] = {}
        self._confluent_decoders: dict[int, Decode] = {}
        for one in (self.schema, self.reader_schema):
            self._decoders[one.fingerprint] = decoder(one, self.reader_schema)

    def serialize(self, topic: str, value: Any) -> bytes:
        """Return the value in Avro's single-object encoding.

        Raises ValueError or TypeError if the value does not fit the schema, and UnknownSchemaError
        if the schema is not registered.
        """
        if not self._may_write:
            self._source.check_may_write(self.schema)
            self._may_write = True
        if self._may_nest:
            check_nesting(value)
        if self._check is not None:
            self._check(value)
        out = io.BytesIO()
        out.write(self._header)
        fastavro.schemaless_writer(out, self._parsed, value, strict_allow_default=True)
        return out.getvalue()

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Return the value, in the form of the reader's schema.

        Raises ValueError, or what fastavro raises, if the bytes are not such a value, and
        UnknownSchemaError if the schema of their writer is not known.
        """
        if len(data) >= HEADER.size and data[:2] == MARKER:
            fingerprint: int = HEADER.unpack_from(data)[1]
            decode = self._decoders.get(fingerprint)
            if decode is None:
                schema = self._writer(self._source, fingerprint, f"{fingerprint:016x}")
                decode = self._decoders[fingerprint] = decoder(schema, self.reader_schema)
            return decode(data, HEADER.size)
        if self._confluent is not None and len(data) >= CONFLUENT.size and data[0] == 0:
            number: int = CONFLUENT.unpack_from(data)[1]
            decode = self._confluent_decoders.get(number)
            if decode is None:
                schema = self._writer(self._confluent, number, f"{number}")
                decode = self._confluent_decoders[number] = decoder(schema, self.reader_schema)
            return decode(data, CONFLUENT.size)
        allowed = "a value in Avro's single-object encoding, which begins with C3 01"
        if data[:1] == b"\0" and self._confluent is None:
            allowed += " (a value of Confluent's serializers needs Avro(confluent=ADDRESS))"
        raise ValueError(refused("Avro.deserialize", "data", allowed, bytes(data)))

    def _writer(self, source: SchemaSource | ConfluentRegistry, key: int, shown: str) -> AvroSchema:
        """Return the schema of a value's writer. Outside an event loop, wait until it is found."""
        found = source.find(key)
        if found is not None:
            return found
        lookup = source.look_up(key)
        if lookup is None:
            known = ", ".join(f"{one:016x}" for one in sorted(self._decoders))
            raise UnknownSchemaError(
                f"the value was written with a schema of the fingerprint {shown}, which is not "
                f"known here; known are {known}. Give it as Avro(schemas=[...]), or give a "
                "SchemaRegistry"
            )
        if not lookup.done():
            if asyncio._get_running_loop() is not None:
                raise UnknownSchemaError(f"the schema {shown} is looked for", lookup)
            _wait(lookup)
        found = source.find(key)
        if found is None:
            source.look_up(key)  # a failure is told once: this was it
            why = lookup.exception(0)
            raise UnknownSchemaError(f"the schema {shown} of the value was not found: {why}")
        return found


def _wait(lookup: Future[None]) -> None:
    try:
        lookup.exception(LOOKUP_MAX_S)
    except TimeoutError:
        raise UnknownSchemaError(f"the schema was not found within {LOOKUP_MAX_S:g} s") from None


def _source(given: SchemaSource | Iterable[Given] | None) -> SchemaSource:
    if given is None:
        return SchemaStore()
    if hasattr(given, "check_may_write"):
        return cast(SchemaSource, given)
    if isinstance(given, str | bytes | Mapping):
        allowed = "a SchemaRegistry, a SchemaStore or a list of schemas"
        raise TypeError(refused("Avro", "schemas", allowed, given))
    return SchemaStore(given)


def _with_type(value: Any, writer: Any, _: Any) -> tuple[str, Any]:
    return writer["type"], value


for _type in ("int", "long", "float", "double"):
    LOGICAL_READERS[f"{_type}-{TAG}"] = _with_type


def decoder(writer: AvroSchema, reader: AvroSchema) -> Decode:
    """Return a function that decodes a value of the writer, from an offset to the end of bytes."""
    if writer.fingerprint == reader.fingerprint:
        # the same bytes: only the reader's defaults, which are not needed, and logical types differ
        schema, convert = parsed(reader, logical=True), None
    else:
        schema = parsed(writer, logical=False)
        convert = conversion(writer.type, reader.type, logical_value)
    has_names = convert is not None
    must_check = is_unbounded(writer.type)

    def decode(data: bytes, offset: int) -> Any:
        if must_check:
            check_bytes(writer.type, data, offset)
        source = io.BytesIO(data)
        source.seek(offset)
        value = fastavro.schemaless_reader(source, schema, None, return_named_type=has_names)
        if source.tell() != len(data):
            raise ValueError(f"the value ends at byte {source.tell()} of {len(data)}")
        return value if convert is None else convert(value)

    return decode


def logical_value(type: Type, value: Any) -> Any:
    """Return a value as its logical type has it; the same value if it has none that is known."""
    if not isinstance(type, Primitive | Fixed) or not type.logical:
        return value
    word = type.kind if isinstance(type, Primitive) else "fixed"
    read = LOGICAL_READERS.get(f"{word}-{type.logical['logicalType']}")
    return value if read is None else read(value, {"type": word, **type.logical}, None)


def parsed(schema: AvroSchema, *, logical: bool) -> Any:
    """Return the schema as fastavro wants it, with or without its logical types."""
    form = _form(schema.type, set(), logical=logical)
    try:
        named: dict[str, Any] = {}
        found = fastavro.parse_schema(form, named)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidSchemaError(
            f"fastavro refuses the schema {schema.text}: {type(error).__name__}: {error}"
        ) from error
    # fastavro takes a default as it stands in the JSON, also where it is a string for bytes
    for record in _records(schema.type, {}).values():
        for field, form in zip(record.fields, named[record.name]["fields"], strict=True):
            if field.default is not MISSING:
                form["default"] = default_of(field.type, field.default, lambda _, value: value)
    return found


def _records(type: Type, found: dict[str, Record]) -> dict[str, Record]:
    inner: list[Type] = []
    match type:
        case Array():
            inner = [type.items]
        case Map():
            inner = [type.values]
        case Union():
            inner = list(type.branches)
        case Record() if type.name not in found:
            found[type.name] = type
            inner = [field.type for field in type.fields]
    for one in inner:
        _records(one, found)
    return found


def _form(type: Type, defined: set[str], *, logical: bool) -> Any:
    """Return a type as JSON, with full names."""
    names: dict[str, Any] = {}
    if isinstance(type, Named):
        if type.name in defined:
            return type.name
        defined.add(type.name)
        namespace, _, name = type.name.rpartition(".")
        names = {"name": name, "namespace": namespace}
    match type:
        case Primitive():
            return {"type": type.kind, **type.logical} if logical and type.logical else type.kind
        case Array():
            return {"type": "array", "items": _form(type.items, defined, logical=logical)}
        case Map():
            return {"type": "map", "values": _form(type.values, defined, logical=logical)}
        case Union():
            forms = [_form(branch, defined, logical=logical) for branch in type.branches]
            if logical:
                return forms
            tags = tagged(type)
            return [
                {"type": form, "logicalType": TAG}
                if isinstance(form, str) and form in tags
                else form
                for form in forms
            ]
        case Fixed():
            return {
                "type": "fixed",
                "size": type.size,
                **names,
                **(type.logical if logical else {}),
            }
        case Enum():
            return {"type": "enum", "symbols": list(type.symbols), **names}
        case Record():
            fields = [_field_form(field, defined, logical=logical) for field in type.fields]
            return {"type": "record", "fields": fields, **names}


def _field_form(field: Field, defined: set[str], *, logical: bool) -> dict[str, Any]:
    form: dict[str, Any] = {
        "name": field.name,
        "type": _form(field.type, defined, logical=logical),
    }
    if field.default is not MISSING:
        form["default"] = json.loads(json.dumps(field.default))
    return form
