"""ElectLeaders: tells which elections are not needed, and refuses the others.

No operation of the controller moves the leader of a partition on request. The controller elects by
itself as soon as a leader is gone, so an election that is refused here is never the way out of a
partition without a leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from quorate.errors import QuorateError
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import (
    ELECTION_NOT_NEEDED,
    INVALID_REQUEST,
    NONE,
    UNKNOWN_TOPIC_OR_PARTITION,
    code_of,
)
from quorate_broker.listeners.kafka.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
    TopicPartitions,
)
from quorate_broker.listeners.kafka.versions import ELECT_LEADERS
from quorate_broker.operations.metadata import Metadata, TopicMissing
from quorate_broker.operations.partitions import PARTITIONS_A_TURN, check_count
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.partitions import NO_LEADER, PartitionImage
from quorate_quorum.metadata.topics import TopicImage

#: Kafka's number of the election of a partition's first replica. The other kind (1) elects a
#: leader that may have lost records.
PREFERRED: Final = 0
#: The most partitions that an answer names of those that nothing asked for by name.
ANSWERED_MAX: Final = 10_000
REFUSED: Final = (
    "this cluster holds no elections on request: the controller elects a leader by itself when a"
    " partition has none"
)


class ElectionRequests:
    """Answers ElectLeaders: see the module."""

    def __init__(self, metadata: Metadata, replicas: Replicas, partitions_max: int) -> None:
        self._metadata = metadata
        self._replicas = replicas
        self._partitions_max = partitions_max

    def handlers(self) -> Mapping[int, Handler]:
        return {ELECT_LEADERS: self.elect_leaders}

    async def elect_leaders(self, call: Call[ElectLeadersRequest]) -> ElectLeadersResponse:
        asked, principal = call.request.topic_partitions, call.client.principal
        named = sum(len(one.partitions) for one in asked or ())
        check_count(named, self._partitions_max, self._replicas)
        try:
            image = await self._metadata.cluster(principal, 0)
            if asked is None:
                topics = self._metadata.all_topics(image, principal)
                results = await _of_all(topics, call.request.election_type)
            else:
                results = self._of_named(asked, call, image)
        except QuorateError as error:
            return ElectLeadersResponse(error_code=code_of(error))
        return ElectLeadersResponse(error_code=NONE, replica_election_results=results)

    def _of_named(
        self,
        asked: Sequence[TopicPartitions],
        call: Call[ElectLeadersRequest],
        image: MetadataImage,
    ) -> list[ReplicaElectionResult]:
        names = [one.topic for one in asked]
        topics = self._metadata.topics(image, call.client.principal, names)
        return [
            ReplicaElectionResult(
                one.topic,
                [_result(topic, index, call.request.election_type) for index in one.partitions],
            )
            for one, topic in zip(asked, topics, strict=True)
        ]


async def _of_all(topics: Iterable[TopicImage], election: int) -> list[ReplicaElectionResult]:
    """Return the partitions that need an election. Some are looked at in each turn of the loop."""
    found: list[ReplicaElectionResult] = []
    left, seen = ANSWERED_MAX, 0
    for topic in topics:
        partitions = [
            _refused(index)
            for index, partition in enumerate(topic.partitions)
            if _is_needed(partition, election)
        ][:left]
        if partitions:
            found.append(ReplicaElectionResult(topic.name, partitions))
            left -= len(partitions)
        seen += len(topic.partitions)
        if seen >= PARTITIONS_A_TURN:
            seen = 0
            await asyncio.sleep(0)
        if left == 0:
            break
    return found


def _result(topic: TopicImage | TopicMissing, index: int, election: int) -> PartitionResult:
    if isinstance(topic, TopicMissing):
        return PartitionResult(index, code_of(topic.error), str(topic.error))
    if not 0 <= index < len(topic.partitions):
        message = f"topic {topic.name!r} has the partitions 0 to {len(topic.partitions) - 1}"
        return PartitionResult(index, UNKNOWN_TOPIC_OR_PARTITION, message)
    if _is_needed(topic.partitions[index], election):
        return _refused(index)
    return PartitionResult(index, ELECTION_NOT_NEEDED, "the partition has this leader already")


def _is_needed(partition: PartitionImage, election: int) -> bool:
    if election == PREFERRED:
        return partition.leader != partition.broker_ids[0]
    return partition.leader == NO_LEADER


def _refused(index: int) -> PartitionResult:
    return PartitionResult(index, INVALID_REQUEST, REFUSED)
