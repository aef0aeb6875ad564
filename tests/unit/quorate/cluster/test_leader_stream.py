"""A stream to a broker is opened for work, and opened again, later and later, when it breaks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

from quorate.aio.owner import Owner
from quorate.cluster.cluster import Cluster
from quorate.cluster.leader_stream import LeaderStream, LeaderStreams
from quorate.errors import DeadlineExceededError, QuorateError, StreamBrokenError
from quorate.net.methods import PRODUCE
from quorate_testing.simulated.loop import SimulatedLoop, simulate


class FakeCluster:
    """A cluster of one broker that answers each request with its text, or breaks the stream."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.owner = Owner("client")
        self.brokers = {1: "b:1"}
        self.looks = 0
        self.opened_at: list[float] = []
        self.is_broken = False
        self.is_silent = False
        self._loop = loop

    def request_refresh(self) -> None:
        self.looks += 1

    def connection(self, endpoint: str) -> FakeCluster:
        return self

    async def stream(self, method: object, requests: AsyncIterator[str]) -> AsyncIterator[str]:
        self.opened_at.append(self._loop.time())
        if self.is_broken:
            raise StreamBrokenError("no")
        async for request in requests:
            if not self.is_silent:
                yield request


class Echo(LeaderStream[Any, Any]):
    """Sends the texts that are put into `outbox`."""

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(cast(Cluster, cluster), "b:1", PRODUCE, "echo")
        self.outbox: list[str] = []
        self.answers: list[str] = []
        self.breaks: list[QuorateError] = []

    def say(self, text: str) -> None:
        self.outbox.append(text)
        self.wake()

    def has_work(self) -> bool:
        return bool(self.outbox)

    def next_request(self) -> str | None:
        if not self.outbox:
            return None
        text = self.outbox.pop(0)
        return f"hello, {text}" if self.is_first_request else text

    def take(self, answer: str) -> None:
        self.answers.append(answer)

    def broke(self, error: QuorateError) -> None:
        self.breaks.append(error)

    @property
    def is_unused(self) -> bool:
        return not self.outbox

    def tick(self, now: float) -> bool:
        return False


def with_stream(program: Callable[[FakeCluster, Echo], Coroutine[Any, Any, None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        cluster = FakeCluster(loop)
        cluster.owner.bind()
        await program(cluster, Echo(cluster))
        assert cluster.owner.failure is None
        await cluster.owner.end_all()

    simulate(run, 1)


def test_a_stream_is_opened_when_there_is_work_and_carries_all_that_follows() -> None:
    async def program(cluster: FakeCluster, stream: Echo) -> None:
        await asyncio.sleep(1)
        assert cluster.opened_at == []
        assert not stream.is_open
        for text in ("a", "b"):
            stream.say(text)
            await asyncio.sleep(0.1)
        assert stream.is_open
        assert stream.answers == ["hello, a", "b"]
        assert len(cluster.opened_at) == 1

    with_stream(program)


def test_breaks_in_a_row_make_the_waits_longer_and_an_answer_makes_them_short_again() -> None:
    async def program(cluster: FakeCluster, stream: Echo) -> None:
        cluster.is_broken = True
        stream.say("a")
        await asyncio.sleep(1)
        opened = cluster.opened_at
        waits = [round((after - at) * 1000) for at, after in itertools.pairwise(opened)]
        assert waits == [30, 60, 120, 240, 480]
        assert cluster.looks == len(stream.breaks) == len(opened)
        cluster.is_broken = False
        await asyncio.sleep(1)
        assert stream.answers == ["hello, a"]
        stream.cut(DeadlineExceededError("silent"))
        stream.say("b")
        before = len(opened)
        await asyncio.sleep(0.035)
        assert len(opened) == before + 1

    with_stream(program)


def test_a_stream_that_is_cut_tells_why() -> None:
    async def program(cluster: FakeCluster, stream: Echo) -> None:
        cluster.is_silent = True
        stream.say("a")
        await asyncio.sleep(0.1)
        reason = DeadlineExceededError("silent")
        stream.cut(reason)
        await asyncio.sleep(0.1)
        assert stream.breaks == [reason]

    with_stream(program)


def test_streams_to_a_broker_that_is_gone_end_when_they_carry_nothing() -> None:
    async def program(cluster: FakeCluster, stream: Echo) -> None:
        streams: LeaderStreams[Echo] = LeaderStreams(cast(Cluster, cluster))
        streams.add(stream)
        cluster.brokers = {}
        stream.outbox.append("on its way")
        streams.tick(0)
        assert streams.to("b:1") == [stream]
        stream.outbox.clear()
        streams.tick(0)
        assert streams.to("b:1") == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stream.task.done()

    with_stream(program)


def test_a_stream_that_was_left_takes_no_request_that_nobody_would_answer() -> None:
    """Its tasks end a little later. A batch that they took meanwhile would wait for ever."""

    async def program(cluster: FakeCluster, stream: Echo) -> None:
        streams: LeaderStreams[Echo] = LeaderStreams(cast(Cluster, cluster))
        streams.add(stream)
        stream.say("a")
        await asyncio.sleep(0.1)
        assert stream.answers == ["hello, a"]
        cluster.brokers = {}
        stream.wake()
        streams.tick(0)
        stream.say("for the next stream")
        await asyncio.sleep(1)
        assert stream.task.done()
        assert stream.outbox == ["for the next stream"]

    with_stream(program)
