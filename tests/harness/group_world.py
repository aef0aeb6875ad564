"""A simulated cluster with one consumer group, and faults of chance of its members and brokers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from quorate import Admin
from quorate.errors import NetworkError, QuorateError
from quorate.net.network import current_chance, current_network, current_wall_clock_ms
from quorate_broker.groups.partitioning import partition_of
from quorate_broker.server import BrokerServer
from quorate_testing.simulated.cluster import ClusterShape, SimulatedCluster
from quorate_testing.simulated.loop import Process, SimulatedLoop, simulate
from tests.harness.group_clients import GroupCalls, Key, Member
from tests.harness.group_history import GroupHistory
from tests.harness.invariants import Violation, partitions_of

GROUP = "g"
OFFSETS = "__consumer_offsets"
MEMBERS_MAX = 5
TOPICS_MAX = 4
#: How long faults happen, and the longest time that the group then takes to be whole again.
FAULTS_S = 25.0
QUIET_S = 40.0


class Reader(Member):
    """A member that commits what it "reads": each commit is one more than the last one.

    A partition that it must give back it keeps for a while, and commits once more meanwhile.
    """

    def __init__(
        self, world: GroupWorld, calls: GroupCalls, member_id: str, topics: list[str]
    ) -> None:
        super().__init__(calls, member_id, topics)
        self._world = world
        self._positions: dict[Key, int] = {}
        self._wanted: frozenset[Key] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Two commits at a time could arrive in the other order.
        self._committing = asyncio.Lock()

    def assigned(self, wanted: frozenset[Key]) -> None:
        """Take at once what is new, and give the rest back after a while."""
        self._wanted = wanted
        for key in sorted(wanted - self.owned):
            self._world.history.claimed(key, self.member_id, self._world.now)
            self._spawn(self._begin(key))
        given_back = self.owned - wanted
        self.owned |= wanted
        if given_back:
            self._spawn(self._give_back(sorted(given_back)))

    def lost(self) -> None:
        """Drop everything: the group has removed this member."""
        for key in self.owned:
            self._world.history.released(key, self.member_id, self._world.now)
        self._positions.clear()
        self.owned = self._wanted = frozenset()

    async def commit_for_ever(self) -> None:
        """Commit now and then, all that this member has."""
        while True:
            await asyncio.sleep(self._world.chance.uniform(0.05, 0.4))
            await self._commit(sorted(self._positions))

    async def _give_back(self, keys: list[Key]) -> None:
        await asyncio.sleep(self._world.chance.choice([0, 0.05, 0.3]))
        await self._commit([key for key in keys if key in self._positions])
        for key in keys:
            if key in self._wanted or key not in self.owned:
                continue
            self._positions.pop(key, None)
            self.owned -= {key}
            self._world.history.released(key, self.member_id, self._world.now)
        self.send_soon()

    async def _begin(self, key: Key) -> None:
        history = self._world.history
        acked = history.acked_before(key)
        epoch = self.epoch
        offset = (await self.calls.committed()).get(key, -1)
        history.read(key, offset, acked)
        if key in self._wanted and epoch == self.epoch:
            self._positions[key] = offset

    async def _commit(self, keys: list[Key]) -> None:
        async with self._committing:
            await self._commit_now(keys)

    async def _commit_now(self, keys: list[Key]) -> None:
        history, now = self._world.history, self._world.now
        offsets = {key: self._positions[key] + 1 for key in keys if key in self._positions}
        if not offsets:
            return
        for key, offset in offsets.items():
            self._positions[key] = offset
            history.sent(key, offset)
        is_fatal = self._world.commit_begins()
        try:
            refused = await self.calls.commit_once(
                offsets, member_id=self.member_id, member_epoch=self.epoch
            )
        except QuorateError as error:
            self._world.floors[type(error).__name__] += 1
            return
        for key, offset in offsets.items():
            if key not in refused:
                history.acknowledged(key, offset, self.member_id, sent_at=now, now=self._world.now)
        if is_fatal:
            await self._read_back(sorted(offsets))

    async def _read_back(self, keys: list[Key]) -> None:
        """Read what was committed, before another commit hides it."""
        acked = {key: self._world.history.acked_before(key) for key in keys}
        await asyncio.sleep(0.02)  # the coordinator is dead by now
        found = await self.calls.committed()
        for key in keys:
            self._world.history.read(key, found.get(key, -1), acked[key])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except NetworkError:
            pass
        except QuorateError as error:
            self._world.floors[type(error).__name__] += 1
        except Violation as error:
            self._world.violation = self._world.violation or error

    async def live(self) -> None:
        """Be a member until it leaves. Anything that happens is the world's business."""
        committing = asyncio.create_task(self._guarded(self.commit_for_ever()))
        try:
            while not self.has_left:
                try:
                    await self.run()
                except QuorateError:
                    await asyncio.sleep(0.1)
        finally:
            committing.cancel()
            self.lost()


