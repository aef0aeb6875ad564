"""The serializer for Avro. Needs the extra `quorate[avro]`."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, cast

from quorate.errors import InvalidSchemaError, UnknownSchemaError
from quorate.object_rules import data_of
from quorate.serializers.avro.codec import Decode, decoder, encoder
from quorate.serializers.avro.compatibility import check_fingerprint
from quorate.serializers.avro.confluent import SCHEMA_ID, ConfluentRegistry
from quorate.serializers.avro.misfits import misfit
from quorate.serializers.avro.schema import AvroSchema, as_schema
from quorate.serializers.avro.sources import Given, SchemaSource, SchemaStore
from quorate.serializers.avro.types import Named
from quorate.settings import refused

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


class Avro:
    """Serializer for values of an Avro schema. Each value has the fingerprint of its schema.

    `schema` is written, and read as well unless `reader_schema` is given. What was written with
    another schema is read by Avro's rules of resolution. `schemas` says where the schemas of other
    writers are found: a SchemaRegistry, a SchemaStore, or a list of schemas. `confluent`: the
    address of a registry of Confluent, or a ConfluentRegistry; with it, values that the serializers
    of Confluent wrote can be read, too. `confluent_id`: the id of `schema` there; with it, values
    are written in Confluent's form, for programs that read nothing else.

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
        confluent_id: int | None = None,
    ) -> None:
        self.schema = as_schema(schema)
        try:
            self.reader_schema = self.schema if reader_schema is None else as_schema(reader_schema)
        except InvalidSchemaError as error:
            raise InvalidSchemaError(f"Avro: reader_schema: {error}") from None
        said = "Avro: schema and reader_schema"
        check_fingerprint(self.reader_schema, [self.schema], said)
        self._source = _source(schemas)
        self._confluent = ConfluentRegistry(confluent) if isinstance(confluent, str) else confluent
        if not isinstance(self._confluent, ConfluentRegistry | None):
            allowed = "the address of a registry, or a ConfluentRegistry"
            raise TypeError(refused("Avro", "confluent", allowed, confluent))
        head = HEADER.pack(MARKER, self.schema.fingerprint)
        self._decoders: dict[int, Decode] = {}
        self._confluent_decoders: dict[int, Decode] = {}
        if confluent_id is not None:
            head = CONFLUENT.pack(0, SCHEMA_ID.check("Avro", "confluent_id", confluent_id))
            if self._confluent is None:
                raise ValueError(
                    "Avro: confluent_id needs confluent, the registry that gave the id"
                )
            self._confluent_decoders[confluent_id] = decoder(self.schema, self.reader_schema)
        self._encode = encoder(self.schema, head)
        #: Whether `schemas` has the schema that is written; Confluent's readers do not need it.
        self._may_write = confluent_id is not None
        self._own = {one.fingerprint: one for one in (self.schema, self.reader_schema)}

    def serialize(self, topic: str, value: Any) -> bytes:
        """Return the value in Avro's single-object encoding; with confluent_id, in Confluent's.

        Raises ValueError or TypeError, which name the topic, the schema and the field, if the value
        does not fit the schema; UnknownSchemaError if the schema is not registered.
        """
        if not self._may_write:
            self._source.check_may_write(self.schema)
            self._check_known(self.schema)
            self._may_write = True
        try:
            return self._encode(value)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise self._misfit(topic, value, error) from error

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Return the value, in the form of the reader's schema.

        Raises ValueError, or what fastavro raises, if the bytes are not such a value, and
        UnknownSchemaError if the schema of their writer is not known.
        """
        if data.__class__ is not bytes:
            data = data_of("Avro", data)
        if len(data) >= HEADER.size and data[:2] == MARKER:
            fingerprint: int = HEADER.unpack_from(data)[1]
            decode = self._decoders.get(fingerprint)
            if decode is None:
                # the source first: it may know that other logical types were written
                schema = self._source.find(fingerprint) or self._own.get(fingerprint)
                if schema is None:
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

    def _misfit(self, topic: str, value: Any, error: Exception) -> Exception:
        """Return the error of a value that does not fit, with the place, the schema and the topic.

        fastavro's own errors name neither.
        """
        said = str(error)
        if not said.startswith("Avro.serialize: "):
            said = misfit(self.schema.type, value) or f"Avro.serialize: {said}"
        name = self.schema.type.name if isinstance(self.schema.type, Named) else self.schema.text
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return kind(f"{said}; the value is for topic {topic!r}, by the schema {name}")

    def _check_known(self, schema: AvroSchema) -> None:
        known = self._source.find(schema.fingerprint)
        if known is not None:
            check_fingerprint(schema, [known], "Avro.serialize")

    def _writer(self, source: SchemaSource | ConfluentRegistry, key: int, shown: str) -> AvroSchema:
        """Return the schema of a value's writer. Outside an event loop, wait until it is found."""
        found = source.find(key)
        if found is not None:
            return found
        lookup = source.look_up(key)
        if lookup is None:
            known = ", ".join(f"{one:016x}" for one in sorted({*self._own, *self._decoders}))
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
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        allowed = "a SchemaRegistry, a SchemaStore or a list of schemas"
        raise TypeError(refused("Avro", "schemas", allowed, given))
    return SchemaStore(given)
