"""What every Network promises, shown for the three of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest

from quorate.errors import (
    DeadlineExceededError,
    PeerError,
    PeerRefusedError,
    QuorumUnavailableError,
    StreamBrokenError,
    WrongClusterError,
)
from quorate.net.grpc_network import GrpcNetwork, GrpcOptions
from quorate.net.network import Answered, Listener, Network, Refused
from quorate.net.principal import ANONYMOUS
from quorate_testing.in_process import InProcessNetwork
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from quorate_testing.simulated.network import SimulatedNetwork
from tests.unit.quorate.net.services import (
    COUNT,
    ECHO,
    FAIL,
    FAIL_LATE,
    GREEDY,
    SIZE_MAX,
    SLOW,
    STREAM,
    UNKNOWN,
    EchoService,
    raw,
)

Program = Callable[[Network, Listener, EchoService], Awaitable[None]]
Run = Callable[[Program], None]


async def _serve_and_run(client: Network, server: Network, endpoint: str, program: Program) -> None:
    service = EchoService()
    listener = await server.serve(endpoint, [service], cluster_id="ours", listener="in")
    try:
        await program(client, listener, service)
    finally:
        await client.close()
        await listener.stop(0)


def over_grpc(program: Program) -> None:
    network = GrpcNetwork(GrpcOptions(message_bytes_max=SIZE_MAX))
    asyncio.run(_serve_and_run(network, network, "127.0.0.1:0", program))


def in_process(program: Program) -> None:
    network = InProcessNetwork(message_bytes_max=SIZE_MAX)
    asyncio.run(_serve_and_run(network, network, "here:0", program))


def simulated(program: Program) -> None:
    async def world(loop: SimulatedLoop) -> None:
        network = SimulatedNetwork(loop, loop.chance, message_bytes_max=SIZE_MAX)
        await _serve_and_run(network.host("client"), network.host("server"), "server:0", program)

    simulate(world, seed=1)


@pytest.fixture(params=[over_grpc, in_process, simulated], ids=lambda run: run.__name__)
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


async def requests_of(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


class Endless:
    """A stream of requests that does not end after the last text; it notes when it is closed."""

    def __init__(self, *texts: str) -> None:
        self.is_closed = False
        self.taken = 0
        self._texts = texts

    async def requests(self) -> AsyncIterator[str]:
        try:
            for text in self._texts:
                self.taken += 1
                yield text
            await asyncio.Event().wait()
        finally:
            self.is_closed = True


def test_a_unary_call_brings_the_response(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        assert await connection.unary(ECHO, "é", timeout_ms=5000) == "é"
        assert service.peers[0].principal == ANONYMOUS

    run(program)


def test_a_stream_echoes_in_order_and_ends_when_the_requests_end(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        texts = [str(number) for number in range(100)]
        async with aclosing(connection.stream(STREAM, requests_of(*texts))) as stream:
            assert [text async for text in stream] == texts
        assert service.closed == ["stream"]

    run(program)


def test_a_single_request_may_have_a_stream_of_responses(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        async with aclosing(connection.stream(COUNT, requests_of("3"))) as stream:
            assert [text async for text in stream] == ["0", "1", "2"]

    run(program)


def test_closing_a_stream_closes_its_requests_and_the_handler(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        endless = Endless("a")
        stream = connection.stream(STREAM, endless.requests())
        assert await anext(stream) == "a"
        await stream.aclose()
        await stream.aclose()
        assert endless.is_closed
        await service.closing.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run(program)


def test_cancelling_the_reader_ends_the_stream(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        endless = Endless("a")
        stream = connection.stream(STREAM, endless.requests())
        await anext(stream)
        reader = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert endless.is_closed
        await service.closing.wait()

    run(program)


def test_an_error_of_the_requests_reaches_the_reader(run: Run) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("no more")

    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        stream = network.connect(listener.endpoint).stream(STREAM, failing())
        with pytest.raises(ValueError, match="no more"):
            [text async for text in stream]

    run(program)


def test_nobody_listens(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        await listener.stop(0)
        connection = network.connect(listener.endpoint)
        for _ in range(3):
            with pytest.raises(PeerRefusedError):
                await connection.unary(ECHO, "a", timeout_ms=5000)
        endless = Endless("a")
        stream = connection.stream(STREAM, endless.requests())
        with pytest.raises(PeerRefusedError):
            await anext(stream)
        assert await network.probe(listener.endpoint, timeout_ms=5000) == Refused()

    run(program)


def test_a_port_in_use_is_named(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        with pytest.raises(OSError, match="is in use") as caught:
            await network_of_the_server(network).serve(listener.endpoint, [service])
        assert listener.endpoint in str(caught.value)

    run(program)


def network_of_the_server(network: Network) -> Network:
    """Return the network for calls that concern the ports of the machine."""
    return network


def test_probe_tells_who_answers(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        assert await network.probe(listener.endpoint, timeout_ms=5000) == Answered(7, b"one run")

    run(program)


def test_a_late_answer_is_a_missed_deadline_and_cancels_the_handler(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        with pytest.raises(DeadlineExceededError):
            await connection.unary(SLOW, "a", timeout_ms=100)
        await service.closing.wait()

    run(program)


@pytest.mark.parametrize(
    ("method", "status"), [(FAIL, "INTERNAL"), (UNKNOWN, "UNIMPLEMENTED")], ids=["fails", "unknown"]
)
def test_a_status_of_the_wire_is_a_peer_error(run: Run, method: type, status: str) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        with pytest.raises(PeerError) as caught:
            await connection.unary(method, "this", timeout_ms=5000)  # type: ignore[arg-type]
        assert caught.value.status == status
        if status == "INTERNAL":
            assert "RuntimeError: cannot do this" in str(caught.value)

    run(program)


def test_a_stream_whose_handler_fails_ends_with_its_text(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        endless = Endless("a")
        stream = network.connect(listener.endpoint).stream(FAIL_LATE, endless.requests())
        assert await anext(stream) == "a"
        with pytest.raises(PeerError, match="late"):
            await anext(stream)
        assert endless.is_closed

    run(program)


def test_hostile_bytes_end_the_call_and_nothing_else(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        with pytest.raises(PeerError) as caught:
            await connection.unary(raw(ECHO), b"\xff", timeout_ms=5000)
        assert caught.value.status == "INVALID_ARGUMENT"

        async def hostile() -> AsyncIterator[bytes]:
            yield b"fine"
            yield b"\xff"

        stream = connection.stream(raw(STREAM), hostile())
        assert await anext(stream) == b"fine"
        with pytest.raises(PeerError) as caught:
            await anext(stream)
        assert caught.value.status == "INVALID_ARGUMENT"
        assert await connection.unary(ECHO, "alive", timeout_ms=5000) == "alive"

    run(program)


def test_a_message_over_the_limit_is_a_peer_error(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        largest = "x" * (SIZE_MAX - 1024)
        assert await connection.unary(ECHO, largest, timeout_ms=20_000) == largest
        with pytest.raises(PeerError) as caught:
            await connection.unary(ECHO, "x" * (SIZE_MAX + 1), timeout_ms=20_000)
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        stream = connection.stream(STREAM, requests_of("x" * (SIZE_MAX + 1)))
        with pytest.raises(PeerError) as caught:
            await anext(stream)
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        assert await connection.unary(ECHO, "alive", timeout_ms=5000) == "alive"

    run(program)


def test_a_writer_waits_for_a_reader_that_does_not_read(run: Run) -> None:
    async def program(network: Network, listener: Listener, _service: EchoService) -> None:
        endless = Endless(*(["x" * 1024 * 1024] * 64))
        stream = network.connect(listener.endpoint).stream(GREEDY, endless.requests())
        assert await anext(stream) == "open"
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert endless.taken < 32
        await stream.aclose()
        assert endless.is_closed

    run(program)


def test_stopping_a_listener_breaks_what_does_not_end(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        endless = Endless("a")
        stream = network.connect(listener.endpoint).stream(STREAM, endless.requests())
        assert await anext(stream) == "a"
        await listener.stop(50)
        with pytest.raises(StreamBrokenError):
            await anext(stream)
        assert service.closed == ["stream"]
        assert endless.is_closed

    run(program)


def test_a_connection_finds_a_listener_that_came_back(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        await connection.unary(ECHO, "a", timeout_ms=5000)
        await listener.stop(0)
        with pytest.raises((PeerRefusedError, StreamBrokenError)):
            await connection.unary(ECHO, "b", timeout_ms=5000)
        again = await network.serve(listener.endpoint, [service])
        try:
            assert await eventually(lambda: connection.unary(ECHO, "c", timeout_ms=5000)) == "c"
        finally:
            await again.stop(0)

    run(program)


async def eventually(call: Callable[[], Awaitable[str]]) -> str:
    while True:
        try:
            return await call()
        except (PeerRefusedError, StreamBrokenError):
            await asyncio.sleep(0.02)


def test_closing_a_connection_breaks_what_is_open_on_it(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        endless = Endless("a")
        stream = connection.stream(STREAM, endless.requests())
        assert await anext(stream) == "a"
        pending = asyncio.create_task(anext(stream))
        unary = asyncio.create_task(connection.unary(SLOW, "a", timeout_ms=60_000))
        while not service.slow_calls:  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.001)
        await connection.close()
        with pytest.raises(StreamBrokenError):
            await pending
        with pytest.raises(StreamBrokenError):
            await unary
        assert endless.is_closed
        with pytest.raises(StreamBrokenError):
            await connection.unary(ECHO, "a", timeout_ms=1000)
        await service.both_closed.wait()

    run(program)


@pytest.mark.parametrize("named", ["theirs", "ours", ""])
def test_a_call_for_another_cluster_reaches_no_service(run: Run, named: str) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint, cluster_id=lambda: named)
        if named != "theirs":
            assert await connection.unary(ECHO, "a", timeout_ms=5000) == "a"
            async with aclosing(connection.stream(STREAM, requests_of("a"))) as stream:
                assert [text async for text in stream] == ["a"]
            return
        with pytest.raises(WrongClusterError, match="meant for cluster theirs, and cluster ours"):
            await connection.unary(ECHO, "a", timeout_ms=5000)
        async with aclosing(connection.stream(STREAM, requests_of("a"))) as stream:
            with pytest.raises(WrongClusterError, match="meant for cluster theirs"):
                await anext(stream)
        assert not service.peers
        assert not service.closed

    run(program)


def test_a_service_learns_how_long_the_caller_waits(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        await network.connect(listener.endpoint).unary(ECHO, "a", timeout_ms=5000)
        assert 1 <= service.peers[0].timeout_ms <= 5100, "gRPC rounds deadlines up"

    run(program)


def test_a_service_learns_by_which_listener_a_call_came(run: Run) -> None:
    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        connection = network.connect(listener.endpoint)
        await connection.unary(ECHO, "a", timeout_ms=5000)
        async with aclosing(connection.stream(STREAM, requests_of("a"))) as stream:
            assert await anext(stream) == "a"
        peers = [*service.peers, *service.stream_peers]
        assert [peer.listener for peer in peers] == ["in", "in"]

    run(program)


def test_an_error_that_may_pass_is_no_failure_of_the_peer(run: Run) -> None:
    """A broker that has just started raises it: the caller asks another broker, or later."""

    async def program(network: Network, listener: Listener, service: EchoService) -> None:
        service.refusal = QuorumUnavailableError("not caught up yet")
        connection = network.connect(listener.endpoint)
        with pytest.raises(StreamBrokenError, match="not caught up yet"):
            await connection.unary(ECHO, "a", timeout_ms=5000)

    run(program)
