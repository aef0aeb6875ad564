"""The client's side of the Records service's streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from quorate.net.network import Peer
from quorate_broker.listeners.grpc.records import RecordsService
from tests.unit.quorate_broker.operations.builders import FakeReplicas, config, operations

PEER = Peer("test")


class Requests:
    """The client's side of a stream."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.taken = 0

    def send(self, request: Any) -> None:
        self._queue.put_nowait(request)

    def end(self) -> None:
        self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._queue.get()
        if request is None:
            raise StopAsyncIteration
        if isinstance(request, Exception):
            raise request
        self.taken += 1
        return request


def service(replicas: FakeReplicas, bounds: dict[str, int] | None = None) -> RecordsService:
    """`bounds` are settings of the broker."""
    settings = config(**(bounds or {}))
    return RecordsService(operations(replicas, settings), cast(Any, replicas), settings)
