"""The broker's side of its lease: one stream of heartbeats to the current controller.

When the stream breaks, the broker opens it again, until close(). When another voter becomes the
controller, the stream moves to it at once. When the controller is silent for a few intervals, the
broker tries another voter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from quorate.aio.backoff import Backoff
from quorate.aio.bell import Bell
from quorate.aio.tasks import Tasks
from quorate.errors import QuorateError, StreamBrokenError, from_wire, raise_if_error
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.client.history import FollowedHistory
from quorate_quorum.client.leader import ANOTHERS, Leader, LeaderFinder
from quorate_quorum.client.voters import Connections
from quorate_quorum.methods import HEARTBEAT
from quorate_quorum.v1.controller_pb2 import HeartbeatRequest, HeartbeatResponse

log = structlog.get_logger(__name__)

#: After this many intervals without an answer, a stream is dropped.
SILENT_INTERVALS_MAX = 3
#: The bounds of the interval between heartbeats, which the controller sets in its answers.
INTERVAL_MIN_MS, INTERVAL_MAX_MS = 10, 10_000


@dataclass(eq=False)
class HeartbeatStream:
    """The heartbeats of one broker, from the construction of this object to close().

    `state` returns the request to send; `state` is called at each heartbeat. `answered` takes each
    answer, FENCED included. `fail` stops the node. `fail` is called when one of the other two
    raises an exception that is not a QuorateError.
    """

    _history: FollowedHistory
    _leader: LeaderFinder
    _connections: Connections
    state: Callable[[], HeartbeatRequest]
    answered: Callable[[HeartbeatResponse], None]
    fail: Callable[[str], None]
    interval_ms: int
    backoff: Backoff
    _endpoint: str = ""
    _timeout: asyncio.Timeout | None = None
    _is_moving: bool = False
    _was_answered: bool = False
    _push: Bell = field(default_factory=Bell)
    _moved: Bell = field(default_factory=Bell)

    def __post_init__(self) -> None:
        self._tasks = Tasks(self._failed)
        self._forget_leader = self._leader.when_moved(self.controller_moved)
        self._tasks.spawn(self._keep(), "quorum-heartbeat")

    def push(self) -> None:
        """Send a heartbeat now. Several calls in one turn of the event loop send one."""
        self._push.ring()

    async def close(self) -> None:
        """End the stream. A second call does nothing."""
        self._forget_leader()
        await self._tasks.end_all()

    def controller_moved(self, endpoint: str) -> None:
        """Move to the controller at `endpoint` at once. Do not wait until the old one is silent."""
        self._moved.ring()
        if self._timeout is None or self._timeout.expired():
            return  # no session is open, or the session is ending already
        if self._endpoint != endpoint:
            self._is_moving = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def _keep(self) -> NoReturn:
        while True:
            self._moved.reset()
            self._endpoint = self._leader.candidate()
            self._is_moving = self._was_answered = False
            try:
                await self._session(self._endpoint)
            except TimeoutError:
                if not self._is_moving:
                    log.info("heartbeat_silent", endpoint=self._endpoint, repeats=True)
                    self._leader.forget(self._endpoint)
                    self._connections.drop(self._endpoint)
            except QuorateError as error:
                log.info(
                    "heartbeat_broken", endpoint=self._endpoint, reason=str(error), repeats=True
                )
                # If the voter has answered before, ask it once more before another.
                if not self._was_answered:
                    self._leader.forget(self._endpoint)
            if not self._is_moving:
                await self.backoff.wait(self._moved)

    async def _session(self, endpoint: str) -> NoReturn:
        loop = asyncio.get_running_loop()
        stream = self._connections.get(endpoint).stream(HEARTBEAT, self._beats())
        try:
            async with asyncio.timeout(self._silence_max_s) as self._timeout, aclosing(stream):
                async for response in stream:
                    self._take(response)
                    self.backoff.reset()
                    if not self._is_moving:
                        self._timeout.reschedule(loop.time() + self._silence_max_s)
        finally:
            self._timeout = None
        raise StreamBrokenError("the controller ended the heartbeat stream")

    async def _beats(self) -> AsyncIterator[HeartbeatRequest]:
        while True:
            self._push.reset()
            beat = self.state()
            beat.cluster_id = self._history.cluster_id
            beat.quorum_generation = self._history.generation
            yield beat
            await self._push.wait(self.interval_ms)

    def _take(self, response: HeartbeatResponse) -> None:
        if response.error.code == ErrorCode.ERROR_CODE_NOT_CONTROLLER:
            self._leader.follow_hint(self._endpoint, response.leader_id, response.leader_endpoint)
        if response.error.code in ANOTHERS:
            raise from_wire(response.error)
        self._was_answered = True
        if response.error.code == ErrorCode.ERROR_CODE_NONE:
            self.interval_ms = min(max(response.interval_ms, INTERVAL_MIN_MS), INTERVAL_MAX_MS)
            self._leader.learn(Leader(response.leader_id, response.leader_endpoint, response.epoch))
        self.answered(response)
        raise_if_error(response.error)

    @property
    def _silence_max_s(self) -> float:
        return self.interval_ms * SILENT_INTERVALS_MAX / 1000

    def _failed(self, name: str, error: BaseException) -> None:
        log.error("heartbeat_failed", exc_info=error)
        self.fail(f"the heartbeat cannot go on: {error!r}")
