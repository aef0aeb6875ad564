"""A whole rack dies, loses its power or is cut off, in a simulated cluster, under load."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest

from quorate import Consumer, Producer
from quorate_quorum.metadata.partitions import PartitionImage
from tests.harness.cluster_scene import Scene, play
from tests.harness.scene_clients import ask

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(120)]

PARTITIONS = 4
#: Topic -> replicas and min.insync.replicas.
TOPICS = {"invoice": (3, 1), "invoice-3": (3, 2), "invoice-4": (4, 2)}
#: The longest time until the partitions of a dead rack go on elsewhere.
GOES_ON_S = 2.0
#: A rack that is cut off is noticed by the silence of its brokers: the session's timeout.
CUT_OFF_S = 20.0

Key = tuple[str, int]
ALL = [(topic, partition) for topic in TOPICS for partition in range(PARTITIONS)]


@dataclass
class Writers:
    """One writer for each partition, each with one record under way."""

    scene: Scene
    acked: dict[Key, list[bytes]] = field(default_factory=lambda: {key: [] for key in ALL})
    #: When the last acknowledged record was sent.
    last_s: dict[Key, float] = field(default_factory=dict)
    is_over: bool = False

    async def run(self) -> None:
        servers = self.scene.cluster.bootstrap_servers
        async with Producer(bootstrap_servers=servers, linger_ms=0) as producer:
            await asyncio.gather(*(self._write(producer, key) for key in ALL))

    async def _write(self, producer: Producer, key: Key) -> None:
        acked = self.acked[key]
        while not self.is_over:
            value, sent_s = b"%d-%d" % (key[1], len(acked)), self.scene.loop.time()
            await producer.send_and_wait(key[0], value, partition=key[1])
            acked.append(value)
            self.last_s[key] = sent_s
            await asyncio.sleep(0.2)

    async def go_on(self, keys: Collection[Key], within_s: float) -> float:
        """Wait for a record of each that is sent from now on. Return how long the last took."""
        since_s = self.scene.loop.time()
        await self.scene.until(
            lambda: all(self.last_s.get(key, -1.0) > since_s for key in keys),
            f"records of {len(keys)} partitions",
            within_s=within_s,
        )
        return self.scene.loop.time() - since_s


def states(scene: Scene) -> dict[Key, PartitionImage]:
    image = scene.cluster.image()
    assert image is not None
    found = {}
    for name in TOPICS:
        topic = image.topic_named(name)
        assert topic is not None
        found.update({(name, number): one for number, one in enumerate(topic.partitions)})
    return found


async def read(scene: Scene) -> dict[Key, list[bytes]]:
    found: dict[Key, list[bytes]] = {key: [] for key in ALL}

    async def run() -> None:
        servers = scene.cluster.bootstrap_servers
        async with Consumer(
            *TOPICS, bootstrap_servers=servers, auto_offset_reset="earliest"
        ) as consumer:
            while got := await consumer.getmany(timeout_ms=3_000):
                for one, records in got.items():
                    values = [record.value or b"" for record in records]
                    found[one.topic, one.partition].extend(values)

    await scene.cluster.spawn_client(run)
    return found


@pytest.mark.parametrize(("how", "seed"), [("kill", 1), ("lose_power", 2), ("cut", 3)])
def test_what_has_min_isr_in_the_other_rack_goes_on_and_nothing_is_lost(
    how: str, seed: int
) -> None:
    async def story(scene: Scene) -> None:
        for name, (replicas, min_isr) in TOPICS.items():
            configs = {"min.insync.replicas": str(min_isr)}
            await ask(
                scene,
                lambda a, n=name, r=replicas, c=configs: a.create_topic(n, PARTITIONS, r, c),  # type: ignore[misc]
            )
        writers = Writers(scene)
        writing = scene.cluster.spawn_client(writers.run, "writers")
        await writers.go_on(ALL, 10)
        for rack in ("R1", "R2"):
            names = {node.name for node in scene.cluster.brokers if node.rack == rack}
            ids = {node.node_id for node in scene.cluster.brokers if node.rack == rack}
            alive = {
                key
                for key, one in states(scene).items()
                if len(set(one.isr) - ids) >= TOPICS[key[0]][1]
            }
            assert {key for key in ALL if key[0] != "invoice-3"} <= alive
            assert len(alive) == 2.5 * PARTITIONS, "half of invoice-3 has two replicas elsewhere"
            if how == "cut":
                scene.cluster.network.cut(names, scene.cluster.nodes.keys() - names | {"writers"})
            else:
                for name in names:
                    getattr(scene.cluster, how)(name)
            took_s = await writers.go_on(alive, CUT_OFF_S if how == "cut" else GOES_ON_S)
            print(f"{rack}, {how}: {len(alive)} partitions go on within {took_s:.2f} s")
            await asyncio.sleep(2)
            if how == "cut":
                scene.cluster.network.heal()
            else:
                for name in names:
                    scene.cluster.start(name)
            await scene.until(
                lambda: all(
                    len(one.isr) == TOPICS[key[0]][0] for key, one in states(scene).items()
                ),
                "every replica is in sync",
            )
            await writers.go_on(ALL, 10)
        writers.is_over = True
        await writing
        assert await read(scene) == writers.acked, "each acknowledged record once, in order"

    play(story, brokers=6, replicas=4, racks=("R1", "R2"), seed=seed)
