"""The content of a broker's heartbeats, and what the broker does with each answer.

The broker sends a heartbeat at each interval. It sends one at once in these cases:

* it has carried out the image up to the offset that the controller waits for;
* a log directory failed;
* a replica was found to be lossy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from quorate.errors import QuorateError
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.files.directories import LogDirectories
from quorate_broker.publisher import Publisher
from quorate_broker.registration import Registration
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.client.heartbeat import HeartbeatStream
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.v1.controller_pb2 import (
    DirectorySpace,
    HeartbeatRequest,
    HeartbeatResponse,
    LossyReplica,
    PartitionId,
    ReplicaEnd,
)

log = structlog.get_logger(__name__)

#: The most end offsets of replicas in one heartbeat. The controller asks again for the rest.
ENDS_MAX = 10_000


class Heartbeats:
    """Sends the heartbeats of a broker.

    `fenced` is called when the controller does not know the registration.
    """

    def __init__(
        self,
        config: BrokerConfig,
        directories: LogDirectories,
        client: QuorumClient,
        replicas: Replicas,
        *,
        registration: Callable[[], Registration],
        fenced: Callable[[], None],
    ) -> None:
        self._leave_max_s = config.controlled_shutdown_timeout_ms / 1000
        self._silence_max_s = config.controlled_shutdown_silence_max_ms / 1000
        self._directories = directories
        self._client = client
        self._replicas = replicas
        self._registration = registration
        self._fenced = fenced
        self._publisher: Publisher | None = None
        self._stream: HeartbeatStream | None = None
        #: Whether the logs of the first image are open. Until then this broker asks to stay fenced.
        self._is_open = False
        #: The offset that the controller waits for: when the image is carried out up to it, send a
        #: heartbeat at once. 0: none.
        self._notify_offset = 0
        self._losses_known = 0
        self._ends_wanted: list[PartitionId] = []
        self._wants_shutdown = False
        self._should_shut_down = asyncio.Event()
        self._answered = asyncio.Event()
        self._answered_at = 0.0

    def start(self, publisher: Publisher) -> None:
        """Send heartbeats from now on."""
        self._publisher = publisher
        self._replicas.losses.on_found = self._lossy_found
        self._stream = self._client.heartbeat(self._state, self._heard)

    def push(self) -> None:
        """Send a heartbeat now."""
        if self._stream is not None:
            self._stream.push()

    def applied(self, image: MetadataImage) -> None:
        """Take note of an image that was carried out. After the first one all logs are open."""
        is_due = not self._is_open
        self._is_open = True
        if self._notify_offset and image.offset >= self._notify_offset:
            self._notify_offset = 0
            is_due = True
        if self._losses_known != len(self._replicas.losses):
            self._losses_known = len(self._replicas.losses)
            # the losses have changed: report the next ones, or that no replica is lossy any more
            is_due = True
        if is_due:
            self.push()

    async def leave(self) -> None:
        """Ask the controller to move leadership to other brokers. Wait until this broker may stop.

        The wait is at most controlled_shutdown_timeout_ms in total, and at most
        controlled_shutdown_silence_max_ms without an answer of a controller.
        """
        if self._stream is None:
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._wants_shutdown = True
        self.push()
        while not self._should_shut_down.is_set():
            heard_at = max(begun, self._answered_at)
            until = min(begun + self._leave_max_s, heard_at + self._silence_max_s)
            if loop.time() >= until:
                log.warning("left_without_leave", waited_ms=round((loop.time() - begun) * 1000))
                return
            timer = loop.call_at(until, self._answered.set)
            try:
                self._answered.clear()
                await self._answered.wait()
            finally:
                timer.cancel()
        log.info("left", waited_ms=round((loop.time() - begun) * 1000))

    async def stop(self) -> None:
        """Send no more heartbeats. It is safe to call this twice."""
        if self._stream is not None:
            await self._stream.close()

    # -- the heartbeat

    def _state(self) -> HeartbeatRequest:
        assert self._publisher is not None
        registration = self._registration()
        return HeartbeatRequest(
            broker_id=registration.broker_id,
            broker_epoch=registration.broker_epoch,
            incarnation=registration.incarnation,
            applied_offset=self._publisher.applied_offset,
            want_fence=not self._is_open or len(self._replicas.losses) > 0,
            want_shutdown=self._wants_shutdown,
            failed_directories=self._directories.failed_ids,
            replica_ends=self._take_ends(),
            lossy_replicas=self._lossy(),
            directory_spaces=self._spaces(),
        )

    def _spaces(self) -> list[DirectorySpace]:
        """Return what the controller needs to choose the log directories of new replicas."""
        unwritten = self._replicas.unwritten
        return [
            DirectorySpace(
                directory_id=one.id,
                free_bytes=one.free_bytes,
                unwritten=len(unwritten[one.id]) if one.id in unwritten else 0,
            )
            for one in self._directories.working
            if one.free_bytes is not None
        ]

    def _lossy(self) -> list[LossyReplica]:
        """Return the lossy replicas to report; empty before the logs are open."""
        return self._replicas.losses.to_tell(self._replicas.image) if self._is_open else []

    def _lossy_found(self) -> None:
        if self._is_open:
            self.push()

    def _take_ends(self) -> list[ReplicaEnd]:
        """Return the log ends that the controller asked for; empty before the logs are open."""
        if not self._is_open:
            return []
        wanted, self._ends_wanted = self._ends_wanted, []
        return [end for one in wanted if (end := self._end_of(one)) is not None]

    def _end_of(self, one: PartitionId) -> ReplicaEnd | None:
        """Return a replica's log end; None if the replica is offline or not on this broker."""
        try:
            last_epoch, log_end_offset = self._replicas.replica_end(one.topic_id, one.partition)
        except QuorateError as error:
            log.info(
                "replica_end_unknown", partition=one.partition, reason=str(error), repeats=True
            )
            return None
        return ReplicaEnd(
            topic_id=one.topic_id,
            partition=one.partition,
            last_epoch=last_epoch,
            log_end_offset=log_end_offset,
        )

    # -- the answer

    def _heard(self, response: HeartbeatResponse) -> None:
        """Process an answer of the controller. The stream itself handles NOT_CONTROLLER."""
        if response.error.code != ErrorCode.ERROR_CODE_NONE:
            log.warning("heartbeat_refused", reason=response.error.message, repeats=True)
            if response.error.code == ErrorCode.ERROR_CODE_FENCED and not self._wants_shutdown:
                self._fenced()
            return
        self._answered_at = asyncio.get_running_loop().time()
        self._notify_offset = response.notify_offset
        if response.should_shut_down and self._wants_shutdown:
            self._should_shut_down.set()
        self._answered.set()
        assert self._publisher is not None
        is_due = 0 < self._notify_offset <= self._publisher.applied_offset
        if response.ends_wanted:
            self._ends_wanted = list(response.ends_wanted[:ENDS_MAX])
            is_due = is_due or self._is_open
        if is_due:
            self.push()
