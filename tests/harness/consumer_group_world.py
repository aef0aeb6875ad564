"""Programs with the Consumer of the library in one group, under faults of chance, and their judge.

Every record must be read by some program (nothing is passed over), no two programs that live and
hear the coordinator may have one partition, and at the end all that was read is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

from quorate import Admin, Consumer, Producer, TopicPartition
from quorate.errors import NotEnoughReplicasError
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import Process, SimulatedLoop, current_process, simulate

PARTITIONS = 4
PROGRAMS, PROGRAMS_MAX = 3, 5
STEPS = 10
WRITE_PAUSE_S = 0.02
#: Longer than any fault keeps a partition from being read.
PATIENCE_S = 60.0


@dataclass
class Outcome:
    """What a seed did and met."""

    records: int = 0
    read_again: int = 0
    faults: list[str] = field(default_factory=list)


class Program:
    """One program: it reads, works on each record for a moment, and leaves when it is told."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.consumer: Consumer | None = None
        self.process: Process | None = None
        self.has = frozenset[TopicPartition]()
        #: It ended, or stood still: what it has may belong to another one.
        self.is_excused = False
        self.is_over = False
        self.leaves = asyncio.Event()

    def on_partitions_assigned(self, keys: list[TopicPartition]) -> None:
        self.has |= frozenset(keys)
        for other in self.world.programs:
            if other is not self and not self.is_excused and not other.is_excused:
                both = self.has & other.has
                assert not both, f"{self.name} and {other.name} have {sorted(both)}"

    async def on_partitions_revoked(self, keys: list[TopicPartition]) -> None:
        await asyncio.sleep(self.world.chance.random() * 0.05)
        self.has -= frozenset(keys)

    def on_partitions_lost(self, keys: list[TopicPartition]) -> None:
        self.has -= frozenset(keys)

    async def run(self, settings: dict[str, Any]) -> None:
        self.process = current_process()
        consumer = Consumer(group_id="g", auto_commit_interval_ms=200, **settings)
        consumer.subscribe(["t"], listener=self)
        async with consumer:
            self.consumer = consumer
            reading = asyncio.create_task(self._read(consumer))
            leaving = asyncio.create_task(self.leaves.wait())
            await asyncio.wait([reading, leaving], return_when=asyncio.FIRST_COMPLETED)
            assert not reading.done(), f"{self.name} stopped reading: {reading!r}"
            reading.cancel()
            await asyncio.wait([reading])
        self.is_over = self.is_excused = True

    async def _read(self, consumer: Consumer) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=200, max_records=7)).values():
                for record in records:
                    await asyncio.sleep(0.0005)
                    self.world.was_read(TopicPartition("t", record.partition), record.offset)


