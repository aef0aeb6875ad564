"""What is gRPC's own in the network over gRPC; what all networks share is in the contract."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import grpc
import pytest

from quorate.errors import (
    DeadlineExceededError,
    NetworkError,
    PeerError,
    PeerRefusedError,
    StreamBrokenError,
    UnresolvedHostError,
)
from quorate.net.grpc_network import GrpcNetwork, GrpcOptions
from quorate.net.methods import IDENTIFY
from quorate.net.network import Answered, Method, NoAnswer, Peer, Purpose, Refused
from quorate.v1 import node_pb2
from tests.unit.quorate.net.services import COUNT, ECHO, SLOW, STREAM, EchoService, raw

SERVER = """
import asyncio, sys
from quorate.net.grpc_network import GrpcNetwork
from tests.unit.quorate.net.services import EchoService

async def main():
    listener = await GrpcNetwork().serve(sys.argv[1], [EchoService()])
    print(listener.endpoint, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def server_process(endpoint: str = "127.0.0.1:0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, endpoint], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def forever(text: str) -> AsyncIterator[str]:
    yield text
    await asyncio.Event().wait()


async def test_kill_9_of_the_peer_breaks_its_streams_and_then_it_refuses() -> None:
    network = GrpcNetwork()
    with server_process() as (process, endpoint):
        connection = network.connect(endpoint)
        stream = connection.stream(STREAM, forever("a"))
        assert await anext(stream) == "a"
        unary = asyncio.create_task(connection.unary(SLOW, "a", timeout_ms=60_000))
        probed = await network.probe(endpoint, timeout_ms=5000)
        assert probed == Answered(7, b"one run")
        process.kill()
        with pytest.raises(StreamBrokenError):
            await anext(stream)
        with pytest.raises(StreamBrokenError):
            await unary
        process.wait()
        while True:
            try:
                await connection.unary(ECHO, "a", timeout_ms=5000)
            except PeerRefusedError:
                break
            except StreamBrokenError:
                # gRPC has not noticed yet that the old connection is gone
                continue
        assert await network.probe(endpoint, timeout_ms=5000) == Refused()
    with server_process(endpoint):
        while True:
            try:
                assert await connection.unary(ECHO, "b", timeout_ms=5000) == "b"
                break
            except PeerRefusedError:
                await asyncio.sleep(0.02)
    await network.close()


async def test_a_stopped_peer_is_silent() -> None:
    network = GrpcNetwork()
    with server_process() as (process, endpoint):
        connection = network.connect(endpoint)
        assert await connection.unary(ECHO, "a", timeout_ms=5000) == "a"
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineExceededError):
            await connection.unary(ECHO, "a", timeout_ms=100)
        assert await network.probe(endpoint, timeout_ms=100) == NoAnswer()
        process.send_signal(signal.SIGCONT)
        assert await connection.unary(ECHO, "b", timeout_ms=20_000) == "b"
    await network.close()


async def test_whoever_is_no_grpc_server_gives_no_answer() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ready\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    network = GrpcNetwork()
    assert await network.probe(endpoint, timeout_ms=500) == NoAnswer()
    with pytest.raises(NetworkError) as caught:
        await network.connect(endpoint).unary(ECHO, "a", timeout_ms=500)
    assert not isinstance(caught.value, PeerRefusedError | PeerError)
    await network.close()
    server.close()
    await server.wait_closed()


async def test_a_server_that_closes_at_once_is_told_as_one_of_another_protocol() -> None:
    """A listener for Kafka clients closes like this: HTTP/2's preface is no request of Kafka."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    network = GrpcNetwork()
    with pytest.raises(StreamBrokenError) as caught:
        await network.connect(endpoint).unary(ECHO, "a", timeout_ms=20_000)
    assert str(caught.value) == (
        f"what listens at {endpoint} closed the connection before it spoke gRPC, as a listener for "
        f"Kafka clients does ({ECHO.path})"
    )
    await network.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("family", "taken_at", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "localhost"),
        (socket.AF_INET, "127.0.0.1", "LOCALHOST"),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0"),
        (socket.AF_INET6, "::1", "[::1]"),
        (socket.AF_INET6, "::", "[::]"),
        (socket.AF_INET6, "::", "[::1]"),
    ],
)
async def test_the_port_of_another_program_is_in_use(
    family: socket.AddressFamily, taken_at: str, host: str
) -> None:
    both = taken_at == "::"
    with socket.create_server((taken_at, 0), family=family, dualstack_ipv6=both) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use") as caught:
            await GrpcNetwork().serve(f"{host}:{port}", [])
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("family", "taken_at"), [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]
)
async def test_the_wildcard_is_refused_if_the_port_is_taken_for_one_kind_of_addresses(
    family: socket.AddressFamily, taken_at: str
) -> None:
    """gRPC would listen on the other kind alone."""
    with socket.create_server((taken_at, 0), family=family) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use") as caught:
            await GrpcNetwork().serve(f"[::]:{port}", [])
        assert caught.value.errno == errno.EADDRINUSE


async def test_a_host_name_is_refused_if_the_port_is_taken_at_one_of_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolved(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "two.test"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use at ::1 .*two.test"):
            await GrpcNetwork().serve(f"two.test:{port}", [])


@pytest.mark.parametrize("endpoint", ["", "localhost", "7092", ":7092", "a:b", "a:70000"])
async def test_an_impossible_endpoint_is_named(endpoint: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        await GrpcNetwork().serve(endpoint, [])


async def test_localhost_is_the_loopback_of_ip_4_on_both_sides() -> None:
    network = GrpcNetwork()
    listener = await network.serve("localhost:0", [EchoService()])
    assert listener.endpoint.startswith("localhost:")
    assert await network.connect(listener.endpoint).unary(ECHO, "a", timeout_ms=5000) == "a"
    numeric = listener.endpoint.replace("localhost", "127.0.0.1")
    dotted = network.connect(listener.endpoint.replace("localhost", "LocalHost."))
    assert await dotted.unary(ECHO, "hi", timeout_ms=20_000) == "hi"
    assert await network.probe(numeric, timeout_ms=5000) == Answered(7, b"one run")
    await network.close()
    await listener.stop(0)


async def test_a_response_that_does_not_parse_is_a_peer_error() -> None:
    network = GrpcNetwork()
    listener = await network.serve("127.0.0.1:0", [EchoService()])
    connection = network.connect(listener.endpoint)
    wrong = Method(
        ECHO.path,
        raw(ECHO).encode_request,
        raw(ECHO).decode_request,
        IDENTIFY.encode_response,
        IDENTIFY.decode_response,
    )
    with pytest.raises(PeerError, match="do not parse"):
        await connection.unary(wrong, b"no message", timeout_ms=5000)
    await network.close()
    await listener.stop(0)


async def test_hostile_protobuf_is_an_invalid_argument() -> None:
    network = GrpcNetwork()
    listener = await network.serve("127.0.0.1:0", [EchoService()])
    hostile = Method(
        IDENTIFY.path, bytes, bytes, IDENTIFY.encode_response, IDENTIFY.decode_response
    )
    with pytest.raises(PeerError) as caught:
        await network.connect(listener.endpoint).unary(hostile, b"\x0a\xff", timeout_ms=5000)
    assert caught.value.status == "INVALID_ARGUMENT"
    await network.close()
    await listener.stop(0)


async def test_a_stream_that_sends_no_request_where_one_is_due_is_refused() -> None:
    async def nothing() -> AsyncIterator[str]:
        if network is None:
            yield ""

    network = GrpcNetwork()
    listener = await network.serve("127.0.0.1:0", [EchoService()])
    with pytest.raises(PeerError, match="no request"):
        await anext(network.connect(listener.endpoint).stream(COUNT, nothing()))
    await network.close()
    await listener.stop(0)


async def test_nothing_is_left_behind() -> None:
    network = GrpcNetwork()
    service = EchoService()
    listener = await network.serve("127.0.0.1:0", [service])
    connection = network.connect(listener.endpoint)
    for _ in range(10):
        async with aclosing(connection.stream(STREAM, forever("a"))) as stream:
            assert await anext(stream) == "a"
        with pytest.raises(DeadlineExceededError):
            await connection.unary(SLOW, "a", timeout_ms=20)
    await network.close()
    await listener.stop(0)
    assert sorted(service.closed) == ["slow"] * service.slow_calls + ["stream"] * 10
    mine = [task for task in asyncio.all_tasks() if "quorate" in repr(task.get_coro())]
    assert mine == []


async def test_control_and_data_are_separate_tcp_connections() -> None:
    network = GrpcNetwork()
    service = EchoService()
    listener = await network.serve("127.0.0.1:0", [service])
    purposes: tuple[Purpose, ...] = ("control", "data")
    for purpose in purposes:
        connection = network.connect(listener.endpoint, purpose=purpose)
        await connection.unary(ECHO, "a", timeout_ms=5000)
        await connection.unary(ECHO, "a", timeout_ms=5000)
    control, again, data, _ = (peer.address for peer in service.peers)
    assert control == again != data
    await network.close()
    await listener.stop(0)


def test_grpc_is_imported_at_the_first_connection_only() -> None:
    program = (
        "import os, sys, quorate.net.grpc_network as n; n.GrpcNetwork(); "
        "assert 'grpc' not in sys.modules; n.library(); assert 'grpc' in sys.modules; "
        "print(os.environ['GRPC_VERBOSITY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"}
    for wanted, given in (
        ("NONE", environment),
        ("debug", {**environment, "GRPC_VERBOSITY": "debug"}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == wanted


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="message_bytes_max must be 1 or more, not 0"):
        GrpcOptions(message_bytes_max=0)


async def test_an_answer_may_be_larger_than_the_requests_that_both_sides_accept() -> None:
    """A follower must be able to fetch each batch that its leader has accepted."""

    class Repeater(EchoService):
        async def echo(self, request: str, _peer: Peer) -> str:
            return request * (1 << 20)

    network = GrpcNetwork(GrpcOptions(message_bytes_max=1 << 16))
    listener = await network.serve("127.0.0.1:0", [Repeater()])
    answer = await network.connect(listener.endpoint).unary(ECHO, "x", timeout_ms=20_000)
    assert len(answer) == 1 << 20
    await network.close()
    await listener.stop(0)


async def test_a_unary_call_that_is_cancelled_cancels_the_handler() -> None:
    network = GrpcNetwork()
    service = EchoService()
    listener = await network.serve("127.0.0.1:0", [service])
    connection = network.connect(listener.endpoint)
    await connection.unary(IDENTIFY, node_pb2.IdentifyRequest(), timeout_ms=5000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.unary(SLOW, "a", timeout_ms=60_000)
    await service.closing.wait()
    await network.close()
    await listener.stop(0)


async def test_a_port_that_is_just_closing_is_dialled_again_until_it_refuses() -> None:
    """A killed process's sockets close one by one, its listening port not always first."""
    server: asyncio.Server

    async def die(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.close()
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    network = GrpcNetwork()
    assert await network.probe(endpoint, timeout_ms=5000) == Refused()
    await network.close()


LOOPS = """
import asyncio, sys
from quorate.net.grpc_network import GrpcNetwork
from tests.unit.quorate.net.services import STREAM

async def forever():
    yield "a"
    await asyncio.Event().wait()

async def main():
    network = GrpcNetwork()
    stream = network.connect(sys.argv[1]).stream(STREAM, forever())
    assert await anext(stream) == "a"
    await stream.aclose()
    await network.close()

for _ in range(40):
    asyncio.run(main())
"""


def test_a_network_that_was_closed_leaves_nothing_to_the_next_event_loop() -> None:
    with server_process() as (_, endpoint):
        done = subprocess.run(
            [sys.executable, "-c", LOOPS, endpoint], capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")


async def test_an_endpoint_that_is_none_is_a_peer_that_refuses() -> None:
    """A broker may register any text as an endpoint; a node that dials it must not fail."""
    network = GrpcNetwork()
    connection = network.connect("nonsense")
    with pytest.raises(PeerRefusedError):
        connection.stream(IDENTIFY, _no_requests())
    await network.close()


async def test_a_name_without_an_address_is_told_as_such() -> None:
    network = GrpcNetwork()
    connection = network.connect("no..name:7092")
    with pytest.raises(UnresolvedHostError, match=r"host of no\.\.name:7092 has no address"):
        await connection.unary(IDENTIFY, node_pb2.IdentifyRequest(), timeout_ms=30_000)
    await network.close()


async def _no_requests() -> AsyncIterator[node_pb2.IdentifyRequest]:
    return
    yield


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_literal_is_served_dialled_and_probed() -> None:
    network = GrpcNetwork()
    listener = await network.serve("[::1]:0", [EchoService()])
    assert listener.endpoint.startswith("[::1]:")
    assert not listener.endpoint.endswith(":0")
    assert await network.connect(listener.endpoint).unary(ECHO, "a", timeout_ms=5000) == "a"
    assert isinstance(await network.probe(listener.endpoint, timeout_ms=5000), Answered)
    await network.close()
    await listener.stop(0)


END: object = getattr(grpc.aio, "EOF")  # noqa: B009  (the stubs lack it)
REFUSED = "the connection was refused in this moment"


class SwallowsCancellation:
    """A gRPC call that is cancelled as its outcome arrives: it reports the outcome only."""

    def __init__(self, outcome: object) -> None:
        self._outcome = outcome

    async def read(self) -> object:
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        if self._outcome == REFUSED:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, REFUSED, "")
        return self._outcome

    def __await__(self) -> Generator[Any, None, object]:
        return self.read().__await__()

    async def done_writing(self) -> None:
        """Accept the end of the requests."""

    def cancel(self) -> None:
        """Do nothing."""


async def no_requests() -> AsyncIterator[str]:
    return
    yield


@pytest.mark.parametrize("outcome", [REFUSED, END, b"an answer"])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_task_that_is_cancelled_in_a_call_ends_whatever_grpc_reports(
    outcome: object, is_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the task goes on, and its canceller waits: a broker's stop took 14 seconds."""

    class Channel:
        def unary_unary(self, *_: object) -> Callable[..., SwallowsCancellation]:
            return lambda *_, **__: SwallowsCancellation(outcome)

        stream_stream = unary_unary

        async def close(self, _: object) -> None: ...

    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda *_, **__: Channel())
    connection = GrpcNetwork().connect("127.0.0.1:1")

    async def call() -> object:
        if is_stream:
            stream = connection.stream(STREAM, no_requests())
            return await anext(stream)
        return await connection.unary(ECHO, "a", timeout_ms=1000)

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    await connection.close()
