"""The view is the sum of its payments, whatever is killed, and for any time."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import balances
import pytest
from balances import View, build, create, snapshots_of, total

from quorate import NewTopic, TopicPartition
from quorate.errors import OffsetOutOfRangeError
from quorate.sync import Admin, Producer
from quorate_testing import EmbeddedCluster

HERE = Path(__file__).parent
SNAPSHOT_EVERY = 10
PATIENCE_S = 30


class World:
    """A topic of payments, and the balances that belong to them."""

    def __init__(self, servers: str, topic: str) -> None:
        self.servers, self.topic = servers, topic
        self.paid: Counter[str] = Counter()
        self.count = 0
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        self.chance = random.Random(seed)

    def pay(self, count: int) -> None:
        """Write payments of 20 accounts, in both directions."""
        with Producer(bootstrap_servers=self.servers) as producer:
            for _ in range(count):
                account, cents = (
                    f"account-{self.chance.randrange(20)}",
                    self.chance.randint(-50, 50),
                )
                producer.send(self.topic, str(cents).encode(), key=account.encode())
                self.paid[account] += cents
                self.count += 1

    @contextmanager
    def follow(self) -> Iterator[Callable[[str], str]]:
        """Run the program; yield a function that waits for a line that begins so. Kill it."""
        with subprocess.Popen(
            [sys.executable, "balances.py", "follow", self.topic, "--bootstrap", self.servers,
             "--snapshot-every", str(SNAPSHOT_EVERY)],
            cwd=HERE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            lines = process.stdout
            # a line that does not come must not hold up the test for ever
            watch = threading.Timer(PATIENCE_S, process.kill)
            watch.start()
            try:
                yield lambda begins: next(line for line in lines if line.startswith(begins))
            finally:
                watch.cancel()
                process.kill()

    def check(self) -> int:
        """Compare the view with what was paid. Return how many payments were replayed for it."""
        built = build(self.servers, self.topic)
        assert built.balances == dict(self.paid)
        return built.replayed.total()


@pytest.fixture
def world(quorate_cluster: EmbeddedCluster, quorate_topic: str) -> World:
    """A world on the cluster of the plugin."""
    topic = f"{quorate_topic}-payments"
    create(quorate_cluster.bootstrap_servers, topic, 3)
    return World(quorate_cluster.bootstrap_servers, topic)


def test_a_program_that_is_killed_goes_on_from_its_last_snapshots(world: World) -> None:
    for _ in range(3):
        world.pay(200)
        with world.follow() as wait_for:
            built = wait_for("built: ")
            for _ in range(world.chance.randint(1, 2)):  # two partitions have most accounts
                wait_for("snapshot: ")
        replayed = world.check()
        print(f"{built.strip()}; after the kill {replayed} of {world.count} payments")
        assert replayed < world.count
    assert build(world.servers, world.topic, from_scratch=True).balances == dict(world.paid)


def test_a_view_of_any_time_is_the_payments_up_to_it_or_from_it_on(
    quorate_cluster: EmbeddedCluster, quorate_topic: str
) -> None:
    servers = quorate_cluster.bootstrap_servers
    with Admin(bootstrap_servers=servers) as admin:
        admin.create_topics([NewTopic(name=snapshots_of(quorate_topic), num_partitions=1)])
    with Producer(bootstrap_servers=servers) as producer:
        for hour in range(24):
            account = b"alice" if hour % 2 else b"bob"
            producer.send_and_wait(quorate_topic, b"1", key=account, timestamp_ms=hour * 1000)
        view = build(servers, quorate_topic, until_ms=6000).views
        balances.save(producer, TopicPartition(quorate_topic, 0), *view.values())

    for until, alice, bob, replayed in [
        (0, 0, 0, 0),
        (5000, 2, 3, 5),  # the snapshot is of a later time
        (6000, 3, 3, 0),
        (10_000, 5, 5, 4),
        (99_000, 12, 12, 18),
    ]:
        built = build(servers, quorate_topic, until_ms=until)
        found = (built.balances.get("alice", 0), built.balances.get("bob", 0))
        assert (found, built.replayed.total()) == ((alice, bob), replayed), until
    since = build(servers, quorate_topic, since_ms=20_001)
    assert (since.balances, since.replayed.total()) == ({"alice": 2, "bob": 1}, 3)
    between = build(servers, quorate_topic, since_ms=3000, until_ms=5000)
    assert between.balances == {"alice": 1, "bob": 1}
    assert build(servers, quorate_topic, since_ms=99_000).balances == {}


def test_of_two_snapshots_the_newer_one_counts_whichever_was_written_last(world: World) -> None:
    world.pay(100)
    old = build(world.servers, world.topic).views
    world.pay(100)
    new = build(world.servers, world.topic).views
    with Producer(bootstrap_servers=world.servers) as producer:
        for views in (new, old):
            for partition, view in views.items():
                balances.save(producer, partition, view)
    assert world.check() == 0


def test_payments_that_are_gone_are_an_error_and_no_wrong_balance(world: World) -> None:
    world.pay(100)
    views = build(world.servers, world.topic).views
    with Producer(bootstrap_servers=world.servers) as producer:
        for partition, view in views.items():
            balances.save(producer, partition, view)
    with Admin(bootstrap_servers=world.servers) as admin:
        admin.delete_records({key: view.next_offset for key, view in views.items()})
    world.pay(50)
    assert world.check() == 50
    with pytest.raises(OffsetOutOfRangeError):
        build(world.servers, world.topic, from_scratch=True)


def test_a_broker_that_crashes_costs_nothing() -> None:
    with EmbeddedCluster(brokers=3, kafka=False) as cluster:
        world = World(cluster.bootstrap_servers, "payments")
        create(world.servers, world.topic, 3)
        with world.follow() as wait_for:
            for broker in range(3):
                world.pay(100)
                cluster.crash_broker(broker)
                world.pay(100)
                cluster.start_broker(broker)
            while wait_for("now: ").split()[1] != str(sum(world.paid.values())):
                pass
        assert world.check() < world.count


def test_a_snapshot_has_all_of_a_view() -> None:
    view = View({"alice": -5, "bob": 7}, next_offset=42, leader_epoch=3)
    assert View.from_bytes(view.to_bytes()) == view
    assert total({TopicPartition("payments", 0): view}) == 2
