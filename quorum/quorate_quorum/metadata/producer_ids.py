"""The producer ids that are given out: an aspect of the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quorate_quorum.metadata.aspect import AspectDelta, LogPlace, event_of, replays
from quorate_quorum.v1 import events_pb2 as ev


@dataclass(frozen=True, kw_only=True)
class ProducerIds:
    """The producer ids that are given out."""

    #: All producer ids below this one are given out.
    next_producer_id: int = 0

    def producer_id_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield the events that make this part of the image."""
        if self.next_producer_id:
            yield event_of(producer_ids=ev.ProducerIds(next_producer_id=self.next_producer_id))


class ProducerIdsDelta(AspectDelta[ProducerIds], part=ProducerIds):
    """The changes of the producer ids that are given out."""

    def __init__(self, old: ProducerIds) -> None:
        super().__init__(old)
        self.next_producer_id = old.next_producer_id

    @replays("producer_ids")
    def _give(self, event: ev.ProducerIds, _: LogPlace | None) -> None:
        assert event.next_producer_id > self.next_producer_id, "producer ids are given out once"
        self.next_producer_id = event.next_producer_id
