"""SimulatedCluster: begin and end, programs, and the same run under the same seed."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import pytest

from quorate import Consumer, Producer
from quorate.errors import ClosedError, InvalidRequestError, TopicExistsError
from quorate_testing import SimulatedCluster, run_simulated
from quorate_testing.seeds import use_seed

TOPIC = "orders"
VALUES = [b"%d" % number for number in range(20)]
ROOT = Path(__file__).parents[4]


async def write(cluster: SimulatedCluster, values: list[bytes]) -> None:
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        await asyncio.gather(*[await producer.send(TOPIC, one) for one in values])


async def read(cluster: SimulatedCluster, number: int) -> list[bytes]:
    servers = cluster.bootstrap_servers
    async with Consumer(TOPIC, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        return [(await anext(consumer)).value or b"" for _ in range(number)]


def test_three_clusters_one_after_another_leave_nothing_behind() -> None:
    loops: list[weakref.ref[object]] = []
    state, is_collecting = random.getstate(), gc.isenabled()
    for seed in range(3):
        with SimulatedCluster(seed=seed) as cluster:
            cluster.create_topic(TOPIC)
            cluster.run(write, cluster, VALUES)
            assert cluster.run(read, cluster, len(VALUES)) == VALUES
            loops.append(weakref.ref(cluster._world.loop))
        with pytest.raises(ClosedError, match="context manager"):
            cluster.run(read, cluster, 1)
    del cluster
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
    assert (random.getstate(), gc.isenabled()) == (state, is_collecting)


def test_one_cluster_object_can_run_again_as_a_new_cluster() -> None:
    cluster = SimulatedCluster(seed=1)
    for _ in range(2):
        with cluster:
            cluster.create_topic(TOPIC)
            with pytest.raises(TopicExistsError):
                cluster.create_topic(TOPIC)
            with pytest.raises(InvalidRequestError, match="runs already"):
                cluster.__enter__()


def test_a_run_goes_on_where_the_last_one_ended() -> None:
    left: list[asyncio.Task[None]] = []

    async def begin() -> float:
        left.append(asyncio.create_task(asyncio.sleep(5)))
        await asyncio.sleep(3)
        return cluster.clock.now

    with SimulatedCluster() as cluster:
        began_s = cluster.clock.now
        ended_s = cluster.run(begin)
        assert ended_s == pytest.approx(began_s + 3)
        cluster.clock.advance(2.5)
        assert left[0].done()
        assert cluster.clock.now == pytest.approx(began_s + 5.5)


@pytest.mark.quorate_simulation
async def test_a_cluster_in_a_loop_that_is_virtual_already() -> None:
    for _ in range(2):
        async with SimulatedCluster(brokers=3) as cluster:
            await cluster.create_topic(TOPIC, configs={"min.insync.replicas": 2})
            await cluster.stop_broker(0)
            await write(cluster, VALUES[:10])
            await cluster.start_broker(0)
            await cluster.crash_broker(1)
            await cluster.start_broker(1)
            await write(cluster, VALUES[10:])
            await cluster.lose_power(2)
            assert cluster.running == (100, 0, 1)
            await cluster.start()
            assert await read(cluster, len(VALUES)) == VALUES
            await cluster.delete_topic(TOPIC)


def test_the_same_methods_block_outside_of_a_run() -> None:
    with SimulatedCluster(brokers=3) as cluster:
        cluster.create_topic(TOPIC, configs={"min.insync.replicas": 2, "flush.on.ack": True})
        cluster.run(write, cluster, VALUES)
        cluster.stop_broker(0)
        cluster.start_broker(0)
        cluster.crash_broker(1)
        cluster.lose_power()
        assert cluster.running == ()
        assert cluster.controller is None
        cluster.start()
        assert cluster.run(read, cluster, len(VALUES)) == VALUES
        cluster.delete_topic(TOPIC)
        cluster.clock.advance_until(lambda: cluster.leader_of(TOPIC) is None)
        assert cluster.isr_of(TOPIC) == ()


def test_a_program_is_killed_and_started_again_by_its_name() -> None:
    seen: list[str] = []

    async def work(word: str) -> str:
        seen.append(word)
        await asyncio.sleep(10)
        return word

    async def main() -> None:
        first = cluster.spawn(work, "one", name="worker")
        with pytest.raises(InvalidRequestError, match="'worker' runs already"):
            cluster.spawn(work, "two", name="worker")
        await asyncio.sleep(1)
        cluster.faults.kill("worker")
        second = cluster.spawn(work, "two", name="worker")
        assert await second == "two"
        assert not first.done()
        assert await cluster.spawn(work, "three", name="worker") == "three"

    with SimulatedCluster() as cluster:
        cluster.run(main)
        for name in ("test", "operator", "broker-0"):
            with pytest.raises(ValueError, match="name must be a name that no node has"):
                cluster.spawn(work, "x", name=name)
    assert seen == ["one", "two", "three"]


def test_settings_of_brokers_have_their_names_of_the_documentation() -> None:
    with SimulatedCluster(configs={"group.max.size": 1}, brokers=2, racks=["A", "B"]) as cluster:
        assert cluster.running == (100, 0, 1)
    for configs, said in (
        ({"group.max.sise": 1}, "configs of SimulatedCluster: group.max.sise"),
        ({"node.id": 1}, "SimulatedCluster: configs must be settings without node.id"),
    ):
        with pytest.raises(Exception, match=said):
            SimulatedCluster(configs=configs)
    with pytest.raises(ValueError, match=r"racks must be at most as many as there are brokers"):
        SimulatedCluster(racks=["A", "B"])


# -- seeds

TRACE = """
import asyncio, random
from quorate import Consumer, Producer
from quorate_testing import SimulatedCluster

