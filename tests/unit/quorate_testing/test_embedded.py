"""EmbeddedCluster: what a user's test gets of it."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import confluent_kafka
import pytest
import structlog

from quorate import Consumer, Producer
from quorate.errors import ClosedError, InvalidRequestError, QuorateError
from quorate_cli.local_shape import Shape, placed
from quorate_quorum.node.config import CannotListen, ConfigError
from quorate_testing import AsyncEmbeddedCluster, EmbeddedCluster, embedded

TOPIC = "orders"
VALUES = [b"%d" % number for number in range(50)]


async def write(cluster: AsyncEmbeddedCluster | EmbeddedCluster, values: list[bytes]) -> None:
    async with Producer(bootstrap_servers=cluster.bootstrap_servers, acks="all") as producer:
        await asyncio.gather(*[await producer.send(TOPIC, one) for one in values])


async def read(cluster: AsyncEmbeddedCluster | EmbeddedCluster, number: int) -> list[bytes]:
    servers = cluster.bootstrap_servers
    async with Consumer(TOPIC, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        return [(await anext(consumer)).value or b"" for _ in range(number)]


def test_a_program_of_a_kafka_client_and_one_of_ours_share_a_topic() -> None:
    with EmbeddedCluster() as cluster:
        cluster.create_topic(TOPIC)
        producer = confluent_kafka.Producer({"bootstrap.servers": cluster.kafka_bootstrap_servers})
        for one in VALUES:
            producer.produce(TOPIC, one)
        assert producer.flush(60) == 0
        assert asyncio.run(read(cluster, len(VALUES))) == VALUES


async def crash(cluster: AsyncEmbeddedCluster) -> None:
    await cluster.crash_broker(0)
    await cluster.start_broker(0)


async def stop(cluster: AsyncEmbeddedCluster) -> None:
    await cluster.stop_broker(0)
    await cluster.start_broker(0)


async def cut_one(cluster: AsyncEmbeddedCluster) -> None:
    await cluster.lose_power(1)
    await cluster.start_broker(1)


async def cut_all(cluster: AsyncEmbeddedCluster) -> None:
    await cluster.lose_power()
    await cluster.start()


@pytest.mark.parametrize("fault", [crash, stop, cut_one, cut_all])
async def test_what_was_acknowledged_survives(
    fault: Callable[[AsyncEmbeddedCluster], Awaitable[None]],
) -> None:
    """The guarantees of a power cut of all machines at once are those of flush.on.ack."""
    async with EmbeddedCluster(brokers=3) as cluster:
        await cluster.create_topic(TOPIC, configs={"min.insync.replicas": 2, "flush.on.ack": True})
        await write(cluster, VALUES)
        await fault(cluster)
        assert await read(cluster, len(VALUES)) == VALUES
        await write(cluster, [b"more"])


def test_the_methods_of_a_cluster_in_a_thread_block() -> None:
    with EmbeddedCluster(brokers=2) as cluster:
        cluster.create_topic(TOPIC)
        cluster.crash_broker(1)
        cluster.crash_broker(1)
        cluster.start_broker(1)
        cluster.start_broker(1)
        cluster.stop_broker(0)
        cluster.start_broker(0)
        cluster.lose_power(0)
        cluster.start()
        asyncio.run(write(cluster, VALUES))
        cluster.delete_topic(TOPIC)
    assert "quorate embedded cluster" not in {one.name for one in threading.enumerate()}


async def test_a_folder_keeps_the_data(tmp_path: Path) -> None:
    async with EmbeddedCluster(folder=tmp_path / "data") as cluster:
        await cluster.create_topic(TOPIC)
        await write(cluster, VALUES)
        await cluster.crash_broker(0)
        with pytest.raises(ValueError, match="disks are in memory"):
            await cluster.lose_power()
    async with EmbeddedCluster(folder=tmp_path / "data") as cluster:
        assert await read(cluster, len(VALUES)) == VALUES


def test_a_folder_may_be_a_string_and_keeps_the_numbers_of_nodes(tmp_path: Path) -> None:
    with EmbeddedCluster(folder=str(tmp_path)) as cluster:
        assert "," not in cluster.bootstrap_servers
    for brokers in (2, 3):
        with (
            pytest.raises(ValueError, match=f"1, brokers=1, and not voters=1, brokers={brokers}:"),
            EmbeddedCluster(folder=tmp_path, brokers=brokers),
        ):
            pass


def test_settings_of_the_brokers_have_their_names_of_the_documentation() -> None:
    with (
        EmbeddedCluster(configs={"group.max.size": 1}, kafka=False) as cluster,
        pytest.raises(InvalidRequestError, match="it was made with kafka=False: leave that out"),
    ):
        print(cluster.kafka_bootstrap_servers)
    with (
        pytest.raises(ConfigError, match=r"configs of EmbeddedCluster: group.max.sise"),
        EmbeddedCluster(configs={"group.max.sise": 1}),
    ):
        pass
    with pytest.raises(ValueError, match="1 to 99"):
        EmbeddedCluster(brokers=0)


def test_what_cannot_be_is_said() -> None:
    cluster = EmbeddedCluster()
    with pytest.raises(ClosedError, match="context manager"):
        cluster.stop_broker(0)
    with cluster:
        with pytest.raises(ValueError, match=r"there is no broker 7; the brokers are \[0\]"):
            cluster.crash_broker(7)
        with pytest.raises(InvalidRequestError, match="runs already"):
            cluster.__enter__()
        with pytest.raises(QuorateError):
            cluster.create_topic("not/a name")


async def test_a_port_that_was_taken_meanwhile_costs_one_more_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = placed
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        shapes = iter([Shape(voters=1, brokers=1, port=port)])
        monkeypatch.setattr(embedded, "placed", lambda shape: next(shapes, None) or usual(shape))
        async with EmbeddedCluster() as cluster:
            await cluster.create_topic(TOPIC)
        with_all_taken = Shape(voters=1, brokers=1, port=port)
        monkeypatch.setattr(embedded, "placed", lambda _: with_all_taken)
        with pytest.raises(CannotListen):
            async with EmbeddedCluster():
                pass


def test_the_nodes_log_with_the_logging_of_the_program(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with EmbeddedCluster():
        pass
    assert any("broker_registered" in one.getMessage() for one in caplog.records)
    assert structlog.is_configured()


THREE_LOOPS = """
import asyncio, gc, os, threading
import quorate.sync
from quorate import Consumer, Producer
from quorate_testing import EmbeddedCluster

