"""Finds offsets in many partitions: the earliest, latest, that of a time, the end of an epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from quorate.errors import InvalidRequestError, QuorateError
from quorate.net.principal import Principal
from quorate_broker.operations.partitions import (
    PARTITIONS_A_TURN,
    check_count,
    locate,
    refuse_duplicates,
)
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final = Required(Operation.DESCRIBE, ResourceType.TOPIC)
GREATEST_TIMESTAMP = -3
EARLIEST_TIMESTAMP = -2


class OffsetAsked(NamedTuple):
    """A question for the first record at or after a time.

    timestamp_ms -3 means the record with the greatest timestamp, -2 the earliest offset, and -1 the
    high watermark.
    """

    topic_id: bytes
    partition: int
    timestamp_ms: int
    leader_epoch: int


class OffsetFound(NamedTuple):
    """The answer for one partition. The offset is -1 if no record is that late."""

    offset: int
    timestamp_ms: int
    leader_epoch: int
    high_watermark: int


class EpochAsked(NamedTuple):
    """A question for the end of an epoch. `leader_epoch`: the one that the caller knows, or -1."""

    topic_id: bytes
    partition: int
    epoch: int
    leader_epoch: int


class EpochEnd(NamedTuple):
    """The largest epoch not above the one that was asked for, and its end; -1: not known."""

    leader_epoch: int
    end_offset: int


class Offsets:
    """The operations ListOffsets and OffsetForLeaderEpoch, for all clients of a broker."""

    def __init__(self, replicas: Replicas, config: BrokerConfig, authorizer: Authorizer) -> None:
        self._replicas = replicas
        self._config = config
        self._authorizer = authorizer

    def check_count(self, named: int) -> None:
        """Raise InvalidRequestError if a request names more partitions than it may."""
        check_count(named, self._config.request_partitions_max, self._replicas)

    async def find(
        self, principal: Principal, asked: Sequence[OffsetAsked]
    ) -> list[OffsetFound | QuorateError]:
        """Return the answer or the error for each partition, in the order of `asked`.

        Raises InvalidRequestError if a partition occurs twice.
        """
        refuse_duplicates((one.topic_id, one.partition) for one in asked)
        caller = Caller(principal, self._authorizer)
        found = []
        for one in asked:
            found.append(await self._find(caller, one))
            # let other tasks run, because a search in memory does not wait
            await asyncio.sleep(0)
        return found

    async def epoch_ends(
        self, principal: Principal, asked: Sequence[EpochAsked]
    ) -> list[EpochEnd | QuorateError]:
        """Return the end of each epoch, or the error, in the order of `asked`.

        A consumer compares it with what it has read, to learn whether the log was cut (KIP-320).
        Raises InvalidRequestError if a partition occurs twice.
        """
        refuse_duplicates((one.topic_id, one.partition) for one in asked)
        caller = Caller(principal, self._authorizer)
        found = []
        for index, one in enumerate(asked, 1):
            found.append(self._epoch_end(caller, one))
            if index % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
        return found

    def _epoch_end(self, caller: Caller, asked: EpochAsked) -> EpochEnd | QuorateError:
        topic_id, index, epoch, leader_epoch = asked
        try:
            partition = locate(self._replicas, caller, REQUIRED, topic_id, index, leader_epoch)
            high_watermark = partition.as_leader(leader_epoch).machine.high_watermark
        except QuorateError as error:
            return error
        found = partition.log.epochs.end_offset_for(epoch, high_watermark)
        if found is None:
            return EpochEnd(-1, -1)
        return EpochEnd(found[0], min(found[1], high_watermark))

    async def _find(self, caller: Caller, asked: OffsetAsked) -> OffsetFound | QuorateError:
        topic_id, index, timestamp_ms, leader_epoch = asked
        try:
            if timestamp_ms < GREATEST_TIMESTAMP:
                raise InvalidRequestError(
                    "timestamp_ms must be -3 (the greatest), -2 (earliest), -1 (latest) or a time, "
                    f"not {timestamp_ms}"
                )
            partition = locate(self._replicas, caller, REQUIRED, topic_id, index, leader_epoch)
            found = await partition.as_leader(leader_epoch).list_offset(timestamp_ms)
        except QuorateError as error:
            return error
        return OffsetFound(*found, partition.high_watermark)
