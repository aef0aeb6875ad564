"""DescribeProducers: the idempotent producers that write to partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from quorate.errors import InvalidRequestError, QuorateError, UnknownTopicError
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.codec import EncodedBody
from quorate_broker.listeners.kafka.errors import NONE, code_of
from quorate_broker.listeners.kafka.in_parts import encoded_in_parts
from quorate_broker.listeners.kafka.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)
from quorate_broker.listeners.kafka.versions import DESCRIBE_PRODUCERS
from quorate_broker.operations.active_producers import ActiveProducer, ActiveProducers
from quorate_broker.replicas.replicas import Replicas

#: Partitions and producers that are encoded in one turn of the event loop. A topic with more stands
#: several times in the answer.
ENCODED_A_TURN: Final = 2_000
#: There are no transactions: no coordinator has written, and none is open.
NO_COORDINATOR: Final = -1
NO_TRANSACTION: Final = -1


class ProducerRequests:
    """Tells what leaders remember of producers."""

    def __init__(self, producers: ActiveProducers, replicas: Replicas) -> None:
        self._producers = producers
        self._replicas = replicas

    def handlers(self) -> Mapping[int, Handler]:
        return {DESCRIBE_PRODUCERS: self.describe_producers}

    async def describe_producers(self, call: Call[DescribeProducersRequest]) -> EncodedBody:
        topics = call.request.topics
        self._producers.check_count(max(len(topics), sum(len(t.partition_indexes) for t in topics)))
        return await encoded_in_parts(
            DESCRIBE_PRODUCERS,
            call.version,
            lambda found: DescribeProducersResponse(topics=found),
            self._described(call),
        )

    async def _described(
        self, call: Call[DescribeProducersRequest]
    ) -> AsyncIterator[Sequence[TopicResponse]]:
        seen: set[tuple[str, int]] = set()
        for topic in call.request.topics:
            answers: list[PartitionResponse] = []
            size = 0
            for partition in topic.partition_indexes:
                key = topic.name, partition
                answers.append(await self._partition(call, *key, is_again=key in seen))
                seen.add(key)
                size += 1 + len(answers[-1].active_producers)
                if size >= ENCODED_A_TURN:
                    yield [TopicResponse(topic.name, answers)]
                    answers, size = [], 0
            if answers or not topic.partition_indexes:
                yield [TopicResponse(topic.name, answers)]

    async def _partition(
        self, call: Call[DescribeProducersRequest], topic: str, partition: int, *, is_again: bool
    ) -> PartitionResponse:
        """Answer for one partition. One that is named again is not told again: it may be long."""
        topic_id = self._replicas.image.topic_ids.get(topic)
        try:
            if topic_id is None:
                raise UnknownTopicError(f"no topic is named {topic[:249]!r}")
            if is_again:
                raise InvalidRequestError(f"partition {partition} is named twice")
            found = await self._producers.of(call.client.principal, topic_id, partition)
        except QuorateError as error:
            return PartitionResponse(partition, code_of(error), str(error))
        return PartitionResponse(partition, NONE, None, [_told(one) for one in found])


def _told(one: ActiveProducer) -> ProducerState:
    return ProducerState(
        one.producer_id,
        one.epoch,
        one.last_sequence,
        one.heard_ms,
        NO_COORDINATOR,
        NO_TRANSACTION,
    )
