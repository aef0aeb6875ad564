"""Makes the events of new partitions: of a topic that is created, and of one that grows."""

from __future__ import annotations

from collections.abc import Sequence

from quorate.errors import (
    InvalidReplicaAssignmentError,
    NotEnoughReplicasError,
)
from quorate_quorum.controller.decisions.free_space import DirectoryChoice
from quorate_quorum.controller.decisions.outcome import Context
from quorate_quorum.metadata.brokers import BrokerImage
from quorate_quorum.metadata.history import CAUSE, Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NEVER
from quorate_quorum.v1 import events_pb2 as ev

#: The most events in one turn of the event loop: a few milliseconds of work.
EVENTS_MAX = 100


class NewPartitions:
    """The new partitions of one turn of the event loop. The image lacks them."""

    def __init__(self, image: MetadataImage, context: Context, because: Cause) -> None:
        self._image = image
        self._because = CAUSE.message(because)
        self._choice = DirectoryChoice(image, context.free_space)
        #: Whether a new replica on a broker's directory would be in sync, by (broker id, directory
        #: id).
        self._eligible: dict[tuple[int, bytes], bool] = {}

    def event(
        self, topic_id: bytes, index: int, assignment: Sequence[int], *, is_sample: bool = False
    ) -> ev.MetadataEvent:
        """Return the event of a new, empty partition on these brokers.

        Every eligible replica is in its ISR, and the first of them leads it. A sample only shows
        the event's size. Raises NotEnoughReplicasError if no replica is eligible.
        """
        partition = ev.Partition(
            topic_id=topic_id,
            partition=index,
            leader=-1,
            recovered_epoch=NEVER,
            causes=(self._because,),
        )
        for broker_id in assignment:
            broker = self._image.brokers[broker_id]
            directory_id = self._directory(broker, is_sample=is_sample)
            partition.replicas.add(broker_id=broker_id, directory_id=directory_id)
            if self._is_eligible(broker, directory_id):
                partition.isr.append(broker_id)
        if not partition.isr:
            raise NotEnoughReplicasError(
                f"none of brokers {list(assignment)} is alive; a partition needs one to begin with"
            )
        partition.leader = partition.isr[0]
        return ev.MetadataEvent(partition=partition)

    def _is_eligible(self, broker: BrokerImage, directory_id: bytes) -> bool:
        key = broker.id, directory_id
        if key not in self._eligible:
            directory = broker.directory(directory_id)
            stays = not broker.fenced and not broker.shutting_down
            self._eligible[key] = stays and directory is not None and not directory.failed
        return self._eligible[key]

    def _directory(self, broker: BrokerImage, *, is_sample: bool) -> bytes:
        """Return the directory for a new replica: see FreeSpace."""
        if len(broker.directories) == 1 or is_sample:
            return broker.directories[0].id
        return self._choice.of(broker.id).directory_id


def check_assignments(
    image: MetadataImage, assignments: Sequence[Sequence[int]], factor: int, first: int = 0
) -> None:
    """Raise an error unless partitions may be placed as a request says, with `factor` replicas.

    `first` is the number of the first of them.
    """
    for index, replicas in enumerate(assignments, first):
        if not replicas or len(set(replicas)) != len(replicas):
            raise InvalidReplicaAssignmentError(
                f"partition {index} must be assigned to different brokers, not {replicas}"
            )
        if len(replicas) != factor:
            raise InvalidReplicaAssignmentError(
                f"partition {index} is assigned to brokers {replicas}; name {factor} for each"
                " partition, as partition 0 has"
            )
        unknown = [b for b in replicas if b not in image.brokers]
        if unknown:
            raise InvalidReplicaAssignmentError(
                f"partition {index} is assigned to brokers {unknown}, which are not registered;"
                f" {sorted(image.brokers)} are"
            )
        drained = [b for b in replicas if image.brokers[b].cordoned]
        if drained:
            raise InvalidReplicaAssignmentError(
                f"partition {index} is assigned to brokers {drained}, which are drained and get no"
                " new replicas: choose others, or first `quorate cluster undrain` them"
            )
