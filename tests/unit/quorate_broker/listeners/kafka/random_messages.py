"""Messages of chance, of every API and version, drawn from the notation."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from proto.kafka.notation import Api, Field, Struct
from quorate_broker.listeners.kafka.codec import messages_of
from quorate_broker.listeners.kafka.wire import MalformedRequest
from tests.harness.kafka_messages import apis, client_messages

BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
TEXTS = ("", "a", "topic-1", "größer", "x" * 126, "y" * 127, "z" * 300)
#: kio makes times and enumerations of these, which have narrower bounds.
TIME_MAX = 2**31 - 1
ERROR_CODE_MAX = 100


class Case(NamedTuple):
    """One message in one version, in both directions."""

    api: Api
    version: int
    is_request: bool

    @property
    def struct(self) -> Struct:
        return self.api.request if self.is_request else self.api.response

    def draw(self, chance: random.Random) -> Any:
        """Return a message with random values in the fields that this version has."""
        return draw_struct(chance, self.struct, self.version, messages_of(self.api.key))

    def encode(self, message: Any) -> bytes:
        """Return the message's bytes, by the side that sends it."""
        if self.is_request:
            encoders = client_messages(self.api.key).REQUEST_ENCODERS
        else:
            encoders = messages_of(self.api.key).RESPONSE_ENCODERS
        return b"".join(encoders[self.version](message))

    def decode(self, data: bytes | bytearray) -> Any:
        """Return the message of these bytes, by the side that gets it."""
        if self.is_request:
            decoders = messages_of(self.api.key).REQUEST_DECODERS
        else:
            decoders = client_messages(self.api.key).RESPONSE_DECODERS
        return decoders[self.version](data, 0, len(data))

    def is_refused(self, data: bytes) -> bool:
        """Decode bytes that may be bad. Return whether they are refused, in the one way allowed."""
        try:
            self.decode(data)
        except MalformedRequest:
            return True
        return False

    def __str__(self) -> str:
        return f"{self.struct.name} v{self.version}"


def cases_of(api: Api) -> Iterator[Case]:
    """Return all messages and versions of an API."""
    for version in api.versions:
        yield Case(api, version, True)
        yield Case(api, version, False)


ALL = tuple(apis().values())


def draw_struct(chance: random.Random, struct: Struct, version: int, module: Any) -> Any:
    """Return a struct with random values; the fields with tags only sometimes."""
    values = {}
    for field in struct.in_version(version):
        values[field.name] = draw(chance, field, version, module)
    for field in struct.tagged(version):
        if chance.random() < 0.6:
            values[field.name] = draw(chance, field, version, module)
    return getattr(module, struct.name)(**values)


def draw(chance: random.Random, field: Field, version: int, module: Any) -> Any:
    """Return a random value of a field."""
    is_nullable = version in field.nullable
    # A tagged field is left out if it is null, where null is its default.
    if is_nullable and chance.random() < 0.3 and (field.tag is None or field.default == "None"):
        return None
    if not field.is_array:
        return draw_item(chance, field, version, module)
    count = chance.choice((0, 1, 2, 3))
    if field.struct is None and chance.random() < 0.2:
        count = chance.choice((16, 17, 126, 127, 200))
    return [draw_item(chance, field, version, module) for _ in range(count)]


def draw_item(chance: random.Random, field: Field, version: int, module: Any) -> Any:
    """Return a random value of a field, or of an item of its array."""
    kind = field.type
    if field.struct is not None:
        return draw_struct(chance, field.struct, version, module)
    if kind == "string":
        return chance.choice(TEXTS)
    if kind in ("bytes", "records"):
        return chance.randbytes(chance.choice((0, 1, 126, 127, 1000)))
    if kind == "uuid":
        return chance.choice((bytes(16), chance.randbytes(16)))
    if kind == "bool":
        return chance.random() < 0.5
    if kind == "float64":
        return chance.uniform(-1e9, 1e9)
    if kind == "uint16":
        return chance.randrange(1 << 16)
    if field.name.endswith("error_code"):
        return chance.randint(-1, ERROR_CODE_MAX)
    bits = BITS[kind]
    if field.name.endswith(("_ms", "timestamp")):
        return chance.randint(0, min(TIME_MAX, (1 << (bits - 1)) - 1))
    return chance.choice((0, -1, 1, chance.randrange(-(1 << (bits - 1)), 1 << (bits - 1))))
