"""What a serializer is, and the function that a client calls for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

Encode = Callable[[str, Any], bytes]
Decode = Callable[[str, bytes], Any]


class Serializer(Protocol[T_contra]):
    """Turns values of a type into bytes."""

    def serialize(self, topic: str, value: T_contra) -> bytes:
        """Return the value's bytes. An exception of any kind refuses the value."""


class Deserializer(Protocol[T_co]):
    """Turns bytes into values of a type."""

    def deserialize(self, topic: str, data: bytes) -> T_co:
        """Return the value. An exception of any kind refuses the bytes."""


class Serde(Serializer[T], Deserializer[T], Protocol[T]):
    """Both. All serializers of this package are."""


#: What clients take as a serializer and a deserializer of values of a type.
SerializerOf = Serializer[T] | Callable[[T], bytes]
DeserializerOf = Deserializer[T] | Callable[[bytes], T]


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
