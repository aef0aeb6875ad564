"""Produce and InitProducerId."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from quorate.errors import (
    QuorateError,
    UnknownTopicError,
)
from quorate.record import batch as record_batch
from quorate.record import compression
from quorate_broker.listeners.kafka.call import Call, Client, Handler, Refusal
from quorate_broker.listeners.kafka.errors import (
    BY_ID,
    INVALID_RECORD,
    INVALID_REQUEST,
    INVALID_REQUIRED_ACKS,
    NONE,
    NOT_LEADER_OR_FOLLOWER,
    OF_PRODUCE,
    UNSUPPORTED_COMPRESSION_TYPE,
    UNSUPPORTED_VERSION,
    code_of,
)
from quorate_broker.listeners.kafka.messages.init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)
from quorate_broker.listeners.kafka.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from quorate_broker.listeners.kafka.reach import leader_in
from quorate_broker.listeners.kafka.versions import INIT_PRODUCER_ID, PRODUCE
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_broker.operations.produce import ACKS, ProduceSession
from quorate_broker.replica.produce_queue import Produced
from quorate_broker.replicas.replicas import Replicas

#: The version from which topics are named by their ids.
BY_ID_FROM: Final = 13
#: The version from which batches may be compressed with zstd.
ZSTD_FROM: Final = 7
MAGIC_AT: Final = 16
ATTRIBUTES_AT: Final = 21


class _Refused(Exception):
    """A partition's records are refused before they are put into its queue."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(eq=False)
class _Owed:
    """The outcomes of one Produce request, as far as they are known."""

    acks: int
    client: Client
    response: asyncio.Future[ProduceResponse | None]
    #: The partitions' answers, in the order of the request; None: not known yet.
    answers: list[PartitionProduceResponse | None] = field(default_factory=list)
    #: The topics, each with the number of its partitions.
    topics: list[tuple[TopicProduceData, int]] = field(default_factory=list)
    nodes: dict[int, NodeEndpoint] = field(default_factory=dict)
    unknown: int = 0
    is_complete: bool = False


#: A partition of a request: its place in the answers, its index, and the id of its topic.
_Tag = tuple[_Owed, int, int, bytes]


