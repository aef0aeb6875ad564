"""Serializers turn a user's values into bytes, and bytes into values.

A serializer is any object with `serialize(topic, value) -> bytes` and
`deserialize(topic, data) -> value`, or a plain callable `value -> bytes` (`bytes -> value`).
A serializer never gets None: a null key or value stays null.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Encode = Callable[[str, Any], bytes]
Decode = Callable[[str, bytes], Any]


class String:
    """Serializer for text.

    >>> String().serialize("topic", "9.50")
    b'9.50'
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        self.encoding = encoding

    def serialize(self, topic: str, value: str) -> bytes:
        """Return the text's bytes. Raise UnicodeEncodeError if the encoding lacks a character."""
        return value.encode(self.encoding)

    def deserialize(self, topic: str, data: bytes) -> str:
        """Return the text. Raise UnicodeDecodeError if the bytes are invalid in the encoding."""
        return data.decode(self.encoding)


class Json:
    """Serializer for any JSON value, as compact UTF-8.

    >>> Json().serialize("topic", {"a": [1, None]})
    b'{"a":[1,null]}'
    """

    def serialize(self, topic: str, value: Any) -> bytes:
        """Return the value as JSON. Raise TypeError or ValueError if it has no JSON form."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Return the value. Raise json.JSONDecodeError (a ValueError) if the bytes are not JSON."""
        return json.loads(data)


def encoder(serializer: object | None) -> Encode | None:
    """Return a function (topic, value) -> bytes; None if there is no serializer."""
    if serializer is None:
        return None
    method = getattr(serializer, "serialize", None)
    if method is not None:
        return method  # type: ignore[no-any-return]
    if callable(serializer):
        return lambda _topic, value: serializer(value)
    raise ValueError(
        f"a serializer must be callable or have serialize(topic, value), not {serializer!r}"
    )


def decoder(deserializer: object | None) -> Decode | None:
    """Return a function (topic, bytes) -> value; None if there is no deserializer."""
    if deserializer is None:
        return None
    method = getattr(deserializer, "deserialize", None)
    if method is not None:
        return method  # type: ignore[no-any-return]
    if callable(deserializer):
        return lambda _topic, data: deserializer(data)
    raise ValueError(
        f"a deserializer must be callable or have deserialize(topic, data), not {deserializer!r}"
    )
