"""Replicas that a broker reports as lossy: they lost records that they had, or can't be read.

The broker reports each lossy replica before the broker is unfenced. If it finds one later, it
reports it at once. A lossy replica leaves ISR and ELR: if it were elected, the others would cut
their logs to its end. It enters the ISR again by catching up, like any replica. If no other replica
is left in ISR or ELR, LossyElections waits for all replicas and elects the furthest: the lossy one
may lack more records than the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.partitions import clean_leader, moved
from quorate_quorum.metadata.history import Cause
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import PartitionImage, partition_changed
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_quorum.v1 import events_pb2 as ev

#: The most reports in one heartbeat, because one turn of the event loop decides all of them.
LOSSY_PER_MESSAGE_MAX = 50


def replicas_lossy(
    image: MetadataImage, broker_id: int, told: Sequence[wire.LossyReplica]
) -> Outcome[int]:
    """Take lossy replicas out of ISR and ELR. Response: the number of partitions changed.

    A report about an older state of a partition is ignored, because the replica may have caught up
    since then. The broker then reports again, about the state that it sees.
    """
    events: list[ev.MetadataEvent] = []
    seen: set[tuple[bytes, int]] = set()
    for one in told:
        key = (one.topic_id, one.partition)
        topic, old = image.topics.get(key[0]), image.partition(*key)
        if topic is None or old is None or key in seen:
            continue
        seen.add(key)
        if old.partition_epoch == one.partition_epoch:
            new = without_lossy(image, topic, old, broker_id)
            if new is not old:
                events.append(partition_changed(topic.id, key[1], old, new))
    return Outcome(tuple(events), len(events))


def without_lossy(
    image: MetadataImage, topic: TopicImage, old: PartitionImage, broker_id: int
) -> PartitionImage:
    """Return the next state of a partition after a broker has reported its replica as lossy."""
    if broker_id not in old.isr and broker_id not in old.elr:
        return old
    isr: tuple[int, ...] = tuple(b for b in old.isr if b != broker_id)
    leader = old.leader
    if leader == broker_id:
        leader = clean_leader(image, old, isr)
        if leader >= 0 and leader not in isr:
            isr = (*isr, leader)
    because = (Cause(ev.CAUSE_KIND_REPLICA_LOSSY, broker_id),)
    lossy = (broker_id,)
    return moved(image, topic, old, isr=isr, leader=leader, because=because, lossy=lossy)
