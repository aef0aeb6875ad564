"""The seeds of simulated clusters that name none."""

from __future__ import annotations

import secrets

from quorate.settings import UINT32_MAX, Whole

SEED = Whole(0, UINT32_MAX, "the same seed gives the same run")

#: The seed that the command line of pytest gave; None: each cluster draws its own.
_given: int | None = None


def use_seed(seed: int | None) -> None:
    """Let clusters that name no seed have this one; None: each draws its own again."""
    global _given
    _given = seed


def new_seed() -> int:
    """Return the seed of a cluster that names none."""
    return secrets.randbelow(UINT32_MAX) if _given is None else _given
