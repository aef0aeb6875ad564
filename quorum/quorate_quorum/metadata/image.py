"""The cluster's metadata at one offset of the metadata log: immutable, shared, cheap to change.

An image consists of persistent maps: a change copies one path of a map, not the whole map. The
order of a map's keys differs from process to process, so iterate over a map only by the sorted
methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from quorate_quorum.metadata.brokers import Brokers
from quorate_quorum.metadata.features import Features
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.producer_ids import ProducerIds
from quorate_quorum.metadata.topics import Topics
from quorate_quorum.metadata.voters import Voters
from quorate_quorum.v1 import events_pb2 as ev


@dataclass(frozen=True, kw_only=True)
class MetadataImage(Features, Voters, Brokers, Topics, ProducerIds):
    """All of the cluster's metadata after the log below `offset` is applied."""

    #: One past the offset of the last applied record.
    offset: int = 0
    #: The epoch of the last applied batch; -1: no batch is applied.
    epoch: int = -1

    def to_events(self) -> Iterator[ev.MetadataEvent]:
        """Yield events that make this image from the empty one. Equal images give equal events."""
        yield from self.feature_events()
        yield from self.voter_events()
        yield from self.config_events()
        yield from self.broker_events()
        yield from self.topic_events()
        yield from self.producer_id_events()
        yield from self.created_events()

    def is_eligible(self, partition: PartitionImage, broker_id: int) -> bool:
        """Return whether a replica may enter the ISR or lead.

        The replica must be live, and its broker must not be shutting down.
        """
        return self.is_live(partition, broker_id) and not self.brokers[broker_id].shutting_down

    def is_live(self, partition: PartitionImage, broker_id: int) -> bool:
        """Return whether a replica may be up to date.

        The replica's broker must be unfenced. The replica's directory must be registered and must
        not have failed.
        """
        broker = self.brokers.get(broker_id)
        if broker is None or broker.fenced:
            return False
        directory_id = partition.directory_of(broker_id)
        directory = None if directory_id is None else broker.directory(directory_id)
        return directory is not None and not directory.failed


EMPTY: Final = MetadataImage()
