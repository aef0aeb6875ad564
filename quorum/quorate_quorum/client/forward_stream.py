"""Streams of admin calls from a broker to the controller: many calls on one, each sent once.

A call counts as sent when the message that holds it is given to the wire. A call that was not sent,
or that went to a port where no process listens, may be sent to another voter (NotSentError). For a
call that was sent, only the answer tells what happened (OutcomeUnknownError without an answer). If
another voter becomes the controller, the old stream ends only after its calls have answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import structlog

from quorate.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    OverloadedError,
    PeerRefusedError,
    QuorateError,
    StreamBrokenError,
)
from quorate.net.network import Connection
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.client.history import FollowedHistory
from quorate_quorum.methods import FORWARD
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.v1.controller_pb2 import (
    ForwardRequest,
    ForwardRequests,
    ForwardResponse,
    ForwardResponses,
)

log = structlog.get_logger(__name__)

#: The most requests in one message. The controller refuses a message with more.
REQUESTS_PER_MESSAGE_MAX = 1000
#: The most bytes in one message that holds more than one request.
MESSAGE_BYTES = 1 << 20


#: The most open streams. Above the bound, the oldest gets no more calls. The bound is higher than
#: the number of endpoints that a broker takes for the controller's at one time.
STREAMS_MAX = 32


class NotSentError(Exception):
    """The call certainly did not reach a controller, so it may be sent to another voter."""


class Forwarding:
    """The streams to the controller, one for each endpoint that was taken for the controller's."""

    def __init__(
        self, config: BrokerConfig, history: FollowedHistory, connect: Callable[[str], Connection]
    ) -> None:
        self._history = history
        self._connect = connect
        self._in_flight_max = config.forward_in_flight_max
        self._bytes_max = config.forward_queued_max_bytes
        self._request_bytes_max = config.forward_request_max_bytes
        self._open: dict[str, ForwardStream] = {}
        self._leaving: dict[ForwardStream, None] = {}
        self._count = self._bytes = 0

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Count a call of `size` bytes while it is under way.

        Raises InvalidRequestError if the call is too large.
        Raises OverloadedError if too many calls, or too many bytes, are under way.
        """
        if size > self._request_bytes_max:
            raise InvalidRequestError(
                f"a request of {size} bytes is not passed on to the controller: at most "
                f"{self._request_bytes_max} may be; ask for less at once"
            )
        if self._count >= self._in_flight_max or self._bytes + size > self._bytes_max:
            raise OverloadedError(
                f"{self._count} calls of {self._bytes} bytes wait for the controller already; "
                f"at most {self._in_flight_max} of {self._bytes_max} bytes may"
            )
        self._count += 1
        self._bytes += size
        try:
            yield
        finally:
            self._count -= 1
            self._bytes -= size

    async def ask(self, endpoint: str, request: ForwardRequest, timeout_ms: int) -> ForwardResponse:
        """Send the request to `endpoint` once, and return the answer.

        Without an answer in time, raises NotSentError if the request was not sent, else
        OutcomeUnknownError.
        """
        stream = self._open.get(endpoint)
        if stream is None or not stream.is_open:
            self._leave(endpoint)
            if len(self._open) >= STREAMS_MAX:
                self._leave(next(iter(self._open)))
            stream = self._open[endpoint] = ForwardStream(
                endpoint, self._connect(endpoint), self._history
            )
        return await stream.ask(request, timeout_ms)

    def controller_moved(self, endpoint: str) -> None:
        """Send no more calls to any endpoint but this one, which is now the controller's."""
        for other in [known for known in self._open if known != endpoint]:
            self._leave(other)

    async def stop(self) -> None:
        """End all streams. Each caller that waits gets NotSentError or OutcomeUnknownError."""
        for endpoint in list(self._open):
            self._leave(endpoint)
        for stream in list(self._leaving):
            stream.abort()
            await stream.closed()

    def _leave(self, endpoint: str) -> None:
        stream = self._open.pop(endpoint, None)
        if stream is not None and not stream.is_over:
            self._leaving[stream] = None
            stream.when_over(lambda: self._leaving.pop(stream, None))
            stream.leave()


@dataclass(slots=True)
class _Waiting:
    """A call that is not sent yet."""

    request: ForwardRequest
    deadline: float  # a time of the event loop's clock


