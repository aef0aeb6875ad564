"""A campaign of flipped bits on brokers' disks: many partitions, and in each round a flip in each.

A flip hits one of the three replicas of its partition, the leader's or a follower's, in any of its
files. It happens while the broker runs, or while it is stopped, cleanly or by a kill. After it a
consumer reads everything, while the cluster heals itself. What is judged:

* The consumer reads no record that is not the one that was acknowledged at this offset.
* Nothing that was acknowledged is lost.
* Every flip in a log is told in the log of a broker, and is gone in the end: all three replicas
  hold good batches with the acknowledged records. One exception: a pass of compaction that was
  under way had read the byte before the flip, and replaced the segment. No pass reads it after the
  flip without telling of it.
* Every flip in another file is gone in the end, or harmless: see `_is_left_to_a_start`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from unittest.mock import patch

import structlog

from quorate import Admin, Consumer, Producer
from quorate.errors import CorruptRecordError, QuorateError
from quorate.model import AnyRecord
from quorate.record.batch import check, records, split
from quorate_broker.compaction.cleaning import Cleaning
from quorate_broker.compaction.job import Report
from quorate_broker.replicas import scrubber
from quorate_broker.server import BrokerServer
from quorate_quorum.disk import File
from quorate_quorum.log.replacement import SWAP
from quorate_quorum.log.segment import CHECKSUM, LOG
from quorate_quorum.metadata.topics import TopicImage
from quorate_quorum.server import QuorumServer
from quorate_testing.simulated.cluster import DATA, ClusterShape, SimulatedCluster, SimulatedNode
from quorate_testing.simulated.disk import SimulatedFile
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.harness.invariants import Violation
from tests.harness.world import logs

TOPIC: Final = "t"
PARTITIONS: Final = 40
ROUNDS: Final = 6
#: Records of each partition before the first flip, and in each round.
FIRST_RECORDS, ROUND_RECORDS = 60, 6
KEYS: Final = 7
#: Time in which all flips of a round must be healed.
HEALING_S: Final = 400.0

CarryOut = Callable[[Cleaning], AsyncGenerator[Report, None]]
Read = Callable[[Cleaning, File, int, int], Awaitable[bytes]]

#: The kinds of files: their names' endings, and how often one is hit if it exists.
KINDS: Final[dict[str, tuple[str, int]]] = {
    "log": (LOG, 8),
    "index": (".index", 2),
    "time index": (".timeindex", 2),
    "checksum": (CHECKSUM, 2),
    "snapshot": (".snapshot", 2),
    "epochs": ("leader-epoch-checkpoint", 2),
    "synced": ("synced", 1),
    "high watermark": ("high-watermark", 1),
    "log start": ("log-start", 1),
    "cleaned": ("cleaned", 1),
    "owner": ("partition.metadata", 1),
}
#: Events that tell of damage in a log.
TOLD: Final = frozenset(
    {
        "replica_damaged",
        "replica offline",
        "replica_lossy",
        "replica did not open",
        "replica_salvaged",
        "log cut at open",
    }
)
#: Bytes of a batch that its CRC does not cover.
STAMPED: Final = 16


@dataclass(frozen=True, slots=True)
class Flip:
    """One flipped bit."""

    kind: str
    partition: int
    node: SimulatedNode
    path: str
    position: int
    value: int
    is_leader: bool
    #: The file with the flipped bit.
    content: bytes
    #: Whether a pass of compaction that was under way had read the byte before the flip.
    was_read: bool

    @property
    def is_there(self) -> bool:
        """Whether the changed byte is still on the disk."""
        if self.path not in dict(self.node.disk.files()):
            return False
        content = self.node.disk.content(self.path)
        return self.position < len(content) and content[self.position] == self.value


class Passes:
    """What compactions read of logs: by node's disk and path, by pass, the ranges of bytes."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[int, str], dict[int, list[tuple[int, int]]]] = {}
        self._flips: list[Flip] = []
        #: Flips whose byte a pass has read after the flip.
        self.met: list[Flip] = []

    def flipped(self, flips: Sequence[Flip]) -> None:
        """Look out for reads of these flips, and for those of no others."""
        self._flips, self.met = list(flips), []

    def had_read(self, node: SimulatedNode, path: str, position: int) -> bool:
        """Return whether a pass that is under way has read the byte at this position."""
        ranges = self._under_way.get((id(node.disk), path), {}).values()
        return any(start <= position < stop for one in ranges for start, stop in one)

    def carried_out(self, original: CarryOut) -> CarryOut:
        """Return Cleaning.carry_out, which now also forgets the reads of a pass that has ended."""

        async def carry_out(cleaning: Cleaning) -> AsyncGenerator[Report, None]:
            try:
                async with aclosing(original(cleaning)) as reports:
                    async for report in reports:
                        yield report
            finally:
                for passes in self._under_way.values():
                    passes.pop(id(cleaning), None)

        return carry_out

    def read(self, original: Read) -> Read:
        """Return Cleaning._read, which now also notes what it has read."""

        async def read(cleaning: Cleaning, file: File, position: int, size: int) -> bytes:
            found = await original(cleaning, file, position, size)
            assert isinstance(file, SimulatedFile)
            disk, path = id(cleaning._disk), file.path
            passes = self._under_way.setdefault((disk, path), {})
            passes.setdefault(id(cleaning), []).append((position, position + len(found)))
            for flip in self._flips:
                at = flip.position - position
                is_met = (id(flip.node.disk), flip.path) == (disk, path) and 0 <= at < len(found)
                # Another file under the same name is the one that has replaced it.
                if is_met and found == flip.content[position : position + len(found)]:
                    self.met.append(flip)
            return found

        return read


