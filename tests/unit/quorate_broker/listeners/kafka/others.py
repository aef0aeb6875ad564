"""The messages of two other libraries, kio and kafka-python, to compare ours with."""

from __future__ import annotations

import enum
import io
import uuid
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from kio.index import load_payload_module
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from quorate_broker.listeners.kafka.wire import NO_UUID
from tests.unit.quorate_broker.listeners.kafka.random_messages import Case

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kafka-python warns about its own resources when imported
    import kafka.protocol.admin
    import kafka.protocol.consumer
    import kafka.protocol.metadata
    import kafka.protocol.producer
    import kafka.protocol.sasl  # noqa: F401
    from kafka.protocol.api_message import ApiMessage

__all__ = ["KAFKA_PYTHON", "KafkaPython", "Kio", "difference"]


def _subclasses(kind: Any) -> Iterator[Any]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


#: The classes of kafka-python, by the name of the message.
KAFKA_PYTHON = {each.__name__: each for each in _subclasses(ApiMessage)}


class Kio:
    """kio's codec of one message in one version."""

    #: Fields that the library does not show as they are in the bytes.
    hidden: frozenset[str] = frozenset()

    def __init__(self, case: Case) -> None:
        key, version = case.api.key, case.version
        if case.is_request:
            module = load_payload_module(key, version, EntityType.request)
        else:
            module = load_payload_module(key, version, EntityType.response)
        entity = getattr(module, case.struct.name)
        self._read, self._write = entity_reader(entity), entity_writer(entity)

    def decode(self, data: bytes) -> Any:
        message, size = self._read(data, 0)
        assert size == len(data)
        return message

    def encode(self, message: Any) -> bytes:
        out = io.BytesIO()
        self._write(out, message)
        return out.getvalue()


class KafkaPython:
    """kafka-python's codec of one message in one version."""

    #: It shows them as sets of names.
    hidden = frozenset({"authorized_operations"})

    def __init__(self, case: Case) -> None:
        self._class = KAFKA_PYTHON[case.struct.name]
        self._version = case.version

    def decode(self, data: bytes) -> Any:
        return self._class.decode(data, version=self._version)

    def encode(self, message: Any) -> bytes:
        message._header = None  # a message that is decoded has none, but is asked for it
        return bytes(message.encode(version=self._version))


def difference(ours: Any, theirs: Any, hidden: frozenset[str], path: str = "") -> str:
    """Return where their message has another value than ours, by the names of the fields."""
    if isinstance(ours, msgspec.Struct):
        for name in set(ours.__struct_fields__) - hidden:
            # A field that they do not have is at its default in ours: the bytes tell the rest.
            for spelling in (name, name.removesuffix("_ms")):
                if hasattr(theirs, spelling):
                    found = difference(getattr(ours, name), getattr(theirs, spelling), hidden, name)
                    if found:
                        return f"{path}.{found}"
        return ""
    if isinstance(ours, Sequence) and not isinstance(ours, str | bytes):
        if theirs is None or len(ours) != len(theirs):
            return f"{path}: {ours!r}, {theirs!r}"
        pairs = enumerate(zip(ours, theirs, strict=True))
        found_all = (difference(*pair, hidden, f"{path}[{at}]") for at, pair in pairs)
        return next(filter(None, found_all), "")
    return "" if ours == _plain(theirs, ours) else f"{path}: {ours!r}, {theirs!r}"


def _plain(value: Any, ours: Any) -> Any:
    """Return a value of theirs as we have it."""
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, timedelta):
        return value // timedelta(milliseconds=1)
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if value is None and ours == NO_UUID:
        return ours
    return bytes(value) if isinstance(value, memoryview) else value
