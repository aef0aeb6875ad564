"""The stream of a member to its group's coordinator: opened again after each break."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from quorate.aio.backoff import Backoff
from quorate.aio.bell import Bell
from quorate.aio.clock import loop_ms
from quorate.cluster.cluster import Cluster
from quorate.cluster.coordinators import SILENCE_S, Coordinators
from quorate.cluster.leader_stream import BACKOFF_MS
from quorate.consumer.group.membership import Membership
from quorate.errors import (
    CoordinatorNotAvailableError,
    InvalidAssignmentError,
    NotMemberError,
    QuorateError,
    RequestTimedOutError,
    StreamBrokenError,
    UnreleasedInstanceIdError,
    from_wire,
)
from quorate.net.methods import MEMBERSHIP
from quorate.v1.common_pb2 import ErrorCode, LeaderHint
from quorate.v1.groups_pb2 import MemberHeartbeat

log = logging.getLogger(__name__)

#: The longest pause between two tries. The coordinator removes a member that is away for longer
#: than group.disconnect.grace.ms, which is 500 by default.
BACKOFF_MAX_MS = 200
#: Longest wait for the answer of a coordinator that is told that the member leaves.
LEAVE_S = 1.0
#: How long a member asks for a group_instance_id that another member has. The other one may be
#: this program before a crash that the coordinator has not noticed yet.
INSTANCE_WAIT_S = 3.0


class MembershipStream:
    """Sends what the membership wants to say, and gives it what the coordinator says.

    `changed` is called after each change of the membership, `lost` after the member was removed or
    refused, and `refused` with the error if the coordinator refuses the assignor's assignment.
    """

    def __init__(
        self,
        cluster: Cluster,
        coordinators: Coordinators,
        membership: Membership,
        *,
        changed: Callable[[], None],
        lost: Callable[[], None],
        refused: Callable[[InvalidAssignmentError], None],
    ) -> None:
        self._cluster = cluster
        self._coordinators = coordinators
        self._membership = membership
        self._group_id = membership.settings.group_id
        self._changed, self._lost, self._refused = changed, lost, refused
        #: Ring it when a heartbeat may be due earlier than before.
        self.bell = Bell()
        self._backoff = Backoff(BACKOFF_MS, BACKOFF_MAX_MS, cluster.chance)
        self._reader: asyncio.Task[QuorateError | None] | None = None
        #: When the oldest heartbeat without an answer was sent; None: all are answered.
        self._asked_at: float | None = None
        self._leave_sent = False
        self._hint: LeaderHint | None = None
        self._refused_since: float | None = None
        #: How the last stream failed, as the end of a sentence; empty if it was answered since.
        self.last_failure = ""

    def no_answer(self) -> RequestTimedOutError:
        """Return the error that says that the coordinator does not answer, and why, if known."""
        return RequestTimedOutError(
            f"the coordinator of group {self._group_id!r} has not answered{self.last_failure}"
        )

    def cut(self) -> None:
        """Break the stream. It is opened again."""
        if self._reader is not None:
            self._cluster.owner.cancel(self._reader)

    async def run(self) -> None:
        """Keep a stream open while there is something to say."""
        while True:
            self.bell.reset()
            if self._membership.due_ms(loop_ms()) is None:
                await self.bell.wait()
                continue
            await self._one_stream()
            if self._membership.phase != "out":
                await self._backoff.wait()

    async def _one_stream(self) -> None:
        endpoint, self._hint, self._asked_at, self._leave_sent = "", None, None, False
        try:
            endpoint = await self._coordinators.find(self._group_id)
            await self._converse(endpoint)
        except QuorateError as error:
            log.debug("group %r: the stream to %s ended: %s", self._group_id, endpoint, error)
            where = f"; the last error, of {endpoint}: " if endpoint else "; the last error: "
            self.last_failure = f"{where}{type(error).__name__}: {error}"
            if not self._leave_sent:
                self._failed(endpoint, error)
        self._membership.stream_ended()
        if self._leave_sent and self._membership.phase == "leaving":
            self._membership.left()
        self._changed()

    async def _converse(self, endpoint: str) -> None:
        owner, loop = self._cluster.owner, asyncio.get_running_loop()
        self._reader = reader = owner.spawn(self._read(endpoint), f"membership-{endpoint}")
        try:
            while not reader.done():
                await asyncio.wait([reader], timeout=SILENCE_S / 2)
                silent_s = 0.0 if self._asked_at is None else loop.time() - self._asked_at
                if reader.done() or (self._leave_sent and silent_s >= LEAVE_S):
                    break
                if silent_s >= SILENCE_S and await self._coordinators.has_moved(
                    self._group_id, endpoint
                ):
                    raise CoordinatorNotAvailableError(f"{endpoint} is silent, and was replaced")
        finally:
            self._reader = None
            await owner.end(reader)
        if not reader.cancelled() and (error := reader.result()) is not None:
            raise error

    async def _read(self, endpoint: str) -> QuorateError | None:
        connection = self._cluster.connection(endpoint, "control")
        try:
            async with aclosing(connection.stream(MEMBERSHIP, self._requests())) as states:
                async for state in states:
                    self._asked_at = None
                    if state.error.code != ErrorCode.ERROR_CODE_NONE:
                        error = from_wire(state.error)
                        if not isinstance(error, InvalidAssignmentError):
                            self._hint = (
                                state.coordinator if state.HasField("coordinator") else None
                            )
                            return error
                        self._refused(error)
                        continue
                    self._backoff.reset()
                    self._refused_since, self.last_failure = None, ""
                    self._membership.take(state, loop_ms())
                    self._changed()
                    if self._leave_sent and state.member_epoch <= 0:
                        return None
        except QuorateError as error:
            return error
        return StreamBrokenError(f"{endpoint} ended the stream")

    async def _requests(self) -> AsyncIterator[MemberHeartbeat]:
        membership, loop = self._membership, asyncio.get_running_loop()
        membership.stream_opened()
        while not self._leave_sent:
            self.bell.reset()
            now_ms = loop_ms()
            heartbeat = membership.next_heartbeat(now_ms)
            if heartbeat is not None:
                self._leave_sent = heartbeat.member_epoch < 0
                if self._asked_at is None or self._leave_sent:
                    self._asked_at = loop.time()
                yield heartbeat
                continue
            due_ms = membership.due_ms(now_ms)
            await self.bell.wait(None if due_ms is None else max(due_ms - now_ms, 0))

    def _failed(self, endpoint: str, error: QuorateError) -> None:
        if isinstance(error, NotMemberError):
            log.warning("group %r: this member was removed: %s", self._group_id, error)
            self._membership.fenced()
            self._lost()
            return
        if isinstance(error, UnreleasedInstanceIdError):
            now = asyncio.get_running_loop().time()
            self._refused_since = self._refused_since or now
            if now - self._refused_since < INSTANCE_WAIT_S:
                return
        try:
            self._coordinators.failed(self._group_id, endpoint, error, self._hint)
        except QuorateError:
            if self._cluster.owner.failure is not None:
                raise
            log.error("group %r: the coordinator refuses this member: %s", self._group_id, error)
            self._membership.fail(error)
            self._lost()
