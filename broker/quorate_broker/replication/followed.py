"""One partition on the stream from its leader: what the leader's answers ask for, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from quorate.errors import InvalidRequestError
from quorate_quorum.log.disk_errors import TryAgainError

if TYPE_CHECKING:
    from quorate.aio.tasks import Tasks
    from quorate_broker.replica.follower_replica import FetchPosition
    from quorate_broker.replica.partition import Partition
    from quorate_broker.v1.replica_pb2 import ReplicaFetched

log_line = structlog.get_logger(__name__)

#: Before a leader is asked again for a batch that did not pass its CRC.
CORRUPT_RETRY_S = 1.0
#: Answers for one partition that wait for the one before; an honest leader sends far fewer.
PENDING_MAX = 1000


class Followed:
    """One partition on a stream, for as long as the stream carries it.

    The answers that came are carried out one after the other. When none is left, the position is
    named, which acknowledges what was written and asks for more. So a partition that is slow to
    write holds up no other.

    `named` is called with each position, `written` with the bytes that need no memory any more.
    """

    def __init__(
        self,
        partition: Partition,
        leader: int,
        tasks: Tasks,
        *,
        named: Callable[[Partition, FetchPosition], None],
        written: Callable[[int], None],
        backoff_s: Callable[[], float],
    ) -> None:
        self.partition = partition
        self._leader = leader
        self._tasks = tasks
        self._name = named
        self._written = written
        self._backoff_s = backoff_s
        self._is_carried = True
        self._is_working = False
        self._pending: deque[tuple[ReplicaFetched, memoryview]] = deque()
        #: It is to be named again when what is pending is done.
        self._must_name = False
        #: As last named on this stream, until that is answered.
        self._position: FetchPosition | None = None

    def begin_stream(self) -> None:
        """A new stream knows no position, and answers none that was named before."""
        self._position = None
        self.name()

    def name(self) -> None:
        """Name the position as soon as it is known."""
        self._must_name = True
        self._work_soon()

    def take(self, fetched: ReplicaFetched, batches: memoryview) -> None:
        """Carry out an answer, after those that came before it."""
        if len(self._pending) >= PENDING_MAX:
            raise InvalidRequestError(f"{self.partition.name}: answers pile up")
        self._pending.append((fetched, batches))
        self._work_soon()

    def drop(self) -> None:
        """The stream carries it no more. What is being written is finished, the rest dropped."""
        self._is_carried = False
        self._written(sum(len(batches) for _, batches in self._pending))
        self._pending.clear()
        self._must_name = False

    def _work_soon(self) -> None:
        if not self._is_working:
            self._is_working = True
            self._tasks.spawn(self._work(), f"follow {self.partition.name}")

    async def _work(self) -> None:
        try:
            while self._pending or self._must_name:
                if self._pending:
                    await self._carry_out(*self._pending.popleft())
                else:
                    self._must_name = False
                    await self._name_position()
        finally:
            self._is_working = False

    async def _carry_out(self, fetched: ReplicaFetched, batches: memoryview) -> None:
        follower = self.partition.follower
        is_bare = not batches and not fetched.HasField("diverging") and not fetched.error.code
        try:
            if follower is None or not self._is_answer(fetched):
                return
            if not is_bare:
                self._position = None
            refused = await follower.take(fetched, batches)
        finally:
            self._written(len(batches))
        if refused is not None and self._is_carried:
            log_line.info(
                "not replicated", partition=self.partition.name, reason=refused, repeats=True
            )
            # A bad batch is the same again, until another leads or repairs it.
            await asyncio.sleep(CORRUPT_RETRY_S if follower.was_corrupt else self._backoff_s())
        if refused is not None or not is_bare:
            self._must_name = True

    def _is_answer(self, fetched: ReplicaFetched) -> bool:
        """Tell an answer to what was named last from one that comes too late to matter."""
        named = self._position
        return named is not None and (fetched.leader_epoch, fetched.base_offset) == (
            named.leader_epoch,
            named.offset,
        )

    async def _name_position(self) -> None:
        """Name the current position, if the stream's leader still leads."""
        follower = self.partition.follower
        if follower is None:
            return  # it is named when it has its next role
        try:
            position = await follower.fetch_position()
        except TryAgainError as error:
            log_line.info("not named", partition=self.partition.name, reason=str(error))
            await asyncio.sleep(self._backoff_s())
            self._must_name = self._is_carried
            return
        if position is not None and position.leader == self._leader and self._is_carried:
            self._position = position
            self._name(self.partition, position)