@dataclass(slots=True, eq=False)
class Living:
    """A member and its process."""

    reader: Reader
    process: Process
    is_paused: bool = False


@dataclass(slots=True)
class Outcome:
    """What a seed did."""

    seed: int
    floors: Counter[str] = field(default_factory=Counter)


class GroupWorld:
    """The cluster, the members, the faults."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.history = GroupHistory()
        self.floors = self.history.floors
        self.violation: Violation | None = None
        self.cluster = SimulatedCluster(
            loop,
            ClusterShape(
                voters=1,
                broker_settings={
                    "group_consumer_heartbeat_interval_ms": 1000,
                    "group_consumer_session_timeout_ms": 6000,
                },
            ),
        )
        self.members: list[Living] = []
        self.topics: dict[str, int] = {}
        #: Whether the coordinator dies with the next commit under way.
        self.kills_amid = False
        self._made = self._born = 0

    @property
    def now(self) -> float:
        return self.loop.time()

    async def play(self) -> None:
        await self.cluster.format()
        self.cluster.start_all()
        await self.cluster.spawn_client(self._play)

    async def _play(self) -> None:
        servers = self.cluster.bootstrap_servers
        async with Admin(bootstrap_servers=servers, request_timeout_ms=10_000) as self.admin:
            unfenced = 0
            while unfenced < 3:
                found = await self.admin.describe_cluster()
                unfenced = sum(not one.fenced for one in found.brokers)
            for _ in range(2):
                await self.make_topic()
            for _ in range(2):
                await self.join()
            end = self.now + FAULTS_S
            while self.now < end:
                await asyncio.sleep(self.chance.uniform(0.1, 1.5))
                await self.chance.choice(FAULTS)(self)
                self._check()
            await self._become_quiet()

    def _check(self) -> None:
        if self.violation is not None:
            raise self.violation

    # -- what happens

    async def make_topic(self) -> None:
        if len(self.topics) >= TOPICS_MAX:
            return
        self._made += 1
        name, partitions = f"t{self._made}", self.chance.randint(1, 4)
        if await self._asked(self.admin.create_topic(name, partitions, 3)):
            self.topics[name] = partitions
            self.floors["topics made"] += 1

    async def grow_topic(self) -> None:
        if not self.topics:
            return
        name = self.chance.choice(sorted(self.topics))
        partitions = self.topics[name] + self.chance.randint(1, 2)
        if await self._asked(self.admin.create_partitions(name, partitions)):
            self.topics[name] = partitions
            self.floors["topics grown"] += 1

    async def delete_topic(self) -> None:
        if len(self.topics) <= 1:
            return
        name = self.chance.choice(sorted(self.topics))
        try:
            described = await self.admin.describe_topics([name])
        except QuorateError:
            return
        self.history.deleted.add(bytes.fromhex(described[name].topic_id))
        if await self._asked(self.admin.delete_topics([name])):
            self.floors["topics deleted"] += 1
        del self.topics[name]

    async def _asked(self, work: Coroutine[Any, Any, object]) -> bool:
        try:
            await work
        except QuorateError:
            self.floors["admin calls that failed"] += 1
            return False
        return True

    async def join(self) -> None:
        if len(self.members) >= MEMBERS_MAX:
            return
        self._born += 1
        name = f"m{self._born}"
        process = self.cluster.loop.process(name)
        network = self.cluster.network.host(name)
        chance = random.Random(self.chance.getrandbits(64))
        calls = GroupCalls(self.cluster.bootstrap_servers, GROUP)
        reader = Reader(self, calls, name, [])
        reader.pattern = "t.*"

        async def run() -> None:
            current_network.set(network)
            current_chance.set(chance)
            current_wall_clock_ms.set(process.wall_clock_ms)
            await reader.live()

        process.spawn(run(), name=name)
        self.members.append(Living(reader, process))
        self.floors["joins"] += 1

    async def leave(self) -> None:
        awake = [one for one in self.members if not one.is_paused]
        if len(awake) > 1:
            one = self.chance.choice(awake)
            self.members.remove(one)
            one.reader.leave()
            self.floors["leaves"] += 1

    async def kill_member(self) -> None:
        if len(self.members) > 1:
            one = self.members.pop(self.chance.randrange(len(self.members)))
            one.process.kill()
            one.reader.lost()
            self.floors["members killed"] += 1

    async def pause_member(self) -> None:
        awake = [one for one in self.members if not one.is_paused]
        if len(awake) > 1:
            one = self.chance.choice(awake)
            one.is_paused = True
            one.process.pause()
            self.floors["members paused"] += 1

    async def resume_member(self) -> None:
        for one in self.members:
            if one.is_paused:
                one.is_paused = False
                one.process.resume()

    async def subscribe_anew(self) -> None:
        if self.members:
            one = self.chance.choice(self.members)
            one.reader.subscribe(self.chance.choice(["t.*", "t.*", "t[0-9]*[02468]"]))
            self.floors["subscriptions changed"] += 1

    async def break_streams(self) -> None:
        names = [one.reader.member_id for one in self.members]
        brokers = [node.name for node in self.cluster.brokers]
        self.cluster.network.break_streams([self.chance.choice(names)], brokers)
        self.floors["streams broken"] += 1

    async def kill_broker(self) -> None:
        """Kill a broker, most often the coordinator, if all are there."""
        if not all(node.is_running for node in self.cluster.brokers):
            return
        name = self.coordinator() if self.chance.random() < 0.7 else None
        name = name or self.chance.choice([node.name for node in self.cluster.brokers])
        self.cluster.kill(name)
        self.floors["brokers killed"] += 1

    async def kill_amid_a_commit(self) -> None:
        self.kills_amid = all(node.is_running for node in self.cluster.brokers)

    def commit_begins(self) -> bool:
        """Let the coordinator die while this commit is under way, if it is time."""
        name = self.coordinator() if self.kills_amid else None
        if name is not None:
            self.kills_amid = False
            self.loop.call_later(self.chance.uniform(0, 0.01), self.cluster.kill, name)
            self.floors["brokers killed amid a commit"] += 1
        return name is not None

    async def start_broker(self) -> None:
        self.cluster.start_all()

    async def stop_broker(self) -> None:
        if all(node.is_running for node in self.cluster.brokers):
            await self.cluster.stop(self.coordinator() or "broker-0")
            self.floors["brokers stopped"] += 1

    def coordinator(self) -> str | None:
        for node in self.cluster.brokers:
            if isinstance(node.server, BrokerServer):
                for one in partitions_of(node.server):
                    if one.name == f"{OFFSETS}-{partition_of(GROUP, 16)}" and one.is_leader:
                        return node.name
        return None

    # -- the end

    async def _become_quiet(self) -> None:
        """End all faults. Then every partition has one owner, and what was committed is read."""
        self.kills_amid = False
        await asyncio.sleep(0.1)
        self.cluster.start_all()
        await self.resume_member()
        for one in self.members:
            one.reader.subscribe("t.*")
        if not self.members:
            await self.join()
        end = self.now + QUIET_S
        wrong = "nothing was looked at"
        while wrong:
            if self.now > end:
                raise Violation(f"the group is not whole {QUIET_S} s after the last fault: {wrong}")
            await asyncio.sleep(0.25)
            self._check()
            wrong = await self._wrong()
        acked = {key: self.history.acked_before(key) for key in self.history.claims}
        found = await GroupCalls(self.cluster.bootstrap_servers, GROUP).committed()
        keys = await self._keys()
        for key in keys:
            self.history.read(key, found.get(key, -1), acked.get(key, -1))
        gone = sorted(key for key in found if key not in keys)
        if gone:
            raise Violation(f"offsets of deleted topics are kept: {gone}")

    async def _keys(self) -> set[Key]:
        described = await self.admin.describe_topics()
        return {
            (bytes.fromhex(one.topic_id), partition.partition)
            for name, one in described.items()
            if not one.internal
            for partition in one.partitions
        }

    async def _wrong(self) -> str:
        """Return what is not as it should be yet; empty: all is."""
        keys = await self._keys()
        living = {one.reader.member_id for one in self.members}
        for key in sorted(keys):
            owners = [one for one in self.history.owners(key) if one in living]
            if len(owners) != 1:
                return f"{key[0].hex()[:8]}-{key[1]} has the owners {owners}"
        for one in self.members:
            if not one.reader.owned <= keys:
                return f"{one.reader.member_id} has partitions of deleted topics"
        return ""


FAULTS: list[Callable[[GroupWorld], Coroutine[Any, Any, None]]] = [
    GroupWorld.make_topic,
    GroupWorld.grow_topic,
    GroupWorld.delete_topic,
    GroupWorld.join,
    GroupWorld.join,
    GroupWorld.leave,
    GroupWorld.kill_member,
    GroupWorld.pause_member,
    GroupWorld.resume_member,
    GroupWorld.resume_member,
    GroupWorld.subscribe_anew,
    GroupWorld.break_streams,
    GroupWorld.kill_broker,
    GroupWorld.kill_amid_a_commit,
    GroupWorld.kill_amid_a_commit,
    GroupWorld.start_broker,
    GroupWorld.start_broker,
    GroupWorld.stop_broker,
]


def run_group(seed: int) -> Outcome:
    """Play one seed. Raises Violation if a rule does not hold."""

    async def program(loop: SimulatedLoop) -> Counter[str]:
        world = GroupWorld(loop, seed)
        await world.play()
        return world.floors

    return Outcome(seed, simulate(program, seed, time_max_s=300))
