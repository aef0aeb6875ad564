"""Which of our files a generator writes: rules of length and style are not for them."""

from __future__ import annotations

from pathlib import Path

MESSAGES = "broker/quorate_broker/listeners/kafka/messages"


def is_generated(path: Path) -> bool:
    """Return whether protoc or proto/kafka/generate.py makes this file."""
    is_message = path.parent.as_posix().endswith(MESSAGES) and path.name != "__init__.py"
    return path.name.endswith("_pb2.py") or is_message
