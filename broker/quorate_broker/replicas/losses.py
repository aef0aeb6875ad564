"""Replicas of this broker that have less than they had, and on which the controller still counts.

A replica is lossy when its log was cut at a bad batch, ends below what it knew to be committed,
was written and is gone, or can't be read. Elected, it would make the others cut to its end. So it
takes no role, and this broker, if it is fenced, stays fenced, until the image counts on it no
more: it is in neither ISR nor ELR. Then it is an ordinary replica that has to catch up.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from quorate_quorum.v1.controller_pb2 import LossyReplica

if TYPE_CHECKING:
    from quorate_broker.replica.replica import Key
    from quorate_quorum.metadata.image import MetadataImage
    from quorate_quorum.metadata.partitions import PartitionImage

log = structlog.get_logger(__name__)

#: In one heartbeat; the controller takes no more. The next ones are told when these are settled.
TOLD_MAX = 50


def counts_on(state: PartitionImage, broker_id: int) -> bool:
    """Whether the controller takes a broker's replica for one that has all that is committed."""
    return broker_id in state.isr or broker_id in state.elr


class Losses:
    """What is known of losses. Repairs finds and settles them, heartbeats tell of them."""

    def __init__(self) -> None:
        self._reasons: dict[Key, str] = {}
        #: Called when there is one more to tell of.
        self.on_found: Callable[[], None] = _ignore
        #: Replicas that are to be cut at the first bad batch before they are used again, once the
        #: controller counts on them no more; and what the replica then owes (Partition.owed).
        self.corrupt: dict[Key, tuple[int, int] | None] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._reasons

    def __len__(self) -> int:
        return len(self._reasons)

    def found(self, key: Key, name: str, reason: str) -> None:
        """A replica is lossy."""
        if key not in self._reasons:
            log.error("replica_lossy", partition=name, reason=reason)
            self._reasons[key] = reason
            self.on_found()

    def settled(self, key: Key) -> None:
        """The controller counts on it no more."""
        self._reasons.pop(key, None)

    def dropped(self, key: Key) -> None:
        """The replica is not held here any more."""
        self.settled(key)
        self.corrupt.pop(key, None)

    def to_tell(self, image: MetadataImage) -> list[LossyReplica]:
        """Return what the next heartbeat says, of the states in the image."""
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
    """No listener yet: what was found waits."""
