"""Where the brokers of tests listen, in the forms of the wire."""

from __future__ import annotations

from typing import Any

from quorate.v1.common_pb2 import Listener


def listener(endpoint: str, name: str = "grpc") -> Listener:
    """Return a grpc listener as brokers tell it."""
    return Listener(name=name, protocol="grpc", endpoint=endpoint)


def listening_at(endpoint: str) -> dict[str, Any]:
    """Return the fields of a registration that names one listener."""
    return {"listeners": [listener(endpoint)], "inter_broker_listener": "grpc"}