@dataclass(slots=True)
class Outcome:
    """The counts of one world."""

    seed: int
    counters: Counter[str] = field(default_factory=Counter)
    failure: str = ""


def run_world(seed: int, *, rounds: int = ROUNDS, partitions: int = PARTITIONS) -> Outcome:
    """Run one world. Raise Violation if a rule does not hold."""
    outcome = Outcome(seed)
    passes = Passes()

    async def program(loop: SimulatedLoop) -> None:
        world = _World(loop, seed, partitions, outcome.counters, passes)
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            processors=[partial(_collect, world.told)],
        )
        await world.run(rounds)

    with (
        logs(verbose=False),
        patch.object(scrubber, "PASS_MIN_S", 2.0),
        patch.object(Cleaning, "carry_out", passes.carried_out(Cleaning.carry_out)),
        patch.object(Cleaning, "_read", passes.read(Cleaning._read)),
    ):
        simulate(program, seed)
    return outcome


class _World:
    """A cluster of three brokers, and what was acknowledged."""

    def __init__(
        self,
        loop: SimulatedLoop,
        seed: int,
        partitions: int,
        counters: Counter[str],
        passes: Passes,
    ) -> None:
        self.passes = passes
        self.loop = loop
        self.chance = random.Random(f"flips {seed}")
        self.compacts = seed % 3 == 2
        self.partitions = partitions
        self.counters = counters
        #: (partition, offset) -> value of each acknowledged record.
        self.acked: dict[tuple[int, int], bytes] = {}
        #: Partition -> key -> offset of the last acknowledged record.
        self.last: dict[int, dict[bytes, int]] = {}
        #: Names of partitions in log lines that tell of damage.
        self.told: set[str] = set()
        settings = {
            "log_retention_check_interval_ms": 1000,
            "log_cleaner_backoff_ms": 1000,
            "log_scrub_bytes_per_second": 16 << 20,
        }
        self.cluster = SimulatedCluster(loop, ClusterShape(broker_settings=settings))
        self._sent = 0

    async def run(self, rounds: int) -> None:
        await self.cluster.format()
        self.cluster.start_all()
        await self._until(self._all_unfenced, "all brokers are unfenced")
        await self.cluster.spawn_client(self._create)
        await self.cluster.spawn_client(partial(self._produce, FIRST_RECORDS))
        for _ in range(rounds):
            await self._round()

    async def _round(self) -> None:
        """Flip a bit in each partition, read everything, and wait until all is healed."""
        await self.cluster.spawn_client(partial(self._produce, ROUND_RECORDS))
        await self._until(self._is_whole, "all replicas are in sync")
        await asyncio.sleep(self.chance.uniform(0, 5))
        self.told.clear()
        mode = self.chance.choice(("running", "running", "stopped", "killed"))
        flips = await self._flip_all(mode)
        for flip in flips:
            where = "leader" if flip.is_leader else "follower"
            self.counters[f"flips: {flip.kind}"] += 1
            self.counters[f"flips while {mode}, {where}"] += 1
        self.counters["flips"] += len(flips)
        await self.cluster.spawn_client(self._read)
        await self._until(lambda: self._is_healed(flips), "all flips are healed", HEALING_S)
        self._check_told(flips)
        await self._until(self._is_still, "no compaction is putting segments in place")
        self._check_disks()
        self._count_left(flips)

    # what is done

    async def _create(self) -> None:
        configs: dict[str, str | int | float | bool] = {"segment.ms": 4000}
        if self.compacts:
            configs |= {
                "cleanup.policy": "compact",
                "min.cleanable.dirty.ratio": 0.01,
                "max.compaction.lag.ms": 3000,
                "delete.retention.ms": 1_000_000,
            }
        async with Admin(bootstrap_servers=self.cluster.bootstrap_servers) as admin:
            await admin.create_topic(TOPIC, self.partitions, 3, configs)

    async def _produce(self, count: int) -> None:
        """Send records, some in batches of several, to every partition."""
        async with Producer(
            bootstrap_servers=self.cluster.bootstrap_servers, delivery_timeout_ms=120_000
        ) as producer:
            left = count
            while left > 0:
                batch = min(self.chance.choice((1, 1, 2, 5)), left)
                left -= batch
                sent = []
                for number in range(self.partitions):
                    for _ in range(batch):
                        key = b"key %d" % self.chance.randrange(KEYS)
                        value = b"%d " % self._sent + self.chance.randbytes(200)
                        self._sent += 1
                        delivery = await producer.send(TOPIC, value, key=key, partition=number)
                        sent.append((number, key, value, delivery))
                for number, key, value, delivery in sent:
                    offset = (await delivery).offset
                    self.acked[number, offset] = value
                    self.last.setdefault(number, {})[key] = offset

    async def _flip_all(self, mode: str) -> list[Flip]:
        nodes = self.cluster.brokers
        if mode == "running":
            found = [self._flip(number, self.chance.choice(nodes)) for number in self._numbers()]
            return self._flipped(found)
        node = self.chance.choice(nodes)
        leaders = self._leaders()
        if mode == "stopped":
            await self.cluster.stop(node.name)
        else:
            self.cluster.kill(node.name)
        found = [self._flip(number, node, leaders) for number in self._numbers()]
        flips = self._flipped(found)
        await asyncio.sleep(self.chance.choice((0.0, 1.0)))
        self.cluster.start(node.name)
        return flips

    def _flipped(self, found: Sequence[Flip | None]) -> list[Flip]:
        flips = [one for one in found if one is not None]
        self.passes.flipped(flips)
        return flips

    def _flip(
        self, number: int, node: SimulatedNode, leaders: dict[int, int] | None = None
    ) -> Flip | None:
        """Flip a bit in a file of one replica; None if chance found nothing to flip."""
        files = self._files(node, number)
        kinds = [
            kind for kind, (ending, _) in KINDS.items() if any(p.endswith(ending) for p in files)
        ]
        kind = self.chance.choices(kinds, [KINDS[kind][1] for kind in kinds])[0]
        path = self.chance.choice([one for one in files if one.endswith(KINDS[kind][0])])
        content = node.disk.content(path)
        position = self._position(kind, content)
        has_witness = not self.compacts or path.removesuffix(LOG) + CHECKSUM in files
        if kind == "log" and not has_witness and _is_stamped(content, position):
            self.counters["not flipped: an offset that has no witness yet"] += 1
            return None
        node.disk.flip_bit(path, position, self.chance.randrange(8))
        is_leader = (leaders or self._leaders())[number] == node.node_id
        flipped = node.disk.content(path)
        was_read = self.passes.had_read(node, path, position)
        return Flip(
            kind, number, node, path, position, flipped[position], is_leader, flipped, was_read
        )

    def _position(self, kind: str, content: bytes) -> int:
        """Return any position; in a log, in a third of the cases one of a batch's first bytes."""
        if kind == "log" and self.chance.random() < 1 / 3:
            starts = [0]
            for header, _ in split(content):
                starts.append(starts[-1] + header.size)
            return self.chance.choice(starts[:-1]) + self.chance.randrange(STAMPED)
        return self.chance.randrange(len(content))

    async def _read(self) -> None:
        """Read everything, while the cluster heals. Count the errors; a wrong record is the end."""
        missing = set(self.acked)
        if self.compacts:
            missing = {(number, max(keys.values())) for number, keys in self.last.items()}
        async with (
            asyncio.timeout(HEALING_S),
            Consumer(
                TOPIC,
                bootstrap_servers=self.cluster.bootstrap_servers,
                auto_offset_reset="earliest",
            ) as consumer,
        ):
            while missing:
                try:
                    got = await consumer.getmany(timeout_ms=1000)
                except CorruptRecordError:
                    self.counters["typed errors that consumers got"] += 1
                    await asyncio.sleep(0.1)
                    continue
                except QuorateError as error:
                    raise Violation(f"a consumer got {error!r}") from error
                for batch in got.values():
                    for record in batch:
                        self._check_record(record)
                        missing.discard((record.partition, record.offset))

    def _check_record(self, record: AnyRecord) -> None:
        self.counters["records read"] += 1
        place = record.partition, record.offset
        if self.acked.get(place) != record.value:
            raise Violation(
                f"wrong record at {place}: {record.value!r}, not {self.acked.get(place)!r}"
            )

    # what is judged

    def _is_healed(self, flips: list[Flip]) -> bool:
        """Whether all replicas are in sync, and hold good batches alone."""
        if not self._is_whole():
            return False
        hurt = {flip.partition for flip in flips if flip.kind == "log"}
        if any(flip.is_there for flip in flips if not self._is_left_to_a_start(flip)):
            return False
        return all(
            self._fault_of(node, number) is None for number in hurt for node in self.cluster.brokers
        )

    def _is_still(self) -> bool:
        """Whether no replica has segments of a compaction beside the ones that they replace.

        Until they are renamed, the records are in files of both kinds.
        """
        return not any(
            path.endswith(SWAP)
            for number in self._numbers()
            for node in self.cluster.brokers
            for path in self._files(node, number)
        )

    def _check_told(self, flips: list[Flip]) -> None:
        for flip in flips:
            if flip.kind != "log" or f"{TOPIC}-{flip.partition}" in self.told:
                continue
            where = f"{flip.node.name}, {flip.path}, byte {flip.position}"
            if flip in self.passes.met:
                raise Violation(f"a compaction read the flip and told nothing: {where}")
            if flip.is_there or not flip.was_read:
                raise Violation(f"nothing was told of the flip in {where}")
            self.counters["flips in a segment that a compaction replaced, and nothing read"] += 1

    def _check_disks(self) -> None:
        """Look into all logs of all replicas: only what was acknowledged, and all of it."""
        for number in self._numbers():
            epochs: dict[int, int] = {}
            for node in self.cluster.brokers:
                fault = self._fault_of(node, number)
                if fault is not None:
                    raise Violation(f"{node.name}, partition {number}: {fault}")
                for path in (one for one in self._files(node, number) if one.endswith(LOG)):
                    for header, _ in split(node.disk.content(path)):
                        known = epochs.setdefault(header.last_offset, header.leader_epoch)
                        if known != header.leader_epoch:
                            raise Violation(f"{node.name}, partition {number}: epochs differ")

    def _fault_of(self, node: SimulatedNode, number: int) -> str | None:
        """Return what is wrong with the log of a replica; None if nothing is."""
        found: dict[int, bytes] = {}
        try:
            for path in sorted(p for p in self._files(node, number) if p.endswith(LOG)):
                for header, batch in split(node.disk.content(path)):
                    check(batch, header)
                    found.update((one.offset, one.value or b"") for one in records(batch, header))
        except CorruptRecordError as error:
            return str(error)
        wrong = [offset for offset, value in found.items() if self.acked[number, offset] != value]
        if wrong:
            return f"other records at {wrong}"
        wanted = (
            set(self.last[number].values())
            if self.compacts
            else {offset for partition, offset in self.acked if partition == number}
        )
        return None if wanted <= found.keys() else f"{sorted(wanted - found.keys())} are missing"

    def _is_left_to_a_start(self, flip: Flip) -> bool:
        """Whether a flip is harmless while the broker runs, so that only a start must cope with it.

        The owner's file is read at a start alone. The index of an active segment on the disk is an
        old one, and is written when the segment is closed. A slot has bytes without a meaning.
        """
        if flip.kind in ("synced", "high watermark", "log start", "cleaned", "owner"):
            return True
        names = [p for p in self._files(flip.node, flip.partition) if p.endswith(LOG)]
        is_active = bool(names) and flip.path.startswith(max(names).removesuffix(LOG))
        return flip.kind in ("index", "time index") and is_active

    def _count_left(self, flips: list[Flip]) -> None:
        for flip in flips:
            self.counters["flips that are gone"] += not flip.is_there
            if flip.is_there:
                self.counters[f"flips left, harmless: {flip.kind}"] += 1

    # the cluster

    def _numbers(self) -> range:
        return range(self.partitions)

    def _files(self, node: SimulatedNode, number: int) -> list[str]:
        """Return the files of a replica that are not empty."""
        directory = f"{DATA}/{TOPIC}-{number}"
        names = node.disk.names(directory)
        paths = [f"{directory}/{name}" for name in names]
        return [path for path in paths if node.disk.content(path)]

    def _all_unfenced(self) -> bool:
        return all(
            isinstance(node.server, BrokerServer) and not node.server.is_fenced
            for node in self.cluster.brokers
        )

    def _is_whole(self) -> bool:
        topic = self._topic()
        return (
            topic is not None
            and self._all_unfenced()
            and all(len(one.isr) == 3 for one in topic.partitions)
        )

    def _leaders(self) -> dict[int, int]:
        topic = self._topic()
        assert topic is not None
        return {number: one.leader for number, one in enumerate(topic.partitions)}

    def _topic(self) -> TopicImage | None:
        for node in self.cluster.voters:
            if isinstance(node.server, QuorumServer) and node.server.is_controller:
                return node.server.image.topic_named(TOPIC)
        return None

    async def _until(
        self, condition: Callable[[], bool], what: str, within_s: float = 60.0
    ) -> None:
        until_s = self.loop.time() + within_s
        while not condition():
            if self.loop.time() > until_s:
                raise Violation(f"not within {within_s} s: {what}")
            await asyncio.sleep(0.5)


def _is_stamped(content: bytes, position: int) -> bool:
    """Return whether a byte belongs to base_offset, batch_length or leader_epoch of a batch."""
    start = 0
    for header, _ in split(content):
        if position < start + STAMPED:
            return position >= start
        start += header.size
    return False


def _collect(told: set[str], _: Any, __: str, event: MutableMapping[str, Any]) -> Any:
    if event["event"] in TOLD:
        where = event.get("partition") or event.get("directory", "")
        told.add(where.rpartition("/")[2])
    raise structlog.DropEvent
