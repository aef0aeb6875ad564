"""Formats a metadata event for output: numbers stay numbers, and ids become hex."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def fields_of(message: Message) -> dict[str, Any]:
    """Return the fields by name. Only optional fields that are not set are left out.

    A 0 is in the output, because broker 0 and partition 0 exist. Bytes are always ids or hashes.
    They are in hex, as in meta.properties and in the configuration files.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = [_shown(one) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _shown(value)
    return found


def _shown(value: Any) -> Any:
    if isinstance(value, Message):
        return fields_of(value)
    return value.hex() if isinstance(value, bytes) else value
