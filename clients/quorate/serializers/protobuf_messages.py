"""Serializer of Protocol Buffers messages."""

from __future__ import annotations

from typing import Generic, TypeVar

from google.protobuf.message import Message

from quorate.object_rules import data_of
from quorate.settings import refused

M = TypeVar("M", bound=Message)


class Protobuf(Generic[M]):
    """Serializer for one class of messages, which protoc made.

    Equal messages have equal bytes, so that they can be keys.

        Producer(value_serializer=Protobuf(orders_pb2.Order))
    """

    def __init__(self, message: type[M]) -> None:
        if not (isinstance(message, type) and issubclass(message, Message)):
            raise TypeError(refused("Protobuf", "message", "a class that protoc made", message))
        self._message = message

    def serialize(self, topic: str, value: M) -> bytes:
        """Return the message's bytes. Raise TypeError if it is of another class."""
        if not isinstance(value, self._message):
            allowed = f"a {self._message.DESCRIPTOR.full_name}"
            raise TypeError(refused("Protobuf.serialize", "value", allowed, value))
        return value.SerializeToString(deterministic=True)

    def deserialize(self, topic: str, data: bytes) -> M:
        """Return the message. Raise google.protobuf.message.DecodeError."""
        if data.__class__ is not bytes:
            data = data_of("Protobuf", data)
        return self._message.FromString(data)
