"""InitProducerId: gives ids to idempotent producers, from blocks that the controller allocates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from quorate.errors import InvalidRequestError, OverloadedError
from quorate.net.principal import Principal
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType

REQUIRED: Final = Required(Operation.IDEMPOTENT_WRITE, ResourceType.CLUSTER)
#: The largest value of the signed 16-bit field of a batch.
PRODUCER_EPOCH_MAX = 32_767
#: The most calls that wait for a block.
UNANSWERED_IDS_MAX = 10_000


class ProducerId(NamedTuple):
    """The id and epoch that a producer writes into its batches.

    A broker refuses batches with an older epoch of the same id.
    """

    id: int
    epoch: int


class ProducerIds:
    """The InitProducerId operation. It gives each id to only one producer.

    `allocate` asks the controller for the next block. It may raise any QuorateError.
    """

    def __init__(self, allocate: Callable[[], Awaitable[range]], authorizer: Authorizer) -> None:
        self._allocate = allocate
        self._authorizer = authorizer
        self._block = range(0)
        self._asking = asyncio.Lock()
        self._waiting = 0

    async def init(self, principal: Principal, known: int, epoch: int) -> ProducerId:
        """Return a new id, or the caller's id `known` with the next epoch.

        `known` is -1 if the caller has no id. A caller at the last epoch gets a new id.
        """
        Caller(principal, self._authorizer).check(REQUIRED)
        if known < -1 or not -1 <= epoch <= PRODUCER_EPOCH_MAX:
            raise InvalidRequestError(
                f"producer_id {known} with producer_epoch {epoch} can't be: ids are -1 (a new "
                f"one) or more, epochs -1 to {PRODUCER_EPOCH_MAX}"
            )
        if known == -1 or epoch in (-1, PRODUCER_EPOCH_MAX):
            return ProducerId(await self._next(), 0)
        return ProducerId(known, epoch + 1)

    async def _next(self) -> int:
        if not self._block:
            await self._next_block()
        found = self._block[0]
        self._block = self._block[1:]
        return found

    async def _next_block(self) -> None:
        if self._waiting >= UNANSWERED_IDS_MAX:
            raise OverloadedError("too many producers wait for an id: ask another broker")
        self._waiting += 1
        try:
            async with self._asking:
                while not self._block:
                    self._block = await self._allocate()
        finally:
            self._waiting -= 1
