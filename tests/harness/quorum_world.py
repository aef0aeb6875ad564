"""Voters in a simulated world, and the invariants of Raft, checked after every event.

A `Voter` is one machine with its disk; its node is a process that dies and starts again. The
invariants are those of the Raft paper, figure 3, and what a cluster needs besides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quorate.errors import NotControllerError, OverloadedError
from quorate.record import batch as record_batch
from quorate_quorum.log.events import decode_events
from quorate_quorum.log.identity import Identity, read_identity
from quorate_quorum.log.log import LogConfig
from quorate_quorum.metadata_log import open_metadata_log
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.node.environment import Environment
from quorate_quorum.raft.driver.bootstrap import format_voter, metadata_directory
from quorate_quorum.raft.driver.node import RaftNode
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.voters import Voter
from quorate_quorum.v1.events_pb2 import Config, MetadataEvent
from quorate_testing.simulated.disk import SimulatedDisk
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.simulated.network import SimulatedNetwork

CLUSTER = "simulated"


class Watched(RaftNode):
    """A node that calls `looked` after every change of its machine."""

    def __init__(self, *args: object, looked: Callable[[], None], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        advance = self.loop.advance

        def advanced(change: Callable[[], object]) -> None:
            advance(change)
            looked()

        self.loop.advance = advanced  # type: ignore[method-assign]


@dataclass
class History:
    """The history of the whole run: what it says may not be contradicted."""

    #: epoch -> the voter that led in it.
    leaders: dict[int, int] = field(default_factory=dict)
    #: (voter, epoch) -> the number of the run of the voter's process that led in it.
    reigns: dict[tuple[int, int], int] = field(default_factory=dict)
    #: base offset -> batch, for all that any voter held as committed.
    committed: dict[int, bytes] = field(default_factory=dict)
    committed_end: int = 0
    #: Event name -> offset, for all that was acknowledged to clients.
    acknowledged: dict[str, int] = field(default_factory=dict)

    def saw_leader(self, voter: int, epoch: int, run: int) -> None:
        assert self.leaders.setdefault(epoch, voter) == voter, f"two leaders in epoch {epoch}"
        first = self.reigns.setdefault((voter, epoch), run)
        assert first == run, f"voter {voter} leads twice in epoch {epoch}"

    def saw_committed(self, batch: bytes) -> None:
        header = record_batch.parse_header(batch)
        known = self.committed.setdefault(header.base_offset, batch)
        assert known == batch, f"two committed batches at {header.base_offset}"
        self.committed_end = max(self.committed_end, header.end_offset)


class Applied:
    """The listener of one run of a voter: checks the order of what it is given."""

    def __init__(self, voter: SimulatedVoter) -> None:
        self.voter = voter
        self.next_offset = 0
        self.reign: int | None = None
        self.handed_over = False

    def committed(self, batches: Sequence[bytes], high_watermark: int) -> None:
        for batch in batches:
            header = record_batch.parse_header(batch)
            assert header.base_offset == self.next_offset, "every batch once, in order"
            self.next_offset = header.end_offset
            assert self.next_offset <= high_watermark
            self.voter.world.history.saw_committed(batch)

    def snapshot_part(self, batches: bytes) -> None:
        """Ignore the content."""

    def snapshot_end(self, offset: int, epoch: int) -> None:
        assert offset > self.next_offset, "a snapshot leads on"
        self.next_offset = offset

    def became_leader(self, epoch: int, handed_over_for_silence: bool) -> None:
        assert self.reign is None
        self.reign, self.handed_over = epoch, handed_over_for_silence

    def lost_leadership(self, epoch: int) -> None:
        assert self.reign == epoch
        self.reign = None

    def leader_known(self, leader_id: int, epoch: int, endpoint: str) -> None:
        assert leader_id == -1 or endpoint


class SimulatedVoter:
    """A machine with one disk."""

    def __init__(self, world: QuorumWorld, voter_id: int) -> None:
        self.world = world
        self.id = voter_id
        self.name = f"voter{voter_id}"
        self.disk = SimulatedDisk(
            random.Random(world.chance.getrandbits(64)), latency_max=world.disk_latency_s
        )
        self.voter = Voter(voter_id, bytes([voter_id]) * 16, f"{self.name}:7093")
        self.log_dir = f"/{self.name}"
        self.process: Process | None = None
        self.node: Watched | None = None
        self.applied: Applied | None = None
        self.runs = 0
        self.failure: str | None = None
        #: Whether the test expects a failure of its node.
        self.may_fail = False
        self._high_watermark = 0

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.is_alive

    async def format(self, voters: Sequence[Voter]) -> None:
        identity = Identity(CLUSTER, self.id, self.voter.directory_id, 1)
        await format_voter(self.disk, self.log_dir, identity, voters, {"min.insync.replicas": "2"})

    def start(self) -> None:
        assert not self.is_up
        self.runs += 1
        self.node = self.applied = None
        self._high_watermark = 0
        self.process = self.world.loop.process(self.name)
        self.process.spawn(self._run(), name=f"run {self.runs} of {self.name}")

    async def _run(self) -> None:
        process = self.process
        assert process is not None
        environment = Environment(
            self.world.network.host(self.name),
            self.disk,
            process.wall_clock_ms,
            random.Random(self.world.chance.getrandbits(64)),
        )
        config = QuorumConfig(
            node_id=self.id,
            listeners=(self.voter.endpoint,),
            log_dirs=(self.log_dir,),
            allow_insecure_listeners=True,
        )
        identity = await read_identity(self.disk, self.log_dir)
        log = await open_metadata_log(
            self.disk,
            metadata_directory(self.log_dir),
            LogConfig(track_synced=True, verify_all=True, segment_bytes=self.world.segment_bytes),
        )
        applied = Applied(self)
        node = Watched(config, environment, log, identity, applied, self._failed, looked=self.look)
        await node.start()
        await environment.network.serve(self.voter.endpoint, node.services)
        self.node, self.applied = node, applied
        self.log = log

    def _failed(self, reason: str) -> None:
        self.failure = reason
        if self.may_fail:
            return
        raise AssertionError(f"{self.name} failed: {reason}")

    async def stop(self) -> None:
        """Stop in good order."""
        node, process = self.node, self.process
        assert node is not None
        assert process is not None
        done = process.spawn(self._stop(node), name=f"stop {self.name}")
        await asyncio.wait([done], timeout=10)
        assert done.done(), "a clean stop ends"
        done.result()
        process.kill()
        self.disk.crash_process()

    async def _stop(self, node: Watched) -> None:
        await node.stop()
        await self.log.close(clean=True)

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            self.process.kill()
        self.disk.crash_process()
        self.node = None

    def lose_power(self) -> None:
        if self.process is not None:
            self.process.kill()
        self.disk.lose_power()
        self.node = None

    def look(self) -> None:
        """Check this voter's invariants."""
        node = self.node
        if node is None or not self.is_up:
            return
        raft = node.machine
        if isinstance(raft.role, Leader):
            self.world.history.saw_leader(self.id, raft.epoch, self.runs)
        assert raft.high_watermark >= self._high_watermark, "the high watermark went back"
        self._high_watermark = raft.high_watermark
        self.world.events += 1
        if self.world.events % self.world.match_every == 0:
            self.world.check_matching()


