"""What a coordinator asks of the cluster's metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from quorate_broker.groups.assignors.values import PartitionSet

NO_PARTITIONS: PartitionSet = frozenset()


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that consumers can subscribe to."""

    id: bytes
    name: str
    #: The number of partitions.
    partitions: int


class Topics(Protocol):
    """The topics at one offset of the metadata log. The object never changes.

    A newer image is another object; `ShardMachine.topics_changed` takes it. Forming topics are not
    in it. All calls but `names` cost O(1) or O(partitions of the topic).
    """

    def named(self, name: str) -> Topic | None:
        """Return the topic of this name; None if there is none."""

    def with_id(self, topic_id: bytes) -> Topic | None:
        """Return the topic with this id; None if there is none."""

    def names(self) -> Iterator[str]:
        """Yield the names of all topics, in any order. Internal topics may be among them."""

    def racks(self, topic_id: bytes) -> Sequence[frozenset[str]]:
        """Return, for each partition of the topic, the racks of its replicas' brokers.

        Racks that are not configured ("") are left out. Asked only by the rack-aware assignor.
        """


@dataclass(frozen=True, slots=True)
class TopicChanges:
    """What differs between two images, as far as groups are concerned."""

    #: Names of topics that were created, deleted, made again, or have other partitions or racks.
    names: frozenset[str]
