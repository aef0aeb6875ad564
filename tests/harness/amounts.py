"""How many seeds, points or bits a test takes: few in `make test`, many in `make soak`."""

from __future__ import annotations

import os

IS_SOAK = os.environ.get("SOAK") == "1"


def few_or_many(few: int, many: int) -> int:
    """Return the amount of this run. Each amount of `many` is a campaign: it proves no new rule."""
    return many if IS_SOAK else few
