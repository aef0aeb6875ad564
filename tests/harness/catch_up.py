"""Parts of stories in which a follower catches up: a backlog, and the delays that producers see."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from quorate import Producer
from quorate_quorum.metadata.partitions import PartitionImage
from tests.harness.cluster_scene import TOPIC, Scene
from tests.harness.scene_clients import ask

BACKLOG = "backlog"
RECORD_BYTES = 64 << 10


@dataclass
class Delays:
    """The time from each send to its acknowledgement, in milliseconds."""

    found: list[float] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> list[float]:
        """Return what was found since the last call, in order of size."""
        found, self.found = sorted(self.found), []
        return found


async def write(scene: Scene, delays: Delays, *, pause_s: float = 0.005) -> None:
    """Write one record after another to the scene's topic, and await each."""
    async with Producer(bootstrap_servers=scene.cluster.bootstrap_servers, linger_ms=0) as producer:
        while not delays.is_over.is_set():
            value = b"%d" % scene.sent + b"." * 200
            scene.sent += 1
            before = scene.loop.time()
            found = await producer.send_and_wait(TOPIC, value, partition=0)
            delays.found.append((scene.loop.time() - before) * 1000)
            scene.acked[found.offset] = value
            await asyncio.sleep(pause_s)


async def make_backlog_topic(
    scene: Scene, brokers: list[int], partitions: int, configs: dict[str, str] | None = None
) -> None:
    """Make a topic whose partitions are all on these brokers, led by the first."""
    configs = {"min.insync.replicas": "1", **(configs or {})}
    assignments = [brokers] * partitions
    await ask(scene, lambda a: a.create_topic(BACKLOG, configs=configs, assignments=assignments))


async def fill_backlog(scene: Scene, partitions: int, size: int) -> None:
    """Write so many bytes to the backlog's partitions, in turn, with acks=1."""

    async def run() -> None:
        servers = scene.cluster.bootstrap_servers
        async with Producer(bootstrap_servers=servers, acks=1, linger_ms=5) as producer:
            sent = [
                await producer.send(BACKLOG, b"." * RECORD_BYTES, partition=number % partitions)
                for number in range(size // RECORD_BYTES)
            ]
            await asyncio.gather(*sent)

    await scene.cluster.spawn_client(run)


def backlog(scene: Scene) -> list[PartitionImage]:
    """The states of the backlog's partitions."""
    image = scene.cluster.image()
    assert image is not None
    topic = image.topic_named(BACKLOG)
    assert topic is not None
    return list(topic.partitions)
