"""Power cuts: all nodes of a cluster lose their power at the n-th thing that a disk does.

One run numbers all that the disks of all nodes do, while producers (acks=all) write into topics
with flush.on.ack, segments are closed and compacted, and a leader dies and comes back. A replay of
the same seed is the same run, in which the power of all nodes fails as the n-th of these begins.
The nodes come back in an order of chance. Then every acknowledged record must be read, once, at its
offset, and in the order in which it was sent. The producers live on: what they send again must not
be there twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from quorate import Admin, Consumer, Delivery, Producer
from quorate.errors import QuorateError
from quorate_broker.replica.partition import Partition
from quorate_broker.server import BrokerServer
from quorate_quorum.metadata.partitions import NEVER, PartitionImage
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.invariants import Violation, partitions_of
from tests.harness.world import logs

#: A topic whose logs are compacted (every key is there once, so no record goes), and another one.
COMPACTED, PLAIN = "compacted", "plain"
TOPICS = (COMPACTED, PLAIN)
PRODUCERS = 2
CONFIGS = {
    "flush.on.ack": "true",
    "segment.ms": "150",
    "min.cleanable.dirty.ratio": "0.01",
}
SETTINGS = {"log_retention_check_interval_ms": 50, "log_cleaner_backoff_ms": 100}
#: Operations that change nothing on a disk: no points.
UNCOUNTED = ("open", "read")
PATIENCE_S = 120.0
#: The time between two records of a producer, and after the cut, when they show less.
PACE_S, PACE_AFTER_S = 0.01, 0.1
PAUSE_S = 0.01


#: The kinds of most points. The other ones are tried as often as these.
USUAL = ("append", "overwrite", "sync")


class Point(NamedTuple):
    """Something that a disk began to do."""

    kind: str
    #: The node, and the file's name.
    node: str
    what: str


@dataclass(slots=True)
class Outcome:
    """The counts of one run."""

    points: list[Point] = field(default_factory=list)
    #: Records that were acknowledged before the cut, and in the whole run.
    acked_before: int = 0
    acked: int = 0
    rolls: int = 0
    compactions: int = 0


def record(seed: int) -> Outcome:
    """Play the run of a seed without a cut."""
    with logs(verbose=False):
        return simulate(lambda loop: _Run(loop, -1).run(), seed)


def chosen(points: Sequence[Point], count: int) -> list[int]:
    """Return the numbers of `count` points: half of all, half of the rarer kinds, evenly spread."""
    rare = [number for number, point in enumerate(points) if point.kind not in USUAL]
    half = count // 2
    spread = {len(points) * step // (count - half) for step in range(count - half)}
    spread |= {rare[len(rare) * step // half] for step in range(half)}
    left = (number for number in rare if number not in spread)
    while len(spread) < count:
        spread.add(next(left))
    return sorted(spread)


def cut_at(seed: int, number: int, expected: Point, *, verbose: bool = False) -> Outcome:
    """Replay the run with a power cut at that point; raise Violation, or another error."""
    with logs(verbose=verbose):
        outcome = simulate(lambda loop: _Run(loop, number).run(), seed)
    found = outcome.points[-1]
    assert found == expected, f"point {number} was {expected}, and is {found} now"
    return outcome


@dataclass(slots=True)
class _Run:
    loop: SimulatedLoop
    number: int
    cluster: SimulatedCluster = field(init=False)
    chance: random.Random = field(init=False)
    outcome: Outcome = field(default_factory=Outcome)
    is_counting: bool = False
    is_over: bool = False
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    #: (topic, offset) -> value.
    acked: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = SimulatedCluster(self.loop, ClusterShape(broker_settings=SETTINGS))
        self.chance = random.Random(self.number)

    async def run(self) -> Outcome:
        """Play the run, up to the cut if there is one, let all nodes recover, and judge."""
        for node in self.cluster.nodes.values():
            node.disk.hook = self._hook(node.name)
        await self._begin()
        writing = [
            self.cluster.spawn_client(self._writer(f"{topic}-{number}", topic))
            for topic in TOPICS
            for number in range(PRODUCERS)
        ]
        self.is_counting = True
        await self._live()
        self.is_counting = False
        if self.number >= 0:
            assert self.cut.is_set(), f"the run has {len(self.outcome.points)} points"
            await self._recover()
        await self._whole()
        self.is_over = True
        await asyncio.gather(*writing)
        self.outcome.acked = len(self.acked)
        self._count()
        for topic in TOPICS:
            self._judge(topic, await self._read(topic))
        return self.outcome

    # -- the run

    async def _begin(self) -> None:
        await self.cluster.format()
        self.cluster.start_all()
        await self._until(self._all_unfenced)

        async def make() -> None:
            async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
                await admin.create_topic(PLAIN, 1, 3, CONFIGS)
                await admin.create_topic(COMPACTED, 1, 3, CONFIGS | {"cleanup.policy": "compact"})

        await self.cluster.spawn_client(make)

    async def _live(self) -> None:
        """Write, lose a leader, write on, let it come back."""
        for step in (self._pause, self._kill_a_leader, self._pause, self._come_back, self._pause):
            doing = asyncio.create_task(step())
            waiting = asyncio.create_task(self.cut.wait())
            await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self.cut.is_set():
                doing.cancel()
                return
            await doing

    async def _pause(self) -> None:
        await asyncio.sleep(0.7)

    async def _kill_a_leader(self) -> None:
        leader = self._state(PLAIN).leader
        self.cluster.kill(f"broker-{leader}")
        await self._until(lambda: self._state(PLAIN).leader not in (leader, -1))

    async def _come_back(self) -> None:
        self.cluster.start_all()
        await self._whole()

    def _writer(self, name: str, topic: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def write() -> None:
            async with Producer(
                bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=100_000
            ) as producer:
                number = 0
                while not self.is_over:
                    value = b"%s %d" % (name.encode(), number)
                    number += 1
                    delivery = await producer.send(topic, value, key=value, partition=0)
                    delivery.add_done_callback(partial(self._noted, value))
                    await asyncio.sleep(PACE_AFTER_S if self.cut.is_set() else PACE_S)
                await producer.flush()

        return write

    def _noted(self, value: bytes, delivery: Delivery) -> None:
        try:
            metadata = delivery.result()
        except QuorateError:
            return  # refused, or unknown
        place = metadata.topic, metadata.offset
        if place in self.acked:
            raise Violation(f"{place} was given to {self.acked[place]!r} and {value!r}")
        self.acked[place] = value

    # -- the cut

    def _hook(self, node: str) -> Callable[[str, str], None]:
        def reached(kind: str, path: str) -> None:
            if not self.is_counting or kind in UNCOUNTED:
                return
            self.outcome.points.append(Point(kind, node, path.rpartition("/")[2]))
            if len(self.outcome.points) - 1 == self.number:
                self.is_counting = False
                self._count()
                self.outcome.acked_before = len(self.acked)
                for name in self.cluster.nodes:
                    self.cluster.lose_power(name)
                self.cut.set()

        return reached

    async def _recover(self) -> None:
        """Start all nodes, in an order of chance."""
        names = list(self.cluster.nodes)
        self.chance.shuffle(names)
        for name in names:
            await asyncio.sleep(self.chance.choice((0.0, 0.01, 0.3, 2.0)))
            self.cluster.start(name)

    def _count(self) -> None:
        for partition in self._partitions():
            log = partition.log
            self.outcome.rolls += max(0, len(log.compaction.bases) - 1)
            self.outcome.compactions += log.compaction.cleaned_end > 0

    # -- what is seen

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110  # virtual time
                await asyncio.sleep(PAUSE_S)

    async def _whole(self) -> None:
        """Wait until every replica is in the ISR of a leader."""
        await self._until(
            lambda: (
                self._all_unfenced()
                and all(len(self._state(topic).isr) == 3 for topic in TOPICS)
                and all(self._state(topic).leader >= 0 for topic in TOPICS)
            )
        )
        for topic in TOPICS:
            if self._state(topic).recovered_epoch != NEVER:
                raise Violation(f"{topic} had an election that may lose records")

    def _all_unfenced(self) -> bool:
        has_controller = any(
            isinstance(node.server, QuorumServer) and node.server.is_controller
            for node in self.cluster.voters
        )
        return has_controller and all(
            isinstance(node.server, BrokerServer) and not node.server.is_fenced
            for node in self.cluster.brokers
        )

    def _state(self, topic: str) -> PartitionImage:
        for node in self.cluster.voters:
            if isinstance(node.server, QuorumServer) and node.server.is_controller:
                found = node.server.image.topic_named(topic)
                assert found is not None
                return found.partitions[0]
        raise AssertionError("no voter leads")

    def _partitions(self) -> list[Partition]:
        return [
            partition
            for node in self.cluster.brokers
            if isinstance(node.server, BrokerServer)
            for partition in partitions_of(node.server)
        ]

    async def _read(self, topic: str) -> list[tuple[int, bytes]]:
        """Return (offset, value) of all that a consumer reads, in its order."""
        found: list[tuple[int, bytes]] = []

        async def read() -> None:
            async with Consumer(
                topic,
                bootstrap_servers=self.cluster.bootstrap_servers,
                auto_offset_reset="earliest",
            ) as consumer:
                while got := await consumer.getmany(timeout_ms=3_000):
                    for records in got.values():
                        found.extend((one.offset, one.value or b"") for one in records)

        await self.cluster.spawn_client(read)
        return found

    def _judge(self, topic: str, read: list[tuple[int, bytes]]) -> None:
        at = dict(read)
        for (of, offset), value in self.acked.items():
            if of == topic and at.get(offset) != value:
                raise Violation(
                    f"{topic}: {value!r} was acknowledged at {offset}, where"
                    f" {at.get(offset, b'nothing')!r} is read"
                )
        offsets = [offset for offset, _ in read]
        if offsets != sorted(set(offsets)):
            raise Violation(f"{topic}: offsets do not rise: {offsets}")
        twice = [value for value, count in Counter(value for _, value in read).items() if count > 1]
        if twice:
            raise Violation(f"{topic}: there twice: {twice}")
        for number in range(PRODUCERS):
            name = f"{topic}-{number} ".encode()
            sent = [int(value.removeprefix(name)) for _, value in read if value.startswith(name)]
            if sent != sorted(sent):
                raise Violation(f"{topic}: not in the order in which they were sent: {sent}")