class ProduceRequests:
    """Puts the batches of a request into the queues of their partitions."""

    def __init__(self, operations: Operations, replicas: Replicas) -> None:
        self._produce = operations.produce
        self._producer_ids = operations.producer_ids
        self._replicas = replicas
        self._sessions: dict[Client, ProduceSession[_Tag]] = {}

    def handlers(self) -> Mapping[int, Handler]:
        return {PRODUCE: self.produce, INIT_PRODUCER_ID: self.init_producer_id}

    async def init_producer_id(self, call: Call[InitProducerIdRequest]) -> InitProducerIdResponse:
        """Give an id to an idempotent producer: always a new one, as Kafka does."""
        if call.request.transactional_id is not None:
            # Clients give up at once. A retriable code would let them ask for ever.
            return InitProducerIdResponse(error_code=UNSUPPORTED_VERSION, producer_epoch=-1)
        try:
            found = await self._producer_ids.init(call.client.principal, -1, -1)
        except QuorateError as error:
            return InitProducerIdResponse(error_code=code_of(error), producer_epoch=-1)
        return InitProducerIdResponse(producer_id=found.id, producer_epoch=found.epoch)

    async def produce(
        self, call: Call[ProduceRequest]
    ) -> ProduceResponse | asyncio.Future[ProduceResponse | None] | None:
        """Return the future of the response, when every batch is in its queue or refused."""
        request = call.request
        self._produce.check_count(sum(len(one.partition_data) for one in request.topic_data))
        session = self._session(call.client)
        owed = _Owed(request.acks, call.client, asyncio.get_running_loop().create_future())
        named: set[tuple[bytes, int]] = set()
        for topic in request.topic_data:
            owed.topics.append((topic, len(topic.partition_data)))
            for data in topic.partition_data:
                place = len(owed.answers)
                owed.answers.append(None)
                owed.unknown += 1
                try:
                    topic_id = self._topic_id(topic, call.version)
                    records = _batch(call, data)
                    if (topic_id, data.index) in named:
                        raise _Refused(INVALID_REQUEST, "a partition is named twice")
                    named.add((topic_id, data.index))
                except _Refused as refused:
                    self._answered(owed, place, _refused(data.index, refused.code, str(refused)))
                    continue
                session.start(
                    (owed, place, data.index, topic_id),
                    topic_id,
                    data.index,
                    records,
                    leader_epoch=-1,
                    acks=request.acks,
                    timeout_ms=max(request.timeout_ms, 0),
                )
                if len(owed.answers) % PARTITIONS_A_TURN == 0:
                    await asyncio.sleep(0)
        owed.is_complete = True
        self._finish(owed)
        await session.own_room()
        return owed.response

    # inside

    def _session(self, client: Client) -> ProduceSession[_Tag]:
        session = self._sessions.get(client)
        if session is None:
            session = self._sessions[client] = self._produce.session(
                client.principal, self._completed
            )
            client.at_close.append(lambda: self._close(client))
        return session

    def _close(self, client: Client) -> None:
        self._sessions.pop(client).stop()

    def _topic_id(self, topic: TopicProduceData, version: int) -> bytes:
        if version >= BY_ID_FROM:
            return topic.topic_id
        found = self._replicas.image.topic_ids.get(topic.name)
        if found is None:
            error = UnknownTopicError(f"no topic is named {topic.name[:249]!r}")
            raise _Refused(code_of(error), str(error))
        return found

    def _completed(self, tag: _Tag, outcome: Produced | QuorateError) -> None:
        owed, place, index, topic_id = tag
        if isinstance(outcome, QuorateError):
            answer = self._failed(owed, index, topic_id, outcome)
        else:
            answer = PartitionProduceResponse(
                index,
                NONE,
                outcome.base_offset,
                outcome.log_append_time_ms,
                outcome.log_start_offset,
            )
        self._answered(owed, place, answer)

    def _failed(
        self, owed: _Owed, index: int, topic_id: bytes, error: QuorateError
    ) -> PartitionProduceResponse:
        topic_is_by_id = owed.topics[-1][0].topic_id != bytes(16)
        code = code_of(error, OF_PRODUCE, *((BY_ID,) if topic_is_by_id else ()))
        if error.refused_records:
            # Clients tell each other record of the batch that it was refused because of these.
            told = str(error)
            named = [BatchIndexAndErrorMessage(one, told) for one in error.refused_records]
            return _refused(index, code, told, records=named)
        if code != NOT_LEADER_OR_FOLLOWER:
            # Java's producer sends a batch of a forgotten producer again until it is told this.
            partition = self._replicas.find(topic_id, index)
            start = -1 if partition is None else partition.log_start_offset
            return _refused(index, code, str(error), log_start_offset=start)
        leader = leader_in(error, owed.client, self._replicas)
        if leader is None:
            return _refused(index, code, str(error))
        if leader.address is not None:
            owed.nodes[leader.broker_id] = NodeEndpoint(
                leader.broker_id, leader.address.host, leader.address.port, leader.rack or None
            )
        return _refused(
            index, code, str(error), LeaderIdAndEpoch(leader.broker_id, leader.leader_epoch)
        )

    def _answered(self, owed: _Owed, place: int, answer: PartitionProduceResponse) -> None:
        owed.answers[place] = answer
        owed.unknown -= 1
        self._finish(owed)

    def _finish(self, owed: _Owed) -> None:
        """Complete the response, if every outcome is known."""
        if not owed.is_complete or owed.unknown or owed.response.done():
            return
        answers = [one for one in owed.answers if one is not None]
        if owed.acks == 0:
            self._finish_unanswered(owed, answers)
            return
        topics, first = [], 0
        for topic, count in owed.topics:
            topics.append(
                TopicProduceResponse(topic.name, topic.topic_id, answers[first : first + count])
            )
            first += count
        owed.response.set_result(ProduceResponse(topics, node_endpoints=list(owed.nodes.values())))

    def _finish_unanswered(self, owed: _Owed, answers: Sequence[PartitionProduceResponse]) -> None:
        """Close the connection after an error: the client has no other way to learn of it."""
        failed = next((one for one in answers if one.error_code != NONE), None)
        if failed is None:
            owed.response.set_result(None)
        else:
            owed.response.set_exception(
                Refusal(f"a batch sent with acks=0 was refused: {failed.error_message}")
            )


def _batch(call: Call[ProduceRequest], data: PartitionProduceData) -> memoryview:
    """Return the records of a partition: exactly one batch of magic 2."""
    request = call.request
    if request.acks not in ACKS:
        raise _Refused(INVALID_REQUIRED_ACKS, f"acks must be -1, 0 or 1, not {request.acks}")
    if request.transactional_id is not None:
        raise _Refused(UNSUPPORTED_VERSION, "there are no transactions yet")
    records = memoryview(data.records if data.records is not None else b"")
    if len(records) < record_batch.HEADER_BYTES:
        raise _Refused(INVALID_RECORD, f"{len(records)} bytes are no batch of records")
    if records[MAGIC_AT] != record_batch.MAGIC:
        raise _Refused(INVALID_RECORD, f"a batch of magic {records[MAGIC_AT]}: only 2 is taken")
    size = int.from_bytes(records[8:12], "big", signed=True) + 12
    if size < len(records):
        raise _Refused(INVALID_RECORD, "more than one batch for a partition")
    codec = records[ATTRIBUTES_AT + 1] & record_batch.CODEC_MASK
    if codec >= len(compression.NAMES) or (codec == compression.ZSTD and call.version < ZSTD_FROM):
        raise _Refused(UNSUPPORTED_COMPRESSION_TYPE, f"codec {codec} is not taken here")
    return records


def _refused(
    index: int,
    code: int,
    message: str,
    leader: LeaderIdAndEpoch | None = None,
    records: Sequence[BatchIndexAndErrorMessage] = (),
    log_start_offset: int = -1,
) -> PartitionProduceResponse:
    return PartitionProduceResponse(
        index,
        code,
        base_offset=-1,
        log_start_offset=log_start_offset,
        record_errors=records,
        error_message=message,
        current_leader=LeaderIdAndEpoch() if leader is None else leader,
    )
