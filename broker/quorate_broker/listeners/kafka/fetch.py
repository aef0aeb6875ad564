"""Fetch: full fetches only. A client that asks for a session gets none, and goes on without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Final

from quorate.errors import InvalidRequestError, QuorateError, UnknownTopicError
from quorate_broker.listeners.kafka.call import Call, Handler, Refusal
from quorate_broker.listeners.kafka.errors import (
    BY_ID,
    FENCED_LEADER_EPOCH,
    NONE,
    NOT_LEADER_OR_FOLLOWER,
    code_of,
)
from quorate_broker.listeners.kafka.messages.fetch import (
    NO_EPOCH_END_OFFSET,
    NO_LEADER_ID_AND_EPOCH,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)
from quorate_broker.listeners.kafka.reach import leader_in
from quorate_broker.listeners.kafka.versions import FETCH
from quorate_broker.operations.full_fetch import FetchAsked
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.read_replicas import Reader
from quorate_broker.replica.fetched import Fetched
from quorate_broker.replica.leader_replica import DivergedError
from quorate_broker.replicas.replicas import Replicas

#: The version from which topics are named by their ids.
BY_ID_FROM: Final = 13
#: Kafka's answers to a client that goes on with a session: there is none.
FETCH_SESSION_ID_NOT_FOUND: Final = 70
INVALID_FETCH_SESSION_EPOCH: Final = 71
NO_SESSION: Final = 0
#: The epochs of a request that is no part of a session: a last one, and the first of a new session.
FULL_EPOCHS: Final = (-1, 0)
#: The errors with which the answer names the present leader (KIP-951).
STALE: Final = (NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH)


class FetchRequests:
    """Reads the partitions that a request names. Every one of them is in the answer.

    The Java client throws away an answer without a session that lacks a partition.
    """

    def __init__(self, operations: Operations, replicas: Replicas) -> None:
        self._fetch = operations.fetch
        self._full_fetch = operations.full_fetch
        self._replicas = replicas

    def handlers(self) -> Mapping[int, Handler]:
        return {FETCH: self.fetch}

    async def fetch(self, call: Call[FetchRequest]) -> FetchResponse:
        request = call.request
        if max(request.replica_id, request.replica_state.replica_id) >= 0:
            raise Refusal("a Fetch request of a follower: this listener is for clients")
        if request.session_id != NO_SESSION:
            return FetchResponse(error_code=FETCH_SESSION_ID_NOT_FOUND)
        if request.session_epoch not in FULL_EPOCHS:
            return FetchResponse(error_code=INVALID_FETCH_SESSION_EPOCH)
        self._full_fetch.check_count(sum(len(topic.partitions) for topic in request.topics))
        ids = [self._topic_id(topic, call.version) for topic in request.topics]
        asked = [
            _asked(topic_id, one)
            for topic_id, topic in zip(ids, request.topics, strict=True)
            if topic_id is not None
            for one in topic.partitions
        ]
        # an error is an answer: the client waits for nothing
        wait_ms = 0 if None in ids else max(request.max_wait_ms, 0)
        wanted = self._fetch.wanted(
            0, max(request.min_bytes, 0), max(request.max_bytes, 0), wait_ms
        )
        # versions below 11 have no rack
        reader = Reader(request.rack_id, call.client.listener)
        principal = call.client.principal
        found: Iterator[Fetched | QuorateError]
        try:
            found = iter(await self._full_fetch.once(principal, reader, asked, wanted))
        except InvalidRequestError as error:  # a partition is named twice
            found = repeat(error)
        nodes: dict[int, NodeEndpoint] = {}
        responses = [
            FetchableTopicResponse(
                topic.topic,
                topic.topic_id,
                [
                    self._partition(
                        call, one, _unknown(topic) if is_unknown else next(found), nodes
                    )
                    for one in topic.partitions
                ],
            )
            for topic, is_unknown in zip(request.topics, (one is None for one in ids), strict=True)
        ]
        return FetchResponse(responses=responses, node_endpoints=list(nodes.values()))

    def _topic_id(self, topic: FetchTopic, version: int) -> bytes | None:
        """Return the id of a topic; None if no topic has this name."""
        if version >= BY_ID_FROM:
            return topic.topic_id
        return self._replicas.image.topic_ids.get(topic.topic)

    def _partition(
        self,
        call: Call[FetchRequest],
        asked: FetchPartition,
        found: Fetched | QuorateError,
        nodes: dict[int, NodeEndpoint],
    ) -> PartitionData:
        if not isinstance(found, QuorateError):
            return PartitionData(
                asked.partition,
                NONE,
                found.high_watermark,
                found.high_watermark,
                found.log_start_offset,
                aborted_transactions=None,
                preferred_read_replica=found.read_replica,
                records=found.batches,
            )
        if isinstance(found, DivergedError):
            # no error: the client cuts what it knows back to this offset (KIP-320)
            return _failed(asked, NONE, diverging=EpochEndOffset(*found.divergence))
        code = code_of(found, *((BY_ID,) if call.version >= BY_ID_FROM else ()))
        leader = leader_in(found, call.client, self._replicas)
        if leader is None or code not in STALE:
            return _failed(asked, code)
        if leader.address is not None:
            nodes[leader.broker_id] = NodeEndpoint(
                leader.broker_id, leader.address.host, leader.address.port, leader.rack or None
            )
        return _failed(asked, code, leader=LeaderIdAndEpoch(leader.broker_id, leader.leader_epoch))


def _asked(topic_id: bytes, one: FetchPartition) -> FetchAsked:
    return FetchAsked(
        topic_id,
        one.partition,
        one.fetch_offset,
        one.current_leader_epoch,
        max(one.partition_max_bytes, 0),
        one.last_fetched_epoch,
    )


def _unknown(topic: FetchTopic) -> UnknownTopicError:
    return UnknownTopicError(f"no topic is named {topic.topic[:249]!r}")


def _failed(
    asked: FetchPartition,
    code: int,
    *,
    diverging: EpochEndOffset = NO_EPOCH_END_OFFSET,
    leader: LeaderIdAndEpoch = NO_LEADER_ID_AND_EPOCH,
) -> PartitionData:
    return PartitionData(
        asked.partition,
        code,
        high_watermark=-1,
        diverging_epoch=diverging,
        current_leader=leader,
        aborted_transactions=None,
        records=b"",
    )
