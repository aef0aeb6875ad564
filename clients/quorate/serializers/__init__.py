"""Serializers turn a user's values into bytes, and bytes into values.

A serializer is any object with `serialize(topic, value) -> bytes` and
`deserialize(topic, data) -> value`, or a plain callable `value -> bytes` (`bytes -> value`).
A serializer never gets None: a null key or value stays null. docs/serializers.md shows each.

Avro, Msgspec, Protobuf, Pydantic and what belongs to them are imported at their first use: import
them by name. They are not in `__all__`, because most need a library that may not be installed, and
``from quorate.serializers import *`` would fail without any one of these.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quorate.serializers.coders import (
    Decode,
    Deserializer,
    DeserializerOf,
    Encode,
    Serde,
    Serializer,
    SerializerOf,
    decoder,
    encoder,
)
from quorate.serializers.numbers import Boolean, Double, Float, Integer, Long, Short
from quorate.serializers.plain import Bytes, Json, String, Uuid

if TYPE_CHECKING:
    from quorate.serializers.avro.compatibility import Compatibility as Compatibility
    from quorate.serializers.avro.compatibility import unreadable as unreadable
    from quorate.serializers.avro.confluent import Confluent as Confluent
    from quorate.serializers.avro.confluent import ConfluentRegistry as ConfluentRegistry
    from quorate.serializers.avro.schema import AvroSchema as AvroSchema
    from quorate.serializers.avro.serializer import Avro as Avro
    from quorate.serializers.avro.sources import SchemaSource as SchemaSource
    from quorate.serializers.avro.sources import SchemaStore as SchemaStore
    from quorate.serializers.msgspec_types import Msgspec as Msgspec
    from quorate.serializers.protobuf_messages import Protobuf as Protobuf
    from quorate.serializers.pydantic_models import Pydantic as Pydantic

#: What needs no further library.
__all__ = [
    "Boolean",
    "Bytes",
    "Decode",
    "Deserializer",
    "DeserializerOf",
    "Double",
    "Encode",
    "Float",
    "Integer",
    "Json",
    "Long",
    "Serde",
    "Serializer",
    "SerializerOf",
    "Short",
    "String",
    "Uuid",
    "decoder",
    "encoder",
]

#: Name -> module, for what needs a library, or is not small. It is imported at its first use.
_HOMES = {
    "Avro": "quorate.serializers.avro.serializer",
    "AvroSchema": "quorate.serializers.avro.schema",
    "Compatibility": "quorate.serializers.avro.compatibility",
    "Confluent": "quorate.serializers.avro.confluent",
    "ConfluentRegistry": "quorate.serializers.avro.confluent",
    "Msgspec": "quorate.serializers.msgspec_types",
    "Protobuf": "quorate.serializers.protobuf_messages",
    "Pydantic": "quorate.serializers.pydantic_models",
    "SchemaSource": "quorate.serializers.avro.sources",
    "SchemaStore": "quorate.serializers.avro.sources",
    "unreadable": "quorate.serializers.avro.compatibility",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'quorate.serializers' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
