"""One partition on the stream from its leader. It carries out the leader's answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import InvalidRequestError
from quorate_broker.replica.follower_replica import FetchPosition
from quorate_broker.replica.partition import Partition
from quorate_broker.replica.replica import Key
from quorate_broker.replication.stream_credit import FRAME_BYTES
from quorate_broker.replication.throttle import Throttle
from quorate_broker.v1.replica_pb2 import ReplicaFetched
from quorate_quorum.log.disk_errors import TryAgainError

log_line = structlog.get_logger(__name__)

#: Pause before a leader is asked again for a batch that failed its CRC.
CORRUPT_RETRY_S = 1.0
#: The most answers for one partition that wait to be carried out. A correct leader sends far fewer.
PENDING_MAX = 1000


@dataclass(eq=False)
class Followed:
    """One partition on a stream, for as long as the stream fetches it.

    It carries out the answers one after the other. When no answer is left, it sends its position,
    which acknowledges the written records and asks for more. So a partition that is slow to write
    does not delay the others.

    While a throttle holds the partition, its position acknowledges, and asks for nothing. The
    position is sent again when the throttle allows more.

    `named` is called with each position to send, and the bytes that it may ask for (None: any).
    `written` is called with the batches of each answer when they are written or dropped.
    """

    partition: Partition
    _leader: int
    _tasks: Tasks
    _throttle: Throttle[Key]
    named: Callable[[Partition, FetchPosition, int | None], None]
    written: Callable[[memoryview], None]
    backoff_s: Callable[[], float]
    _is_carried: bool = True
    _is_working: bool = False
    _pending: deque[tuple[ReplicaFetched, memoryview]] = field(default_factory=deque)
    #: Whether to send the position when all pending answers are carried out.
    _must_name: bool = False
    #: The position that was last sent on this stream; None when it is answered.
    _position: FetchPosition | None = None
    #: Whether the position was sent that asks for nothing.
    _is_held: bool = False

    def __post_init__(self) -> None:
        self._unwatch = self.partition.replica_watches.add(self._look_again)

    def begin_stream(self) -> None:
        """Send the position again, on a new stream, where no position was sent before."""
        self._position = None
        self.name()

    def name(self) -> None:
        """Send the position as soon as it is known."""
        self._must_name = True
        self._work_soon()

    def take(self, fetched: ReplicaFetched, batches: memoryview) -> None:
        """Carry out an answer after the earlier ones."""
        if len(self._pending) >= PENDING_MAX:
            raise InvalidRequestError(f"{self.partition.name}: answers pile up")
        self._pending.append((fetched, batches))
        self._work_soon()

    def drop(self) -> None:
        """Leave the stream. A write under way is finished; waiting answers are dropped."""
        self._is_carried = False
        while self._pending:
            self.written(self._pending.popleft()[1])
        self._must_name = False
        self._unwatch()
        self._throttle.leave(self.partition.key)

    def _look_again(self) -> None:
        """Ask the throttle again: the ISR or a setting may have changed."""
        if self._is_held:
            self.name()

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
            if batches:
                self._throttle.used(self.partition.key, len(batches))
            refused = await follower.take(fetched, batches)
        finally:
            self.written(batches)
        if refused is not None and self._is_carried:
            log_line.info(
                "not replicated", partition=self.partition.name, reason=refused, repeats=True
            )
            # After a bad batch wait longer: the leader sends the same batch until another broker
            # leads or the leader's log is repaired.
            await asyncio.sleep(CORRUPT_RETRY_S if follower.was_corrupt else self.backoff_s())
        if refused is not None or not is_bare or self._has_new_start():
            self._must_name = True

    def _has_new_start(self) -> bool:
        """Return whether this log has a new start that the leader does not know.

        A deletion of records waits until the leader knows the new start.
        """
        named = self._position
        return named is not None and self.partition.log_start_offset > named.log_start_offset

    def _is_answer(self, fetched: ReplicaFetched) -> bool:
        """Return whether the answer is for the position that was sent last.

        An answer for an older position is ignored.
        """
        named = self._position
        return named is not None and (fetched.leader_epoch, fetched.base_offset) == (
            named.leader_epoch,
            named.offset,
        )

    async def _name_position(self) -> None:
        """Send the present position, if the stream's leader still leads."""
        follower = self.partition.follower
        if follower is None:
            # do nothing: the position is sent when the partition follows again
            return
        try:
            position = await follower.fetch_position()
        except TryAgainError as error:
            log_line.info("not named", partition=self.partition.name, reason=str(error))
            await asyncio.sleep(self.backoff_s())
            self._must_name = self._is_carried
            return
        if position is not None and position.leader == self._leader and self._is_carried:
            self._position = position
            bytes_max = self._throttle.ask(
                self.partition.key, self.partition, self.partition.broker_id, FRAME_BYTES, self.name
            )
            self._is_held = bytes_max == 0
            self.named(self.partition, position, bytes_max)