class ForwardStream:
    """One Forward stream to one endpoint. Many calls are in flight, answered in any order."""

    def __init__(self, endpoint: str, connection: Connection, history: FollowedHistory) -> None:
        self.endpoint = endpoint
        self.is_open = True
        self._first = ForwardRequests(
            cluster_id=history.cluster_id, quorum_generation=history.generation
        )
        self._next_id = 1
        self._pending: dict[int, asyncio.Future[ForwardResponse]] = {}
        self._outbox: dict[int, _Waiting] = {}  # oldest first
        self._filled = asyncio.Event()
        self._was_answered = False
        self._task = asyncio.create_task(self._run(connection), name="quorum-forward")
        self._task.add_done_callback(self._ended)

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def ask(self, request: ForwardRequest, timeout_ms: int) -> ForwardResponse:
        """Send the request with an id of this stream, and wait for the answer with that id."""
        loop = asyncio.get_running_loop()
        request.request_id = number = self._next_id
        self._next_id += 1
        answer: asyncio.Future[ForwardResponse] = loop.create_future()
        self._pending[number] = answer
        self._outbox[number] = _Waiting(request, loop.time() + timeout_ms / 1000)
        self._filled.set()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await answer
        except TimeoutError:
            raise self._no_answer(number, f"within {timeout_ms} ms") from None
        finally:
            self._pending.pop(number, None)
            self._outbox.pop(number, None)
            if not self.is_open and not self._pending:
                self._task.cancel()  # this was the last answer after leave(): end the stream

    def leave(self) -> None:
        """Send no more calls. Wait for the answers to those that were sent, then end the stream."""
        self.is_open = False
        for number in list(self._outbox):
            self._fail(number, "before the controller moved")
        self._outbox.clear()
        self._filled.set()
        if not self._pending:
            self._task.cancel()

    def abort(self) -> None:
        """End the stream at once."""
        self.is_open = False
        self._task.cancel()

    async def closed(self) -> None:
        await asyncio.wait([self._task])

    def when_over(self, call: Callable[[], object]) -> None:
        self._task.add_done_callback(lambda _: call())

    async def _run(self, connection: Connection) -> None:
        stream = connection.stream(FORWARD, self._messages())
        async with aclosing(stream):
            async for message in stream:
                self._take(message)

    def _take(self, message: ForwardResponses) -> None:
        """Give each answer to the caller that waits for it. Ignore an id that no caller waits for.

        A request in the outbox was not sent yet, so an answer with its id is ignored, too.
        """
        if message.error.code != ErrorCode.ERROR_CODE_NONE:
            self._refused(message)
        self._was_answered = True
        for response in message.responses:
            answer = self._pending.get(response.request_id)
            if answer is None or answer.done() or response.request_id in self._outbox:
                continue
            answer.set_result(response)

    def _refused(self, message: ForwardResponses) -> None:
        """Give the refusal of the stream to every caller: none of the calls was carried out.

        Raises StreamBrokenError, so that the stream ends.
        """
        if self._was_answered:
            raise StreamBrokenError(f"{self.endpoint} refused a stream that it had answered on")
        for answer in self._pending.values():
            if not answer.done():
                answer.set_result(ForwardResponse(error=message.error))
        raise StreamBrokenError(f"{self.endpoint} refused the stream: {message.error.message}")

    async def _messages(self) -> AsyncIterator[ForwardRequests]:
        message = self._first
        while self.is_open:
            self._filled.clear()
            requests = self._next_requests()
            if requests:
                message.requests.extend(requests)
                yield message
                message = ForwardRequests()
            elif not self._outbox:
                await self._filled.wait()

    def _next_requests(self) -> list[ForwardRequest]:
        """Take as many requests from the outbox as one message holds.

        These requests count as sent from now on. A request whose deadline has passed is failed
        instead.
        """
        now = asyncio.get_running_loop().time()
        taken: list[ForwardRequest] = []
        size = 0
        while self._outbox and len(taken) < REQUESTS_PER_MESSAGE_MAX:
            number, waiting = next(iter(self._outbox.items()))
            size += waiting.request.ByteSize()
            if taken and size > MESSAGE_BYTES:
                break
            left_ms = int((waiting.deadline - now) * 1000)
            if left_ms <= 0:
                self._fail(number, "in time")
                del self._outbox[number]
                continue
            del self._outbox[number]
            waiting.request.deadline_ms = min(left_ms, 0xFFFF_FFFF)
            taken.append(waiting.request)
        return taken

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail every caller that waits: the stream ended. The error says if the call was sent."""
        self.is_open = False
        cause = None if task.cancelled() else task.exception()
        if cause is not None and not isinstance(cause, QuorateError):
            log.error("forward_failed", endpoint=self.endpoint, exc_info=cause)
        is_refused = isinstance(cause, PeerRefusedError) and not self._was_answered
        for number in list(self._pending):
            self._fail(number, f"before the stream ended: {cause or 'closed'}", is_refused)

    def _fail(self, number: int, reason: str, is_refused: bool = False) -> None:
        answer = self._pending.get(number)
        if answer is not None and not answer.done():
            answer.set_exception(self._no_answer(number, reason, is_refused))

    def _no_answer(
        self, number: int, reason: str, is_refused: bool = False
    ) -> NotSentError | OutcomeUnknownError:
        if is_refused:
            return NotSentError(f"no server listens at {self.endpoint}")
        if number in self._outbox:
            return NotSentError(f"nothing was sent to {self.endpoint} {reason}")
        return OutcomeUnknownError(f"it was sent to {self.endpoint}, and not answered {reason}")
