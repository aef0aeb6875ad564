"""The kinds of values that the configurations of topics and of the cluster may have."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

from quorate.record import compression

LONG_MAX: Final = (1 << 63) - 1
#: The most replicas that one list of throttled replicas names: those of the largest topic.
THROTTLED_MAX: Final = 30_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """The values that a setting may have. `parse` raises ValueError for any other text."""

    parse: Callable[[str], T]
    allowed: str


def whole(low: int, high: int = LONG_MAX, *, or_else: int | None = None) -> Kind[int]:
    """Return the kind of whole numbers from `low` to `high`, and of the number `or_else`."""

    def parse(text: str) -> int:
        # Do not leave this to int(): it accepts "1_000" and " 1 ", which another reader of the log
        # may refuse.
        if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 20:
            raise ValueError(text)
        value = int(text)
        if not low <= value <= high and value != or_else:
            raise ValueError(text)
        return value

    allowed = f"{low} to {high}" if high < LONG_MAX else f"a whole number, {low} or more"
    return Kind(parse, allowed if or_else is None else f"{or_else}, or {allowed}")


def one_of(*choices: str) -> Kind[str]:
    """Return the kind whose values are these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return Kind(parse, "one of " + ", ".join(map(repr, choices)))


def level_of(codec: int) -> Kind[int]:
    """Return the kind whose values are the levels of a codec."""
    levels = compression.LEVELS[codec]
    is_apart = not levels.least <= levels.default <= levels.most
    return whole(levels.least, levels.most, or_else=levels.default if is_apart else None)


def _yes_or_no(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false"):
        raise ValueError(text)
    return word == "true"


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:  # written so that NaN fails, too
        raise ValueError(text)
    return value


def _policy(text: str) -> str:
    parts = sorted({part.strip() for part in text.split(",") if part.strip()})
    if not set(parts) <= {"compact", "delete"}:
        raise ValueError(text)
    return ",".join(parts)


def _throttled(text: str) -> str:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == [EVERY_REPLICA]:
        return EVERY_REPLICA
    if len(parts) > THROTTLED_MAX or not all(_THROTTLED_REPLICA.fullmatch(part) for part in parts):
        raise ValueError(text)
    return ",".join(dict.fromkeys(parts))


#: The list of throttled replicas that names all of them; and one item of any other list.
EVERY_REPLICA: Final = "*"
_THROTTLED_REPLICA: Final = re.compile(r"[0-9]{1,9}:[0-9]{1,9}", re.ASCII)


@lru_cache(maxsize=1_000)
def throttled_replicas(text: str) -> frozenset[tuple[int, int]] | None:
    """Return the (partition, broker id) pairs of a list of throttled replicas; None: all replicas.

    >>> sorted(throttled_replicas("0:101,1:102")), throttled_replicas("*")
    ([(0, 101), (1, 102)], None)
    """
    if text == EVERY_REPLICA:
        return None
    pairs = [part.split(":") for part in text.split(",") if part]
    return frozenset((int(partition), int(broker_id)) for partition, broker_id in pairs)


YES_OR_NO = Kind(_yes_or_no, "true or false")
SHARE = Kind(_share, "a number, 0 to 1")
POLICY = Kind(_policy, "'delete', 'compact', 'compact,delete', or '' to keep everything")
THROTTLED = Kind(_throttled, "'*', a list of PARTITION:BROKER as 0:1,0:2, or '' for none")
