"""Where a client lives: one event loop, one process, background tasks whose end is always seen."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quorate import Admin, Consumer, Producer
from quorate.aio.owner import Owner
from quorate.errors import (
    ClosedError,
    QuorateError,
    RequestTimedOutError,
    UnknownServerError,
    WrongLoopError,
)
from tests.harness.fake_leaders import FakeCluster, with_cluster

USES: list[tuple[str, Callable[[Any], Any], Callable[[Any], Awaitable[Any]]]] = [
    ("producer", lambda b: Producer(bootstrap_servers=b), lambda p: p.send("t", b"v")),
    ("producer", lambda b: Producer(bootstrap_servers=b), lambda p: p.flush()),
    ("producer", lambda b: Producer(bootstrap_servers=b), lambda p: p.stop()),
    ("producer", lambda b: Producer(bootstrap_servers=b), lambda p: p.partitions_for("t")),
    ("consumer", lambda b: Consumer("t", bootstrap_servers=b), lambda c: c.getone()),
    ("consumer", lambda b: Consumer("t", bootstrap_servers=b), lambda c: c.getmany()),
    ("consumer", lambda b: Consumer("t", bootstrap_servers=b), lambda c: c.stop()),
    ("admin", lambda b: Admin(bootstrap_servers=b), lambda a: a.list_topics()),
    ("admin", lambda b: Admin(bootstrap_servers=b), lambda a: a.stop()),
]


@pytest.mark.parametrize(("what", "make", "use"), USES)
def test_use_from_another_loop_or_thread_is_an_error_at_once(
    what: str, make: Callable[[Any], Any], use: Callable[[Any], Awaitable[Any]]
) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        raised: list[BaseException] = []

        def elsewhere() -> None:
            try:
                asyncio.run(_in(use, client))
            except BaseException as error:
                raised.append(error)

        async with make(cluster.bootstrap) as client:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join(10)
            (error,) = raised
            assert isinstance(error, WrongLoopError), error
            assert f"this {what} is used" in str(error)
            assert "run_coroutine_threadsafe" in str(error)

    with_cluster(program)


async def _in(use: Callable[[Any], Awaitable[Any]], client: object) -> object:
    return await use(client)


@pytest.mark.parametrize("kind", [Admin, Consumer, Producer])
def test_a_stop_while_it_starts_ends_the_start_and_leaves_nothing(
    kind: type[Admin | Consumer | Producer],
) -> None:
    async def program(cluster: FakeCluster) -> None:
        ended: list[object] = []
        for turns in range(40):
            client = kind(bootstrap_servers=cluster.bootstrap)
            starting = asyncio.ensure_future(client.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.gather(client.stop(), client.stop())
            ended += await asyncio.gather(starting, return_exceptions=True)
            assert _our_tasks() == [], turns
        assert {type(one) for one in ended} == {ClosedError, type(None)}, ended

    with_cluster(program)


@pytest.mark.parametrize("kind", [Admin, Consumer, Producer])
def test_two_starts_at_once_are_one(kind: type[Admin | Consumer | Producer]) -> None:
    async def program(cluster: FakeCluster) -> None:
        client = kind(bootstrap_servers=cluster.bootstrap)
        await asyncio.gather(client.start(), client.start())
        await client.stop()
        assert _our_tasks() == []

    with_cluster(program)


def _our_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("quorate-")]


def test_an_admin_that_was_stopped_while_it_started_may_be_started_again() -> None:
    async def program(cluster: FakeCluster) -> None:
        admin = Admin(bootstrap_servers=cluster.bootstrap)
        first = asyncio.ensure_future(admin.start())
        await asyncio.sleep(0)
        await admin.stop()
        second = asyncio.ensure_future(admin.start())
        with pytest.raises(ClosedError):
            await first
        await second
        await admin.stop()
        assert _our_tasks() == []

    with_cluster(program)


def test_a_client_of_a_closed_loop_says_so() -> None:
    owner = Owner("producer")

    async def bind() -> None:
        owner.bind()

    asyncio.run(bind())
    with pytest.raises(WrongLoopError, match="loop that this producer was started in is closed"):
        owner.check()


def test_a_client_that_was_started_before_a_fork_is_refused_in_the_child() -> None:
    owner = Owner("producer")

    async def bind() -> None:
        owner.bind()

    asyncio.run(bind())
    child = os.fork()
    if not child:
        try:
            owner.check()
        except WrongLoopError as error:
            os._exit(0 if "spawn" in str(error) and not owner.is_in_this_process else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert owner.is_in_this_process


FORKS = """
import asyncio, os
from quorate import Producer
from quorate.errors import QuorumUnavailableError, WrongLoopError

