"""Makes encoders and decoders of values with fastavro. Needs the extra `quorate[avro]`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

from quorate.errors import InvalidSchemaError
from quorate.serializers.avro.bounds import check_bytes, check_nesting, is_recursive, is_unbounded
from quorate.serializers.avro.checks import check_of
from quorate.serializers.avro.conversion import conversion, tagged
from quorate.serializers.avro.defaults import default_of
from quorate.serializers.avro.logical_values import PREFIX
from quorate.serializers.avro.logical_values import writer as checked_writer
from quorate.serializers.avro.schema import AvroSchema
from quorate.serializers.avro.types import (
    MISSING,
    Array,
    Enum,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Type,
    Union,
    described,
)
from quorate.serializers.extras import missing

try:
    import fastavro
    from fastavro.read import LOGICAL_READERS
    from fastavro.write import LOGICAL_WRITERS
except ModuleNotFoundError as error:
    raise missing("Avro", "fastavro", "avro") from error

#: The name of a logical type of ours: its values have their type beside them; see tagged().
TAG: Final = "quorate-branch"

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes, int], Any]


def encoder(schema: AvroSchema, header: bytes) -> Encode:
    """Return a function that returns a header and the bytes of a value."""
    form, check = parsed(schema, logical=True), check_of(schema.type)
    may_nest = is_recursive(schema.type)

    def encode(value: Any) -> bytes:
        if may_nest:
            check_nesting(value)
        if check is not None:
            check(value)
        out = io.BytesIO()
        out.write(header)
        fastavro.schemaless_writer(out, form, value, strict_allow_default=True)
        return out.getvalue()

    return encode


def _with_type(value: Any, writer: Any, _: Any) -> tuple[str, Any]:
    return writer["type"], value


for _type in ("int", "long", "float", "double"):
    LOGICAL_READERS[f"{_type}-{TAG}"] = _with_type


#: Under names of ours, because other parts of the program may use fastavro.
for _name, _write in list(LOGICAL_WRITERS.items()):
    _kind, _, _word = _name.partition("-")
    LOGICAL_WRITERS[f"{_kind}-{PREFIX}{_word}"] = checked_writer(_write)
    LOGICAL_READERS[f"{_kind}-{PREFIX}{_word}"] = LOGICAL_READERS[_name]


def decoder(writer: AvroSchema, reader: AvroSchema) -> Decode:
    """Return a function that decodes a value of the writer, from an offset to the end of bytes."""
    if writer.fingerprint == reader.fingerprint and not writer.clashes_with(reader):
        # the same bytes: only the reader's defaults, which are not needed, and logical types that
        # the writer does not have, or the reader
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
        try:
            value = fastavro.schemaless_reader(source, schema, None, return_named_type=has_names)
        except EOFError:
            raise ValueError(
                f"the value is cut off: its {len(data) - offset} bytes are fewer than a value of "
                f"{described(writer.type)} needs"
            ) from None
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
    # As values: fastavro would take the JSON of a default, also where it is a string for bytes.
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


def _renamed(logical: Mapping[str, Any]) -> dict[str, Any]:
    """Return a logical type under the name of our own writer and reader of it."""
    return {**logical, "logicalType": PREFIX + logical["logicalType"]} if logical else {}


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
            if not logical or not type.logical:
                return type.kind
            return {"type": type.kind, **_renamed(type.logical)}
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
                **(_renamed(type.logical) if logical else {}),
            }
        case Enum():
            return {"type": "enum", "symbols": list(type.symbols), **names}
        case Record():
            fields = [
                {"name": one.name, "type": _form(one.type, defined, logical=logical)}
                for one in type.fields
            ]
            return {"type": "record", "fields": fields, **names}
