"""The Controller service: it decodes the calls of brokers, and encodes the controller's answers.

It checks that the caller belongs to this cluster and generation, passes the request to the active
controller, and puts an error into the error field of the answer. A voter that is not the controller
names the controller in its answer. Messages of the public Admin service arrive only inside Forward.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from google.protobuf.message import DecodeError

from quorate.aio.beside import beside
from quorate.errors import (
    AuthorizationError,
    InvalidRequestError,
    NetworkError,
    NotControllerError,
    OutcomeUnknownError,
    OverloadedError,
    QuorateError,
    RequestTimedOutError,
    UnsupportedError,
    WrongClusterError,
    to_wire,
)
from quorate.net.network import Handler, Method, Peer
from quorate.net.principal import Principal
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import brokers
from quorate_quorum.controller.driver.admin_calls import ADMIN_CALLS
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.controller.driver.leases import Leases
from quorate_quorum.controller.driver.sessions import Session
from quorate_quorum.methods import (
    ALLOCATE_PRODUCER_IDS,
    ALTER_PARTITIONS,
    CREATE_INTERNAL_TOPIC,
    FORWARD,
    HEARTBEAT,
    REGISTER,
)
from quorate_quorum.node.authorizer import ALLOW_ALL, CLUSTER_ACTION, Authorizer, Caller, Required
from quorate_quorum.v1.controller_pb2 import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterPartitionsRequest,
    AlterPartitionsResponse,
    CreateInternalTopicRequest,
    CreateInternalTopicResponse,
    ForwardRequest,
    ForwardRequests,
    ForwardResponse,
    ForwardResponses,
    HeartbeatRequest,
    HeartbeatResponse,
    RegisterRequest,
    RegisterResponse,
)

log = structlog.get_logger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")
#: The types of answers that name the controller.
H = TypeVar(
    "H",
    RegisterResponse,
    HeartbeatResponse,
    ForwardResponse,
    AllocateProducerIdsResponse,
    CreateInternalTopicResponse,
)

ALTERS_IN_FLIGHT_MAX = 64
FORWARDS_IN_FLIGHT_MAX = 1000
#: The most requests in one message. A caller that sends more loses its stream.
FORWARDS_PER_MESSAGE_MAX = 1000
DEADLINE_MAX_MS = 600_000


#: The permission that each call requires of the broker that makes it. For a request inside Forward,
#: the original principal's permission is checked, too.
REQUIRED: Final[Mapping[Method[Any, Any], Required]] = {
    REGISTER: CLUSTER_ACTION,
    HEARTBEAT: CLUSTER_ACTION,
    ALTER_PARTITIONS: CLUSTER_ACTION,
    FORWARD: CLUSTER_ACTION,
    ALLOCATE_PRODUCER_IDS: CLUSTER_ACTION,
    CREATE_INTERNAL_TOPIC: CLUSTER_ACTION,
}


class ControllerService:
    """The gRPC service `Controller` of one voter."""

    required = REQUIRED

    def __init__(
        self,
        cluster_id: str,
        quorum_generation: int,
        controller: Controller,
        *,
        requests_max: int = 10_000,
        forwarded_bytes_max: int = 64 << 20,
        authorizer: Authorizer = ALLOW_ALL,
    ) -> None:
        self._cluster_id = cluster_id
        self._generation = quorum_generation
        self._controller = controller
        self._requests_max = requests_max
        self._requests = 0
        self._forwarded_bytes_max = forwarded_bytes_max
        self._forwarded_bytes = 0
        self._authorizer = authorizer

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            REGISTER: self.register,
            HEARTBEAT: self.heartbeat,
            ALTER_PARTITIONS: self.alter_partitions,
            FORWARD: self.forward,
            ALLOCATE_PRODUCER_IDS: self.allocate_producer_ids,
            CREATE_INTERNAL_TOPIC: self.create_internal_topic,
        }

    # -- calls

    async def register(self, request: RegisterRequest, peer: Peer) -> RegisterResponse:
        try:
            self._check(REGISTER, peer)
            self._check_history(request.cluster_id, request.quorum_generation)
            with self._counted():
                decided = await self._controller.active().register(request)
            response = decided.response
        except QuorateError as error:
            response = RegisterResponse(error=to_wire(error))
        if request.cluster_id == self._cluster_id and not _is_refused(response):
            response.quorum_generation = self._generation
        return self._with_hint(response)

    async def allocate_producer_ids(
        self, request: AllocateProducerIdsRequest, peer: Peer
    ) -> AllocateProducerIdsResponse:
        try:
            self._check(ALLOCATE_PRODUCER_IDS, peer)
            self._check_history(request.cluster_id, request.quorum_generation)
            with self._counted():
                decided = await self._controller.active().reign.run(
                    lambda image, _: brokers.allocate_producer_ids(image, request)
                )
        except QuorateError as error:
            return self._with_hint(AllocateProducerIdsResponse(error=to_wire(error)))
        return self._with_hint(decided.response)

    async def create_internal_topic(
        self, request: CreateInternalTopicRequest, peer: Peer
    ) -> CreateInternalTopicResponse:
        try:
            self._check(CREATE_INTERNAL_TOPIC, peer)
            self._check_history(request.cluster_id, request.quorum_generation)
            with self._counted():
                decided = await self._controller.active().create_internal_topic(request.name)
        except QuorateError as error:
            return self._with_hint(CreateInternalTopicResponse(error=to_wire(error)))
        return self._with_hint(
            CreateInternalTopicResponse(
                topic_id=decided.response, apply_offset=decided.apply_offset
            )
        )

    # -- streams

    async def alter_partitions(
        self, requests: AsyncIterator[AlterPartitionsRequest], peer: Peer
    ) -> AsyncIterator[AlterPartitionsResponse]:
        replies = answered_each(requests, partial(self._alter, peer), ALTERS_IN_FLIGHT_MAX)
        async with aclosing(replies):
            async for group in replies:
                for reply in group:
                    yield reply

    async def forward(
        self, requests: AsyncIterator[ForwardRequests], peer: Peer
    ) -> AsyncIterator[ForwardResponses]:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        try:
            self._check(FORWARD, peer)
            self._check_history(first.cluster_id, first.quorum_generation)
        except (AuthorizationError, WrongClusterError) as error:
            yield ForwardResponses(error=to_wire(error))
            return
        replies = answered_each(
            _one_by_one(first, requests), partial(self._forward, peer), FORWARDS_IN_FLIGHT_MAX
        )
        async with aclosing(replies):
            async for group in replies:
                yield ForwardResponses(responses=group)

    async def heartbeat(
        self, requests: AsyncIterator[HeartbeatRequest], peer: Peer
    ) -> AsyncIterator[HeartbeatResponse]:
        """Serve one broker's lease.

        Each heartbeat goes to the leases when it arrives. The broker gets an answer in the turn of
        the event loop in which a change for it is committed, and at least once in each heartbeat
        interval.
        """
        first = await anext(aiter(requests), None)
        if first is None:
            return
        try:
            self._check(HEARTBEAT, peer)
            self._check_history(first.cluster_id, first.quorum_generation)
            leases = self._controller.active().leases
            session = leases.open(first)
        except QuorateError as error:
            yield self._with_hint(HeartbeatResponse(error=to_wire(error)))
            return
        try:
            listening = self._listen(requests, leases, session, peer)
            async with beside(listening, "heartbeat stream"):
                while not session.is_over:
                    session.bell.reset()
                    yield leases.answer(session)
                    if not session.is_over:
                        await session.bell.wait(leases.config.broker_heartbeat_interval_ms)
                        self._end_if_refused(session, peer)
                if session.failure is not None:
                    yield self._with_hint(HeartbeatResponse(error=to_wire(session.failure)))
        finally:
            leases.close(session)

    # -- one request: checks and bounds

    async def _listen(
        self,
        requests: AsyncIterator[HeartbeatRequest],
        leases: Leases,
        session: Session,
        peer: Peer,
    ) -> None:
        """Pass the heartbeats of a broker to its lease until its stream ends."""
        try:
            async for request in requests:
                self._end_if_refused(session, peer)
                leases.take(session, request)
        except NetworkError as error:
            log.debug("heartbeat_stream_broke", reason=str(error))
        finally:
            session.end()

    def _end_if_refused(self, session: Session, peer: Peer) -> None:
        """End a broker's session if its right was withdrawn."""
        try:
            self._check(HEARTBEAT, peer)
        except AuthorizationError as error:
            session.end(error)

    async def _alter(self, peer: Peer, request: AlterPartitionsRequest) -> AlterPartitionsResponse:
        try:
            self._check(ALTER_PARTITIONS, peer)
            self._check_generation(request.quorum_generation)
            with self._counted():
                decided = await self._controller.active().alter_partitions(request)
        except QuorateError as error:
            return AlterPartitionsResponse(error=to_wire(error), request_id=request.request_id)
        return decided.response

    async def _forward(self, peer: Peer, request: ForwardRequest) -> ForwardResponse:
        try:
            self._check(FORWARD, peer)  # each time: the right may be withdrawn during the stream
            call = ADMIN_CALLS.get(request.method)
            if call is None:
                raise UnsupportedError(f"the controller does not serve {request.method[:200]!r}")
            if request.deadline_ms == 0:
                raise RequestTimedOutError("the caller's time was over; nothing was done")
            with self._counted(), self._held(len(request.request)):
                caller = Caller(Principal.parse(request.principal), self._authorizer)
                asked = decoded(call.method, request.request)
                decided = await _in_time(
                    call.answer(caller, self._controller.active(), asked), request.deadline_ms
                )
        except NotControllerError as error:
            return self._with_hint(
                ForwardResponse(error=to_wire(error), request_id=request.request_id)
            )
        except QuorateError as error:
            return ForwardResponse(error=to_wire(error), request_id=request.request_id)
        except Exception as error:
            # A bug of the controller in one call must not break the stream for all other calls.
            log.exception("forwarded_call_failed", method=request.method)
            unknown = OutcomeUnknownError(f"the controller failed in {request.method}: {error!r}")
            return ForwardResponse(error=to_wire(unknown), request_id=request.request_id)
        return ForwardResponse(
            request_id=request.request_id,
            response=call.method.encode_response(decided.response),
            apply_offset=decided.apply_offset,
        )

    def _check(self, method: Method[Any, Any], peer: Peer) -> None:
        Caller(peer.principal, self._authorizer).check(REQUIRED[method])

    def _check_history(self, cluster_id: str, generation: int) -> None:
        if cluster_id != self._cluster_id:
            raise WrongClusterError(
                f"this quorum is of cluster {self._cluster_id!r}, not {cluster_id[:100]!r}"
            )
        self._check_generation(generation)

    def _check_generation(self, generation: int) -> None:
        """Refuse a caller that follows another generation; 0 means that it follows none yet."""
        if generation not in (0, self._generation):
            raise WrongClusterError(
                f"this quorum's generation is {self._generation}, not {generation}"
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._requests >= self._requests_max:
            raise OverloadedError(
                f"the controller has {self._requests} requests to answer, and takes no more"
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    @contextmanager
    def _held(self, size: int) -> Iterator[None]:
        """Count the bytes of a forwarded request while it is being answered."""
        if self._forwarded_bytes + size > self._forwarded_bytes_max:
            raise OverloadedError(
                f"the controller holds {self._forwarded_bytes} bytes of requests, and takes no "
                f"{size} more: at most {self._forwarded_bytes_max}"
            )
        self._forwarded_bytes += size
        try:
            yield
        finally:
            self._forwarded_bytes -= size

    def _with_hint(self, response: H) -> H:
        """Put the controller's id and endpoint into an answer, as far as this voter knows them."""
        if _is_refused(response):
            response.leader_id = -1
        else:
            response.leader_id, response.leader_endpoint = self._controller.leader_hint
        return response


def _is_refused(response: H) -> bool:
    """Return whether the caller had no right. If so, the answer must not describe the cluster."""
    return response.error.code == ErrorCode.ERROR_CODE_CLUSTER_AUTHORIZATION_FAILED


def decoded(method: Method[Q, Any], data: bytes) -> Q:
    """Return a forwarded request. Raises InvalidRequestError if its bytes do not parse."""
    try:
        return method.decode_request(data)
    except DecodeError as error:
        raise InvalidRequestError(f"the request of {method.path} does not parse: {error}") from None


async def _in_time(answer: Awaitable[R], deadline_ms: int) -> R:
    """Await an answer at most until the deadline. A proposed change goes on after the deadline."""
    try:
        async with asyncio.timeout(min(deadline_ms, DEADLINE_MAX_MS) / 1000):
            return await answer
    except TimeoutError:
        raise OutcomeUnknownError(
            f"the change was not committed within {deadline_ms} ms; it may be later"
        ) from None


async def _one_by_one(
    first: ForwardRequests, rest: AsyncIterator[ForwardRequests]
) -> AsyncIterator[ForwardRequest]:
    """Yield the requests of all messages. Raises InvalidRequestError if a message has too many."""
    message: ForwardRequests | None = first
    while message is not None:
        if len(message.requests) > FORWARDS_PER_MESSAGE_MAX:
            raise InvalidRequestError(
                f"a message of {len(message.requests)} forwarded requests: at most "
                f"{FORWARDS_PER_MESSAGE_MAX} may come in one"
            )
        for request in message.requests:
            yield request
        message = await anext(rest, None)


async def answered_each(
    requests: AsyncIterator[Q], answer: Callable[[Q], Awaitable[R]], in_flight_max: int
) -> AsyncGenerator[list[R], None]:
    """Yield the answers of all requests, in the order in which they are ready.

    A group has the answers that became ready since the last group was taken. Requests start in the
    order of their arrival. At any time, at most `in_flight_max` requests are read whose answers
    were not taken yet. `answer` returns an error as an answer; if it raises, it has a bug. If
    `requests` breaks with a NetworkError, there are no more requests. Any other error of `requests`
    is raised after all earlier requests have their answers.
    """
    ready: list[R] = []
    news = asyncio.Event()
    free = asyncio.Semaphore(in_flight_max)

    async def answer_one(request: Q) -> None:
        reply = await answer(request)
        ready.append(reply)  # `ready` is read only after the await, which may replace the list
        news.set()

    async def answer_all() -> None:
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            try:
                async for request in requests:
                    await free.acquire()
                    group.create_task(answer_one(request))
            except NetworkError:
                pass  # a broken stream has no more requests
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure

    answering = asyncio.create_task(answer_all())
    answering.add_done_callback(lambda _: news.set())
    try:
        while ready or not answering.done():
            await news.wait()
            news.clear()
            group, ready = ready, []
            if group:
                yield group
            for _ in group:
                free.release()
        answering.result()
    finally:
        answering.cancel()
        await asyncio.wait([answering])