async def read(seen):
    async with Consumer("t", bootstrap_servers=cluster.bootstrap_servers, group_id="g") as consumer:
        async for record in consumer:
            seen.append((record.partition, record.offset, record.value))

async def main():
    seen = []
    await cluster.create_topic("t", 3)
    for number in range(2):
        cluster.spawn(read, seen, name=f"reader-{number}")
    chaos = asyncio.create_task(cluster.faults.random(4))
    async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        for number in range(12):
            await producer.send_and_wait("t", b"%d" % number)
            await asyncio.sleep(random.uniform(0, 0.5))
    await chaos
    return seen

with SimulatedCluster(seed=SEED, voters=3, brokers=3) as cluster:
    print(cluster.run(main), cluster.clock.now, cluster.trace, *cluster.faults.history)
"""


def trace_of(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TRACE.replace("SEED", str(seed))],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.timeout(300)  # three processes, one after another
def test_the_same_seed_gives_the_same_run_event_for_event() -> None:
    first = trace_of(5, "1")
    assert "all faults are undone" in first
    assert trace_of(5, "2") == first
    assert trace_of(6, "1") != first


def test_a_cluster_without_a_seed_draws_one_or_takes_that_of_the_command_line() -> None:
    with SimulatedCluster() as one, pytest.raises(RuntimeError, match="event loop runs"):
        one.run(nested)
    seeds = set()
    for _ in range(3):
        with SimulatedCluster() as cluster:
            seeds.add(cluster.seed)
    assert len(seeds) == 3
    use_seed(7)
    try:
        with SimulatedCluster() as given, pytest.raises(AssertionError) as found:
            given.run(fail)
        with SimulatedCluster(seed=8) as named:
            assert named.seed == 8
    finally:
        use_seed(None)
    (note,) = found.value.__notes__
    assert note.startswith("simulated cluster: seed 7, at ")
    assert "pytest --quorate-seed=7" in note


async def nested() -> None:
    with SimulatedCluster():
        pass


async def fail() -> None:
    raise AssertionError("no")


def test_run_simulated_is_like_asyncio_run() -> None:
    async def main(number: int) -> int:
        await asyncio.sleep(100)
        async with SimulatedCluster() as cluster:
            assert cluster.seed == 3
            assert cluster.clock.now > 100
        return number + 1

    assert run_simulated(main, 1, seed=3) == 2
    with pytest.raises(AssertionError, match="no") as found:
        run_simulated(fail, seed=3)
    assert found.value.__notes__[0].startswith("simulated cluster: seed 3, at 0.0")


@pytest.mark.quorate_simulation
async def test_a_seed_belongs_to_the_loop() -> None:
    with pytest.raises(InvalidRequestError, match=r"leave seed out in `async with`"):
        async with SimulatedCluster(seed=1):
            pass


def test_a_killed_program_leaves_no_warning_and_one_that_forgets_its_clients_does() -> None:
    async def forget() -> None:
        producer: Producer = Producer(bootstrap_servers=cluster.bootstrap_servers)
        await producer.start()
        await producer.send_and_wait(TOPIC, b"1")
        await asyncio.sleep(1000)

    async def hold() -> None:
        async with Producer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            while True:
                await producer.send(TOPIC, b"1")
                await asyncio.sleep(0.01)

    for is_killed in (True, False):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with SimulatedCluster(seed=1) as cluster:
                cluster.create_topic(TOPIC)
                cluster.spawn(forget, name="forgetful")
                cluster.spawn(hold, name="holding")
                cluster.clock.advance(5)
                if is_killed:
                    cluster.faults.kill("forgetful")
                    cluster.faults.kill("holding")
                cluster.clock.advance(5)
            gc.collect()
        said = [str(one.message) for one in warned]
        assert len(said) == (not is_killed), said
        assert all("a Producer for broker-0:7092 was never stopped" in one for one in said)


def test_an_error_that_a_test_expects_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise LookupError

    with SimulatedCluster(seed=1) as cluster, pytest.raises(LookupError) as found:
        cluster.run(fail)
    assert capfd.readouterr() == ("", "")
    assert found.value.__notes__[0].startswith("simulated cluster: seed 1, at ")
