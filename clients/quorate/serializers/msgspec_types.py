"""Serializer of msgspec's structs, and of every other type that msgspec knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec

from quorate.object_rules import data_of
from quorate.settings import OneOf, refused

T = TypeVar("T")

FORMAT = OneOf(("json", "msgpack"), "the form of the bytes")


class Msgspec(Generic[T]):
    r"""Serializer for values of a type, as JSON or MessagePack; bytes are checked against the type.

    >>> class Order(msgspec.Struct):
    ...     customer: int
    >>> Msgspec(Order).serialize("topic", Order(42))
    b'{"customer":42}'
    >>> Msgspec(Order, format="msgpack").deserialize("topic", b"\x81\xa8customer\x2a").customer
    42
    """

    def __init__(self, type: type[T], *, format: Literal["json", "msgpack"] = "json") -> None:
        FORMAT.check("Msgspec", "format", format)
        self._class = type if isinstance(type, _CLASS) else None
        self._encode: Callable[[T], bytes]
        self._decode: Callable[[bytes], T]
        try:
            if format == "json":
                self._encode = msgspec.json.Encoder().encode
                self._decode = msgspec.json.Decoder(type).decode
            else:
                self._encode = msgspec.msgpack.Encoder().encode
                self._decode = msgspec.msgpack.Decoder(type).decode
        except TypeError as error:
            said = refused("Msgspec", "type", "a type that msgspec knows", type)
            raise TypeError(f"{said}: {error}") from None

    def serialize(self, topic: str, value: T) -> bytes:
        """Return the value's bytes. Raise TypeError if it is of another type."""
        if self._class is not None and not isinstance(value, self._class):
            allowed = f"of the type {self._class.__name__}"
            raise TypeError(refused("Msgspec.serialize", "value", allowed, value))
        return self._encode(value)

    def deserialize(self, topic: str, data: bytes) -> T:
        """Return the value. Raise msgspec.ValidationError, msgspec.DecodeError (ValueErrors)."""
        if data.__class__ is not bytes:
            data = data_of("Msgspec", data)
        return self._decode(data)


_CLASS = type
