"""Serializers of text, JSON, bytes and UUIDs."""

from __future__ import annotations

import codecs
import json
import uuid
from typing import Any

from quorate.object_rules import data_of
from quorate.settings import refused


class String:
    """Serializer for text.

    >>> String().serialize("topic", "9.50")
    b'9.50'
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        try:
            codecs.lookup(encoding)
        except (LookupError, TypeError, ValueError) as error:
            wrong = TypeError if isinstance(error, TypeError) else ValueError
            allowed = "an encoding that Python knows, as utf-8"
            raise wrong(refused("String", "encoding", allowed, encoding)) from None
        self.encoding = encoding

    def serialize(self, topic: str, value: str) -> bytes:
        """Return the text's bytes. Raise UnicodeEncodeError if the encoding lacks a character."""
        if not isinstance(value, str):
            raise TypeError(refused("String.serialize", "value", "a string", value))
        return value.encode(self.encoding)

    def deserialize(self, topic: str, data: bytes) -> str:
        """Return the text. Raise UnicodeDecodeError if the bytes are invalid in the encoding."""
        if data.__class__ is not bytes:
            data = data_of("String", data)
        return data.decode(self.encoding)


class Json:
    """Serializer for any JSON value, as compact UTF-8.

    >>> Json().serialize("topic", {"a": [1, None]})
    b'{"a":[1,null]}'
    """

    def serialize(self, topic: str, value: Any) -> bytes:
        """Return the value as JSON. Raise TypeError or ValueError if it has no JSON form.

        NaN and infinity have none: readers in other languages refuse what Python writes for them.
        """
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except TypeError as error:
            said = refused("Json.serialize", "value", "a value of JSON", value)
            raise TypeError(f"{said}: {error}") from None
        except ValueError as error:
            allowed = "a value of JSON, which has no NaN and no infinity"
            said = refused("Json.serialize", "value", allowed, value)
            raise ValueError(f"{said}: {error}") from None
        return text.encode()

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Return the value. Raise json.JSONDecodeError (a ValueError) if the bytes are not JSON."""
        if data.__class__ is not bytes:
            data = data_of("Json", data)
        return json.loads(data)


class Bytes:
    """Serializer for bytes, which stay as they are. It refuses all other types."""

    def serialize(self, topic: str, value: bytes | bytearray | memoryview) -> bytes:
        """Return the bytes. Raise TypeError if they are none."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(refused("Bytes.serialize", "value", "bytes", value))
        return bytes(value)

    def deserialize(self, topic: str, data: bytes) -> bytes:
        """Return the bytes."""
        return data if data.__class__ is bytes else data_of("Bytes", data)


class Uuid:
    """Serializer for UUIDs as text of 36 characters, as Kafka's UUIDSerializer.

    >>> Uuid().serialize("topic", uuid.UUID(int=1))
    b'00000000-0000-0000-0000-000000000001'
    """

    _TEXT = "a UUID as text, as 123e4567-e89b-42d3-a456-426614174000"

    def serialize(self, topic: str, value: uuid.UUID) -> bytes:
        """Return the UUID's text. Raise TypeError if it is no uuid.UUID."""
        if not isinstance(value, uuid.UUID):
            raise TypeError(refused("Uuid.serialize", "value", "a uuid.UUID", value))
        return str(value).encode()

    def deserialize(self, topic: str, data: bytes) -> uuid.UUID:
        """Return the UUID. Raise ValueError if the bytes are not its text."""
        data = data_of("Uuid", data)
        try:
            text = data.decode("ascii")
            found = uuid.UUID(text)
        except ValueError:
            raise ValueError(refused("Uuid.deserialize", "data", self._TEXT, data)) from None
        # uuid.UUID() takes braces, and hyphens at any place, too
        if str(found) != text.lower():
            raise ValueError(refused("Uuid.deserialize", "data", self._TEXT, data))
        return found
