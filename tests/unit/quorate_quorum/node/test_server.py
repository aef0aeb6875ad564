"""The life of a node: what opens it and closes it runs once, however it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from quorate_quorum.node.config import BrokerConfig, ConfigError
from quorate_quorum.node.environment import Environment
from quorate_quorum.node.server import STOPPED_EARLY, STOPPED_LATE, NodeFailed, NodeServer
from quorate_testing.in_process import InProcessNetwork
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import SimulatedLoop, simulate

SLOW_STOP_MAX_S = 20.0


class Node(NodeServer[BrokerConfig]):
    """A node that notes each step of its life; a test may let each step wait or fail."""

    role = "broker"

    def __init__(self, network: InProcessNetwork, *listeners: str) -> None:
        config = BrokerConfig(node_id=1, listeners=listeners or ("h:1",), log_dirs=("/d",))
        environment = Environment(network=network, disk=SimulatedDisk(random.Random(1)))
        super().__init__(config, environment, stop_max_s=5.0, slow_stop_max_s=SLOW_STOP_MAX_S)
        self.steps: list[str] = []
        self.opening: Callable[[], Coroutine[Any, Any, Any]] = _nothing
        self.leaving: Callable[[], Coroutine[Any, Any, Any]] = _nothing
        self.closing: Callable[[], Coroutine[Any, Any, Any]] = _nothing

    async def _open(self) -> None:
        self.steps.append("open")
        await self._listen([])
        try:
            await self.opening()
        except asyncio.CancelledError:
            self.steps.append("cancelled")
            raise

    async def _close(self) -> None:
        await self._unless_failed(self._leave)
        self.steps.append("close")
        await self._stop_listening()
        await self.closing()

    async def _leave(self) -> None:
        self.steps.append("leave")
        await self.leaving()

    def _release(self) -> None:
        self.steps.append("release")


async def _nothing() -> None:
    """Do nothing."""


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _breaks() -> None:
    raise OSError("the disk is gone")


def in_a_world(program: Callable[[InProcessNetwork], Coroutine[Any, Any, None]]) -> None:
    async def run(loop: SimulatedLoop) -> None:
        await program(InProcessNetwork())

    simulate(run, seed=1)


def test_it_is_stopped_once_by_however_many() -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        await node.start()
        assert node.endpoint == "h:1"
        await asyncio.gather(node.stop(), node.stop(), node.stopped())
        await node.stop()
        assert node.steps == ["open", "leave", "close", "release"]
        assert node.endpoint == ""

    in_a_world(program)


def test_a_failure_leaves_the_courtesies_out() -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        await node.start()
        node.fail("the first reason")
        node.fail("the second reason")
        with pytest.raises(NodeFailed, match="the first reason"):
            await node.stopped()
        assert node.steps == ["open", "close", "release"]

    in_a_world(program)


def test_a_failure_ends_a_courtesy_that_is_under_way() -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        node.leaving = _for_ever
        await node.start()
        stopping = asyncio.create_task(node.stop())
        await asyncio.sleep(1)
        assert not stopping.done()
        node.fail("the disk")
        await stopping
        assert node.steps == ["open", "leave", "close", "release"]
        with pytest.raises(NodeFailed, match="the disk"):
            await node.stopped()

    in_a_world(program)


def test_what_its_start_raises_comes_after_all_is_closed_again() -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        node.opening = _breaks
        with pytest.raises(OSError, match="the disk is gone"):
            await node.start()
        assert node.steps == ["open", "leave", "close", "release"]
        await node.stopped()

    in_a_world(program)


@pytest.mark.parametrize("reason", ["", "another process took over"])
def test_a_start_that_is_stopped_is_cancelled_and_says_so(reason: str) -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        node.opening = _for_ever
        starting = asyncio.create_task(node.start())
        await asyncio.sleep(1)
        if reason:
            node.fail(reason)
        else:
            await node.stop()
        with pytest.raises(NodeFailed, match=reason or STOPPED_EARLY):
            await starting
        assert node.steps[:2] == ["open", "cancelled"]
        assert node.steps[-2:] == ["close", "release"]

    in_a_world(program)


def test_a_start_that_is_cancelled_closes_what_it_opened() -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        node.opening = _for_ever
        starting = asyncio.create_task(node.start())
        await asyncio.sleep(1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert node.steps[-2:] == ["close", "release"]
        await Node(network).start()  # its address is free

    in_a_world(program)


def test_a_stop_that_takes_too_long_is_no_clean_one_and_gives_the_locks_back() -> None:
    async def program(network: InProcessNetwork) -> None:
        loop = asyncio.get_running_loop()
        node = Node(network)
        node.closing = _for_ever
        await node.start()
        begun = loop.time()
        await node.stop()
        assert 5.0 <= loop.time() - begun < 5.5
        assert node.steps[-1] == "release"
        with pytest.raises(NodeFailed, match=STOPPED_LATE):
            await node.stopped()

    in_a_world(program)


@pytest.mark.parametrize(("steps", "is_clean"), [(9, True), (40, False)])
def test_a_stop_that_makes_progress_goes_on_but_not_for_ever(steps: int, is_clean: bool) -> None:
    async def program(network: InProcessNetwork) -> None:
        loop = asyncio.get_running_loop()
        node = Node(network)

        async def close_logs() -> None:
            for _ in range(steps):
                await asyncio.sleep(1)
                node._stop_progressed(1.5)

        node.closing = close_logs
        await node.start()
        begun = loop.time()
        await node.stop()
        took = loop.time() - begun
        if is_clean:
            assert 9.0 <= took < 9.5
            return await node.stopped()
        assert SLOW_STOP_MAX_S <= took < SLOW_STOP_MAX_S + 0.5
        with pytest.raises(NodeFailed, match=STOPPED_LATE):
            await node.stopped()

    in_a_world(program)


def test_a_stop_that_breaks_is_no_clean_one_and_gives_the_locks_back() -> None:
    async def program(network: InProcessNetwork) -> None:
        node = Node(network)
        node.closing = _breaks
        await node.start()
        await node.stop()
        assert node.steps[-1] == "release"
        with pytest.raises(NodeFailed, match=r"could not stop cleanly: .*the disk is gone"):
            await node.stopped()

    in_a_world(program)


def test_an_address_that_is_taken_is_a_wrong_configuration_and_frees_the_others() -> None:
    async def program(network: InProcessNetwork) -> None:
        await Node(network, "h:2").start()
        with pytest.raises(ConfigError, match=r"broker 1 can't listen: .*in use.* h:2"):
            await Node(network, "h:1", "out=grpc://h:2").start()
        await Node(network, "h:1").start()

    in_a_world(program)
