"""Schemas in short."""

from __future__ import annotations

from typing import Any


def record(*fields: Any, name: str = "s.R", **more: Any) -> dict[str, Any]:
    """Return a record; a field is (name, type) or (name, type, what it has beside these)."""
    made = [{"name": one[0], "type": one[1], **dict(*one[2:])} for one in fields]
    return {"type": "record", "name": name, "fields": made, **more}


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F", **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def map_of(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


def logical(kind: str, word: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": word, **more}
