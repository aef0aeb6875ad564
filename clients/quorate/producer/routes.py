"""Chooses the partition of a record, and so its queue, for every topic in use.

A topic that was deleted, or got no record for minutes, is forgotten here and in the view of the
cluster. Otherwise a producer with many short-lived topics would ask for the metadata of all of them
for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate.cluster.cluster import Cluster
from quorate.cluster.topic_views import TopicView
from quorate.errors import InvalidPartitionsError
from quorate.producer.accumulator import Accumulator
from quorate.producer.partition_queue import PartitionQueue
from quorate.producer.partitioner import Partitioner, Sticky, partition_for_key
from quorate.settings import PARTITION

#: Pause between two checks for idle topics. A topic that was idle in IDLE_LOOKS_MAX checks in a row
#: is forgotten.
IDLE_LOOK_S = 60.0
IDLE_LOOKS_MAX = 5


class Routes:
    """The queues of the topics in use, and the partitions of records without a key."""

    def __init__(
        self, cluster: Cluster, accumulator: Accumulator, partitioner: Partitioner | None
    ) -> None:
        self._cluster = cluster
        self._accumulator = accumulator
        self._partitioner = partitioner
        self.queues: dict[str, tuple[TopicView, dict[int, PartitionQueue]]] = {}
        self.sticky: dict[str, Sticky] = {}
        self._looked_at = 0.0
        #: Topic -> number of batches opened up to the last check, and number of checks in a row
        #: that found no new batch.
        self._idle: dict[str, tuple[int, int]] = {}

    async def find(self, topic: str) -> TopicView:
        """Return the view of a topic. Ask the cluster if it is not known.

        The topic is in use from now on. Raises UnknownTopicError, QuorumUnavailableError, and the
        failure of the producer.
        """
        if self._accumulator.closed is not None:
            raise self._accumulator.closed.with_traceback(None)
        view = await self._cluster.topic(topic)
        self.use(view)
        return view

    async def find_partition(
        self, view: TopicView, partition: int, call: str = "send"
    ) -> TopicView:
        """Return the view of a topic that has a partition with this number.

        If the known view has none, ask the cluster once, because the topic may have grown. If there
        is none either, return the view all the same. Raises TypeError or InvalidPartitionsError for
        what is no number of a partition; it names `call`.
        """
        partition = PARTITION.check(call, "partition", partition)
        cluster, asked = self._cluster, self._cluster.asked
        for _ in range(2):  # the answer of a look that was under way already may be too old
            if partition < len(view.numbers) or cluster.answered > asked:
                break
            await cluster.look()
            view = cluster.topics.get(view.name, view)
        return view

    def queue(self, view: TopicView, partition: int) -> PartitionQueue:
        """Return a partition's queue.

        A topic that was created again has another view and other queues.
        """
        queues = self.use(view)
        queue = queues.get(partition)
        if queue is None:
            queue = self._accumulator.queue(view.name, view.topic_id, partition)
            queues[partition] = queue
        queue.partition_count = len(view.numbers)
        return queue

    def use(self, view: TopicView) -> dict[int, PartitionQueue]:
        """Return the queues of a topic. The topic is in use from now on."""
        known = self.queues.get(view.name)
        if known is None or known[0] is not view:
            known = self.queues[view.name] = (view, {})
        return known[1]

    def is_one_by_one(self, keys: Sequence[bytes | None] | None, partition: int | None) -> bool:
        """Return whether the partition must be chosen for each of these records by itself."""
        return partition is None and (keys is not None or self._partitioner is not None)

    def choose(self, view: TopicView, key: bytes | None, partition: int | None) -> PartitionQueue:
        """Return the queue for a record.

        The partition is the given one, or chosen by the partitioner, by the key, or sticky. Raises
        TypeError or InvalidPartitionsError if there is no such partition.
        """
        if partition is not None:
            partition = PARTITION.check("send", "partition", partition)
            if partition >= len(view.numbers):
                raise InvalidPartitionsError(
                    f"topic {view.name!r} has partitions 0 to {len(view.numbers) - 1}, "
                    f"and no partition {partition}"
                )
        elif self._partitioner is not None:
            chosen = self._partitioner(key, view.numbers, view.available)
            partition = PARTITION.check("send", "what the partitioner returns", chosen)
            if partition not in view.numbers:
                raise InvalidPartitionsError(
                    f"the partitioner chose {chosen!r} for topic {view.name!r}, "
                    f"which has partitions 0 to {len(view.numbers) - 1}"
                )
        elif key is not None:
            partition = partition_for_key(key, len(view.numbers))
        else:
            return self._without_key(view)
        return self.queue(view, partition)

    def _without_key(self, view: TopicView) -> PartitionQueue:
        sticky = self.sticky.get(view.name)
        if sticky is None:
            share = self._accumulator.config.batch_bytes_max
            sticky = self.sticky[view.name] = Sticky(self._cluster.chance, share)
        queue = self.queue(view, sticky.partition(view.numbers, view.available))
        sticky.queue = queue
        return queue

    def begin(self, view: TopicView, queue: PartitionQueue) -> PartitionQueue:
        """Return the queue for a record without a key, if the open batch has no room for it.

        Another partition is chosen if the present one has a full batch, or has got its share of
        bytes.
        """
        sticky = self.sticky[view.name]
        is_full = queue.open is not None
        sticky.count()
        if not is_full and not sticky.had_its_share:
            return queue
        sticky.move_on(view.numbers, view.available)
        return self._without_key(view)

    # -- topics that are not in use any more -----------------------------------------------------

    def forget_unused(self, now: float) -> None:
        """Forget deleted topics. Once a minute, also check for idle topics."""
        for name, (view, queues) in list(self.queues.items()):
            if view.is_gone and name not in self._cluster.topics and _are_empty(queues):
                self._forget(name, is_gone=True)
        if now < self._looked_at + IDLE_LOOK_S:
            return
        self._looked_at = now
        for name, (_, queues) in list(self.queues.items()):
            opened = sum(queue.batches_opened for queue in queues.values())
            before, looks = self._idle.get(name, (-1, 0))
            looks = looks + 1 if opened == before and _are_empty(queues) else 0
            self._idle[name] = (opened, looks)
            if looks >= IDLE_LOOKS_MAX:
                self._forget(name, is_gone=False)

    def _forget(self, name: str, *, is_gone: bool) -> None:
        _, queues = self.queues.pop(name)
        for queue in queues.values():
            self._accumulator.drop(queue, is_gone=is_gone)
        self.sticky.pop(name, None)
        self._idle.pop(name, None)
        self._cluster.release(name)


def _are_empty(queues: dict[int, PartitionQueue]) -> bool:
    return all(queue.is_empty for queue in queues.values())
