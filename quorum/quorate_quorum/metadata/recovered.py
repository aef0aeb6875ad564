"""The image with which a new history begins, after the majority of the old one's disks is gone.

What the lost voters had decided beyond the survivor's log is unknown and may have been acted upon:
so every number that such a decision may have given away is passed over. Nobody is trusted: brokers
are fenced, no partition has an ISR. Every replica is asked for its log before one may lead, so
that no committed record is lost while a replica that has it lives.
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

#: The lost tail had fewer records, epochs and producer ids than these.
OFFSETS_PASSED: Final = 1_000_000_000
EPOCHS_PASSED: Final = 1_000_000
PRODUCER_IDS_PASSED: Final = 1_000_000_000
PRODUCER_ID_MAX: Final = (1 << 63) - 1


def recovered(image: MetadataImage, voter: VoterImage, *, epoch_seen: int) -> MetadataImage:
    """Return the first image of the new history, with one voter.

    `image`: all that the survivor holds. `epoch_seen`: the highest epoch that it, or anybody whom
    it asked, has heard of.
    """
    assert epoch_seen >= image.epoch, (epoch_seen, image.epoch)
    brokers = {broker.id: replace(broker, fenced=True) for broker in image.sorted_brokers()}
    topics = {topic.id: _leaderless(topic) for topic in image.sorted_topics()}
    replicas = Counter(
        broker_id
        for topic in topics.values()
        for partition in topic.partitions
        for broker_id in partition.broker_ids
    )
    return replace(
        image,
        offset=image.offset + OFFSETS_PASSED,
        epoch=epoch_seen + EPOCHS_PASSED,
        voters=(voter,),
        brokers=HashTrieMap(brokers),
        topics=HashTrieMap(topics),
        forming=EMPTY.forming,  # nobody has seen them
        replica_counts=HashTrieMap(replicas),
        next_producer_id=min(image.next_producer_id + PRODUCER_IDS_PASSED, PRODUCER_ID_MAX),
    )


def _leaderless(topic: TopicImage) -> TopicImage:
    return replace(topic, partitions=tuple(map(_unsure, topic.partitions)))


def _unsure(partition: PartitionImage) -> PartitionImage:
    """Every replica may be the one that has all: the last ISR, of which all must be back."""
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
