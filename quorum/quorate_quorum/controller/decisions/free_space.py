"""Chooses the log directory of a new replica: the one with the most free bytes.

Brokers tell the free bytes of their directories with their heartbeats. A new replica is empty, so
the free bytes do not show it yet, and many new replicas could go to one directory that fills later.
So the free bytes of a directory are shared among the replicas that have written nothing yet, and
the directory with the largest share is chosen (the method of D'Hondt). So replicas that are placed
at once go to the directories in proportion to the free bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quorate_quorum.metadata.brokers import BrokerImage, DirectoryImage
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import ReplicaImage
from quorate_quorum.v1.controller_pb2 import DirectorySpace

#: Shares that differ by less than this ratio count as equal. Two directories on one file system
#: are told some milliseconds apart, and would else get replicas by chance.
EQUAL_FROM = 0.95


@dataclass(slots=True)
class _Told:
    """The free bytes of a directory, and how many of its replicas have written nothing."""

    free_bytes: int
    unwritten: int

    @property
    def share(self) -> float:
        """The bytes that one more replica could take, if all unwritten replicas take as much."""
        return self.free_bytes / (1 + self.unwritten)


class FreeSpace:
    """The free bytes that the brokers told in this reign.

    Until a broker has told them, its replicas go to the directory with the fewest replicas.
    """

    def __init__(self) -> None:
        self._told: dict[int, dict[bytes, _Told]] = {}

    def told(self, broker_id: int, spaces: Sequence[DirectorySpace]) -> None:
        """Take what a heartbeat tells. It replaces what was told and counted before.

        A replica that was placed a moment ago may be missing until the next heartbeat.
        """
        self._told[broker_id] = {
            one.directory_id: _Told(max(one.free_bytes, 0), max(one.unwritten, 0)) for one in spaces
        }

    def choose(self, broker: BrokerImage, replicas: Callable[[bytes], int]) -> bytes:
        """Return the id of a directory for a new replica, and count this replica in.

        `replicas` returns the number of replicas in a directory: among directories with equal
        shares, the one with the fewest replicas is chosen; among equal ones, the first. A failed
        directory is returned only if all have failed, and one whose sync failed only if all others
        failed.
        """
        working = [one for one in broker.directories if not one.failed]
        best = [one for one in working if not one.sync_failed] or working or broker.directories
        chosen = min(self._with_most_space(broker.id, best), key=lambda one: replicas(one.id)).id
        told = self._told.get(broker.id, {}).get(chosen)
        if told is not None:
            told.unwritten += 1
        return chosen

    def _with_most_space(
        self, broker_id: int, directories: Sequence[DirectoryImage]
    ) -> Sequence[DirectoryImage]:
        told = self._told.get(broker_id, {})
        shares = [told[one.id].share if one.id in told else 0.0 for one in directories]
        enough = EQUAL_FROM * max(shares)
        return [one for one, share in zip(directories, shares, strict=True) if share >= enough]


@dataclass(slots=True)
class DirectoryChoice:
    """The log directories of the replicas that one decision places. Its image lacks them."""

    _image: MetadataImage
    _free_space: FreeSpace
    _placed: Counter[ReplicaImage] = field(default_factory=Counter)

    def of(self, broker_id: int) -> ReplicaImage:
        """Return where a broker puts one more replica, and count it in: see FreeSpace.choose."""
        directory_id = self._free_space.choose(
            self._image.brokers[broker_id],
            lambda one: (
                self._image.replicas_in(broker_id, one) + self._placed[ReplicaImage(broker_id, one)]
            ),
        )
        found = ReplicaImage(broker_id, directory_id)
        self._placed[found] += 1
        return found