async def use(cluster):
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        await producer.send_and_wait("t", b"x")
    async with Consumer(
        "t", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest", group_id="g"
    ) as consumer:
        await consumer.getone()
    return len(asyncio.all_tasks())

async def use_in_a_loop():
    async with EmbeddedCluster() as cluster:
        await cluster.create_topic("t")
        await use(cluster)
    return len(asyncio.all_tasks())

def turn():
    with EmbeddedCluster() as cluster:
        cluster.create_topic("t")
        for _ in range(3):
            assert asyncio.run(use(cluster)) == 1
        with quorate.sync.Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            producer.send("t", b"y")
    assert asyncio.run(use_in_a_loop()) == 1
    gc.collect()
    return len(os.listdir("/proc/self/fd")), sorted(one.name for one in threading.enumerate())

first = turn()
for _ in range(2):
    again = turn()
    assert again == first, (first, again)
"""


def test_loops_one_after_another_use_clusters_without_noise_and_leave_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", THREE_LOOPS],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


PLUGIN_TESTS = """
import asyncio
from quorate import Producer

async def write(cluster, topic):
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        return (await producer.send_and_wait(topic, b"x")).offset

def test_a_topic_is_new(quorate_cluster, quorate_topic):
    assert asyncio.run(write(quorate_cluster, quorate_topic)) == 0
    assert quorate_topic.startswith("test_a_topic_is_new")

def test_another_is_new_too(quorate_cluster, quorate_topic):
    assert asyncio.run(write(quorate_cluster, quorate_topic)) == 0
    quorate_cluster.delete_topic(quorate_topic)
"""


def test_the_plugin_gives_a_cluster_and_a_topic(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN_TESTS)
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=2)


def test_the_workers_of_xdist_have_clusters_of_their_own_and_warn_of_nothing(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_one=PLUGIN_TESTS, test_two=PLUGIN_TESTS)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    done = pytester.runpytest_subprocess(
        "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", "-W", "error"
    )
    done.assert_outcomes(passed=4)
    done.stderr.no_fnmatch_line("*")


def test_a_run_that_uses_no_cluster_imports_the_plugin_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        FOREIGN = ("grpc", "google", "structlog", "tomlkit", "typer", "rich")

        def test_it():
            roots = {name.partition(".")[0] for name in sys.modules}
            ours = sorted(name for name in sys.modules if name.startswith("quorate"))
            assert ours == ["quorate_testing", "quorate_testing.pytest_plugin"]
            assert roots.isdisjoint(FOREIGN)
        """
    )
    done = pytester.runpytest_subprocess(
        "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"
    )
    done.assert_outcomes(passed=1)
