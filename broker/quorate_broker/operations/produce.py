"""Produce: puts batches into their partitions, within budgets of bytes. Each batch gets an outcome.

A budget counts bytes that are not yet appended, but not batches that wait for their
acknowledgement. So a partition below min ISR does not delay other partitions. The end of a session
cancels nothing: an accepted batch is still appended, and its outcome is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from quorate.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    StoppingError,
    UnknownServerError,
)
from quorate.net.principal import Principal
from quorate_broker.operations.partitions import check_count, locate, refuse_internal
from quorate_broker.replica.produce_queue import Produced
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.node.authorizer import Authorizer, Caller, Operation, Required, ResourceType
from quorate_quorum.node.config import BrokerConfig

REQUIRED: Final = Required(Operation.WRITE, ResourceType.TOPIC)
ACKS = (-1, 0, 1)

Tag = TypeVar("Tag")


class ByteBudget:
    """A bound for the bytes that were read from producers and are not yet appended."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def is_full(self) -> bool:
        return self.held >= self.bytes_max

    def take(self, size: int) -> None:
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size
        if not self.is_full:
            waiting, self._waiting = self._waiting, deque()
            for wake in waiting:
                wake()

    def when_room(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the bytes are fewer than the bound again."""
        self._waiting.append(wake)

    async def room(self) -> None:
        """Wait until the bytes are fewer than the bound."""
        while self.is_full:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_room(partial(_end_wait, waiter))
            await waiter


def _end_wait(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Produce:
    """The produce operation, for all producers of a broker."""

    def __init__(self, replicas: Replicas, config: BrokerConfig, authorizer: Authorizer) -> None:
        self._replicas = replicas
        self._config = config
        self._authorizer = authorizer
        #: The bytes of all listeners' producers that are read and not appended.
        self.budget = ByteBudget(config.queued_max_bytes)

    def session(
        self,
        principal: Principal,
        completed: Callable[[Tag, Produced | QuorateError], None],
    ) -> ProduceSession[Tag]:
        """Return a session for one producer on one stream."""
        caller = Caller(principal, self._authorizer)
        return ProduceSession(self._replicas, self._config, caller, self.budget, completed)

    def check_count(self, named: int) -> None:
        """Raise InvalidRequestError if a request names more partitions than it may."""
        check_count(named, self._config.request_partitions_max, self._replicas)


@dataclass(eq=False)
class ProduceSession(Generic[Tag]):
    """The batches that one producer has under way on one stream.

    `completed` is called once for each batch, with the batch's tag. If the batch is refused at
    once, `start` itself calls it; otherwise the call comes in a later turn of the loop.
    """

    _replicas: Replicas
    _config: BrokerConfig
    _caller: Caller
    _budget: ByteBudget
    _completed: Callable[[Tag, Produced | QuorateError], None]
    _is_stopping: bool = False
    #: Number of batches that wait for their outcome.
    waiting: int = 0

    def __post_init__(self) -> None:
        self._own_budget = ByteBudget(self._config.stream_queued_max_bytes)

    def start(
        self,
        tag: Tag,
        topic_id: bytes,
        partition: int,
        batch: memoryview,
        *,
        leader_epoch: int,
        acks: int,
        timeout_ms: int,
        in_doubt_ms: int = 0,
    ) -> None:
        """Put one batch into its partition's queue.

        The order of these calls is the order in the queue. `batch` must not change until it is
        appended or refused. The other arguments are those of ProduceQueue.produce.
        """
        charge = _Charge(self, len(batch))
        self._own_budget.take(len(batch))
        self._budget.take(len(batch))
        try:
            self._check(acks)
            found = locate(
                self._replicas, self._caller, REQUIRED, topic_id, partition, leader_epoch
            )
            refuse_internal(found)
            outcome = found.as_leader(leader_epoch).queue.produce(
                batch,
                acks=acks,
                timeout_ms=min(timeout_ms, self._config.produce_timeout_max_ms),
                in_doubt_ms=in_doubt_ms,
                appended=charge,
            )
        except QuorateError as error:
            charge()
            self._completed(tag, error)
            return
        except BaseException:
            # give the bytes back even after a bug of this program: the bug ends only this stream,
            # and the other streams use the same budget
            charge()
            raise
        self.waiting += 1

        def done(outcome: asyncio.Future[Produced]) -> None:
            charge()
            self.waiting -= 1
            self._completed(tag, _outcome_of(outcome))

        outcome.add_done_callback(done)

    async def room(self) -> None:
        """Wait until the bytes of this session and those of the broker are within their bounds."""
        await self._own_budget.room()
        await self._budget.room()

    async def own_room(self) -> None:
        """Wait until the bytes of this session are within their bound."""
        await self._own_budget.room()

    def stop(self) -> None:
        """Refuse further batches. Accepted ones are still appended."""
        self._is_stopping = True

    def give_back(self, size: int) -> None:
        self._own_budget.give_back(size)
        self._budget.give_back(size)

    def _check(self, acks: int) -> None:
        if acks not in ACKS:
            raise InvalidRequestError(f"acks must be -1 (all), 0 or 1, not {acks}")
        if self._is_stopping:
            raise StoppingError("this broker is stopping: ask the partition's next leader")
        if self.waiting >= self._config.stream_waiting_max:
            raise OverloadedError(
                f"{self.waiting} batches of this stream wait for their outcome; "
                "no more are taken until some are done"
            )


class _Charge:
    """The bytes of one batch. They are given back once, when the batch is appended or refused."""

    __slots__ = ("_session", "_size")

    def __init__(self, session: ProduceSession[Tag], size: int) -> None:
        self._session = session
        self._size = size

    def __call__(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._session.give_back(size)


def _outcome_of(outcome: asyncio.Future[Produced]) -> Produced | QuorateError:
    if outcome.cancelled():
        return OutcomeUnknownError("the partition was closed before the outcome was known")
    error = outcome.exception()
    if error is None:
        return outcome.result()
    if isinstance(error, QuorateError):
        return error
    return UnknownServerError(f"{type(error).__name__}: {error}")
