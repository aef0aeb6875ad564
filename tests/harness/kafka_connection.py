"""A connection of a Kafka client in the simulated world."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any

from quorate_broker.listeners.kafka.codec import RequestHeader
from quorate_testing.simulated.loop import current_process
from quorate_testing.simulated.sockets import Ports
from tests.harness.kafka_messages import decode_response, encode_request

SPACE_BYTES = 1 << 16


class ConnectionLost(Exception):
    """The other side has closed the connection, or has died."""


class KafkaConnection(asyncio.BufferedProtocol):
    """Requests go out at once; answers come in the order of the requests."""

    def __init__(self) -> None:
        self._space = bytearray(SPACE_BYTES)
        self._found = bytearray()
        self._more = asyncio.Event()
        #: API key and version of each request that has no answer yet.
        self._asked: deque[tuple[int, int]] = deque()
        self.is_lost = False

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        self._found += self._space[:nbytes]
        self._more.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._more.set()

    def send(self, api_key: int, version: int, message: Any) -> None:
        """Send a request. `answer` returns its answer."""
        data = b"".join(encode_request(RequestHeader(api_key, version, 1, "me"), message))
        self.wire.write(struct.pack(">i", len(data)) + data)
        self._asked.append((api_key, version))

    async def answer(self) -> Any:
        """Return the answer to the oldest request without one. Raises ConnectionLost."""
        while len(self._found) < 4 or len(self._found) < 4 + int.from_bytes(self._found[:4], "big"):
            if self.is_lost:
                raise ConnectionLost
            self._more.clear()
            await self._more.wait()
        size = int.from_bytes(self._found[:4], "big")
        answer = bytes(self._found[4 : 4 + size])
        del self._found[: 4 + size]
        return decode_response(*self._asked.popleft(), answer)[1]

    async def ask(self, api_key: int, version: int, message: Any) -> Any:
        """Send a request and return its answer."""
        assert not self._asked
        self.send(api_key, version, message)
        return await self.answer()

    def close(self) -> None:
        self.wire.close()


async def connect(ports: Ports, endpoint: str) -> KafkaConnection:
    """Connect the present process. Raises ConnectionLost if no process listens there."""
    process = current_process()
    assert process is not None
    connection = KafkaConnection()
    try:
        connection.wire = ports.of(process).connect(endpoint, connection)
    except ConnectionRefusedError as error:
        raise ConnectionLost(str(error)) from error
    return connection
