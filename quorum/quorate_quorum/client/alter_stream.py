"""AlterPartitions, the changes that leaders propose, on one stream to the controller."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

from quorate.errors import (
    DeadlineExceededError,
    OverloadedError,
    QuorateError,
    QuorumUnavailableError,
    StreamBrokenError,
    raise_if_error,
)
from quorate.net.network import Connection
from quorate_quorum.client.history import FollowedHistory
from quorate_quorum.client.leader import ANOTHERS, LeaderFinder
from quorate_quorum.client.voters import Connections
from quorate_quorum.methods import ALTER_PARTITIONS
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.v1.controller_pb2 import AlterPartitionsRequest, AlterPartitionsResponse


class Alterations:
    """Sends AlterPartitions to the present controller. Each request is sent once."""

    def __init__(
        self,
        config: BrokerConfig,
        history: FollowedHistory,
        leader: LeaderFinder,
        connections: Connections,
    ) -> None:
        self._timeout_ms = config.alter_partitions_timeout_ms
        self._in_flight_max = config.alter_partitions_in_flight_max
        self._history = history
        self._leader = leader
        self._connections = connections
        self._stream: AlterStream | None = None
        leader.when_moved(self._controller_moved)

    async def ask(self, request: AlterPartitionsRequest) -> AlterPartitionsResponse:
        """Send the request once, to the controller that is known now. Return the answer.

        Raises NetworkError or QuorumUnavailableError if there is no answer. The controller may have
        made the change even so. In that case it refuses a repeat, because of the old
        partition_epoch.
        """
        stream = self._stream_to_controller()
        request.quorum_generation = self._history.generation
        try:
            response = await stream.ask(request, self._timeout_ms)
        except DeadlineExceededError:
            self._drop()
            raise
        if response.error.code in ANOTHERS:
            self._leader.forget(stream.endpoint)
        raise_if_error(response.error)
        return response

    async def stop(self) -> None:
        """End the stream. Callers that wait on it get StreamBrokenError."""
        stream = self._stream
        self._drop()
        if stream is not None:
            await stream.closed()

    def _stream_to_controller(self) -> AlterStream:
        endpoint = self._leader.known.endpoint
        if not endpoint:
            raise QuorumUnavailableError("no controller is known yet")
        stream = self._stream
        if stream is None or not stream.is_open or stream.endpoint != endpoint:
            self._drop()
            connection = self._connections.get(endpoint)
            stream = self._stream = AlterStream(endpoint, connection, self._in_flight_max)
        return stream

    def _controller_moved(self, endpoint: str) -> None:
        if self._stream is not None and self._stream.endpoint != endpoint:
            self._drop()

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None


class AlterStream:
    """One stream of AlterPartitions to one controller.

    Many requests may be in flight, and the controller answers them in any order.
    """

    def __init__(self, endpoint: str, connection: Connection, in_flight_max: int) -> None:
        self.endpoint = endpoint
        self.is_open = True
        self._in_flight_max = in_flight_max
        self._next_id = 1
        self._pending: dict[int, asyncio.Future[AlterPartitionsResponse]] = {}
        self._outbox: deque[AlterPartitionsRequest] = deque()
        self._filled = asyncio.Event()
        self._task = asyncio.create_task(self._run(connection), name="quorum-alter")
        self._task.add_done_callback(self._ended)

    async def ask(
        self, request: AlterPartitionsRequest, timeout_ms: int
    ) -> AlterPartitionsResponse:
        """Send the request with an id of this stream, and wait for the answer with that id."""
        if len(self._pending) >= self._in_flight_max:
            raise OverloadedError(f"{len(self._pending)} AlterPartitions are in flight already")
        asked = AlterPartitionsRequest()
        asked.CopyFrom(request)
        asked.request_id = number = self._next_id
        self._next_id += 1
        answer: asyncio.Future[AlterPartitionsResponse]
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        self._outbox.append(asked)
        self._filled.set()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                response = await answer
        except TimeoutError:
            raise DeadlineExceededError(
                f"the controller at {self.endpoint} gave no answer within {timeout_ms} ms"
            ) from None
        finally:
            self._pending.pop(number, None)
        response.request_id = request.request_id
        return response

    def abort(self) -> None:
        """Close the stream. Callers that wait on it get StreamBrokenError."""
        self.is_open = False
        self._task.cancel()

    async def closed(self) -> None:
        await asyncio.wait([self._task])

    async def _run(self, connection: Connection) -> None:
        stream = connection.stream(ALTER_PARTITIONS, self._requests())
        async with aclosing(stream):
            async for response in stream:
                answer = self._pending.get(response.request_id)
                if answer is not None and not answer.done():
                    answer.set_result(response)

    async def _requests(self) -> AsyncIterator[AlterPartitionsRequest]:
        while True:
            while self._outbox:
                yield self._outbox.popleft()
            self._filled.clear()
            await self._filled.wait()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail every caller that waits, because the stream has ended. The error has the reason."""
        self.is_open = False
        cause = None if task.cancelled() else task.exception()
        error: QuorateError
        if isinstance(cause, QuorateError):
            error = cause
        else:
            error = StreamBrokenError(f"the stream to {self.endpoint} ended: {cause or 'closed'}")
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(error)
