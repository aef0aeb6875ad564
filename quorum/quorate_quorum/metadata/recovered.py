"""Disaster recovery: the first image of a new history, after the majority of the voters is lost.

The lost voters may have committed decisions that the survivor's log lacks, and nodes may have acted
on those decisions. So the new history skips every number (offset, epoch, producer id) that such a
decision may have used. The survivor's view of brokers and ISRs is not trusted: every broker is
fenced, and no partition has an ISR. Every replica of a partition is asked for the end of its log
before one of the replicas leads, so that no committed record is lost while a replica still has it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from rpds import HashTrieMap

from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.metadata.voters import VoterImage

#: The numbers of offsets, epochs and producer ids to skip. The lost decisions used fewer.
OFFSETS_PASSED: Final = 1_000_000_000
EPOCHS_PASSED: Final = 1_000_000
PRODUCER_IDS_PASSED: Final = 1_000_000_000
PRODUCER_ID_MAX: Final = (1 << 63) - 1


def recovered(image: MetadataImage, voter: VoterImage, *, epoch_seen: int) -> MetadataImage:
    """Return the first image of the new history, with one voter.

    `image`: the image after the survivor's whole log. `epoch_seen`: the highest epoch that the
    survivor, or a node that it asked, has seen.
    """
    assert epoch_seen >= image.epoch, (epoch_seen, image.epoch)
    brokers = {broker.id: replace(broker, fenced=True) for broker in image.sorted_brokers()}
    topics = {topic.id: _leaderless(topic) for topic in image.sorted_topics()}
    replicas = Counter(
        replica
        for topic in topics.values()
        for partition in topic.partitions
        for replica in partition.replicas
    )
    return replace(
        image,
        offset=image.offset + OFFSETS_PASSED,
        epoch=epoch_seen + EPOCHS_PASSED,
        voters=(voter,),
        brokers=HashTrieMap(brokers),
        topics=HashTrieMap(topics),
        forming=EMPTY.forming,  # drop them: forming topics are hidden, so no node has acted on them
        replica_counts=HashTrieMap(replicas),
        next_producer_id=min(image.next_producer_id + PRODUCER_IDS_PASSED, PRODUCER_ID_MAX),
    )


def _leaderless(topic: TopicImage) -> TopicImage:
    return replace(topic, partitions=tuple(map(_unsure, topic.partitions)))


def _unsure(partition: PartitionImage) -> PartitionImage:
    """Put all replicas into last_isr, because any of them may be the one with every record."""
    leader_epoch = partition.leader_epoch + EPOCHS_PASSED
    return replace(
        partition,
        leader=NO_LEADER,
        leader_epoch=leader_epoch,
        partition_epoch=partition.partition_epoch + EPOCHS_PASSED,
        isr=(),
        elr=(),
        last_isr=partition.broker_ids,
        recovered_epoch=leader_epoch,
    )
