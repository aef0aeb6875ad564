"""The faults of the simulated network, as its users see them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from quorate.errors import (
    DeadlineExceededError,
    NetworkError,
    PeerError,
    PeerRefusedError,
    StreamBrokenError,
)
from quorate.net.network import (
    Answered,
    Connection,
    Handler,
    Method,
    NoAnswer,
    Peer,
    Refused,
    Stream,
)
from quorate_testing.simulated.links import LinkQuality
from quorate_testing.simulated.loop import SimulatedLoop, SimulationError, simulate
from quorate_testing.simulated.network import SimulatedNetwork
from tests.harness.amounts import few_or_many
from tests.unit.quorate.net.services import ECHO, STREAM, EchoService


class ClientAndServer:
    """A client and a server, with one stream between them that asks when told to."""

    def __init__(self, loop: SimulatedLoop, network: SimulatedNetwork) -> None:
        self.loop = loop
        self.network = network
        self.service = EchoService()
        self.server = loop.process("server")
        self.client = network.host("client")
        self.connection: Connection
        self.stream: Stream[str]
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    async def open(self) -> None:
        await self.serve()
        self.connection = self.client.connect("server:1")
        self.stream = self.connection.stream(STREAM, self._requests())
        assert await self.ask("hello") == "hello"

    async def serve(self) -> None:
        async def run() -> None:
            await self.network.host("server").serve("server:1", [self.service])

        await self.server.spawn(run())

    async def _requests(self) -> AsyncIterator[str]:
        while True:
            yield await self.asked.get()

    async def ask(self, text: str) -> str:
        self.asked.put_nowait(text)
        return await anext(self.stream)

    async def milliseconds(self, awaited: Awaitable[object]) -> float:
        start_s = self.loop.time()
        await awaited
        return (self.loop.time() - start_s) * 1000


def run(program: Callable[[ClientAndServer], Awaitable[None]], seed: int = 1) -> None:
    async def main(loop: SimulatedLoop) -> None:
        world = ClientAndServer(loop, SimulatedNetwork(loop, loop.chance))
        await world.open()
        await program(world)

    simulate(main, seed)


async def broken(stream: Stream[str]) -> None:
    with pytest.raises(StreamBrokenError):
        await anext(stream)


def test_a_killed_server_breaks_its_streams_within_milliseconds_and_then_refuses() -> None:
    async def program(world: ClientAndServer) -> None:
        world.server.kill()
        assert await world.milliseconds(broken(world.stream)) <= 2
        with pytest.raises(PeerRefusedError):
            await world.connection.unary(ECHO, "a", timeout_ms=1000)
        assert await world.client.probe("server:1", timeout_ms=1000) == Refused()
        assert world.service.closed == []  # a killed process cleans nothing up

    run(program)


def test_a_server_started_again_is_found_by_the_same_connection() -> None:
    async def program(world: ClientAndServer) -> None:
        world.server.kill()
        await broken(world.stream)
        world.server = world.loop.process("server")
        await world.serve()
        assert await world.connection.unary(ECHO, "a", timeout_ms=1000) == "a"

    run(program)


def test_a_killed_client_is_noticed_by_the_server() -> None:
    async def program(world: ClientAndServer) -> None:
        world.loop.process("client").kill()
        await world.service.closing.wait()

    run(program)


def test_a_paused_server_is_silent_and_answers_when_it_goes_on() -> None:
    async def program(world: ClientAndServer) -> None:
        world.server.pause()
        with pytest.raises(DeadlineExceededError):
            await world.connection.unary(ECHO, "a", timeout_ms=1000)
        assert await world.client.probe("server:1", timeout_ms=500) == NoAnswer()
        asked = asyncio.create_task(world.ask("late"))
        await asyncio.sleep(10)
        assert not asked.done()
        world.server.resume()
        assert await asked == "late"
        assert await world.client.probe("server:1", timeout_ms=500) == Answered(7, b"one run")

    run(program)


def test_a_cut_is_silence_and_what_was_held_back_arrives_after_it() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.cut({"client"}, {"server"})
        with pytest.raises(DeadlineExceededError):
            await world.connection.unary(ECHO, "a", timeout_ms=1000)
        asked = asyncio.create_task(world.ask("late"))
        await asyncio.sleep(10)
        assert not asked.done()
        world.network.heal()
        assert await asked == "late"

    run(program)


@pytest.mark.parametrize("server_hears", [True, False], ids=["answers lost", "requests lost"])
def test_a_cut_may_be_one_way(server_hears: bool) -> None:
    async def program(world: ClientAndServer) -> None:
        ways = ({"server"}, {"client"}) if server_hears else ({"client"}, {"server"})
        world.network.cut(*ways, one_way=True)
        with pytest.raises(DeadlineExceededError):
            await world.connection.unary(ECHO, "a", timeout_ms=1000)
        assert len(world.service.peers) == int(server_hears)

    run(program)


def test_nobody_can_connect_through_a_cut_and_nothing_is_carried_out_later() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.cut({"server"}, {"client"}, one_way=True)
        fresh = world.client.connect("server:1")
        with pytest.raises(StreamBrokenError, match="cannot connect"):
            await fresh.unary(ECHO, "a", timeout_ms=5000)
        assert await world.client.probe("server:1", timeout_ms=100) == NoAnswer()
        world.network.heal()
        await asyncio.sleep(10)
        assert world.service.peers == []
        assert await fresh.unary(ECHO, "a", timeout_ms=5000) == "a"

    run(program)


def test_a_death_behind_a_cut_is_silence_until_it_heals() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.cut({"client"}, {"server"})
        world.server.kill()
        reading = asyncio.create_task(broken(world.stream))
        await asyncio.sleep(10)
        assert not reading.done()
        world.network.heal()
        await reading

    run(program)


def test_broken_streams_are_seen_at_both_sides() -> None:
    async def program(world: ClientAndServer) -> None:
        assert world.network.break_streams({"server"}, {"client"}) == 1
        await broken(world.stream)
        await world.service.closing.wait()
        assert await world.connection.unary(ECHO, "a", timeout_ms=1000) == "a"

    run(program)


def test_a_half_open_stream_is_broken_at_one_side_only() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.half_open({"server"}, {"client"})
        await world.service.closing.wait()
        asked = asyncio.create_task(world.ask("anyone?"))
        await asyncio.sleep(100)
        assert not asked.done()
        asked.cancel()

    async def the_other_way(world: ClientAndServer) -> None:
        world.network.half_open({"client"}, {"server"})
        await broken(world.stream)
        await asyncio.sleep(100)
        assert world.service.closed == []

    run(program)
    run(the_other_way)


def test_slow_and_lossy_links_are_late_but_keep_the_order() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.set_links(delay_min_ms=50, delay_max_ms=50)
        assert await world.milliseconds(world.ask("a")) == pytest.approx(100)
        await asyncio.sleep(1)
        world.network.set_links(delay_min_ms=1, delay_max_ms=1)
        world.network.set_links({"client"}, {"server"}, bytes_per_s=1000)
        assert await world.milliseconds(world.ask("x" * 500)) == pytest.approx(1002)
        world.network.set_links(bytes_per_s=None)
        world.network.set_links(loss=0.5)
        for number in range(50):
            world.asked.put_nowait(str(number))
        assert [await anext(world.stream) for _ in range(50)] == [str(n) for n in range(50)]
        assert world.loop.time() > 2

    run(program)


def test_a_duplicated_unary_call_is_carried_out_twice_and_answered_once() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.set_links({"client"}, {"server"}, duplication=1.0, late_max_ms=300)
        assert await world.connection.unary(ECHO, "a", timeout_ms=1000) == "a"
        assert len(world.service.peers) == 1
        await asyncio.sleep(0.4)
        assert len(world.service.peers) == 2
        assert await world.ask("streams are what they are") == "streams are what they are"
        world.network.set_links(duplication=0.0)
        assert await world.connection.unary(ECHO, "a", timeout_ms=1000) == "a"
        await asyncio.sleep(1)
        assert len(world.service.peers) == 3

    run(program)


def test_a_duplicate_reaches_whoever_listens_when_it_comes() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.set_links(duplication=1.0, late_max_ms=5000)
        assert await world.connection.unary(ECHO, "a", timeout_ms=1000) == "a"
        world.server.kill()
        world.server = world.loop.process("server")
        world.service = EchoService()
        await world.serve()
        await asyncio.sleep(5)
        assert len(world.service.peers) == 1

    run(program)


def test_unary_calls_overtake_each_other_and_messages_of_a_stream_do_not() -> None:
    async def program(world: ClientAndServer) -> None:
        world.network.set_links(reordering=0.5, late_max_ms=200)
        answered: list[int] = []

        async def ask(number: int) -> None:
            answer = await world.connection.unary(ECHO, str(number), timeout_ms=1000)
            answered.append(int(answer))

        await asyncio.gather(*(ask(number) for number in range(20)))
        assert sorted(answered) == list(range(20))
        assert answered != list(range(20))
        for number in range(20):
            world.asked.put_nowait(str(number))
        assert [await anext(world.stream) for _ in range(20)] == [str(n) for n in range(20)]

    run(program)


def test_the_end_of_a_call_comes_with_the_last_message() -> None:
    """Each end would be one more moment to simulate, at which nothing else happens."""

    async def program(world: ClientAndServer) -> None:
        moments: list[float] = []
        world.loop.on_instant = lambda: moments.append(world.loop.time())
        await world.connection.unary(ECHO, "a", timeout_ms=1000)
        world.loop.on_instant = None
        # now; the opening and the request at the server; the answer is the moment that goes on
        assert len(moments) == 3

    run(program)


def test_no_moment_comes_for_the_time_limit_of_a_connection_that_stands() -> None:
    async def program(world: ClientAndServer) -> None:
        moments: list[float] = []
        world.loop.on_instant = lambda: moments.append(world.loop.time())
        await asyncio.sleep(1)
        world.loop.on_instant = None
        assert len(moments) == 1

    run(program)


def test_an_impossible_link_is_refused() -> None:
    with pytest.raises(ValueError, match="duplication"):
        LinkQuality(duplication=1.5)
    with pytest.raises(ValueError, match="loss"):
        LinkQuality(loss=1.0)
    with pytest.raises(ValueError, match="delay"):
        LinkQuality(delay_min_ms=2, delay_max_ms=1)


def test_connections_are_forgotten_when_they_are_over() -> None:
    async def program(world: ClientAndServer) -> None:
        for _ in range(5):
            connection = world.client.connect("server:1")
            await connection.unary(ECHO, "a", timeout_ms=1000)
            await connection.close()
            assert await world.client.probe("nobody:1", timeout_ms=1000) == Refused()
        await asyncio.sleep(10)
        assert world.network.connections == 1
        await world.stream.aclose()
        await world.connection.close()
        await asyncio.sleep(10)
        assert world.network.connections == 0

    run(program)


@pytest.mark.parametrize("unaware", ["client", "server"])
def test_half_open_connections_are_forgotten_when_the_unaware_side_dies(unaware: str) -> None:
    async def program(world: ClientAndServer) -> None:
        noticing = "server" if unaware == "client" else "client"
        world.network.half_open({noticing}, {unaware})
        assert world.network.connections == 1
        world.loop.process(unaware).kill()
        assert world.network.connections == 0

    run(program)


def test_a_broken_invariant_in_a_handler_ends_the_simulation() -> None:
    async def broken_invariant(_request: str, _peer: Peer) -> str:
        raise AssertionError("two leaders")

    class Broken:
        def handlers(self) -> Mapping[Method[Any, Any], Handler]:
            return {ECHO: broken_invariant}

    async def program(world: ClientAndServer) -> None:
        await world.network.host("other").serve("other:1", [Broken()])
        with contextlib.suppress(PeerError):
            await world.client.connect("other:1").unary(ECHO, "a", timeout_ms=1000)
        await asyncio.sleep(1)

    with pytest.raises(SimulationError, match="two leaders"):
        run(program)


@pytest.mark.parametrize("seed", range(few_or_many(4, 15)))
def test_whatever_happens_a_call_ends_and_only_with_the_errors_of_the_seam(seed: int) -> None:
    """Random faults for a minute, then peace: everybody can talk, and nothing is left over."""
    hosts = ("a", "b", "c")

    async def main(loop: SimulatedLoop) -> None:
        network = SimulatedNetwork(loop, loop.chance)

        async def live(name: str) -> None:
            host = network.host(name)
            await host.serve(f"{name}:1", [EchoService()])
            connections = [host.connect(f"{other}:1") for other in hosts if other != name]
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(call_for_ever(connection))
                    group.create_task(stream_for_ever(connection))

        async def call_for_ever(connection: Connection) -> None:
            while loop.is_running():
                with contextlib.suppress(NetworkError):
                    assert await connection.unary(ECHO, "a", timeout_ms=500) == "a"
                await asyncio.sleep(0.05)

        async def stream_for_ever(connection: Connection) -> None:
            while loop.is_running():
                numbers = [str(number) for number in range(20)]
                seen: list[str] = []
                with contextlib.suppress(NetworkError, TimeoutError):
                    async with (
                        asyncio.timeout(3),
                        aclosing(connection.stream(STREAM, slowly(numbers))) as stream,
                    ):
                        async for text in stream:
                            seen.append(text)  # noqa: PERF401
                        assert seen == numbers
                assert seen == numbers[: len(seen)]
                await asyncio.sleep(0.1)

        for name in hosts:
            loop.process(name).spawn(live(name))
        for _ in range(60):
            await asyncio.sleep(1)
            one, other = loop.chance.sample(hosts, 2)
            match loop.chance.randrange(8):
                case 0:
                    loop.process(one).kill()
                    loop.process(one).spawn(live(one))
                case 1:
                    network.cut({one}, {other}, one_way=loop.chance.random() < 0.5)
                case 2:
                    network.break_streams({one}, {other})
                case 3:
                    network.half_open({one}, {other})
                case 4:
                    loop.process(one).pause()
                case 5:
                    loop.process(one).resume()
                case 6:
                    network.set_links({one}, {other}, loss=0.3)
                case 7:
                    network.heal()
        network.heal()
        network.set_links(loss=0)
        for name in hosts:
            loop.process(name).resume()
        await asyncio.sleep(10)
        for name in hosts:
            for other in hosts:
                if other != name:
                    connection = network.host(name).connect(f"{other}:1")
                    assert await connection.unary(ECHO, "b", timeout_ms=500) == "b"
                    await connection.close()
        await asyncio.sleep(1)
        assert network.connections <= 6 + 60  # half-open ones live until their owner closes them
        for name in hosts:
            loop.process(name).kill()
        await asyncio.sleep(10)
        assert network.connections == 0

    simulate(main, seed)


async def slowly(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text
        await asyncio.sleep(0.01)
