"""The node's image of the metadata: it follows the quorum's log through one voter at a time.

The node leaves a voter for another one if the voter is silent for too long, or if the voter lags
behind the high watermark in the controller's answers to heartbeats. The image continues at the same
offset: only committed events reach it, and these are the same on all voters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import NoReturn, Protocol, TypeVar

import structlog

from quorate.aio.backoff import Backoff
from quorate.aio.reached_offset import ReachedOffset
from quorate.aio.tasks import Tasks
from quorate.errors import (
    ClosedError,
    QuorateError,
    RequestTimedOutError,
    StreamBrokenError,
    raise_if_error,
)
from quorate.net.frame import Frame
from quorate.record import batch as record_batch
from quorate_quorum.client.history import FollowedHistory
from quorate_quorum.client.leader import Leader, LeaderFinder
from quorate_quorum.client.voters import Connections, Voters
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loaded, Loader, turns
from quorate_quorum.methods import WATCH
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import UnknownLevelError
from quorate_quorum.v1.controller_pb2 import WatchHeader, WatchRequest

log = structlog.get_logger(__name__)

Q = TypeVar("Q")


class ImageListener(Protocol):
    """An object that is called with every change of the image."""

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take in the next image. Calls come in the order of offsets. The method must not block."""


class ImageWatch:
    """Keeps the image up to date in the background, from start() to stop().

    `fail` stops the node. It is called when the log contradicts the image.
    """

    def __init__(
        self,
        config: BrokerConfig,
        environment: Environment,
        history: FollowedHistory,
        voters: Voters,
        connections: Connections,
        leader: LeaderFinder,
        fail: Callable[[str], None],
    ) -> None:
        self._silence_s = config.watch_silence_max_ms / 1000
        self._network = environment.network
        self._history = history
        self._voters = voters
        self._connections = connections
        self._leader = leader
        self._fail = fail
        self._loader = Loader(known=environment.features)
        #: The newest committed image. Its offset never goes back within a generation.
        self.image = self._loader.image
        self._applied = ReachedOffset(config.image_waiters_max, "calls wait for the image")
        self._lag = _Lag(config.watch_lag_max_ms)
        self._listeners: list[ImageListener] = []
        self._tasks = Tasks(self._task_failed)
        self._is_stopped = False
        self._backoff = Backoff(
            config.reconnect_backoff_ms, config.reconnect_backoff_max_ms, environment.chance
        )

    def subscribe(self, listener: ImageListener) -> None:
        """Call the ImageListener with every new image from now on."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to follow voters."""
        assert not len(self._tasks), "a client starts once"
        self._tasks.spawn(self._watch_on(), "quorum-watch")
        looking = self._history.look_for_newer(self._network, self._voters)
        self._tasks.spawn(looking, "quorum-generations")

    async def stop(self) -> None:
        """End the watch: the image changes no more. A second call does nothing."""
        self._is_stopped = True
        await self._tasks.end_all()

    def fail_waiters(self) -> None:
        """Fail all callers that wait for the image, as it changes no more after stop()."""
        self._applied.end(ClosedError("the broker is stopping"))

    async def wait_applied(self, offset: int, *, timeout_ms: int) -> None:
        """Wait until the image has applied every event below `offset`.

        Raises RequestTimedOutError if that takes longer than `timeout_ms`.
        """
        if self._is_stopped:
            raise ClosedError("this node's door to the quorum is closed: the node is stopping")
        await self._applied.wait(
            offset,
            timeout_ms=timeout_ms,
            late=lambda: RequestTimedOutError(
                f"the image stands at offset {self.image.offset}, and did not reach {offset} "
                f"within {timeout_ms} ms"
            ),
        )

    def told_high_watermark(self, high_watermark: int) -> None:
        """Note the controller's high watermark. The watched voter must reach it in time."""
        self._lag.told(high_watermark, self.image.offset, asyncio.get_running_loop().time())

    # -- one voter after the other

    async def _watch_on(self) -> NoReturn:
        endpoint = ""
        while True:
            endpoint = self._voters.other_than(endpoint)
            try:
                await self._watch_once(endpoint)
            except (QuorateError, TimeoutError) as error:
                reason = str(error) or f"silent for {self._silence_s * 1000:.0f} ms"
                log.info("watch_moves", endpoint=endpoint, reason=reason, repeats=True)
            await self._backoff.wait()

    async def _watch_once(self, endpoint: str) -> NoReturn:
        """Follow one voter until its stream ends, it is silent for too long, or it lags.

        A jump that the last voter did not finish is dropped: parts of a snapshot or log from two
        voters are never joined into one image.
        """
        self._loader.give_up()
        request = WatchRequest(
            cluster_id=self._history.cluster_id,
            quorum_generation=self._history.generation,
            from_offset=self._loader.image.offset,
            last_applied_epoch=self._loader.image.epoch,
        )
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        stream = self._connections.get(endpoint).stream(WATCH, _once(request))
        try:
            async with asyncio.timeout(self._silence_s) as timeout, aclosing(stream):
                async for frame in stream:
                    # Stop the clock: this node's own work does not count as the voter's silence.
                    timeout.reschedule(None)
                    await self._take_frame(frame)
                    self._backoff.reset()
                    self._lag.check(frame.header.high_watermark, opened_at, loop.time())
                    timeout.reschedule(loop.time() + self._silence_s)
        except TimeoutError:
            # Dial anew next time: a peer that hangs leaves its connection open.
            self._connections.drop(endpoint)
            raise
        raise StreamBrokenError("the voter ended the watch")

    def _task_failed(self, name: str, error: BaseException) -> None:
        """Stop the node, because the image no longer follows the log."""
        if isinstance(error, UnknownLevelError):
            self._fail(str(error))
            return
        log.error("watch_failed", exc_info=error)
        self._fail(f"the metadata image cannot be followed: {error!r}")

    # -- one frame after the other

    async def _take_frame(self, frame: Frame[WatchHeader]) -> None:
        header = frame.header
        raise_if_error(header.error)
        told = header.quorum_generation
        is_beginning = header.reload or self._loader.jumps_into == told
        leads_into = self._history.led_into(told, from_its_beginning=is_beginning)
        if header.reload:
            log.warning("image_reloads", offset=self.image.offset)
            shown = 0 if leads_into else self.image.offset
            until = max(header.high_watermark, shown)
            self._loader.start_over(until=until, generation=leads_into)
        await self._load(frame)
        if header.leader_id >= 0 and told == self._history.generation:
            self._leader.learn(Leader(header.leader_id, header.leader_endpoint, header.epoch))

    async def _load(self, frame: Frame[WatchHeader]) -> None:
        header = frame.header
        if header.snapshot:
            # Begin the snapshot even without batches: that of an empty image has none.
            self._loader.load_snapshot_part(b"")
        for number, part in enumerate(turns(frame.payload) if frame.pieces else ()):
            if number:
                await asyncio.sleep(0)
            if header.snapshot:
                self._loader.load_snapshot_part(part)
                continue
            for _, batch in record_batch.split(part):
                self._publish(self._loader.load(batch))
        if header.snapshot and header.snapshot_end:
            offset, epoch = header.snapshot_offset, header.snapshot_epoch
            self._publish(self._loader.finish_snapshot(offset, epoch))
            # The listeners' work on a snapshot is one long turn of the event loop, which reads its
            # clock between turns. Without this turn, that time would count as the voter's silence.
            await asyncio.sleep(0)

    def _publish(self, loaded: list[Loaded]) -> None:
        for delta, image in loaded:
            if delta.generation:
                self._enter(delta.generation)
            self.image = image
            self._voters.learn([voter.endpoint for voter in image.voters])
            for listener in self._listeners:
                listener.image_changed(delta, image)
            self._applied.advance(image.offset)

    def _enter(self, generation: int) -> None:
        """Follow a newer generation, and forget the controller of the old one."""
        before = self._history.generation
        log.warning("quorum_recovered", quorum_generation=generation, before=before)
        self._history.generation = generation
        self._leader.forget_all()


class _Lag:
    """Measures how long the watched voter stays below a high watermark of the controller."""

    def __init__(self, lag_max_ms: int) -> None:
        self._lag_max_s = lag_max_ms / 1000
        self._target = 0
        self._told_at = 0.0

    def told(self, high_watermark: int, applied: int, now: float) -> None:
        """Take the controller's high watermark as the next target, if the last one is reached."""
        if self._target <= applied < high_watermark:
            self._target, self._told_at = high_watermark, now

    def check(self, high_watermark: int, opened_at: float, now: float) -> None:
        """Raise StreamBrokenError if the voter has been below the target for too long.

        The time counts from the later of two times: when the controller told the target, and
        `opened_at`, when this watch began.
        """
        waited = now - max(self._told_at, opened_at)
        if high_watermark < self._target and waited > self._lag_max_s:
            raise StreamBrokenError(
                f"the voter's high watermark is {high_watermark}, and the controller told of "
                f"{self._target} {waited:.1f} s ago"
            )


async def _once(request: Q) -> AsyncIterator[Q]:
    yield request
