"""The changes from one image to the next: a delta replays events over an image and makes the next.

Events hold absolute values, so a replay can check each event against the image. An event that
contradicts the image means that the controller and this image disagree about the past. Then the
node stops: otherwise it would continue with a wrong image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, TypeVar

from quorate_quorum.metadata.aspect import REPLAYS, AspectDelta, Line, LogPlace
from quorate_quorum.metadata.brokers import BrokersDelta
from quorate_quorum.metadata.features import FeaturesDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.producer_ids import ProducerIdsDelta
from quorate_quorum.metadata.topics import TopicsDelta
from quorate_quorum.metadata.voters import VotersDelta
from quorate_quorum.v1 import events_pb2 as ev

D = TypeVar("D", bound=AspectDelta[Any])

ASPECTS: Final = (TopicsDelta, BrokersDelta, VotersDelta, FeaturesDelta, ProducerIdsDelta)


class MetadataDelta:
    """The changes from `image` to the next image, by aspect."""

    def __init__(self, image: MetadataImage) -> None:
        self.image = image
        #: The new quorum_generation, if `image` belongs to an older generation; else 0. A topic
        #: that the new generation lacks counts as removed.
        self.generation = 0
        #: The delta of each aspect that was used so far.
        self._aspects: dict[type, AspectDelta[Any]] = {}

    @property
    def topics(self) -> TopicsDelta:
        """The changes of topics, configs and partitions."""
        return self._of(TopicsDelta)

    @property
    def brokers(self) -> BrokersDelta:
        """The changes of brokers."""
        return self._of(BrokersDelta)

    @classmethod
    def between(cls, old: MetadataImage, new: MetadataImage) -> MetadataDelta:
        """Compare two images, for an ImageListener that skipped the images between them.

        If a topic was removed and another of the same name was created, the delta has both.
        """
        delta = cls(old)
        for aspect in ASPECTS:
            delta._of(aspect).compare(new)
        return delta

    def replay(
        self, event: ev.MetadataEvent, *, offset: int | None = None, time_ms: int = 0
    ) -> None:
        """Apply one event.

        `offset`: the offset of the event in the log; None if the event comes from a snapshot. A
        registration in the log must have its own offset as its epoch. `time_ms`: when the event was
        proposed; 0: not known. Raises AssertionError if the event contradicts the image.
        """
        kind = event.WhichOneof("event")
        if kind == "epoch_start":
            assert event.epoch_start.epoch >= self.image.epoch, "epochs only grow"
            return
        assert kind in REPLAYS, f"decode_events lets no {kind} through"
        aspect, method = REPLAYS[kind]
        place = None if offset is None else LogPlace(offset, time_ms)
        method(self._of(aspect), getattr(event, kind), place)

    def finish(self, offset: int, epoch: int) -> MetadataImage:
        """Return the image after all replayed events. `offset` is one past the last of them."""
        assert offset >= self.image.offset, "offsets only grow"
        assert epoch >= self.image.epoch, "epochs only grow"
        fields = {**vars(self.image), "offset": offset, "epoch": epoch}
        for aspect in self._aspects.values():
            fields.update(aspect.finish())
        return MetadataImage(**fields)

    def lines(self, image: MetadataImage) -> Iterator[Line]:
        """Yield the log lines for operators about the changes that led to `image`."""
        return chain.from_iterable(self._of(aspect).lines(image) for aspect in ASPECTS)

    def _of(self, aspect: type[D]) -> D:
        """Return the delta of an aspect. The first call makes it."""
        found = self._aspects.get(aspect)
        if found is None:
            found = self._aspects[aspect] = aspect(self.image)
        return found  # type: ignore[return-value]


def replayed(
    image: MetadataImage,
    events: Iterable[ev.MetadataEvent],
    *,
    epoch: int | None = None,
    time_ms: int = 0,
) -> MetadataImage:
    """Return the image after the next batch of events in the log."""
    delta = MetadataDelta(image)
    offset = image.offset
    for event in events:
        delta.replay(event, offset=offset, time_ms=time_ms)
        offset += 1
    return delta.finish(offset, image.epoch if epoch is None else epoch)
