"""Kafka connections to a simulated broker without a network between: bytes go straight in.

The broker's side is its own: transport, machine, codec, handlers. An answer costs no virtual time,
and a million requests cost minutes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from contextvars import Context
from typing import Any, Final

from quorate_broker.listeners.kafka.codec import RequestHeader
from quorate_broker.listeners.kafka.messages.metadata import MetadataRequest
from quorate_broker.listeners.kafka.versions import METADATA
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop
from tests.harness.kafka_messages import decode_response, encode_request

Piece = bytes | bytearray | memoryview
BROKER: Final = "broker-0"
ENDPOINT: Final = "broker-0:9092"
#: Tenths of virtual seconds within which the broker starts.
UP_TURNS: Final = 600
#: Virtual seconds after which a good request must be answered.
PATIENCE_S = 60.0


class KafkaCluster(SimulatedCluster):
    """One voter, and one broker with a Kafka listener."""

    def __init__(self, loop: SimulatedLoop, **broker_settings: Any) -> None:
        settings = {"group_initial_rebalance_delay_ms": 0, **broker_settings}
        super().__init__(loop, ClusterShape(voters=1, brokers=1, broker_settings=settings))

    def _settings(self, node: Any) -> dict[str, Any]:
        settings = super()._settings(node)
        if node.is_voter:
            return settings
        return {**settings, "listeners": (f"grpc://{node.endpoint}", f"kafka://{ENDPOINT}")}

    async def begin(self) -> None:
        """Start the nodes, and wait until the broker tells of itself to clients."""
        await self.format()
        self.start_all()
        await self.is_up()

    async def is_up(self) -> None:
        """Wait until the broker tells of itself to clients."""
        for _ in range(UP_TURNS):
            if ENDPOINT in self.ports.open:
                client = self.connect()
                found = await client.ask(METADATA, 9, MetadataRequest([]))
                client.close()
                if found.brokers:
                    return
            await asyncio.sleep(0.1)
        raise AssertionError("the broker does not start")

    def end(self) -> None:
        """Kill all nodes."""
        for name in list(self.nodes):
            self.kill(name)

    def connect(self) -> DirectConnection:
        """Return a new connection to the broker."""
        return DirectConnection(self)


class DirectConnection(asyncio.Transport):
    """A connection: the transport of the broker's side, and the client that drives it."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        super().__init__()
        port: Any = cluster.ports.open[ENDPOINT]
        self._context: Context = port.process.context()
        self._unread = bytearray()
        self._is_reading = True
        self._is_closing = False
        self.is_closed = False
        #: Bytes that the broker has sent and `next_answer` has not taken.
        self.found = bytearray()
        self.came = asyncio.Event()
        self._protocol: Any = self._context.run(port.accept)
        self._context.run(self._protocol.connection_made, self)

    # what the client calls

    def send(self, data: Piece) -> None:
        """Give bytes to the broker, as far as it reads."""
        self._unread += data
        self._hand_over()

    def next_answer(self) -> bytes | None:
        """Return the next whole answer, without its length."""
        if len(self.found) < 4:
            return None
        end = 4 + int.from_bytes(self.found[:4], "big")
        if len(self.found) < end:
            return None
        answer = bytes(self.found[4:end])
        del self.found[:end]
        return answer

    async def ask(self, api_key: int, version: int, message: Any) -> Any:
        """Send a good request and return its answer."""
        self.send(framed(api_key, version, message))
        async with asyncio.timeout(PATIENCE_S):
            while (answer := self.next_answer()) is None:
                assert not self.is_closed, "the broker closed a connection of good requests"
                self.came.clear()
                await self.came.wait()
        return decode_response(api_key, version, answer)[1]

    # what the broker calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("client", 0) if name == "peername" else default

    def write(self, data: Piece) -> None:
        self.found += data
        self.came.set()

    def writelines(self, list_of_data: Iterable[Piece]) -> None:
        for data in list_of_data:
            self.found += data
        self.came.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the client reads everything at once."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        asyncio.get_running_loop().call_soon(self._hand_over)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        """End the connection, from either side."""
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.close()

    # inside

    def _hand_over(self) -> None:
        self._context.run(self._feed)

    def _feed(self) -> None:
        while self._unread and self._is_reading and not self._is_closing:
            buffer = self._protocol.get_buffer(-1)
            size = min(len(buffer), len(self._unread))
            buffer[:size] = self._unread[:size]
            del self._unread[:size]
            self._protocol.buffer_updated(size)

    def _lose(self) -> None:
        self.is_closed = True
        self._context.run(self._protocol.connection_lost, None)
        self.came.set()


def framed(api_key: int, version: int, message: Any) -> bytes:
    """Return the bytes of a request, with its length."""
    data = b"".join(encode_request(RequestHeader(api_key, version, 1, "good"), message))
    return struct.pack(">i", len(data)) + data
