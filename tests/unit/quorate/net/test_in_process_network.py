"""What is the in-process network's own; what all networks share is in the contract."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from quorate.errors import PeerRefusedError, StreamBrokenError
from quorate.net.network import Answered, Refused
from quorate_testing.in_process import InProcessNetwork
from tests.unit.quorate.net.services import ECHO, GREEDY, STREAM, EchoService


async def forever(text: str) -> AsyncIterator[str]:
    yield text
    await asyncio.Event().wait()


async def test_a_killed_listener_breaks_its_streams_and_then_refuses() -> None:
    network = InProcessNetwork()
    service = EchoService()
    listener = await network.serve("broker:1", [service])
    connection = network.connect("broker:1")
    stream = connection.stream(STREAM, forever("a"))
    assert await anext(stream) == "a"
    listener.kill()
    with pytest.raises(StreamBrokenError):
        await anext(stream)
    with pytest.raises(PeerRefusedError):
        await connection.unary(ECHO, "a", timeout_ms=1000)
    assert await network.probe("broker:1", timeout_ms=1000) == Refused()
    await service.closing.wait()
    again = await network.serve("broker:1", [service])
    assert await connection.unary(ECHO, "a", timeout_ms=1000) == "a"
    await listener.stop(0)  # stopping the old listener must not touch the new one
    assert await network.probe("broker:1", timeout_ms=1000) == Answered(7, b"one run")
    await again.stop(0)


async def test_port_zero_gives_an_address_of_its_own() -> None:
    network = InProcessNetwork()
    one = await network.serve("broker:0", [EchoService()])
    two = await network.serve("broker:0", [EchoService()])
    assert one.endpoint != two.endpoint
    await one.stop(0)
    await two.stop(0)


async def test_a_client_on_another_loop_reaches_the_nodes() -> None:
    network = InProcessNetwork()
    service = EchoService()
    listener = await network.serve("broker:1", [service])
    answers: list[str] = []

    async def client() -> None:
        connection = network.connect("broker:1")
        answers.append(await connection.unary(ECHO, "a", timeout_ms=10_000))
        numbers = [str(number) * 100_000 for number in range(100)]

        async def requests() -> AsyncIterator[str]:
            for number in numbers:
                yield number

        async with aclosing(connection.stream(STREAM, requests())) as stream:
            answers.extend([answer async for answer in stream])
        greedy = connection.stream(GREEDY, forever("a"))
        await anext(greedy)
        await greedy.aclose()
        await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(client()))
    thread.start()
    await service.closing.wait()
    await asyncio.to_thread(thread.join)
    assert answers == ["a", *(str(number) * 100_000 for number in range(100))]
    await listener.stop(1000)
    assert sorted(service.closed) == ["greedy", "stream"]


async def test_a_node_whose_loop_has_ended_gives_no_answer() -> None:
    network = InProcessNetwork()

    async def serve_and_go() -> None:
        await network.serve("broker:1", [EchoService()])

    thread = threading.Thread(target=lambda: asyncio.run(serve_and_go()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await network.probe("broker:1", timeout_ms=1000) == Refused()
