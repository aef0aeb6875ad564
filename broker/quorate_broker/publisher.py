"""Gives the images of the quorum to the Reconciler, one at a time and in order.

QuorumClient calls the Publisher with each image, in the loop, and does not wait. The Publisher
queues the image, because opening and cutting logs takes time. An image counts as applied only when
the Reconciler has carried it out. Heartbeats report the applied offset, by which the controller
decides when to unfence this broker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from quorate.aio.reached_offset import ReachedOffset
from quorate.aio.tasks import Tasks
from quorate.errors import RequestTimedOutError
from quorate_broker.replicas.reconciler import Reconciler
from quorate_quorum.client.image_watch import ImageListener
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage

log = structlog.get_logger(__name__)

#: The most images that wait to be carried out. With more, the broker stops.
QUEUE_MAX = 100_000
WAITERS_MAX = 10_000


@dataclass(eq=False)
class Publisher:
    """An ImageListener. `applied` is called after each image that was carried out.

    `fail` stops the node. It is called if an image cannot be carried out completely, because the
    node is then in an unknown state.
    """

    _reconciler: Reconciler
    applied: Callable[[MetadataImage], None]
    fail: Callable[[str], None]
    queue_max: int = QUEUE_MAX
    _queue: deque[tuple[MetadataDelta, MetadataImage]] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _listeners: list[ImageListener] = field(default_factory=list)
    _is_started: bool = False
    _has_loaded: bool = False

    def __post_init__(self) -> None:
        self._tasks = Tasks(self._failed)
        self._reached = ReachedOffset(WAITERS_MAX, "calls wait for this broker")

    @property
    def applied_offset(self) -> int:
        """One past the last metadata record that the replicas have carried out."""
        return self._reached.offset

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Queue an image. Before start() it is ignored, because no replica is open."""
        if not self._is_started:
            return
        if len(self._queue) >= self.queue_max:
            self.fail(f"{len(self._queue)} metadata changes wait to be carried out")
            return
        self._queue.append((delta, image))
        self._arrived.set()

    def subscribe(self, listener: ImageListener) -> None:
        """Call `listener` with each image after the first, when it was carried out."""
        self._listeners.append(listener)

    def start(self, image: MetadataImage) -> None:
        """Open the logs of this image, and then carry out every later image."""
        assert not self._is_started, "a publisher starts once"
        self._is_started = True
        self._tasks.spawn(self._run(image), "publisher")

    @property
    def has_loaded(self) -> bool:
        """Whether all logs of the first image were opened."""
        return self._has_loaded

    async def wait_applied(self, offset: int, *, timeout_ms: int) -> None:
        """Wait until everything below `offset` is carried out.

        Raises RequestTimedOutError after `timeout_ms`.
        """

        def late() -> RequestTimedOutError:
            return RequestTimedOutError(
                f"this broker stands at metadata offset {self.applied_offset}, and did not reach "
                f"{offset} within {timeout_ms} ms"
            )

        await self._reached.wait(offset, timeout_ms=timeout_ms, late=late)

    async def stop(self) -> None:
        """Carry out no more images. It is safe to call this twice."""
        await self._tasks.end_all()

    async def _run(self, image: MetadataImage) -> None:
        await self._reconciler.load(image)
        self._has_loaded = True
        self._carried_out(image)
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            delta, image = self._queue.popleft()
            await self._reconciler.apply(delta, image)
            self._carried_out(image)
            for listener in self._listeners:
                listener.image_changed(delta, image)

    def _carried_out(self, image: MetadataImage) -> None:
        self._reached.advance(image.offset)
        self.applied(image)

    def _failed(self, _: str, error: BaseException) -> None:
        log.error("publisher_failed", exc_info=error)
        self.fail(f"the metadata could not be carried out: {error!r}")
