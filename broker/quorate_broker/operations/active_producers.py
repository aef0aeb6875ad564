"""Tells which idempotent producers write to a partition, from what its leader remembers of them."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from quorate.errors import UnknownTopicError
from quorate.net.principal import Principal
from quorate_broker.operations.partitions import check_count, locate
from quorate_broker.replica.producers import read_packed
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final = Required(Operation.READ, ResourceType.TOPIC)
#: The most producers of one partition that are told: those that were heard last.
TOLD_MAX = 10_000
#: Producers that are read in one turn of the event loop: some 3 ms.
PRODUCERS_A_TURN = 500


class ActiveProducer(NamedTuple):
    """What a partition remembers of a producer."""

    producer_id: int
    epoch: int
    #: The sequence of the last record that it wrote.
    last_sequence: int
    #: When the leader heard it last, in ms since 1970.
    heard_ms: int


class ActiveProducers:
    """The operation DescribeProducers, for all clients of a broker."""

    def __init__(self, replicas: Replicas, config: BrokerConfig, authorizer: Authorizer) -> None:
        self._replicas = replicas
        self._config = config
        self._authorizer = authorizer

    def check_count(self, named: int) -> None:
        """Raise InvalidRequestError if a request names more than it may."""
        check_count(named, self._config.request_partitions_max, self._replicas)

    async def of(
        self, principal: Principal, topic_id: bytes, partition: int
    ) -> list[ActiveProducer]:
        """Return the producers of a partition that this broker leads, the last heard one last.

        Raises the errors of `locate`, and NotLeaderError.
        """
        if partition < 0:
            raise UnknownTopicError(f"a partition {partition} does not exist")
        caller = Caller(principal, self._authorizer)
        found = locate(self._replicas, caller, REQUIRED, topic_id, partition, -1)
        found.as_leader(-1)
        clock_ms, wall_ms = found.producers.now_ms, self._replicas.environment.wall_clock_ms()
        told: list[ActiveProducer] = []
        for number, packed in enumerate(found.producers.latest(TOLD_MAX), 1):
            producer_id, silent_ms, state = read_packed(packed, clock_ms)
            last = state.batches[-1].last_sequence
            told.append(ActiveProducer(producer_id, state.epoch, last, wall_ms - silent_ms))
            if number % PRODUCERS_A_TURN == 0:
                await asyncio.sleep(0)
        return told
