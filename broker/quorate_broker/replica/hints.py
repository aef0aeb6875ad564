"""Errors that have the present leader, so that a client need not ask for it (KIP-951)."""

from __future__ import annotations

from typing import TypeVar

from quorate.errors import QuorateError
from quorate.v1.common_pb2 import LeaderHint

E = TypeVar("E", bound=QuorateError)


def hinted(error: E, hint: LeaderHint) -> E:
    """Return the error, after attaching the present leader to it."""
    error.hint = hint  # type: ignore[attr-defined]
    return error


def hint_of(error: BaseException) -> LeaderHint | None:
    """Return the present leader, if the error has it; else None."""
    return getattr(error, "hint", None)
