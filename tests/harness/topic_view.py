"""What an observer sees of the topic of a simulated cluster, in its brokers and its voters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import NEVER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import SimulatedCluster
from tests.harness.invariants import partitions_of


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic of which each partition has `replicas` replicas."""

    cluster: SimulatedCluster
    topic: str
    replicas: int
    #: Returns how many partitions it has.
    count: Callable[[], int]

    def are_all_unfenced(self) -> bool:
        """Whether all brokers serve."""
        servers = [node.server for node in self.cluster.brokers]
        return all(isinstance(one, BrokerServer) and not one.is_fenced for one in servers)

    def is_in_sync(self) -> bool:
        """Whether at every broker each partition that it holds has a full ISR.

        The view of the leaders is not enough: a leader may not know yet that a broker came back
        with another incarnation, and left every ISR.
        """
        if not self.are_all_unfenced():
            return False
        whole = 0
        for node in self.cluster.brokers:
            assert isinstance(node.server, BrokerServer)
            for partition in partitions_of(node.server):
                whole += len(partition.isr) == self.replicas
        return whole == self.replicas * self.count()

    def log_starts(self) -> dict[int, int]:
        """Return where the log of each partition begins, at the broker where that is furthest."""
        starts: dict[int, int] = {}
        for node in self.cluster.brokers:
            if isinstance(node.server, BrokerServer):
                for one in partitions_of(node.server):
                    known = starts.get(one.partition, 0)
                    starts[one.partition] = max(known, one.log_start_offset)
        return starts

    def told_lost(self) -> set[int]:
        """Return the partitions of which the controller says that records may be lost."""
        partitions = enumerate(self.partitions())
        return {number for number, one in partitions if one.recovered_epoch != NEVER}

    def partitions(self) -> list[PartitionImage]:
        """Return the partitions as the newest image has them."""
        image = self.image()
        assert image is not None
        return list(image.partitions)

    def image(self) -> TopicImage | None:
        """Return the topic as the newest image has it; None if no voter knows it."""
        images = [
            node.server._rooms.controller.image
            for node in self.cluster.voters
            if isinstance(node.server, QuorumServer) and node.server._rooms is not None
        ]
        newest = max(images, key=lambda image: image.offset, default=None)
        return None if newest is None else newest.topic_named(self.topic)
