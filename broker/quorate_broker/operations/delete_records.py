"""DeleteRecords: deletes all records below an offset, in many partitions, on all live replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from quorate.aio.clock import Deadline
from quorate.aio.turns import Turns
from quorate.errors import (
    OffsetNotAvailableError,
    OffsetOutOfRangeError,
    OverloadedError,
    QuorateError,
    RequestTimedOutError,
)
from quorate.net.principal import Principal
from quorate_broker.operations.admin import TIMEOUT_MS, TIMEOUT_MS_MAX, answered_in_time
from quorate_broker.operations.partitions import (
    PARTITIONS_A_TURN,
    check_count,
    locate,
    refuse_duplicates,
    refuse_internal,
)
from quorate_broker.replica.partition import Partition
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final = Required(Operation.DELETE, ResourceType.TOPIC)
#: The offset that means the high watermark.
ALL_COMMITTED = -1
#: The most logs whose start moves at the same time. Each move is synced.
MOVES_MAX = 16
#: The most partitions that wait for their followers, over all calls.
WAITING_MAX = 10_000
#: If a follower is fenced, or its log directory fails, the call notices this within this time, and
#: stops waiting for the follower.
LOOK_AGAIN_MS = 250


class DeletionAsked(NamedTuple):
    """A request to delete all records below `before_offset`; -1: all below the high watermark."""

    topic_id: bytes
    partition: int
    before_offset: int
    leader_epoch: int


class DeleteRecords:
    """The DeleteRecords operation, for all clients of a broker.

    The start of the leader's log moves first. The call then waits until the log of each live
    replica begins there, too: one whose broker is not fenced and whose log directory works. So the
    records stay deleted, whichever of these replicas leads next. The call is safe to repeat.
    """

    def __init__(self, replicas: Replicas, config: BrokerConfig, authorizer: Authorizer) -> None:
        self._replicas = replicas
        self._config = config
        self._authorizer = authorizer
        self._moves = asyncio.Semaphore(MOVES_MAX)
        self._turns = Turns(PARTITIONS_A_TURN)
        self._waiting = 0

    def check_count(self, named: int) -> None:
        """Raise InvalidRequestError if a request names more partitions than it may."""
        check_count(named, self._config.request_partitions_max, self._replicas)

    async def delete(
        self,
        principal: Principal,
        asked: Sequence[DeletionAsked],
        *,
        timeout_ms: int,
        caller_timeout_ms: int,
    ) -> list[int | QuorateError]:
        """Return the new start of each log, or the error, in the order of `asked`.

        Raises InvalidRequestError if a partition occurs twice, or OverloadedError.
        """
        refuse_duplicates((one.topic_id, one.partition) for one in asked)
        if self._waiting + len(asked) > WAITING_MAX:
            raise OverloadedError(
                f"{self._waiting} deletions of records wait for followers already; {WAITING_MAX} "
                "are allowed: try again later"
            )
        wait_ms = min(timeout_ms or TIMEOUT_MS, TIMEOUT_MS_MAX)
        deadline = Deadline(answered_in_time(wait_ms, caller_timeout_ms))
        caller = Caller(principal, self._authorizer)
        self._waiting += len(asked)
        try:
            return await asyncio.gather(*(self._answer(caller, one, deadline) for one in asked))
        finally:
            self._waiting -= len(asked)

    async def _answer(
        self, caller: Caller, asked: DeletionAsked, deadline: Deadline
    ) -> int | QuorateError:
        try:
            await self._turns.take()
            partition = locate(
                self._replicas,
                caller,
                REQUIRED,
                asked.topic_id,
                asked.partition,
                asked.leader_epoch,
            )
            refuse_internal(partition)
            return await self._delete(partition, asked, deadline)
        except QuorateError as error:
            return error

    async def _delete(self, partition: Partition, asked: DeletionAsked, deadline: Deadline) -> int:
        leader = partition.as_leader(asked.leader_epoch)
        start = leader.log_start
        offset = asked.before_offset
        if not leader.machine.knows_high_watermark:
            raise OffsetNotAvailableError(
                f"{partition.name}: the high watermark is not yet known to this leader; retry"
            )
        if offset < ALL_COMMITTED:
            raise OffsetOutOfRangeError(
                f"{partition.name}: before_offset must be -1 (the high watermark) or more, "
                f"not {offset}"
            )
        if offset > start.high_watermark:
            raise OffsetOutOfRangeError(
                f"{partition.name}: the records below offset {offset} cannot be deleted, because "
                f"the high watermark is {start.high_watermark}; nothing was deleted"
            )
        offset = start.high_watermark if offset == ALL_COMMITTED else offset
        async with self._moves:
            await start.move(offset, "delete records")
        await self._wait_for_followers(partition, offset, deadline)
        return partition.log_start_offset

    async def _wait_for_followers(
        self, partition: Partition, offset: int, deadline: Deadline
    ) -> None:
        """Wait until the log of each live replica begins at `offset` or above."""
        start = partition.as_leader().log_start
        while lacking := self._lacking(partition, offset):
            if deadline.has_passed:
                raise RequestTimedOutError(
                    f"{partition.name}: the leader has deleted the records below {offset}; the "
                    f"replicas of brokers {lacking} have not yet; ask again"
                )
            wait_ms = min(deadline.left_ms, LOOK_AGAIN_MS) + 1
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await start.moved.next_ring()
            await self._turns.take()
            start.check_reign()

    def _lacking(self, partition: Partition, offset: int) -> list[int]:
        """Return the brokers whose live replica still begins below `offset`."""
        image = self._replicas.image
        state = image.partition(*partition.key)
        behind = partition.as_leader().log_start.behind(offset)
        return [one for one in behind if state is not None and image.is_live(state, one)]
