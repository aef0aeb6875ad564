"""Why a partition is in its state, as messages."""

from __future__ import annotations

from collections.abc import Iterator

from quorate.v1.admin_pb2 import OutOfSyncReplica, PartitionEvent
from quorate_quorum.metadata.explanation import OutOfSync, out_of_sync, sentence
from quorate_quorum.metadata.history import PastChange, newest_first
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage
from quorate_quorum.metadata.waiting import present_state


def out_of_sync_replicas(
    image: MetadataImage, partition: PartitionImage, now_ms: int
) -> list[OutOfSyncReplica]:
    """Return the replicas that are not in the ISR. A partition whose ISR is whole costs nothing."""
    if len(partition.isr) == len(partition.replicas):
        return []
    found = out_of_sync(newest_first(partition.history), partition.broker_ids, partition.isr)
    return [
        OutOfSyncReplica(
            broker_id=one.broker_id,
            since_ms=one.since_ms,
            for_ms=one.for_ms(now_ms),
            reason=_with_present_state(image, partition, one),
        )
        for one in found
    ]


def _with_present_state(image: MetadataImage, partition: PartitionImage, one: OutOfSync) -> str:
    now = present_state(image, partition, one.broker_id) if one.was_away else ""
    return f"{one.reason}; {now}" if now else one.reason


def events_of(changes: tuple[PastChange, ...]) -> Iterator[PartitionEvent]:
    """Yield the changes, each with its sentence."""
    before: PastChange | None = None
    for change in changes:
        yield PartitionEvent(
            offset=change.offset,
            time_ms=change.time_ms,
            sentence=sentence(before, change),
            causes=[cause.name for cause in change.causes],
            leader=change.leader,
            leader_epoch=change.leader_epoch,
            isr=change.isr,
            elr=change.elr,
            replicas=change.replicas,
        )
        before = change
