"""A broker's life with the controller: registered, fenced, unfenced, leaving.

    register -> image has passed the registration -> run file, strays, logs -> heartbeats that
    say how far the image is carried out -> unfenced -> ... -> asked to leave -> stopped

One registration an incarnation. A broker that silence has fenced goes on with its heartbeats and
is unfenced again when it has caught up; one that is told FENCED (it was unregistered, or the
controller knows another broker_epoch) registers again. One that sees another incarnation under
its own id stops: two processes must never write to one replica.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import (
    ClosedError,
    DuplicateBrokerError,
    QuorateError,
    RequestTimedOutError,
)
from quorate.v1.common_pb2 import ErrorCode
from quorate_broker.files.strays import Strays
from quorate_quorum.node.features import to_wire
from quorate_quorum.node.listeners import inter_broker
from quorate_quorum.node.listeners import to_wire as listener_to_wire
from quorate_quorum.v1.controller_pb2 import (
    HeartbeatRequest,
    LossyReplica,
    RegisterRequest,
    ReplicaEnd,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from quorate_broker.files.directories import LogDirectories
    from quorate_broker.publisher import Publisher
    from quorate_broker.replicas.replicas import Replicas
    from quorate_quorum.client.client import QuorumClient
    from quorate_quorum.client.heartbeat import HeartbeatStream
    from quorate_quorum.log.disk import Disk
    from quorate_quorum.metadata.brokers import BrokerImage
    from quorate_quorum.metadata.image import MetadataImage
    from quorate_quorum.node.config import BrokerConfig
    from quorate_quorum.node.features import Known
    from quorate_quorum.node.listeners import ListenerAddress
    from quorate_quorum.v1.controller_pb2 import HeartbeatResponse, PartitionId

log = structlog.get_logger(__name__)

CATCH_UP_LOG_MS = 5_000  # how often a broker that waits for the image says so
ENDS_MAX = 10_000  # replica ends in one heartbeat; the controller asks again for the rest


class Lifecycle:
    """See the module. `fail` stops the node."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        disk: Disk,
        features: Known,
        incarnation: bytes,
        directories: LogDirectories,
        client: QuorumClient,
        replicas: Replicas,
        fail: Callable[[str], None],
    ) -> None:
        self._config = config
        self._disk = disk
        self._features = features
        self._incarnation = incarnation
        self._directories = directories
        self._client = client
        self._replicas = replicas
        self._fail = fail
        self._publisher: Publisher | None = None
        self._strays: Strays | None = None
        self._listeners: tuple[ListenerAddress, ...] = ()
        self._heartbeat: HeartbeatStream | None = None
        self._tasks = Tasks(self._task_failed)
        self._notify_offset = 0
        self._is_open = False  # the logs of the image are open
        self._losses_known = 0
        self._wants_shutdown = False
        self._is_stopped = False
        self._ends_wanted: list[PartitionId] = []
        self._answered_at = 0.0
        self._answered = asyncio.Event()
        self.broker_epoch = -1
        self.is_fenced = True
        #: The image has passed the registration: what this broker tells is not of long ago.
        self.caught_up = asyncio.Event()
        self.unfenced = asyncio.Event()
        self.should_shut_down = asyncio.Event()

    async def register(self, listeners: tuple[ListenerAddress, ...], publisher: Publisher) -> None:
        """Register these listeners, begin heartbeats, and open the logs in the background.

        Raises DuplicateBrokerError, WrongClusterError, InvalidRequestError, ConfigError.
        """
        self._listeners = listeners
        self._publisher = publisher
        self._replicas.cluster_id = self._directories.cluster_id
        self._replicas.on_directory_failed = self.directory_failed
        self._directories.on_lost = self._lost
        self._replicas.losses.on_found = self._push_if_open
        apply_offset = await self._register()
        self._heartbeat = self._client.heartbeat(self._state, self._heard)
        self._own("open", self._open(apply_offset, publisher))

    def applied(self, image: MetadataImage) -> None:
        """The replicas have carried out an image."""
        if not self._is_open:
            self._is_open = True
            self._push()
        broker = image.brokers.get(self._config.node_id)
        if broker is not None and self._was_replaced(broker):
            self._fail(
                f"another process registered as broker {broker.id} from {broker.endpoint} "
                f"at offset {broker.epoch}: this one stops"
            )
            return
        is_fenced = self._replicas.fenced
        if is_fenced != self.is_fenced:
            self.is_fenced = is_fenced
            log.info("fenced" if is_fenced else "unfenced", broker_id=self._config.node_id)
            (self.unfenced.clear if is_fenced else self.unfenced.set)()
            self._push()
        if self._notify_offset and image.offset >= self._notify_offset:
            self._notify_offset = 0
            self._push()
        if self._losses_known != len(self._replicas.losses):
            self._losses_known = len(self._replicas.losses)
            self._push()  # some are settled: tell of the next ones, or that there are none

    def directory_failed(self, directory_id: bytes, reason: str) -> None:
        """A directory's disk failed: remembered on disk first, then told; the last one stops us."""
        if self._is_stopped:
            return  # whoever closes the logs asks for what failed
        self._own(f"lose-{directory_id.hex()}", self._lose(directory_id, reason))

    async def leave(self) -> None:
        """Ask the controller to take leadership away; return when this broker may stop.

        At most controlled_shutdown_timeout_ms, and controlled_shutdown_silence_max_ms without a
        controller that answers.
        """
        if self._heartbeat is None:
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + self._config.controlled_shutdown_timeout_ms / 1000
        silence_s = self._config.controlled_shutdown_silence_max_ms / 1000
        self._wants_shutdown = True
        self._push()
        while not self.should_shut_down.is_set():
            heard_at = max(begun, self._answered_at)
            until = min(deadline, heard_at + silence_s)
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
        """End heartbeats and whatever is under way; safe to call twice."""
        self._is_stopped = True
        await self._tasks.end_all()
        if self._heartbeat is not None:
            await self._heartbeat.close()

    # Registration

    async def _register(self) -> int:
        internal = inter_broker(self._listeners, self._config.inter_broker_listener_name)
        response = await self._client.register(
            RegisterRequest(
                broker_id=self._config.node_id,
                incarnation=self._incarnation,
                listeners=map(listener_to_wire, self._listeners),
                inter_broker_listener=internal.name,
                rack=self._config.broker_rack,
                host=self._config.broker_host or internal.host,
                directories=self._directories.registered(),
                features=to_wire(self._features),
            )
        )
        self.broker_epoch = response.broker_epoch
        log.info("registered", broker_id=self._config.node_id, broker_epoch=response.broker_epoch)
        await self._enter(response.quorum_generation)
        return response.apply_offset

    async def _open(self, apply_offset: int, publisher: Publisher) -> None:
        """Once the image has passed the registration: let this run begin, and open the logs."""
        await self._catch_up(apply_offset)
        await self._directories.begin_run()
        self._replicas.directories = self._directories.for_replicas
        self._replicas.incarnation = self._incarnation
        self._replicas.broker_epoch = self.broker_epoch
        self.caught_up.set()
        image = self._client.image
        self._strays = strays = Strays(
            self._disk,
            self._directories,
            self._directories.cluster_id,
            self._client.quorum_generation,
        )
        await strays.set_aside(image, self._config.node_id)
        self._own("strays", strays.remove_after(self._config.stray_delete_delay_ms))
        self._replicas.on_generation = self._enter
        self._replicas.quorum_generation = self._client.quorum_generation
        publisher.start(self._client.image)

    async def _enter(self, generation: int) -> None:
        """Remember the history that is followed now; what an older one set aside then stays."""
        is_over = self._strays is not None and self._strays.quorum_generation != generation
        if is_over:
            self._tasks.cancel(*self._tasks.named("lifecycle-strays"))
        await self._directories.learn_generation(generation)

    async def _catch_up(self, offset: int) -> None:
        while True:
            try:
                await self._client.wait_applied(offset, timeout_ms=CATCH_UP_LOG_MS)
            except RequestTimedOutError as error:
                log.info("image_lags", reason=str(error), repeats=True)
            else:
                return

    async def _register_again(self) -> None:
        """The controller does not know this registration any more."""
        try:
            await self._register()
            if self.caught_up.is_set():
                self._replicas.broker_epoch = self.broker_epoch
        except DuplicateBrokerError as error:
            self._fail(f"another process took broker {self._config.node_id} over: {error}")
            return
        self._push()

    # Heartbeats

    def _state(self) -> HeartbeatRequest:
        assert self._publisher is not None
        return HeartbeatRequest(
            broker_id=self._config.node_id,
            broker_epoch=self.broker_epoch,
            incarnation=self._incarnation,
            applied_offset=self._publisher.applied_offset,
            want_fence=not self._is_open or len(self._replicas.losses) > 0,
            want_shutdown=self._wants_shutdown,
            failed_directories=self._directories.failed_ids,
            replica_ends=self._take_ends(),
            lossy_replicas=self._lossy(),
        )

    def _lossy(self) -> list[LossyReplica]:
        """Return replicas that are lossy and trusted; none before the logs are open."""
        return self._replicas.losses.to_tell(self._replicas.image) if self._is_open else []

    def _push_if_open(self) -> None:
        if self._is_open:
            self._push()

    def _heard(self, response: HeartbeatResponse) -> None:
        """Take an answer of the controller; NOT_CONTROLLER never gets here."""
        if response.error.code != ErrorCode.ERROR_CODE_NONE:
            log.warning("heartbeat_refused", reason=response.error.message, repeats=True)
            if response.error.code == ErrorCode.ERROR_CODE_FENCED and not self._wants_shutdown:
                self._own("register-again", self._register_again())
            return
        self._answered_at = asyncio.get_running_loop().time()
        self._notify_offset = response.notify_offset
        if response.should_shut_down and self._wants_shutdown:
            self.should_shut_down.set()
        self._answered.set()
        assert self._publisher is not None
        is_due = 0 < self._notify_offset <= self._publisher.applied_offset
        if response.ends_wanted:
            self._ends_wanted = list(response.ends_wanted[:ENDS_MAX])
            is_due = is_due or self._is_open
        if is_due:
            self._push()

    def _was_replaced(self, broker: BrokerImage) -> bool:
        return broker.epoch > self.broker_epoch and broker.incarnation != self._incarnation

    def _take_ends(self) -> list[ReplicaEnd]:
        """The ends that the controller asked for, once; none before the logs are open."""
        if not self._is_open:
            return []
        wanted, self._ends_wanted = self._ends_wanted, []
        ends: list[ReplicaEnd] = []
        for one in wanted:
            try:
                last_epoch, log_end_offset = self._replicas.replica_end(one.topic_id, one.partition)
            except QuorateError as error:  # not here, or offline: it is no candidate
                log.info(
                    "replica_end_unknown",
                    partition=one.partition,
                    reason=str(error),
                    repeats=True,
                )
                continue
            ends.append(
                ReplicaEnd(
                    topic_id=one.topic_id,
                    partition=one.partition,
                    last_epoch=last_epoch,
                    log_end_offset=log_end_offset,
                )
            )
        return ends

    def _push(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.push()

    # Failed disks

    async def _lose(self, directory_id: bytes, reason: str) -> None:
        await self._directories.lose(directory_id, reason)

    def _lost(self, directory_id: bytes, reason: str) -> None:
        """One was given up, whoever met the error: its replicas and the controller are told."""
        if self._is_stopped:
            return
        self._replicas.directory_failed(directory_id, reason)
        if not self._directories.working:
            self._fail("the last log directory failed")
        elif self._directories.failed_ids:
            self._push()

    # Tasks

    def _own(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run it, once at a time under that name; its failure is the broker's."""
        name = f"lifecycle-{name}"
        if self._tasks.named(name):
            work.close()
        else:
            self._tasks.spawn(work, name)

    def _task_failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, ClosedError):
            return
        step = name.removeprefix("lifecycle-")
        log.error("lifecycle_failed", step=step, exc_info=error)
        self._fail(f"the broker's life with the controller ended ({step}): {error}")
