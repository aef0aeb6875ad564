"""Attaches the present leader to an error, so that a client need not ask for it (KIP-951)."""

from __future__ import annotations

from typing import TypeVar

from quorate.errors import QuorateError
from quorate.v1.common_pb2 import LeaderHint

E = TypeVar("E", bound=QuorateError)


def hinted(error: E, hint: LeaderHint) -> E:
    """Attach the present leader to an error. Return the error."""
    error.hint = hint  # type: ignore[attr-defined]
    return error


def hint_of(error: BaseException) -> LeaderHint | None:
    """Return the present leader, if the error has it; else None."""
    return getattr(error, "hint", None)
