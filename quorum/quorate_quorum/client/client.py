"""The brokers' only door to the quorum.

It knows the voters, finds the controller among them, follows the metadata log by Watch into an
image, holds the heartbeat, and passes on what only the controller may decide. Everything goes
over control connections, one a voter, apart from those that carry records: bulk bytes never
delay a heartbeat. It decides nothing about partitions; it only knows whom to ask, and when an
answer has not come for too long.

    watch        any voter; another one after a second of silence, or when the voter lags
    register     asked until answered: the same incarnation may ask twice
    forward      many calls on one stream, each sent once: then only its answer tells what happened
    heartbeat    one stream to the controller of the moment, opened again for good
    alter        many requests on one stream, each one try
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from quorate.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidRequestError,
    NetworkError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
    StreamBrokenError,
    WrongClusterError,
    from_wire,
    raise_if_error,
)
from quorate.net.frame import Frame
from quorate.net.network import Method
from quorate.net.principal import Principal
from quorate.net.wrong_address import knows_no_such_call, what_listens
from quorate.record import batch as record_batch
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.client.altering import AlterStream
from quorate_quorum.client.forwarding import Forwarding, ForwardLimits, NotSentError
from quorate_quorum.client.reaching import Answers, Backoff, Connections, Deadline, Lag, Voters
from quorate_quorum.generations import ask_generation
from quorate_quorum.log.identity import GENERATION_MAX
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.metadata.loader import Loaded, Loader, turns
from quorate_quorum.methods import (
    ALLOCATE_PRODUCER_IDS,
    HEARTBEAT,
    REGISTER,
    WATCH,
)
from quorate_quorum.node.bell import Bell
from quorate_quorum.node.config import ConfigError
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.features import UnknownLevelError
from quorate_quorum.v1.controller_pb2 import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterPartitionsRequest,
    AlterPartitionsResponse,
    ForwardRequest,
    ForwardResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
    WatchHeader,
    WatchRequest,
)

log = structlog.get_logger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")
#: So often all voters are asked for their generation, beside the one that is watched.
GENERATION_LOOK_MS = 30_000
#: Answers of one who is not the controller of our history: nothing was done.
_ANOTHERS = (ErrorCode.ERROR_CODE_NOT_CONTROLLER, ErrorCode.ERROR_CODE_WRONG_CLUSTER)
#: Answers that carry a hint at the controller beside NOT_CONTROLLER.
A = TypeVar("A", RegisterResponse, AllocateProducerIdsResponse)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumClientConfig:
    """Bounds and waits of the client."""

    #: A watch silent for so long is dropped and opened elsewhere; frames come every 250 ms.
    watch_silence_max_ms: int = 1000
    #: A voter that lags so long behind what heartbeats tell is left for another.
    watch_lag_max_ms: int = 1000
    #: A heartbeat stream without an answer for so many intervals is dropped.
    heartbeat_silence_intervals: int = 3
    heartbeat_interval_ms: int = 500
    #: For one call on one voter.
    request_timeout_ms: int = 2000
    #: For one AlterPartitions: a commit takes a round of the quorum.
    alter_timeout_ms: int = 5000
    #: Below the time that a producer gives one broker, so that it learns the cause.
    allocate_timeout_ms: int = 1500
    backoff_min_ms: int = 20
    backoff_max_ms: int = 500
    alter_in_flight_max: int = 64
    waiters_max: int = 100_000
    connections_max: int = 32


class ImageListener(Protocol):
    """Who follows the image."""

    def image_changed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take the next image; called in order, in the loop; must not wait."""


@dataclass(frozen=True, slots=True)
class _Leader:
    """What is known of the quorum's leader; an empty endpoint: nothing."""

    id: int = -1
    endpoint: str = ""
    epoch: int = -1


