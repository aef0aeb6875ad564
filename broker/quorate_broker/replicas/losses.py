"""Replicas of this broker that lost records while the controller still counts on them.

The controller counts on a replica that is in the ISR or the ELR. A replica is lossy in these cases:

* its log was cut at a bad batch;
* its log ends below the high watermark that the replica knew;
* the replica was written, and its log is gone;
* its log cannot be read.

If a lossy replica were elected, the others would cut their logs to its end. So a lossy replica gets
no role, and a broker with a lossy replica asks to stay fenced. A replica is no longer lossy when
the image has it in neither ISR nor ELR. Then it is an ordinary replica that has to catch up.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import structlog

from quorate_broker.replica.replica import Key
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.v1.controller_pb2 import LossyReplica

log = structlog.get_logger(__name__)

#: Most lossy replicas in one heartbeat: the controller accepts no more. Further ones are reported
#: when these are settled.
TOLD_MAX = 50


def counts_on(state: PartitionImage, broker_id: int) -> bool:
    """Return whether the controller relies on a broker's replica to have all committed records."""
    return broker_id in state.isr or broker_id in state.elr


class Losses:
    """The lossy replicas of this broker.

    The Opener and Repairs find them, Repairs settles them, and heartbeats report them.
    """

    def __init__(self) -> None:
        self._reasons: dict[Key, str] = {}
        #: Called when a heartbeat has one more lossy replica to report.
        self.on_found: Callable[[], None] = _ignore
        #: Replicas with a bad batch. When the image has such a replica in neither ISR nor ELR,
        #: Repairs cuts its log at this batch. The value is what the replica then owes
        #: (Partition.owed).
        self.corrupt: dict[Key, tuple[int, int] | None] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._reasons

    def __len__(self) -> int:
        return len(self._reasons)

    def reason_of(self, key: Key) -> str:
        """Return why a replica is lossy; "" if it is not."""
        return self._reasons.get(key, "")

    def found(self, key: Key, name: str, reason: str) -> None:
        """Add a lossy replica. Heartbeats report it until it is settled."""
        if key not in self._reasons:
            log.error("replica_lossy", partition=name, reason=reason)
            self._reasons[key] = reason
            self.on_found()

    def settled(self, key: Key) -> None:
        """Remove a replica, because the image has it in neither ISR nor ELR now."""
        self._reasons.pop(key, None)

    def dropped(self, key: Key) -> None:
        """Forget a replica that this broker does not have any more."""
        self.settled(key)
        self.corrupt.pop(key, None)

    def to_tell(self, image: MetadataImage) -> list[LossyReplica]:
        """Return the lossy replicas for the next heartbeat, with their state in the image."""
        told = []
        for topic_id, partition in islice(self._reasons, TOLD_MAX):
            state = image.partition(topic_id, partition)
            if state is not None:
                told.append(
                    LossyReplica(
                        topic_id=topic_id,
                        partition=partition,
                        partition_epoch=state.partition_epoch,
                    )
                )
        return told


def _ignore() -> None:
    """Do nothing, until `on_found` is set. The losses wait."""
