"""The states of a broker for the controller: registered, fenced, unfenced, leaving.

    register -> the image reaches the registration -> run file, strays, logs -> heartbeats say how
    far the image is carried out -> unfenced -> ... -> asks to leave -> stopped

A broker registers once in each run. If the controller fences it because it was silent, it continues
to send heartbeats, and is unfenced when it has caught up again. If an answer says FENCED (the
broker was unregistered, or the controller knows another broker_epoch), the broker registers again.
If the image has another incarnation with the broker's own id, the broker stops: two processes must
never write to one replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import ClosedError, DuplicateBrokerError, RequestTimedOutError
from quorate_broker.files.directories import LogDirectories
from quorate_broker.files.strays import Strays
from quorate_broker.heartbeats import Heartbeats
from quorate_broker.publisher import Publisher
from quorate_broker.registration import Registration
from quorate_broker.replicas.replicas import Replicas
from quorate_quorum.client.client import QuorumClient
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.listeners import ListenerAddress

log = structlog.get_logger(__name__)

#: Pause between two log lines of a broker that still waits for the image.
CATCH_UP_LOG_MS = 5_000
#: Time between two measurements of the free bytes of the log directories.
MEASURE_MS = 1_000


class Lifecycle:
    """The lifecycle of a broker: see the module. `fail` stops the node."""

    def __init__(
        self,
        config: BrokerConfig,
        environment: Environment,
        registration: Registration,
        *,
        directories: LogDirectories,
        client: QuorumClient,
        replicas: Replicas,
        fail: Callable[[str], None],
    ) -> None:
        self._config = config
        self._disk = environment.disk
        self._features = environment.features
        self._directories = directories
        self._client = client
        self._replicas = replicas
        self._fail = fail
        self._strays: Strays | None = None
        self._listeners: tuple[ListenerAddress, ...] = ()
        self._tasks = Tasks(self._task_failed)
        self._is_stopped = False
        #: The registration that the controller knows. The replicas get it when this run has begun.
        self.registration = registration
        self.heartbeats = Heartbeats(
            config,
            directories,
            client,
            replicas,
            registration=lambda: self.registration,
            fenced=lambda: self._own("register-again", self._register_again()),
        )
        self.is_fenced = True
        #: Set when the image has reached the registration. Then answers from the image are not out
        #: of date.
        self.caught_up = asyncio.Event()
        self.unfenced = asyncio.Event()

    async def register(self, listeners: tuple[ListenerAddress, ...], publisher: Publisher) -> None:
        """Register these listeners, begin heartbeats, and open the logs in the background.

        Raises DuplicateBrokerError, WrongClusterError, InvalidRequestError or ConfigError.
        """
        self._listeners = listeners
        self._replicas.on_directory_failed = self.directory_failed
        self._directories.on_lost = self._lost
        apply_offset = await self._register()
        self.heartbeats.start(publisher)
        self._own("free-bytes", self._measure())
        self._own("open", self._open(apply_offset, publisher))

    def applied(self, image: MetadataImage) -> None:
        """Take note of an image that the replicas have carried out."""
        broker = image.brokers.get(self._config.node_id)
        if broker is not None and self.registration.was_replaced_by(broker):
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
            self.heartbeats.push()
        self.heartbeats.applied(image)

    def directory_failed(self, directory_id: bytes, reason: str) -> None:
        """Give up a directory whose disk failed.

        The failure is noted on the disk, and then reported.
        """
        # during a stop do nothing here: close_logs handles the failed directories
        if not self._is_stopped:
            name = f"lose-{directory_id.hex()}"
            self._own(name, self._directories.lose(directory_id, reason))

    async def stop(self) -> None:
        """End the heartbeats and all tasks. It is safe to call this twice."""
        self._is_stopped = True
        await self._tasks.end_all()
        await self.heartbeats.stop()

    # Registration

    async def _register(self) -> int:
        response = await self._client.register(
            self.registration.request(
                self._config, self._listeners, self._directories.registered(), self._features
            )
        )
        self.registration = self.registration.given(response.broker_epoch)
        log.info("registered", broker_id=self._config.node_id, broker_epoch=response.broker_epoch)
        await self._enter(response.quorum_generation)
        return response.apply_offset

    async def _open(self, apply_offset: int, publisher: Publisher) -> None:
        """Wait until the image has reached the registration.

        Then begin this run, and open the logs.
        """
        await self._catch_up(apply_offset)
        await self._directories.begin_run()
        self._replicas.directories = self._directories.for_replicas
        self._replicas.unreadable_directories = self._directories.unreadable
        self._replicas.registration = self.registration
        self.caught_up.set()
        image = self._client.image
        self._strays = strays = Strays(
            self._disk,
            self._directories,
            self._directories.cluster_id,
            self._client.quorum_generation,
        )
        await strays.set_aside(image, self._config.node_id)
        self._replicas.copies = strays.copies(image, self._config.node_id)
        delay_ms = self._config.stray_delete_delay_ms
        self._own("strays", strays.remove_after(delay_ms, self._replicas.is_out_of_sync))
        self._replicas.on_generation = self._enter
        self._replicas.quorum_generation = self._client.quorum_generation
        publisher.start(self._client.image)

    async def _enter(self, generation: int) -> None:
        """Store the generation that the broker follows now.

        From now on, strays of an older generation are not removed.
        """
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
        """Register again, because the controller does not know this registration any more."""
        try:
            await self._register()
            if self.caught_up.is_set():
                self._replicas.registration = self.registration
        except DuplicateBrokerError as error:
            self._fail(f"another process took broker {self._config.node_id} over: {error}")
            return
        self.heartbeats.push()

    # Disks

    async def _measure(self) -> None:
        """Keep the free bytes of the directories known, for the heartbeats."""
        while True:
            await self._directories.measure()
            await asyncio.sleep(MEASURE_MS / 1000)

    def _lost(self, directory_id: bytes, reason: str) -> None:
        """Tell the replicas and the controller that a directory was given up."""
        if self._is_stopped:
            return
        self._replicas.directory_failed(directory_id, reason)
        if not self._directories.working:
            self._fail(f"the last log directory failed: {reason}")
        elif self._directories.failed_ids:
            self.heartbeats.push()

    # Tasks

    def _own(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` as a task, unless a task of this name runs. Its failure stops the broker."""
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
