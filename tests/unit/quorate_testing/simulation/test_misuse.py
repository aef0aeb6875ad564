"""What is not simulated, hangs or is not awaited says so."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

import quorate.sync
from quorate.errors import InvalidRequestError, WrongLoopError
from quorate_testing import EmbeddedCluster, SimulatedCluster, SimulationError


async def sleep() -> None:
    time.sleep(0.01)  # noqa: ASYNC251


async def thread() -> None:
    threading.Thread(target=print).start()


async def to_thread() -> None:
    await asyncio.to_thread(print)


async def connect() -> None:
    await asyncio.open_connection("localhost", 1)


async def listen() -> None:
    await asyncio.start_server(print, "localhost", 0)


async def fetch() -> None:
    urllib.request.urlopen("http://localhost:1")  # noqa: ASYNC210


async def bind() -> None:
    with socket.socket() as one:
        one.bind(("localhost", 0))


async def look_up() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def start_child() -> None:
    await asyncio.create_subprocess_exec(sys.executable)


async def run_child() -> None:
    subprocess.run([sys.executable, "--version"], check=True)  # noqa: ASYNC221


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (sleep, r"time.sleep: a simulation has no real time.*await asyncio.sleep\(\)"),
        (thread, r"Thread.start: a simulation has no threads"),
        (to_thread, r"run_in_executor\(.*: a simulation has no threads"),
        (connect, r"create_connection\(.*: a simulation has no sockets.*classes of `quorate`"),
        (listen, r"create_server\(.*: a simulation has no sockets"),
        (fetch, r"socket.getaddrinfo: a simulation has no sockets"),
        (bind, r"socket.bind: a simulation has no sockets"),
        (look_up, r"getaddrinfo\('localhost', 1\): a simulation has no sockets"),
        (start_child, r"subprocess_exec\(.*: a simulation has no child processes"),
        (run_child, r"Popen.__init__: a simulation has no child processes"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_not_simulated_says_so(use: Callable[[], Any], said: str) -> None:
    with SimulatedCluster() as cluster, pytest.raises(SimulationError, match=said):
        cluster.run(use)
    # afterwards all is as it was
    time.sleep(0)
    one = threading.Thread(target=int)
    one.start()
    one.join()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
    assert "connect" not in vars(socket.socket)


def test_other_threads_are_free_during_a_run() -> None:
    seen: list[str] = []
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(60)
        time.sleep(0)
        seen.append("slept")
        done.set()

    async def main() -> None:
        go.set()
        done.wait(60)

    one = threading.Thread(target=work)
    one.start()
    with SimulatedCluster() as cluster:
        cluster.run(main)
    one.join()
    assert seen == ["slept"]


async def blocking_client() -> None:
    quorate.sync.Producer(bootstrap_servers="broker-0:7092")


async def embedded() -> None:
    with EmbeddedCluster():
        pass


@pytest.mark.parametrize("use", [blocking_client, embedded])
def test_blocking_clients_say_that_they_cannot_run_there(use: Callable[[], Any]) -> None:
    with (
        SimulatedCluster() as cluster,
        pytest.raises(WrongLoopError, match=r"quorate\.sync blocks"),
    ):
        cluster.run(use)


def test_a_blocking_client_from_outside_is_refused_in_a_run() -> None:
    client = quorate.sync.Producer(bootstrap_servers="localhost:1")

    async def use() -> None:
        client.start()

    with (
        SimulatedCluster() as cluster,
        pytest.raises(WrongLoopError, match=r"quorate\.sync blocks"),
    ):
        cluster.run(use)


def test_a_run_that_hangs_lists_what_each_task_waits_for() -> None:
    async def collect(queue: asyncio.Queue[int]) -> None:
        await queue.get()

    async def main() -> None:
        cluster.spawn(collect, asyncio.Queue(), name="collector")
        await asyncio.Event().wait()

    with (
        SimulatedCluster(time_limit_s=10) as cluster,
        pytest.raises(SimulationError) as found,
    ):
        cluster.run(main)
    lines = str(found.value).splitlines()
    assert re.fullmatch(
        r"the simulation goes on after 10\.\d* s; waiting: test, collector", lines[0]
    )
    assert re.fullmatch(r"  test: test_misuse\.py:\d+ in .*main, in Event\.wait", lines[1])
    assert re.fullmatch(r"  collector: test_misuse\.py:\d+ in .*collect, in Queue\.get", lines[2])
    assert re.fullmatch(r"  besides tasks of Quorate: \d+", lines[3])


def test_a_wait_for_a_killed_program_is_listed_and_the_next_run_works() -> None:
    async def main() -> None:
        task = cluster.spawn(asyncio.sleep, 5, name="program")
        cluster.faults.kill("program")
        await task

    with SimulatedCluster(time_limit_s=10) as cluster:
        with pytest.raises(SimulationError, match=r"(?s)waiting: test\n.*test_misuse.py:\d+ in"):
            cluster.run(main)
        cluster.run(asyncio.sleep, 1)


def test_tasks_that_run_for_ever_while_time_stands_still_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    monkeypatch.setattr("quorate_testing.simulated.loop.CALLBACKS_AT_ONCE_MAX", 10_000)
    with (
        SimulatedCluster() as cluster,
        pytest.raises(SimulationError, match=r"(?s)time stands still; waiting: test\n.*misuse.py"),
    ):
        cluster.run(main)


def test_time_that_the_test_passes_does_not_count_for_the_limit() -> None:
    async def main() -> None:
        await cluster.clock.advance(100)
        await asyncio.sleep(9)
        await cluster.clock.advance_until(lambda: cluster.clock.now > 150)

    with SimulatedCluster(time_limit_s=10) as cluster:
        cluster.run(main)
        with pytest.raises(TimeoutError, match=r"is not true after 3 virtual seconds"):
            cluster.clock.advance_until(lambda: False, 3)
        with pytest.raises(SimulationError, match="goes on after"):
            cluster.run(asyncio.sleep, 11)


def test_a_task_that_fails_and_that_nobody_awaits_ends_the_run() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(1)

    with SimulatedCluster() as cluster:
        with pytest.raises(SimulationError, match="a task failed: ZeroDivisionError") as found:
            cluster.run(main)
        assert isinstance(found.value.__cause__, ZeroDivisionError)
        cluster.run(asyncio.sleep, 1)


def test_what_takes_time_must_be_awaited_in_a_run() -> None:
    async def main() -> None:
        cluster.clock.advance(5)
        await asyncio.sleep(1)

    with (
        SimulatedCluster() as cluster,
        pytest.warns(RuntimeWarning, match=r"'ClusterClock.advance' was never awaited"),
    ):
        cluster.run(main)


async def test_a_cluster_in_a_real_loop_says_how_to_do_it() -> None:
    with pytest.raises(WrongLoopError, match=r"real: start the coroutine with run_simulated"):
        async with SimulatedCluster():
            pass
    cluster = SimulatedCluster()
    with pytest.raises(WrongLoopError, match="a simulation begins where no event loop runs"):
        cluster.__enter__()


def test_a_run_in_a_run_is_refused() -> None:
    async def main() -> None:
        cluster.run(asyncio.sleep, 1)

    with SimulatedCluster() as cluster, pytest.raises(InvalidRequestError, match="await the"):
        cluster.run(main)
    with SimulatedCluster() as cluster:
        for wrong in (asyncio.sleep(1), 5):
            with pytest.raises(TypeError, match=r"main must be an asynchronous function"):
                cluster.run(wrong)  # type: ignore[arg-type]
            if asyncio.iscoroutine(wrong):
                wrong.close()


def test_nodes_and_programs_that_are_not_there_are_named() -> None:
    with SimulatedCluster() as cluster:
        for wrong in (7, True, "worker", None, 0.5):
            with pytest.raises((TypeError, ValueError), match=r"node must be the id of a node"):
                cluster.faults.kill(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"these must be .*\(0, 100\), or .*\(\"test\"\)"):
            cluster.network.cut({1}, {100})
        with pytest.raises(ValueError, match="the test itself must go on"):
            cluster.faults.kill("test")
        with pytest.raises(ValueError, match=r"the id of a broker \(0\); for voters"):
            cluster.stop_broker(100)
