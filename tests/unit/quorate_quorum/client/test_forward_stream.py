"""One stream of forwarded calls against a wire that takes a message only when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from quorate.errors import (
    NetworkError,
    OutcomeUnknownError,
    PeerRefusedError,
    WrongClusterError,
    from_wire,
    to_wire,
)
from quorate.net.network import Method, Stream
from quorate_quorum.client import forward_stream
from quorate_quorum.client.forward_stream import Forwarding, NotSentError
from quorate_quorum.client.history import FollowedHistory
from quorate_quorum.node.config import BrokerConfig
from quorate_quorum.v1 import controller_pb2 as wire
from quorate_testing.simulated.loop import SimulatedLoop, simulate

CLUSTER = "c1"
HERE = "v100:9093"
ELSEWHERE = "v101:9093"


class Wire:
    """Both ends of one Forward stream: it takes messages by permits, answers by the test."""

    def __init__(self) -> None:
        self.sent: list[wire.ForwardRequests] = []
        self.permits = asyncio.Semaphore(0)
        self.is_half_closed = False
        self._said: asyncio.Queue[wire.ForwardResponses | NetworkError | None] = asyncio.Queue()

    def say(self, said: wire.ForwardResponses | NetworkError | None) -> None:
        """Answer, break (an error) or end (None)."""
        self._said.put_nowait(said)

    def answer(self, *numbers: int) -> None:
        responses = [wire.ForwardResponse(request_id=n, apply_offset=n) for n in numbers]
        self.say(wire.ForwardResponses(responses=responses))

    def flow(self) -> None:
        """Take all messages from now on, as a wire that is not full."""
        for _ in range(1000):
            self.permits.release()

    async def run(
        self, requests: AsyncIterator[wire.ForwardRequests]
    ) -> AsyncIterator[wire.ForwardResponses]:
        taking = asyncio.create_task(self._take(requests))
        try:
            while (said := await self._said.get()) is not None:
                if isinstance(said, NetworkError):
                    raise said
                yield said
        finally:
            taking.cancel()
            await asyncio.wait([taking])

    async def _take(self, requests: AsyncIterator[wire.ForwardRequests]) -> None:
        await self.permits.acquire()
        async for message in requests:
            self.sent.append(message)
            await self.permits.acquire()
        self.is_half_closed = True


class World:
    """A Forwarding whose connections are wires of the test."""

    def __init__(self) -> None:
        self.wires: dict[str, list[Wire]] = {}
        config = BrokerConfig(
            node_id=1,
            listeners=("b1:9092",),
            log_dirs=("/data",),
        )
        self.forwarding = Forwarding(config, FollowedHistory(CLUSTER, 0), self._connect)

    def _connect(self, endpoint: str) -> Any:
        one = Wire()
        self.wires.setdefault(endpoint, []).append(one)

        class Connection:
            def stream(self, method: Method[Any, Any], requests: AsyncIterator[Any]) -> Stream[Any]:
                return one.run(requests)  # type: ignore[return-value]

        return Connection()

    def ask(
        self, endpoint: str = HERE, *, size: int = 1, timeout_ms: int = 5000
    ) -> asyncio.Task[wire.ForwardResponse]:
        request = wire.ForwardRequest(method="/m", request=b"r" * size)
        return asyncio.ensure_future(self.forwarding.ask(endpoint, request, timeout_ms))

    def wire(self, endpoint: str = HERE) -> Wire:
        (one,) = self.wires[endpoint]
        return one


def in_a_world(program: Callable[[World], Awaitable[None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        world = World()
        await program(world)
        await world.forwarding.stop()
        assert not [t for t in asyncio.all_tasks() if t.get_name() == "quorum-forward"]

    simulate(run, seed=1)


def numbers(message: wire.ForwardRequests) -> list[int]:
    return [request.request_id for request in message.requests]


# -- packing


def test_calls_of_one_turn_go_in_one_message_and_all_calls_on_one_stream() -> None:
    async def program(world: World) -> None:
        asked = [world.ask() for _ in range(5)]
        await asyncio.sleep(0)
        world.wire().flow()
        await asyncio.sleep(0.01)
        later = [world.ask() for _ in range(3)]
        await asyncio.sleep(0.01)
        messages = world.wire().sent  # .wire(): there is one
        assert [numbers(message) for message in messages] == [[1, 2, 3, 4, 5], [6, 7, 8]]
        assert [message.cluster_id for message in messages] == [CLUSTER, ""]
        world.wire().answer(8, 3, 1, 2, 4, 5, 7, 6)
        answers = await asyncio.gather(*asked, *later)
        assert [answer.apply_offset for answer in answers] == list(range(1, 9))

    in_a_world(program)


def test_what_comes_while_the_wire_is_full_goes_in_one_message_of_at_most_a_thousand() -> None:
    async def program(world: World) -> None:
        first = world.ask()
        await asyncio.sleep(0.01)
        world.wire().permits.release()
        await asyncio.sleep(0.01)
        rest = [world.ask() for _ in range(forward_stream.REQUESTS_PER_MESSAGE_MAX + 1)]
        await asyncio.sleep(0.01)
        assert len(world.wire().sent) == 1, "the wire is full"
        world.wire().flow()
        await asyncio.sleep(0.01)
        assert [len(message.requests) for message in world.wire().sent] == [1, 1000, 1]
        world.wire().answer(*range(1, 1003))
        await asyncio.gather(first, *rest)

    in_a_world(program)


def test_a_message_holds_a_mebibyte_of_calls_or_one_call_of_any_size() -> None:
    async def program(world: World) -> None:
        third = forward_stream.MESSAGE_BYTES // 3
        sizes = [third, third, third, 10, 2 * forward_stream.MESSAGE_BYTES, 10, 10]
        asked = [world.ask(size=size) for size in sizes]
        await asyncio.sleep(0)
        world.wire().flow()
        await asyncio.sleep(0.01)
        # Two thirds; a third with the small one; the large one alone; the small ones.
        assert [numbers(m) for m in world.wire().sent] == [[1, 2], [3, 4], [5], [6, 7]]
        for message in world.wire().sent:
            size = sum(request.ByteSize() for request in message.requests)
            assert size <= forward_stream.MESSAGE_BYTES or len(message.requests) == 1
        world.wire().answer(*range(1, 8))
        await asyncio.gather(*asked)

    in_a_world(program)


# -- time


def test_a_call_says_what_is_left_of_its_time_when_it_is_sent() -> None:
    async def program(world: World) -> None:
        asked = world.ask(timeout_ms=5000)
        await asyncio.sleep(2)
        world.wire().flow()
        await asyncio.sleep(0.01)
        (request,) = world.wire().sent[0].requests
        assert request.deadline_ms == 3000
        world.wire().answer(1)
        await asked

    in_a_world(program)


def test_a_call_whose_time_is_over_in_the_outbox_is_never_sent() -> None:
    async def program(world: World) -> None:
        late = world.ask(timeout_ms=100)
        asked = world.ask(timeout_ms=5000)
        with pytest.raises(NotSentError, match="nothing was sent to v100:9093 within 100 ms"):
            await late
        world.wire().flow()
        await asyncio.sleep(0.01)
        assert [numbers(message) for message in world.wire().sent] == [[2]]
        world.wire().answer(1, 2)
        assert (await asked).apply_offset == 2

    in_a_world(program)


def test_a_call_with_less_than_a_millisecond_left_is_not_sent() -> None:
    """It would arrive with a deadline of 0, and its caller could not wait for the answer."""

    async def program(world: World) -> None:
        late = world.ask(timeout_ms=100)
        await asyncio.sleep(0.0995)
        world.wire().flow()
        with pytest.raises(NotSentError, match="nothing was sent to v100:9093 in time"):
            await late
        assert not world.wire().sent

    in_a_world(program)


def test_a_call_that_is_given_up_in_the_outbox_is_never_sent() -> None:
    async def program(world: World) -> None:
        given_up, asked = world.ask(), world.ask()
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.sleep(0.01)
        world.wire().flow()
        await asyncio.sleep(0.01)
        assert [numbers(message) for message in world.wire().sent] == [[2]]
        world.wire().answer(2)
        await asked

    in_a_world(program)


# -- what is known of a call


def test_a_sent_call_is_answered_by_its_own_answer_only() -> None:
    """An answer counts only for the call with its number, once that was sent (honest-unknown)."""

    async def program(world: World) -> None:
        sent, waits = world.ask(), None
        await asyncio.sleep(0.01)
        world.wire().permits.release()
        await asyncio.sleep(0.01)
        waits = world.ask()
        await asyncio.sleep(0.01)
        world.wire().answer(2, 12345)  # not sent yet; never asked
        await asyncio.sleep(0.01)
        assert not sent.done()
        assert not waits.done()
        world.wire().flow()
        world.wire().answer(1, 1)
        assert (await sent).apply_offset == 1
        await asyncio.sleep(0.01)
        world.wire().answer(2)
        assert (await waits).apply_offset == 2

    in_a_world(program)


def test_a_broken_stream_tells_who_was_sent_from_who_was_not() -> None:
    async def program(world: World) -> None:
        sent = world.ask()
        await asyncio.sleep(0.01)
        world.wire().permits.release()
        await asyncio.sleep(0.01)
        waits = world.ask()
        await asyncio.sleep(0.01)
        world.wire().say(NetworkError("cut"))
        with pytest.raises(OutcomeUnknownError, match="cut"):
            await sent
        with pytest.raises(NotSentError, match="cut"):
            await waits

    in_a_world(program)


def test_where_nobody_listens_nothing_was_sent() -> None:
    async def program(world: World) -> None:
        asked = world.ask()
        await asyncio.sleep(0.01)
        world.wire().flow()
        await asyncio.sleep(0.01)
        world.wire().say(PeerRefusedError("nobody"))
        with pytest.raises(NotSentError):
            await asked

    in_a_world(program)


def test_a_refused_connection_after_an_answer_proves_nothing() -> None:
    async def program(world: World) -> None:
        first = world.ask()
        await asyncio.sleep(0.01)
        world.wire().flow()
        world.wire().answer(1)
        await first
        second = world.ask()
        await asyncio.sleep(0.01)
        world.wire().say(PeerRefusedError("nobody"))
        with pytest.raises(OutcomeUnknownError):
            await second

    in_a_world(program)


def test_a_refused_stream_answers_all_who_wait_on_it() -> None:
    async def program(world: World) -> None:
        asked = [world.ask(), world.ask()]
        await asyncio.sleep(0.01)
        world.wire().flow()
        await asyncio.sleep(0.01)
        world.wire().say(wire.ForwardResponses(error=to_wire(WrongClusterError("of c2"))))
        for answer in await asyncio.gather(*asked):
            assert isinstance(from_wire(answer.error), WrongClusterError)

    in_a_world(program)


# -- when the controller moves


def test_a_stream_that_is_left_sends_nothing_more_and_ends_with_its_last_answer() -> None:
    async def program(world: World) -> None:
        sent = world.ask()
        await asyncio.sleep(0.01)
        world.wire().permits.release()
        await asyncio.sleep(0.01)
        waits = world.ask()
        await asyncio.sleep(0.01)
        world.forwarding.controller_moved(ELSEWHERE)
        with pytest.raises(NotSentError, match="before the controller moved"):
            await waits
        world.wire().flow()
        await asyncio.sleep(0.01)
        assert [numbers(message) for message in world.wire().sent] == [[1]]
        assert world.wire().is_half_closed
        world.wire().answer(1)
        assert (await sent).apply_offset == 1
        await asyncio.sleep(0.01)
        assert not world.forwarding._leaving

    in_a_world(program)


def test_streams_are_bounded_the_oldest_is_left() -> None:
    async def program(world: World) -> None:
        asked = []
        for number in range(forward_stream.STREAMS_MAX + 1):
            asked.append(world.ask(f"v{number}:1"))
            await asyncio.sleep(0.01)
        with pytest.raises(NotSentError):
            await asked[0]
        for task in asked[1:]:
            assert not task.done()
            task.cancel()

    in_a_world(program)