class QuorumClient:
    """See the module. One a broker; every method runs on the broker's loop.

    `bootstrap`: endpoints of voters, tried until the image names them all.
    `quorum_generation`: the newest history that this node has followed; 0: none yet. It follows
    none that is older; a newer one, into which the quorum was recovered, from its beginning: a
    jump of the image whose delta names the generation.
    `fail`: stop the node: called when the image breaks an invariant.
    """

    def __init__(
        self,
        environment: Environment,
        bootstrap: Sequence[str],
        *,
        cluster_id: str,
        node_id: int,
        fail: Callable[[str], None],
        config: QuorumClientConfig | None = None,
        quorum_generation: int = 0,
    ) -> None:
        if not bootstrap:
            raise InvalidRequestError("quorum.bootstrap.servers must name at least one voter")
        self._environment = environment
        self._config = config or QuorumClientConfig()
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._fail = fail
        self._connections = Connections(environment, self._config.connections_max)
        self._voters = Voters(bootstrap, environment.chance)
        self._asked = ""
        self._leader = _Leader()
        self._loader = Loader(known=environment.features)
        self._image = self._loader.image
        #: Of `image`; 0: not known yet.
        self.quorum_generation = quorum_generation
        self._listeners: list[ImageListener] = []
        self._applied_waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiter_count = 0
        self._lag = Lag(self._config.watch_lag_max_ms)
        self._heartbeats: list[HeartbeatStream] = []
        self._alter: AlterStream | None = None
        self._forwarding = Forwarding(
            cluster_id, self._connections.get, ForwardLimits(), lambda: self.quorum_generation
        )
        self._leader_news = Bell()  # rung once: news of the leader replaces it
        #: Somebody leads in it, so nothing older is believed; 0: not asked yet.
        self._newest_generation = 0
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopped = False

    # -- what is known

    @property
    def image(self) -> MetadataImage:
        """The newest committed image; its offset never goes back."""
        return self._image

    @property
    def leader_id(self) -> int:
        """The quorum's leader as last heard of; -1: not known."""
        return self._leader.id

    @property
    def leader_endpoint(self) -> str:
        """Where the quorum's leader listens; empty: not known."""
        return self._leader.endpoint

    def subscribe(self, listener: ImageListener) -> None:
        """Tell the listener every image from now on."""
        self._listeners.append(listener)

    # -- life

    async def start(self) -> None:
        """Begin to watch, in the background, until stop()."""
        assert self._watching is None, "a client starts once"
        self._watching = asyncio.create_task(self._watch_for_good(), name="quorum-watch")
        self._watching.add_done_callback(self._watch_ended)
        self._looking = asyncio.create_task(self._look_for_good(), name="quorum-generations")
        self._looking.add_done_callback(self._watch_ended)

    async def stop(self) -> None:
        """End all streams and fail all who wait; safe to call twice."""
        self._stopped = True
        for task in (self._watching, self._looking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        for heartbeat in list(self._heartbeats):
            await heartbeat.close()
        if self._alter is not None:
            self._alter.abort()
            await self._alter.closed()
        await self._forwarding.stop()
        self._leader_news.ring()
        for _, _, waiter in self._applied_waiters:
            if not waiter.done():
                waiter.set_exception(ClosedError("the broker is stopping"))
        self._applied_waiters.clear()
        await self._connections.close()

    # -- calls

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Register this broker; ask until the controller answers.

        Fills in cluster_id, and the quorum_generation if it is known. Raises DuplicateBrokerError,
        WrongClusterError, InvalidRequestError and whatever else the controller says for good.
        """
        asked = RegisterRequest()
        asked.CopyFrom(request)
        asked.cluster_id = self._cluster_id
        backoff = self._backoff()
        while True:
            asked.quorum_generation = request.quorum_generation or self.quorum_generation
            try:
                response = await self._ask_controller(REGISTER, asked)
            except _NotAnswered as failure:
                log.info(
                    "registration_waits",
                    endpoint=failure.endpoint,
                    reason=str(failure),
                    repeats=True,
                )
                await backoff.wait()
                continue
            try:
                raise_if_error(response.error)
            except (QuorumUnavailableError, OutcomeUnknownError) as error:
                log.info("registration_waits", reason=str(error), repeats=True)
                await backoff.wait()
                continue
            except QuorateError as error:
                if not error.retriable:
                    raise
                await backoff.wait()
                continue
            self._learn_generation(response.quorum_generation)
            if self.quorum_generation == response.quorum_generation:
                return response
            log.info(
                "registration_waits",
                reason="the watch follows another quorum_generation",
                repeats=True,
            )
            await backoff.wait()

    def heartbeat(
        self,
        state: Callable[[], HeartbeatRequest],
        answered: Callable[[HeartbeatResponse], None],
    ) -> HeartbeatStream:
        """Keep one heartbeat stream to the controller of the moment, until closed.

        `state` is asked for what to send at each beat; `answered` takes each answer, FENCED
        included (register again, and let state() tell the new broker_epoch).
        """
        stream = HeartbeatStream(self, state, answered)
        self._heartbeats.append(stream)
        return stream

    async def alter_partitions(self, request: AlterPartitionsRequest) -> AlterPartitionsResponse:
        """Propose changes of ISRs: one try on the controller of now.

        Raises NetworkError or QuorumUnavailableError if it has not answered; the change may
        have been made all the same, and its partition_epoch tells that to a repeat.
        """
        self._check_open()
        if not self._leader.endpoint:
            raise QuorumUnavailableError("no controller is known yet")
        stream = self._alter
        if stream is None or not stream.is_open or stream.endpoint != self._leader.endpoint:
            self._drop_alter_stream()
            connection = self._connections.get(self._leader.endpoint)
            stream = self._alter = AlterStream(
                self._leader.endpoint, connection, self._config.alter_in_flight_max
            )
        request.quorum_generation = self.quorum_generation
        try:
            response = await stream.ask(request, self._config.alter_timeout_ms)
        except DeadlineExceededError:
            self._drop_alter_stream()
            raise
        if response.error.code in _ANOTHERS:
            self._forget_leader(stream.endpoint)
        raise_if_error(response.error)
        return response

    async def forward(
        self, method: Method[Q, R], request: Q, *, principal: Principal, timeout_ms: int
    ) -> R:
        """Pass an admin call on to the controller; return when this image shows its effect.

        Looks for the controller within the timeout and sends once: what happens after sending
        is known from the answer only (OutcomeUnknownError without one). An answer whose effect
        this image has not applied in time is returned all the same: it is committed.
        Raises QuorumUnavailableError if no controller was found, OverloadedError if too much is
        under way, InvalidRequestError if the request is too large, and what the controller raises.
        """
        deadline = Deadline(timeout_ms)
        asked = ForwardRequest(
            method=method.path, request=method.encode_request(request), principal=str(principal)
        )
        with self._forwarding.admitted(len(asked.request)):
            response = await self._forward_once(asked, deadline)
        raise_if_error(response.error)
        with suppress(RequestTimedOutError):
            await self.wait_applied(response.apply_offset, timeout_ms=deadline.left_ms)
        return method.decode_response(response.response)

    async def allocate_producer_ids(self, broker_id: int, broker_epoch: int) -> range:
        """Take a block of producer ids; a block lost on the way is wasted, never given twice."""
        request = AllocateProducerIdsRequest(
            cluster_id=self._cluster_id, broker_id=broker_id, broker_epoch=broker_epoch
        )
        deadline = Deadline(self._config.allocate_timeout_ms)
        backoff = self._backoff()
        answers = Answers()
        while True:
            request.quorum_generation = self.quorum_generation
            reason: QuorateError
            try:
                response = await self._ask_controller(ALLOCATE_PRODUCER_IDS, request)
                raise_if_error(response.error)
                first = response.first_producer_id
                return range(first, first + response.count)
            except _NotAnswered as failure:
                reason = failure.reason
                answers.add(failure.endpoint, reason)
            except QuorateError as error:
                if not error.retriable and not isinstance(error, OutcomeUnknownError):
                    raise
                reason = error
                answers.add("the controller", reason)
            if deadline.left_ms <= 0:
                raise QuorumUnavailableError(
                    f"no controller gave producer ids within {deadline.timeout_ms} ms: a majority "
                    f"of the voters must run and reach each other ({answers})"
                ) from reason
            await backoff.wait()

    async def wait_applied(self, offset: int, *, timeout_ms: int) -> None:
        """Return when the image has applied all below `offset`; RequestTimedOutError if not."""
        self._check_open()
        if self._image.offset >= offset:
            return
        if len(self._applied_waiters) >= self._config.waiters_max:
            raise OverloadedError(f"{len(self._applied_waiters)} calls wait for the image already")
        waiter = asyncio.get_running_loop().create_future()
        self._waiter_count += 1
        heapq.heappush(self._applied_waiters, (offset, self._waiter_count, waiter))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await waiter
        except TimeoutError:
            raise RequestTimedOutError(
                f"the image stands at offset {self._image.offset}, and did not reach {offset} "
                f"within {timeout_ms} ms"
            ) from None
        finally:
            self._forget_waiters_gone()

    # -- the controller

    async def _ask_controller(self, method: Method[Q, A], request: Q) -> A:
        """Ask whom we take for the controller, once; learn from what comes back.

        Raises _NotAnswered if the call failed or the one asked is not the controller.
        """
        self._check_open()
        endpoint = self._controller_or_voter()
        try:
            response = await self._connections.get(endpoint).unary(
                method, request, timeout_ms=self._config.request_timeout_ms
            )
        except NetworkError as error:
            self._forget_leader(endpoint)
            if isinstance(error, DeadlineExceededError):
                self._connections.drop(endpoint)
            if knows_no_such_call(error):
                found = await what_listens(self._environment.network, endpoint, "voter")
                log.warning(
                    "no_voter_at_bootstrap_server", endpoint=endpoint, reason=found, repeats=True
                )
                raise _NotAnswered(endpoint, QuorumUnavailableError(found)) from error
            raise _NotAnswered(endpoint, error) from error
        if response.error.code == ErrorCode.ERROR_CODE_NOT_CONTROLLER:
            self._follow_hint(endpoint, response.leader_id, response.leader_endpoint)
            raise _NotAnswered(endpoint, from_wire(response.error))
        if response.error.code == ErrorCode.ERROR_CODE_WRONG_CLUSTER and not (
            isinstance(response, RegisterResponse) and response.quorum_generation == 0
        ):  # of our cluster and another history: the watch finds the newest
            self._forget_leader(endpoint)
            raise _NotAnswered(endpoint, from_wire(response.error))
        return response

    async def _forward_once(self, request: ForwardRequest, deadline: Deadline) -> ForwardResponse:
        """Send to the controller, when found. Only a refusal allows another try."""
        backoff = self._backoff()
        answers = Answers()
        while True:
            self._check_open()
            news = self._leader_news
            left_ms = deadline.left_ms
            if left_ms <= 0:
                raise QuorumUnavailableError(
                    f"no controller was found within {deadline.timeout_ms} ms, and nothing was "
                    f"done: a majority of the voters must run and reach each other ({answers})"
                )
            endpoint = self._controller_or_voter()
            try:
                response = await self._forwarding.ask(endpoint, request, left_ms)
            except NotSentError as error:
                self._forget_leader(endpoint)
                answers.add(endpoint, error)
            except OutcomeUnknownError as error:
                self._forget_leader(endpoint)
                raise OutcomeUnknownError(f"{request.method}: {error}") from error
            else:
                if response.error.code not in _ANOTHERS:
                    return response
                answers.add(endpoint, response.error.message)
                self._follow_hint(endpoint, response.leader_id, response.leader_endpoint)
            await backoff.wait(news)
            if news is not self._leader_news:
                backoff.reset()

    def _controller_or_voter(self) -> str:
        """Return the controller's endpoint if known, else another voter's than asked last."""
        self._asked = self._leader.endpoint or self._voters.other_than(self._asked)
        return self._asked

    def _learn_leader(self, leader: _Leader) -> None:
        """Take what a voter says of the leader, unless it is older than what we know."""
        if leader.epoch < self._leader.epoch or not leader.endpoint:
            return
        moved = leader.endpoint != self._leader.endpoint
        elected = leader.epoch > self._leader.epoch
        self._leader = leader
        if elected:  # not by every hint: two voters that hint at each other would ring for good
            news, self._leader_news = self._leader_news, Bell()
            news.ring()
        if not moved:
            return
        log.info("controller_known", leader_id=leader.id, endpoint=leader.endpoint)
        if self._alter is not None and self._alter.endpoint != leader.endpoint:
            self._drop_alter_stream()
        self._forwarding.controller_moved(leader.endpoint)
        for heartbeat in self._heartbeats:
            heartbeat.controller_moved(leader.endpoint)

    def _follow_hint(self, asked: str, leader_id: int, endpoint: str) -> None:
        """The voter asked is not the controller; it may know who is, or be about to become it."""
        if endpoint == asked:
            return
        self._forget_leader(asked)
        if endpoint and not self._leader.endpoint:
            self._learn_leader(_Leader(leader_id, endpoint, self._leader.epoch))

    def _forget_leader(self, endpoint: str) -> None:
        """That endpoint did not answer as the controller: ask the others too."""
        if self._leader.endpoint == endpoint:
            self._leader = _Leader(epoch=self._leader.epoch)

    def _learn_generation(self, told: int) -> None:
        """Follow the history of the first voter that accepts us, while we follow none."""
        if not 0 < told <= GENERATION_MAX:
            raise WrongClusterError(f"that voter claims quorum_generation {told}")
        if self.quorum_generation == 0:
            self.quorum_generation = told

    def _enter(self, generation: int) -> None:
        """The image is of a newer history: who was the controller in the old one counts no more."""
        log.warning("quorum_recovered", quorum_generation=generation, before=self.quorum_generation)
        self.quorum_generation = generation
        self._leader = _Leader()
        self._drop_alter_stream()
        self._forwarding.controller_moved("")
        for heartbeat in self._heartbeats:
            heartbeat.controller_moved("")

    async def _look_for_good(self) -> None:
        """Ask all voters for their generation: a lost majority that came back leads its own, and
        whoever was down while the quorum was recovered would never hear of the newer one there.
        """
        while True:
            newest = 0
            try:
                if len(self._voters.known) > 1:
                    newest = await ask_generation(
                        self._environment.network, self._voters.known, self._cluster_id
                    )
            except ConfigError as error:
                log.warning("a voter of another cluster is asked", reason=str(error), repeats=True)
            self._newest_generation = max(newest, self._newest_generation)
            await asyncio.sleep(GENERATION_LOOK_MS / 1000)

    # -- watch

    async def _watch_for_good(self) -> None:
        backoff = self._backoff()
        endpoint = ""
        while True:
            endpoint = self._voters.other_than(endpoint)
            try:
                await self._watch_once(endpoint, backoff)
            except (QuorateError, TimeoutError) as error:
                reason = str(error) or f"silent for {self._config.watch_silence_max_ms} ms"
                log.info("watch_moves", endpoint=endpoint, reason=reason, repeats=True)
            await backoff.wait()

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        """The watch runs for good; if it ended by itself the image can no longer be trusted."""
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, UnknownLevelError):
            self._fail(str(error))
            return
        log.error("watch_failed", exc_info=error)
        self._fail(f"the metadata image cannot be followed: {error!r}")

    async def _watch_once(self, endpoint: str, backoff: Backoff) -> None:
        """Follow one voter until it ends, is silent for too long, or lags.

        A snapshot or reload that the last voter did not end is begun anew: two voters' parts
        never meet in one image.
        """
        self._loader.give_up()
        request = WatchRequest(
            cluster_id=self._cluster_id,
            quorum_generation=self.quorum_generation,
            from_offset=self._loader.image.offset,
            last_applied_epoch=self._loader.image.epoch,
        )
        loop = asyncio.get_running_loop()
        silence = self._config.watch_silence_max_ms / 1000
        opened_at = loop.time()
        stream = self._connections.get(endpoint).stream(WATCH, _once(request))
        try:
            async with asyncio.timeout(silence) as timeout, aclosing(stream):
                async for frame in stream:
                    timeout.reschedule(None)  # our own work is not the voter's silence
                    await self._take_frame(frame)
                    backoff.reset()
                    self._lag.check(frame.header.high_watermark, opened_at, loop.time())
                    timeout.reschedule(loop.time() + silence)
        except TimeoutError:
            self._connections.drop(endpoint)  # a stopped peer never breaks its connection
            raise
        raise StreamBrokenError("the voter ended the watch")

    async def _take_frame(self, frame: Frame[WatchHeader]) -> None:
        header = frame.header
        raise_if_error(header.error)
        leads_into = self._checked_generation(header)
        if header.reload:
            log.warning("image_reloads", offset=self._image.offset)
            shown = 0 if leads_into else self._image.offset
            until = max(header.high_watermark, shown)
            self._loader.start_over(until=until, generation=leads_into)
        if header.snapshot:
            self._loader.load_snapshot_part(b"")  # that of an empty image has no batches
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
            await asyncio.sleep(
                0
            )  # the loop's clock may stand still during a turn, a long one here
        if header.leader_id >= 0 and header.quorum_generation == self.quorum_generation:
            self._learn_leader(_Leader(header.leader_id, header.leader_endpoint, header.epoch))

    def _checked_generation(self, header: WatchHeader) -> int:
        """Return the newer generation that a voter leads us into, 0 if it is of ours.

        WrongClusterError: it is of an older one, or of a newer one and does not begin with that.
        """
        told = header.quorum_generation
        self._learn_generation(told)
        if told < self._newest_generation:
            raise WrongClusterError(
                f"that voter is of quorum_generation {told}, and somebody leads in"
                f" {self._newest_generation}: the quorum was recovered without it"
            )
        if told == self.quorum_generation:
            return 0
        if told > self.quorum_generation and (header.reload or self._loader.jumps_into == told):
            return told
        raise WrongClusterError(
            f"that voter is of quorum_generation {told}, not {self.quorum_generation}"
        )

    def _told_high_watermark(self, high_watermark: int) -> None:
        self._lag.told(high_watermark, self._image.offset, asyncio.get_running_loop().time())

    def _publish(self, loaded: Sequence[Loaded]) -> None:
        for delta, image in loaded:
            self._publish_one(delta, image)

    def _publish_one(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if delta.generation:
            self._enter(delta.generation)
        self._image = image
        self._voters.learn([voter.endpoint for voter in image.voters])
        for listener in self._listeners:
            listener.image_changed(delta, image)
        while self._applied_waiters and self._applied_waiters[0][0] <= image.offset:
            waiter = heapq.heappop(self._applied_waiters)[2]
            if not waiter.done():
                waiter.set_result(None)

    # -- small things

    def _drop_alter_stream(self) -> None:
        if self._alter is not None:
            self._alter.abort()
            self._alter = None

    def _backoff(self) -> Backoff:
        config = self._config
        return Backoff(config.backoff_min_ms, config.backoff_max_ms, self._environment.chance)

    def _check_open(self) -> None:
        if self._stopped:
            raise ClosedError("this node's door to the quorum is closed: the node is stopping")

    def _forget_waiters_gone(self) -> None:
        while self._applied_waiters and self._applied_waiters[0][2].done():
            heapq.heappop(self._applied_waiters)


class HeartbeatStream:
    """A broker's lease: one stream to the controller of the moment, opened again for good."""

    def __init__(
        self,
        client: QuorumClient,
        state: Callable[[], HeartbeatRequest],
        answered: Callable[[HeartbeatResponse], None],
    ) -> None:
        self._client = client
        self._state = state
        self._answered = answered
        self._interval_ms = client._config.heartbeat_interval_ms
        self._endpoint = ""
        self._timeout: asyncio.Timeout | None = None
        self._is_moving = False
        self._was_answered = False
        self._push = Bell()
        self._moved = Bell()
        self._task = asyncio.create_task(self._keep(), name="quorum-heartbeat")
        self._task.add_done_callback(self._ended)

    def push(self) -> None:
        """Send state() now; several pushes in one turn of the loop send once."""
        self._push.ring()

    async def close(self) -> None:
        """End the stream; safe to call twice."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self in self._client._heartbeats:
            self._client._heartbeats.remove(self)

    def controller_moved(self, endpoint: str) -> None:
        """Another controller is known: leave the old one without waiting for its silence."""
        self._moved.ring()
        if self._timeout is None or self._timeout.expired():
            return  # it is on its way out already
        if self._endpoint != endpoint:
            self._is_moving = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def _keep(self) -> None:
        client = self._client
        backoff = client._backoff()
        while True:
            self._moved.reset()
            self._endpoint = client._controller_or_voter()
            self._is_moving = self._was_answered = False
            try:
                await self._session(self._endpoint, backoff)
            except TimeoutError:
                if not self._is_moving:
                    log.info("heartbeat_silent", endpoint=self._endpoint, repeats=True)
                    client._forget_leader(self._endpoint)
                    client._connections.drop(self._endpoint)
            except QuorateError as error:
                log.info(
                    "heartbeat_broken", endpoint=self._endpoint, reason=str(error), repeats=True
                )
                if not self._was_answered:  # else it is asked once more before the others
                    client._forget_leader(self._endpoint)
            if not self._is_moving:
                await backoff.wait(self._moved)

    async def _session(self, endpoint: str, backoff: Backoff) -> None:
        loop = asyncio.get_running_loop()
        stream = self._client._connections.get(endpoint).stream(HEARTBEAT, self._beats())
        try:
            async with asyncio.timeout(self._silence_max_s) as self._timeout, aclosing(stream):
                async for response in stream:
                    self._take(response)
                    backoff.reset()
                    if not self._is_moving:
                        self._timeout.reschedule(loop.time() + self._silence_max_s)
        finally:
            self._timeout = None
        raise StreamBrokenError("the controller ended the heartbeat stream")

    async def _beats(self) -> AsyncIterator[HeartbeatRequest]:
        while True:
            self._push.reset()
            beat = self._state()
            beat.cluster_id = self._client._cluster_id
            beat.quorum_generation = self._client.quorum_generation
            yield beat
            await self._push.wait(self._interval_ms)

    def _take(self, response: HeartbeatResponse) -> None:
        client = self._client
        if response.error.code == ErrorCode.ERROR_CODE_NOT_CONTROLLER:
            client._follow_hint(self._endpoint, response.leader_id, response.leader_endpoint)
        if response.error.code in _ANOTHERS:
            raise from_wire(response.error)
        self._was_answered = True
        if response.error.code == ErrorCode.ERROR_CODE_NONE:
            self._interval_ms = min(max(response.interval_ms, 10), 10_000)
            client._told_high_watermark(response.high_watermark)
            client._learn_leader(
                _Leader(response.leader_id, response.leader_endpoint, response.epoch)
            )
        self._answered(response)
        raise_if_error(response.error)

    @property
    def _silence_max_s(self) -> float:
        return self._interval_ms * self._client._config.heartbeat_silence_intervals / 1000

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("heartbeat_failed", exc_info=task.exception())
            self._client._fail(f"the heartbeat cannot go on: {task.exception()!r}")


class _NotAnswered(Exception):
    """Whom we took for the controller did not answer as one."""

    def __init__(self, endpoint: str, reason: QuorateError) -> None:
        super().__init__(str(reason))
        self.endpoint = endpoint
        self.reason = reason


async def _once(request: Q) -> AsyncIterator[Q]:
    yield request