async def try_to_start():
    producer = Producer(bootstrap_servers="localhost:1", request_timeout_ms=200)
    try:
        await producer.start()
    except (QuorumUnavailableError, WrongLoopError) as error:
        return error

assert isinstance(asyncio.run(try_to_start()), QuorumUnavailableError)
child = os.fork()
if not child:
    error = asyncio.run(try_to_start())
    os._exit(0 if isinstance(error, WrongLoopError) and "spawn" in str(error) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_client_made_in_a_child_of_one_that_used_grpc_says_what_to_do() -> None:
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=60)


async def test_a_background_task_that_fails_fails_the_client_with_the_cause() -> None:
    owner = Owner("consumer")
    owner.bind()
    told: list[QuorateError] = []
    owner.on_failure(told.append)

    async def work() -> None:
        raise KeyError("a bug")

    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    owner.spawn(work(), "reader")
    with pytest.raises(UnknownServerError, match="failed in its task quorate-reader: KeyError"):
        await owner.wait(waiter, timeout_s=10, late=lambda: RequestTimedOutError("late"))
    assert told == [owner.failure]
    assert isinstance(told[0].__cause__, KeyError)
    with pytest.raises(UnknownServerError):
        owner.check_alive()


async def test_a_background_task_that_others_cancel_fails_the_client() -> None:
    owner = Owner("consumer")
    owner.bind()
    task = owner.spawn(asyncio.sleep(100), "sleeper")
    task.cancel()
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(ClosedError, match="quorate-sleeper was cancelled"):
        await owner.wait(waiter, timeout_s=10, late=lambda: RequestTimedOutError("late"))


async def test_a_background_task_that_the_client_ends_is_no_failure() -> None:
    owner = Owner("consumer")
    owner.bind()
    task = owner.spawn(asyncio.sleep(100), "sleeper")
    await owner.end(task, None)
    await owner.end_all()
    assert owner.failure is None


async def test_a_wait_ends_at_its_deadline_with_the_error_that_names_the_cause() -> None:
    owner = Owner("consumer")
    owner.bind()
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(RequestTimedOutError, match="late"):
        await owner.wait(waiter, timeout_s=0.001, late=lambda: RequestTimedOutError("late"))
    assert waiter.cancelled()


@pytest.mark.parametrize("silent", [True, False])
def test_a_program_that_cancels_everything_at_its_end_does_end(silent: bool) -> None:
    """As asyncio.run does when the main coroutine returns while a worker still sends."""

    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        around = asyncio.all_tasks()

        async def write() -> None:
            async with Producer(bootstrap_servers=cluster.bootstrap, buffer_memory=2000) as p:
                while True:
                    await p.send("t", b"%100d" % 1)
                    await asyncio.sleep(0.01)

        async def read() -> None:
            async with Consumer("t", bootstrap_servers=cluster.bootstrap) as consumer:
                async for _ in consumer:
                    pass

        workers = [asyncio.create_task(write()), asyncio.create_task(read())]
        await asyncio.sleep(1)
        if silent:
            cluster.brokers[0].running.clear()
            await asyncio.sleep(1)
        left = [task for task in asyncio.all_tasks() if task not in around]
        for task in left:
            task.cancel()
        _, pending = await asyncio.wait(workers, timeout=10)
        assert not pending

    with_cluster(program)


async def test_a_wait_that_begins_after_the_end_fails_at_once() -> None:
    owner = Owner("consumer")
    owner.bind()
    await owner.end_all()
    with pytest.raises(ClosedError, match="was stopped"):
        await owner.wait(
            asyncio.get_running_loop().create_future(), timeout_s=0.01, late=RequestTimedOutError
        )


def test_positions_that_are_awaited_after_the_stop_are_not_waited_for() -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        consumer = Consumer("t", bootstrap_servers=cluster.bootstrap)
        await consumer.start()
        pending = consumer.seek_to_beginning()
        await consumer.stop()
        began = asyncio.get_running_loop().time()
        with pytest.raises(ClosedError, match="was stopped"):
            await pending
        assert asyncio.get_running_loop().time() == began

    with_cluster(program)
