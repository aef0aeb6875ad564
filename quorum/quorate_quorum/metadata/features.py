"""Feature levels: an aspect of the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rpds import HashTrieMap

from quorate_quorum.metadata.aspect import AspectDelta, Line, LogPlace, empty, event_of, replays
from quorate_quorum.v1 import events_pb2 as ev


@dataclass(frozen=True, kw_only=True)
class Features:
    """The level in force of each feature, by name."""

    features: HashTrieMap[str, int] = field(default_factory=empty)

    def feature_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the events that make this part of the image."""
        for name in sorted(self.features):
            yield event_of(feature=ev.Feature(name=name, level=self.features[name]))


class FeaturesDelta(AspectDelta[Features], part=Features):
    """The changes of feature levels."""

    def __init__(self, old: Features) -> None:
        super().__init__(old)
        self.features = old.features

    @replays("feature")
    def _set(self, event: ev.Feature, _: LogPlace | None) -> None:
        self.features = self.features.insert(event.name, event.level)

    def lines(self, new: Features) -> Iterator[Line]:
        if self.old.features == new.features:
            return
        for name, level in sorted(new.features.items()):
            if self.old.features.get(name) != level:
                yield "feature_changed", {"feature": name, "level": level}