class World:
    """One seed."""

    def __init__(self, cluster: SimulatedCluster, admin: Admin, seed: int) -> None:
        self.chance = random.Random(seed)
        self.cluster = cluster
        self.admin = admin
        self.programs: list[Program] = []
        self.outcome = Outcome()
        self._policy = self.chance.choice(("earliest", "latest"))
        self._seen: dict[TopicPartition, set[int]] = {}
        self._partitions = PARTITIONS
        self._tasks: list[asyncio.Task[None]] = []

    def was_read(self, key: TopicPartition, offset: int) -> None:
        seen = self._seen.setdefault(key, set())
        self.outcome.read_again += offset in seen
        seen.add(offset)

    async def play(self) -> None:
        for _ in range(PROGRAMS):
            self._add()
        await self._until(self._all_assigned, "every partition has an owner")
        async with Producer(bootstrap_servers=self.cluster.bootstrap_servers) as producer:
            writing = asyncio.create_task(self._write(producer))
            for _ in range(STEPS):
                fault = self.chance.choice(FAULTS)
                self.outcome.faults.append(fault)
                await getattr(self, f"_{fault}")()
                await asyncio.sleep(self.chance.random() * 1.5)
            writing.cancel()
            await asyncio.wait([writing])
            await producer.flush()
        await asyncio.gather(*self._tasks)
        await self._judge()

    async def _write(self, producer: Producer) -> None:
        number = 0
        while True:
            await producer.send("t", b"%d" % number, partition=number % self._partitions)
            number += 1
            await asyncio.sleep(WRITE_PAUSE_S)

    def _all_assigned(self) -> bool:
        return sum(len(one.has) for one in self.programs) == PARTITIONS

    # -- faults ------------------------------------------------------------------------------------

    def _living(self) -> list[Program]:
        return [one for one in self.programs if not one.is_over]

    def _add(self) -> None:
        program = Program(self, f"program-{len(self.programs)}")
        settings: dict[str, Any] = {
            "bootstrap_servers": self.cluster.bootstrap_servers,
            "auto_offset_reset": self._policy,
            "session_timeout_ms": 6000,
        }
        if self.chance.random() < 0.2:
            settings["group_instance_id"] = program.name
        self.programs.append(program)
        self.cluster.spawn_client(lambda: program.run(settings), program.name)

    async def _join(self) -> None:
        if len(self._living()) < PROGRAMS_MAX:
            self._add()

    def _staying(self) -> list[Program]:
        """Return the programs that have not been told to leave. One of them stays to the end."""
        return [one for one in self._living() if not one.leaves.is_set()]

    async def _die(self) -> None:
        staying = self._staying()
        if len(staying) > 1:
            victim = self.chance.choice(staying)
            if victim.process is not None:
                victim.is_over = victim.is_excused = True
                victim.process.kill()

    async def _leave(self) -> None:
        staying = self._staying()
        if len(staying) > 1:
            self.chance.choice(staying).leaves.set()

    async def _hang(self) -> None:
        victim = self.chance.choice(self._living())
        process = victim.process
        if process is None or process.is_paused:
            return
        victim.is_excused = True
        process.pause()
        pause_s = self.chance.random() * 9

        async def resume() -> None:
            await asyncio.sleep(pause_s)
            process.resume()

        self._tasks.append(asyncio.create_task(resume()))

    async def _kill_broker(self) -> None:
        if all(node.is_running for node in self.cluster.brokers):
            name = self.chance.choice(self.cluster.brokers).name
            pause_s = 1 + self.chance.random() * 3
            self.cluster.kill(name)

            async def start() -> None:
                await asyncio.sleep(pause_s)
                self.cluster.start(name)

            self._tasks.append(asyncio.create_task(start()))

    async def _grow(self) -> None:
        if self._partitions < 2 * PARTITIONS:
            with contextlib.suppress(NotEnoughReplicasError):  # a broker is away just now
                await self.admin.create_partitions("t", self._partitions + 1)
                self._partitions += 1

    # -- the judge ---------------------------------------------------------------------------------

    async def _judge(self) -> None:
        keys = [TopicPartition("t", number) for number in range(self._partitions)]
        async with Consumer(bootstrap_servers=self.cluster.bootstrap_servers) as consumer:
            ends = await consumer.end_offsets(keys)
        self.outcome.records = sum(ends.values())
        await self._until(
            lambda: all(set(range(end)) <= self._seen.get(key, set()) for key, end in ends.items()),
            "every record is read",
        )
        for program in self._living():
            program.leaves.set()
        await self._until(lambda: not self._living(), "every program has left")
        committed = await self.admin.list_group_offsets("g")
        assert {key: value.offset for key, value in committed.items() if value.offset} == {
            key: end for key, end in ends.items() if end
        }

    async def _until(self, holds: Any, what: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while not holds():
            assert loop.time() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
            await asyncio.sleep(0.05)


FAULTS = ("join", "die", "leave", "hang", "kill_broker", "grow")


def run_consumers(seed: int) -> Outcome:
    """Play one seed, and judge it."""

    async def program(loop: SimulatedLoop) -> Outcome:
        cluster = SimulatedCluster(loop, ClusterShape())
        await cluster.format()
        cluster.start_all()

        async def play() -> Outcome:
            async with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
                unfenced = 0
                while unfenced < len(cluster.brokers):
                    found = await admin.describe_cluster()
                    unfenced = sum(not one.fenced for one in found.brokers)
                await admin.create_topic("t", PARTITIONS, 3)
                world = World(cluster, admin, seed)
                await world.play()
                return world.outcome

        outcome: Outcome = await cluster.spawn_client(play)
        return outcome

    return simulate(program, seed)
