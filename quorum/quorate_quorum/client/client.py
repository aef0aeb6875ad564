"""The broker's client of the quorum: every call of the broker to a voter goes through it.

The client knows the voters and finds the controller among them. It follows the metadata log and
builds the image from it. It keeps the heartbeat stream, and passes on to the controller the calls
that only the controller may decide. It decides nothing about partitions.

    watch        follows any voter; takes another one after a silence, or if the voter lags
    register     repeated until it is answered: the same incarnation may register twice
    forward      many calls on one stream, each sent once: only the answer tells what happened
    heartbeat    one stream to the present controller, opened again whenever it ends
    alter        many requests on one stream, each sent once
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from quorate.aio.backoff import Backoff
from quorate.aio.clock import Deadline
from quorate.errors import (
    OutcomeUnknownError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
    raise_if_error,
)
from quorate.net.network import Method
from quorate.net.principal import Principal
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.client.alter_stream import Alterations
from quorate_quorum.client.forward_stream import Forwarding, NotSentError
from quorate_quorum.client.heartbeat import HeartbeatStream
from quorate_quorum.client.history import FollowedHistory
from quorate_quorum.client.image_watch import ImageListener, ImageWatch
from quorate_quorum.client.leader import ANOTHERS, Answers, LeaderFinder, NotAnsweredError
from quorate_quorum.client.voters import Connections, Voters
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.methods import ALLOCATE_PRODUCER_IDS, CREATE_INTERNAL_TOPIC, REGISTER
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.v1.controller_pb2 import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterPartitionsRequest,
    AlterPartitionsResponse,
    CreateInternalTopicRequest,
    CreateInternalTopicResponse,
    ForwardRequest,
    ForwardResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
)

log = structlog.get_logger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")
#: The requests and answers of calls that are asked again until they are answered.
S = TypeVar("S", AllocateProducerIdsRequest, CreateInternalTopicRequest)
A = TypeVar("A", AllocateProducerIdsResponse, CreateInternalTopicResponse)


class QuorumClient:
    """The client of one broker. Its methods run on the broker's event loop.

    `quorum_generation`: the newest generation that this node has followed; 0: none yet. The client
    follows no older one. After disaster recovery it follows the new generation from its beginning:
    the image jumps, and the delta names the generation.
    `fail` stops the node. It is called when the image breaks an invariant.
    """

    def __init__(
        self,
        config: BrokerConfig,
        environment: Environment,
        *,
        cluster_id: str,
        fail: Callable[[str], None],
        quorum_generation: int = 0,
    ) -> None:
        self._config = config
        self._chance = environment.chance
        self._fail = fail
        self._history = FollowedHistory(cluster_id, quorum_generation)
        self._voters = Voters(config.quorum_bootstrap_servers, environment.chance)
        self._connections = Connections(environment.network)
        self._leader = LeaderFinder(environment.network, self._connections, self._voters)
        self._watch = ImageWatch(
            config,
            environment,
            self._history,
            self._voters,
            self._connections,
            self._leader,
            fail,
        )
        self._alterations = Alterations(config, self._history, self._leader, self._connections)
        self._forwarding = Forwarding(config, self._history, self._connections.get)
        self._leader.when_moved(self._forwarding.controller_moved)
        self._heartbeats: list[HeartbeatStream] = []

    # -- state

    @property
    def image(self) -> MetadataImage:
        """The newest committed image. Its offset never goes back within a generation."""
        return self._watch.image

    @property
    def quorum_generation(self) -> int:
        """The generation of the metadata log that `image` is from; 0: not known yet."""
        return self._history.generation

    @property
    def leader_id(self) -> int:
        """The node id of the quorum's leader that was named last; -1: not known."""
        return self._leader.known.id

    @property
    def leader_endpoint(self) -> str:
        """The endpoint of the quorum's leader that was named last; empty: not known."""
        return self._leader.known.endpoint

    def subscribe(self, listener: ImageListener) -> None:
        """Call the ImageListener with every new image from now on."""
        self._watch.subscribe(listener)

    async def wait_applied(self, offset: int, *, timeout_ms: int) -> None:
        """Wait until the image has applied every event below `offset`.

        Raises RequestTimedOutError if that takes longer than `timeout_ms`.
        """
        await self._watch.wait_applied(offset, timeout_ms=timeout_ms)

    # -- life

    async def start(self) -> None:
        """Begin to follow the metadata log, in the background, until stop()."""
        self._watch.start()

    async def stop(self) -> None:
        """End all streams, and fail all calls that wait. A second call does nothing more."""
        self._connections.refuse()
        await self._watch.stop()
        for heartbeat in self._heartbeats:
            await heartbeat.close()
        await self._alterations.stop()
        await self._forwarding.stop()
        self._leader.news.ring()
        self._watch.fail_waiters()
        await self._connections.close()

    # -- calls

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Register this broker. Ask again until the controller answers.

        Sets cluster_id in the request, and quorum_generation if the request has none.
        Raises every refusal that is not retriable, such as DuplicateBrokerError,
        WrongClusterError and InvalidRequestError.
        """
        asked = RegisterRequest()
        asked.CopyFrom(request)
        asked.cluster_id = self._history.cluster_id
        backoff = self._backoff()
        while True:
            asked.quorum_generation = request.quorum_generation or self.quorum_generation
            try:
                response = await self._leader.ask(REGISTER, asked, self._config.request_timeout_ms)
                raise_if_error(response.error)
            except NotAnsweredError as failure:
                log.info(
                    "registration_waits",
                    endpoint=failure.endpoint,
                    reason=str(failure),
                    repeats=True,
                )
            except (QuorumUnavailableError, OutcomeUnknownError) as error:
                log.info("registration_waits", reason=str(error), repeats=True)
            except QuorateError as error:
                if not error.retriable:
                    raise
            else:
                self._history.learn(response.quorum_generation)
                if self.quorum_generation == response.quorum_generation:
                    return response
                reason = "the watch follows another quorum_generation"
                log.info("registration_waits", reason=reason, repeats=True)
            await backoff.wait()

    def heartbeat(
        self,
        state: Callable[[], HeartbeatRequest],
        answered: Callable[[HeartbeatResponse], None],
    ) -> HeartbeatStream:
        """Keep one heartbeat stream to the present controller, until it is closed.

        `state` returns the request to send; `state` is called at each heartbeat. `answered` takes
        each answer, FENCED included. After FENCED the caller registers again, and `state` returns
        the new broker_epoch.
        """

        def heard(response: HeartbeatResponse) -> None:
            if response.error.code == ErrorCode.ERROR_CODE_NONE:
                self._watch.told_high_watermark(response.high_watermark)
            answered(response)

        stream = HeartbeatStream(
            self._history,
            self._leader,
            self._connections,
            state=state,
            answered=heard,
            fail=self._fail,
            interval_ms=self._config.broker_heartbeat_interval_ms,
            backoff=self._backoff(),
        )
        self._heartbeats.append(stream)
        return stream

    async def alter_partitions(self, request: AlterPartitionsRequest) -> AlterPartitionsResponse:
        """Propose changes of ISRs, once; see Alterations.ask."""
        return await self._alterations.ask(request)

    async def forward(
        self, method: Method[Q, R], request: Q, *, principal: Principal, timeout_ms: int
    ) -> R:
        """Pass an admin call on to the controller. Return its answer once `image` has the effect.

        Looks for the controller within the timeout, and sends the call once. If `image` does not
        have the effect in time, the answer is returned even so, because the change is committed.

        Raises the error that the controller answers with, and
        OutcomeUnknownError: the call was sent and got no answer;
        QuorumUnavailableError: no controller was found in time;
        OverloadedError: too many calls or bytes are under way;
        InvalidRequestError: the request is too large.
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

    async def _forward_once(self, request: ForwardRequest, deadline: Deadline) -> ForwardResponse:
        """Look for the controller, send the request to it, and return the answer.

        Tries again only if the request was not sent, or if the voter refused the request: in both
        cases nothing was done.
        """
        backoff = self._backoff()
        answers = Answers()
        while True:
            news = self._leader.news
            left_ms = deadline.left_ms
            if left_ms <= 0:
                raise QuorumUnavailableError(
                    f"no controller was found within {deadline.timeout_ms} ms, and nothing was "
                    f"done: a majority of the voters must run and reach each other ({answers})"
                )
            endpoint = self._leader.candidate()
            try:
                response = await self._forwarding.ask(endpoint, request, left_ms)
            except NotSentError as error:
                self._leader.forget(endpoint)
                answers.add(endpoint, error)
            except OutcomeUnknownError as error:
                self._leader.forget(endpoint)
                raise OutcomeUnknownError(f"{request.method}: {error}") from error
            else:
                if response.error.code not in ANOTHERS:
                    return response
                answers.add(endpoint, response.error.message)
                self._leader.follow_hint(endpoint, response.leader_id, response.leader_endpoint)
            await backoff.wait(news)
            if news is not self._leader.news:
                backoff.reset()

    async def allocate_producer_ids(self, broker_id: int, broker_epoch: int) -> range:
        """Ask the controller for a block of producer ids.

        If the answer is lost, the ids of the block stay unused, because no block is given out
        twice.
        """
        request = AllocateProducerIdsRequest(
            cluster_id=self._history.cluster_id, broker_id=broker_id, broker_epoch=broker_epoch
        )
        response = await self._ask_again(
            ALLOCATE_PRODUCER_IDS, request, self._config.producer_ids_timeout_ms
        )
        first = response.first_producer_id
        return range(first, first + response.count)

    async def create_internal_topic(self, name: str, *, timeout_ms: int) -> bytes:
        """Let the controller make an internal topic, unless it is there. Return the topic's id.

        Returns once `image` has the topic. Raises what the controller refuses with,
        QuorumUnavailableError, and RequestTimedOutError.
        """
        deadline = Deadline(timeout_ms)
        request = CreateInternalTopicRequest(cluster_id=self._history.cluster_id, name=name)
        response = await self._ask_again(CREATE_INTERNAL_TOPIC, request, timeout_ms)
        await self.wait_applied(response.apply_offset, timeout_ms=deadline.left_ms)
        return response.topic_id

    async def _ask_again(self, method: Method[S, A], request: S, timeout_ms: int) -> A:
        """Ask the controller until it answers, at most until the timeout.

        Only for calls that do no harm if they are carried out twice.
        """
        deadline = Deadline(timeout_ms)
        backoff = self._backoff()
        answers = Answers()
        while True:
            request.quorum_generation = self.quorum_generation
            reason: QuorateError
            try:
                response = await self._leader.ask(method, request, self._config.request_timeout_ms)
                raise_if_error(response.error)
                return response
            except NotAnsweredError as failure:
                reason = failure.reason
                answers.add(failure.endpoint, reason)
            except QuorateError as error:
                if not error.retriable and not isinstance(error, OutcomeUnknownError):
                    raise
                reason = error
                answers.add("the controller", reason)
            if deadline.left_ms <= 0:
                raise QuorumUnavailableError(
                    f"no controller answered {method.path} within {deadline.timeout_ms} ms: a "
                    f"majority of the voters must run and reach each other ({answers})"
                ) from reason
            await backoff.wait()

    def _backoff(self) -> Backoff:
        config = self._config
        return Backoff(config.reconnect_backoff_ms, config.reconnect_backoff_max_ms, self._chance)
