"""The levels of the cluster's features that this program knows.

The metadata log sets the level in force of each feature. A program that does not know the level in
force would misread the log, so it refuses to start, or stops. The controller raises a level only if
every registered broker and every voter knows the new level. It never lowers a level.

`metadata.version` is the version of the metadata log itself. Raise its highest level here together
with the first event or field that an older program must not ignore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from quorate_quorum.node.config import ConfigError
from quorate_quorum.v1.events_pb2 import FeatureLevels

METADATA_VERSION: Final = "metadata.version"
#: The level from which brokers are marked as drained. A controller that did not know the mark would
#: place replicas on them, and its snapshots and its registrations would lose the mark.
DRAINED_BROKERS: Final = 2
#: The most features that a peer may tell, and the longest name of one. Any others are ignored.
FEATURES_MAX: Final = 64
NAME_LENGTH_MAX: Final = 255


class Levels(NamedTuple):
    """The levels of one feature that a program knows, both ends included."""

    lowest: int
    highest: int

    def __contains__(self, level: object) -> bool:
        return isinstance(level, int) and self.lowest <= level <= self.highest

    def __str__(self) -> str:
        return f"{self.lowest} to {self.highest}"


Known = Mapping[str, Levels]

SUPPORTED: Final[Known] = MappingProxyType({METADATA_VERSION: Levels(1, DRAINED_BROKERS)})
#: The levels that a node of the first release knows. Such a node does not tell its levels.
UNSAID: Final[Known] = MappingProxyType({METADATA_VERSION: Levels(1, 1)})
_OFF: Final = Levels(0, 0)


class UnknownLevelError(ConfigError):
    """The metadata log sets a feature to a level that this program does not know."""


def check_level(known: Known, name: str, level: int) -> None:
    """Raise UnknownLevelError unless `known` has this level of the feature.

    For a feature that is not in `known`, only level 0 (off) is accepted.

    >>> check_level(SUPPORTED, "metadata.version", DRAINED_BROKERS)
    >>> check_level(SUPPORTED, "tiered.storage", 0)  # off
    """
    levels = known.get(name, _OFF)
    if level not in levels:
        knows = f"knows {levels}" if name in known else "does not know that feature"
        raise UnknownLevelError(
            f"the metadata log is at level {level} of {name[:NAME_LENGTH_MAX]}, and this program "
            f"{knows}: start the release that wrote it, or a newer one"
        )


def levels_of(known: Known, name: str) -> Levels:
    """Return the levels of a feature that a node knows. A node of the first release tells none."""
    return (known or UNSAID).get(name, _OFF)


def to_wire(known: Known) -> list[FeatureLevels]:
    """Return the levels that a node knows, as messages."""
    return [
        FeatureLevels(name=name, lowest=known[name].lowest, highest=known[name].highest)
        for name in sorted(known)
    ]


def from_wire(told: Iterable[FeatureLevels]) -> dict[str, Levels]:
    """Return the levels that a node told: at most FEATURES_MAX features, without invalid ones."""
    found: dict[str, Levels] = {}
    for one in told:
        is_possible = 0 <= one.lowest <= one.highest and len(one.name) <= NAME_LENGTH_MAX
        if is_possible and len(found) < FEATURES_MAX:
            found[one.name] = Levels(one.lowest, one.highest)
    return found
