"""A producer that is never stopped says how many records were lost with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import warnings

import pytest

from quorate import Producer
from tests.harness.fake_leaders import FakeCluster, with_cluster


def test_a_producer_that_was_never_stopped_warns_with_the_count_of_lost_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when asyncio.run ends: it cancels the background tasks, and the producer is garbage."""
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")

        async def program(cluster: FakeCluster) -> None:
            cluster.add_topic("t")
            cluster.fault = lambda *_: "lose"
            p = Producer(bootstrap_servers=cluster.bootstrap)
            await p.start()
            for _ in range(3):
                await p.send("t", b"x")
            await asyncio.sleep(0.1)
            for task in asyncio.all_tasks():
                if task.get_name().startswith("quorate-"):
                    task.cancel()
            await asyncio.sleep(0.1)

        with_cluster(program)
        gc.collect()
    (warning,) = [one for one in caught if one.category is ResourceWarning]
    assert "was never stopped, and 3 of its records were not delivered" in str(warning.message)
    assert "3 records for t-0 were not delivered, and no caller awaits them" in caplog.text
    assert "was never stopped, and 3 of its records" in caplog.text


def test_a_producer_that_is_forgotten_in_a_running_loop_delivers_first_and_then_ends() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        async def program(cluster: FakeCluster) -> None:
            topic = cluster.add_topic("t")
            before = asyncio.all_tasks()

            async def forget() -> None:
                p = Producer(bootstrap_servers=cluster.bootstrap)
                await p.start()
                for _ in range(3):
                    await p.send("t", b"x")

            await forget()
            gc.collect()
            assert not caught
            await asyncio.sleep(5)
            gc.collect()
            await asyncio.sleep(1)
            assert len(topic.partitions[0].values()) == 3
            left = {task.get_name() for task in asyncio.all_tasks() - before}
            assert not [name for name in left if name.startswith("quorate-")]

        with_cluster(program)
    (warning,) = [one for one in caught if one.category is ResourceWarning]
    assert "and 0 of its records were not delivered" in str(warning.message)


@pytest.mark.parametrize("how", ["stopped", "never started"])
def test_a_producer_that_was_stopped_or_never_started_says_nothing(how: str) -> None:
    async def program(cluster: FakeCluster) -> None:
        cluster.add_topic("t")
        p = Producer(bootstrap_servers=cluster.bootstrap)
        if how == "stopped":
            await p.start()
            await p.send("t", b"x")
            await p.stop()

    with_cluster(program)  # a ResourceWarning is an error here
    gc.collect()


AT_EXIT = """
import asyncio, sys
sys.path.insert(0, {root!r})
from quorate import Producer
from tests.harness.fake_leaders import FakeCluster, with_cluster

kept = []

async def program(cluster):
    cluster.add_topic("t")
    cluster.fault = lambda *_: "lose"
    producer = Producer(bootstrap_servers=cluster.bootstrap)
    kept.append(producer)
    await producer.start()
    for _ in range(4):
        await producer.send("t", b"x")

with_cluster(program)
"""


def test_a_producer_that_is_alive_at_the_interpreters_end_warns_too(
    pytestconfig: pytest.Config,
) -> None:
    program = AT_EXIT.format(root=str(pytestconfig.rootpath))
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "never stopped, and 4 of its records were not delivered" in done.stderr