class QuorumWorld:
    """Voters, their network, and what happened."""

    def __init__(
        self,
        loop: SimulatedLoop,
        seed: int,
        size: int,
        *,
        disk_latency_s: float = 0.002,
        segment_bytes: int = 4096,
    ) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.network = SimulatedNetwork(loop, random.Random(self.chance.getrandbits(64)))
        self.history = History()
        self.events = 0
        self.match_every = 50
        self.disk_latency_s = disk_latency_s
        self.segment_bytes = segment_bytes
        self.voters = [SimulatedVoter(self, 100 + i) for i in range(size)]
        self.proposed = 0

    async def start(self) -> None:
        members = [one.voter for one in self.voters]
        for one in self.voters:
            await one.format(members)
            one.start()

    def check_matching(self) -> None:
        """Log matching: where two logs have the same epoch at an offset, all before is equal."""
        machines = [one.node.machine.ledger for one in self.voters if one.node is not None]
        for index, first in enumerate(machines):
            for second in machines[index + 1 :]:
                start = max(first.log_start_offset, second.log_start_offset)
                end = min(first.log_end_offset, second.log_end_offset)
                while end > start and first.epoch_before(end) != second.epoch_before(end):
                    end -= 1
                ours = [entry for entry in first.epochs() if start < entry[1] < end]
                assert ours == [entry for entry in second.epochs() if start < entry[1] < end]

    @property
    def leader(self) -> SimulatedVoter | None:
        """The voter that leads with the newest epoch, applied."""
        found = [v for v in self.voters if v.is_up and v.applied and v.applied.reign is not None]
        return max(found, key=lambda v: (v.applied.reign if v.applied else 0) or 0, default=None)

    async def until(self, is_true: Callable[[], bool], *, seconds: float) -> None:
        """Wait for something, in virtual time."""
        end = self.loop.time() + seconds
        while not is_true():
            assert self.loop.time() < end, f"not within {seconds} s"
            await asyncio.sleep(0.005)

    async def elected(self, seconds: float = 10.0) -> SimulatedVoter:
        await self.until(lambda: self.leader is not None, seconds=seconds)
        assert self.leader is not None
        return self.leader

    def propose(self, size: int = 20) -> tuple[str, int] | None:
        """Propose one event at the leader; None if there is none to propose to."""
        leader = self.leader
        if leader is None or leader.node is None or leader.applied is None:
            return None
        if leader.process is None or leader.process.is_paused:
            return None
        self.proposed += 1
        name = f"event.{self.proposed}"
        event = MetadataEvent(config=Config(name=name, value="x" * size))
        assert leader.applied.reign is not None
        try:
            # In the voter's own process, so that what this starts dies with it.
            offset = leader.process.context().run(
                leader.node.propose, leader.applied.reign, [event]
            )
        except (NotControllerError, OverloadedError):
            return None
        return name, offset

    async def write(self) -> bool:
        """Propose, and wait until it is committed in that reign or the reign is over."""
        leader = self.leader
        made = self.propose()
        if leader is None or made is None or leader.applied is None:
            return False
        name, offset = made
        applied, reign = leader.applied, leader.applied.reign
        while applied.reign == reign and leader.is_up and leader.applied is applied:
            if applied.next_offset > offset:
                self.history.acknowledged[name] = offset
                return True
            await asyncio.sleep(0.004)
        return False

    def check_nothing_lost(self) -> None:
        """Every acknowledged event lies committed at its offset."""
        found: dict[str, int] = {}
        for base, batch in self.history.committed.items():
            for index, event in enumerate(decode_events(batch)):
                if event.WhichOneof("event") == "config":
                    found[event.config.name] = base + index
        for name, offset in self.history.acknowledged.items():
            assert found.get(name) == offset, f"{name} was acknowledged at {offset} and is lost"

    async def converge(self, seconds: float = 20.0) -> None:
        """After all faults: one leader, and every voter has applied one and the same log."""
        self.network.heal()
        self.network.set_links(loss=0.0)
        for one in self.voters:
            if one.process is not None and one.is_up:
                one.process.resume()
            if not one.is_up:
                one.start()
        await self.elected(seconds)
        end = self.loop.time() + seconds
        while not await self.write():
            assert self.loop.time() < end, "nothing commits after all has healed"
            await asyncio.sleep(0.05)
        goal = self.history.committed_end
        await self.until(
            lambda: all(v.applied and v.applied.next_offset >= goal for v in self.voters),
            seconds=seconds,
        )
        self.check_matching()
        self.check_nothing_lost()
