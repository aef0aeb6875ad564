"""A quorum of bare Raft machines for random schedules: runs, links and the rules, no asyncio.

It is far cheaper than tests/harness/quorum_world.py: it has neither drivers nor bytes, so a fault
that is found here is a fault of the machine. A world draws from one seed, in one order: the same
seed gives the same trace. Every batch holds one record: a number that no other batch has.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from quorate_quorum.raft.machine.events import (
    Applied,
    BeginEpochRequested,
    Downloaded,
    EndEpochRequested,
    EpochAnswered,
    Event,
    FetchAnswered,
    FetchBroken,
    FetchReceived,
    HardStateSaved,
    Saved,
    VoteAnswered,
    VoteRequested,
    Written,
)
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.ledger import Batch
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    EndEpochRequest,
    EpochResponse,
    FetchResponse,
    StreamKey,
    VoteRequest,
    VoteResponse,
)
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.raft.machine.ready import (
    Call,
    Fetch,
    FetchReply,
    FindLeader,
    Install,
    Message,
    Ready,
    Reply,
    Save,
)
from quorate_quorum.raft.machine.timing import Timing
from quorate_quorum.raft.machine.voters import ReplicaKey, VoterSet
from tests.harness.invariants import Violation
from tests.harness.raft_disk import Disk
from tests.harness.raft_machines import batch, key, voters

#: Time until a fetch is given up if the host is up and the link is cut.
BROKEN_MS = 1200
REFUSED_MS = 5
#: No deadline: all nodes are down, and no message is on its way.
NEVER_MS = 2**62
#: Probability, at each step of the world, that a disk works or that a download ends.
DISK_CHANCE = 0.5
DOWNLOAD_CHANCE = 0.3
#: Probability that a node dies at that moment.
DIES_BEFORE_VOTE = 0.02
DIES_BEFORE_SYNC = 0.02
DIES_AFTER_DOWNLOAD = 0.2


class Run:
    """One run of a node: the machine, and the work that its disk has not done yet."""

    def __init__(self, node: Node, number: int) -> None:
        self.node = node
        self.world = node.world
        self.incarnation = b"%d" % number
        self.is_up = True
        self.hard_state: tuple[HardState, int] | None = None
        self.saves: list[Save] = []
        self.install: Install | None = None
        self.calls: dict[int, tuple[Run, Call]] = {}
        self.fetches: dict[int, tuple[Run, Fetch]] = {}
        #: End of the committed records that the rules have checked.
        self.checked_end = 0
        ledger = node.disk.read_ledger()
        #: The log as the machine knows it, ahead of the disk.
        self.log = {one.base_offset: one for one in node.disk.log}
        self.raft = Raft(
            key(node.id),
            ledger,
            node.disk.hard_state,
            timing=Timing(),
            chance=self.world.chance.randint,
            epoch_start=self._epoch_start,
            endpoint=f"host{node.id}:1",
            now_ms=self.world.now_ms,
            bootstrap_servers=tuple(f"host{i}:1" for i in self.world.nodes),
        )

    @property
    def leads(self) -> bool:
        return self.is_up and isinstance(self.raft.role, Leader)

    @property
    def name(self) -> str:
        return f"{self.node.id}/{self.incarnation.decode()}"

    def next_batch(self, members: VoterSet | None = None) -> Batch:
        """Return what this leader could propose now."""
        made = batch(self.raft.ledger.log_end_offset, self.raft.epoch, members=members)
        return self.world.marked(made)

    def _epoch_start(self, epoch: int, _: bool, offset: int) -> Batch:
        return self.world.marked(batch(offset, epoch, begins=True))

    def step(self, event: Event) -> None:
        if self.is_up:
            self.raft.step(event, self.world.now_ms)
            self.drain()

    def tick(self) -> None:
        if self.is_up and self.raft.deadline_ms() <= self.world.now_ms:
            self.raft.tick(self.world.now_ms)
            self.drain()

    def drain(self) -> None:
        """Carry out or queue what the machine wants, and check the rules after each Ready."""
        while self.is_up and (ready := self.raft.ready()) is not None:
            if ready.fatal is not None:
                raise Violation(f"node {self.name} stops: {ready.fatal}")
            self._take(ready)
            self.world.rules.check(self)

    def _take(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state, ready.hard_state_version
        if ready.save is not None:
            self.saves.append(ready.save)
            self._foresee(ready.save)
        self.install = ready.install
        for message in ready.messages:
            self.world.link.send(self, message)
        if ready.wants_applied is not None:
            self.world.after(self.world.chance.randint(1, 20), partial(self.step, Applied()))

    def _foresee(self, save: Save) -> None:
        if save.begin_at is not None:
            self.log.clear()
        if save.truncate_to is not None:
            self.log = {o: one for o, one in self.log.items() if o < save.truncate_to}
        self.log.update((one.base_offset, one) for one in save.batches)

    def work_on_disk(self) -> None:
        """Do all waiting work: the hard state first, then all saves with one sync."""
        state, self.hard_state = self.hard_state, None
        saves, self.saves = self.saves, []
        if state is not None:
            if self.world.strikes(self, DIES_BEFORE_VOTE):
                return
            self.node.disk.hard_state = state[0]
            self.step(HardStateSaved(state[1]))
        for save in saves:
            self.node.disk.write(save)
            if save.batches:
                self.step(Written(self.node.disk.log_end, save.truncations))
        if not saves or self.world.strikes(self, DIES_BEFORE_SYNC):
            return
        self.node.disk.synced_end = self.node.disk.log_end
        last = saves[-1]
        self.step(Saved(last.epoch, last.end_offset, last.truncations))

    def end_download(self) -> None:
        """End a download, by chance: the disk keeps it before the machine hears of it."""
        if self.install is None or self.world.chance.random() >= DOWNLOAD_CHANCE:
            return
        source = self.world.run_at(self.install.endpoint)
        below = source.node.disk.snapshot
        if not self.world.link.is_open(self, source) or below is None:
            return
        if below.id == self.install.snapshot:
            self.node.disk.keep(below)
            if not self.world.strikes(self, DIES_AFTER_DOWNLOAD):
                self.step(Downloaded(below))

    def crash(self) -> None:
        """Die by a kill, or by a loss of power."""
        self.is_up = False
        self.world.say(f"node {self.name} crashes")
        if self.world.chance.random() < 0.5:
            self.node.disk.lose_power(self.world.chance)


class Node:
    """A disk, and the present or last run on it."""

    def __init__(self, world: World, node_id: int) -> None:
        self.world = world
        self.id = node_id
        self.disk = Disk()
        self.run: Run

    def start(self) -> None:
        self.run = Run(self, self.world.number())
        self.world.say(f"node {self.run.name} starts")
        self.run.drain()


class Link:
    """Carries messages, late and in any order. A cut or a dead receiver loses them.

    A message on its way arrives though its sender has died. Answers of one fetch stream stay in
    order.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.cuts: set[tuple[int, int]] = set()  # (from, to); asked for members only

    def is_open(self, source: Run, target: Run) -> bool:
        return target.is_up and (source.node.id, target.node.id) not in self.cuts

    def isolate(self, node: Node) -> None:
        for other in self._world.nodes:
            if other != node.id:
                self.cuts |= {(node.id, other), (other, node.id)}

    def send(self, run: Run, message: Message) -> None:
        if isinstance(message, FetchReply):  # its batches are read first
            self._world.after(1, partial(self._read, run, message))
        elif isinstance(message, Reply):
            self._world.after(self._delay_ms(), partial(self._reply, run, message))
        elif isinstance(message, Call):
            self._world.after(self._delay_ms(), partial(self._call, run, message))
        elif isinstance(message, Fetch):
            self._world.after(self._delay_ms(), partial(self._fetch, run, message))
        else:
            self._world.after(self._delay_ms(), partial(self._find, run, message))

    def _delay_ms(self) -> int:
        chance = self._world.chance
        return chance.randint(1, 4 if chance.random() < 0.9 else 60)

    def _deliver(self, source: Run, target: Run, event: Event) -> None:
        if self.is_open(source, target):
            target.step(event)

    def _call(self, run: Run, call: Call) -> None:
        target = self._world.nodes[call.to.id].run
        if self.is_open(run, target):
            caller = self._world.number()
            target.calls[caller] = run, call
            target.step(_requested(call.request, caller))

    def _reply(self, run: Run, reply: Reply) -> None:
        source, call = run.calls.pop(reply.caller)
        self._deliver(run, source, _answered(call, reply.response))

    def _find(self, run: Run, message: FindLeader) -> None:
        asked = self._world.run_at(message.endpoint)
        heard = asked.raft.leader_heard() if self.is_open(run, asked) else None
        if heard is not None:
            self._world.after(self._delay_ms(), partial(self._deliver, asked, run, heard))

    def _fetch(self, run: Run, fetch: Fetch) -> None:
        target = self._world.run_at(fetch.endpoint)
        if not self.is_open(run, target):
            broken = FetchBroken(fetch.session, not target.is_up)
            wait_ms = BROKEN_MS if target.is_up else REFUSED_MS
            self._world.after(wait_ms, partial(run.step, broken))
            return
        caller = self._world.number()
        target.fetches[caller] = run, fetch
        stream = StreamKey(key(run.node.id), run.incarnation, fetch.session)
        target.step(FetchReceived(stream, fetch.request, caller))

    def _read(self, run: Run, reply: FetchReply) -> None:
        if not run.is_up:
            return
        fetcher, fetch = run.fetches[reply.caller]
        if not reply.response.interim:
            del run.fetches[reply.caller]
        event: Event = FetchBroken(fetch.session, refused=False)
        if reply.end <= reply.response.base_offset or run.raft.still_holds(reply):
            event = FetchAnswered(fetch.session, _filled(run, reply))
        self._world.after(1, partial(self._deliver, run, fetcher, event))


def _requested(
    request: VoteRequest | BeginEpochRequest | EndEpochRequest, caller: int
) -> VoteRequested | BeginEpochRequested | EndEpochRequested:
    if isinstance(request, VoteRequest):
        return VoteRequested(request, caller)
    if isinstance(request, BeginEpochRequest):
        return BeginEpochRequested(request, caller)
    return EndEpochRequested(request, caller)


def _answered(call: Call, response: VoteResponse | EpochResponse) -> VoteAnswered | EpochAnswered:
    voter = ReplicaKey(call.to.id, call.to.directory_id)
    if isinstance(response, EpochResponse):
        return EpochAnswered(voter, response)
    return VoteAnswered(voter, call.attempt, response)


def _filled(run: Run, reply: FetchReply) -> FetchResponse:
    """Put the batches in; none if the log was cut above the first of them meanwhile."""
    base = reply.response.base_offset
    if base < run.raft.ledger.log_start_offset:
        return reply.response
    batches = tuple(run.log[offset] for offset in range(base, reply.end))
    return replace(reply.response, batches=batches)


class Rules:
    """The rules of safety (Raft, figure 3), checked after every Ready."""

    def __init__(self) -> None:
        self.leaders: dict[int, str] = {}  # epoch -> run
        self.committed: dict[int, bytes] = {}  # offset -> record, as the first node said

    def check(self, run: Run) -> None:
        if run.leads:
            self._check_leader(run)
        self._check_committed(run)

    def _check_leader(self, run: Run) -> None:
        known = self.leaders.get(run.raft.epoch)
        if known == run.name:
            return
        if known is not None:
            raise Violation(f"two leaders in epoch {run.raft.epoch}: {known} and {run.name}")
        self.leaders[run.raft.epoch] = run.name
        members = [voter.id for voter in run.raft.ledger.voters.voters]
        run.world.say(f"node {run.name} leads {members} in epoch {run.raft.epoch}")
        for offset, record in self.committed.items():
            if offset >= run.raft.ledger.log_start_offset and record != _record(run, offset):
                raise Violation(f"leader {run.name} lacks record {offset}, which is committed")

    def _check_committed(self, run: Run) -> None:
        ledger = run.raft.ledger
        for offset in range(max(run.checked_end, ledger.log_start_offset), ledger.high_watermark):
            record = _record(run, offset)
            if record is None:
                raise Violation(f"node {run.name} lacks record {offset}, which it calls committed")
            if self.committed.setdefault(offset, record) != record:
                raise Violation(f"record {offset} of {run.name} is not the one that is committed")
        run.checked_end = max(run.checked_end, ledger.high_watermark)


def _record(run: Run, offset: int) -> bytes | None:
    held = run.log.get(offset)
    return None if held is None else held.data


class World:
    """Nodes, numbered from 1; the first `initial` are formatted as voters. Time is a number."""

    def __init__(self, chance: random.Random, *, initial: int, nodes: int) -> None:
        self.chance = chance
        self.now_ms = 0
        self.is_calm = False
        self.trace: list[str] = []
        self.rules = Rules()
        self.link = Link(self)
        self._numbers = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self.nodes = {i: Node(self, i) for i in range(1, nodes + 1)}
        formatted = [batch(0, 0, members=voters(*range(1, initial + 1)))]
        for node in self.nodes.values():
            node.disk.log = formatted[:] if node.id <= initial else []
            node.start()

    @property
    def runs(self) -> Sequence[Run]:
        """The newest run of each node."""
        return [node.run for node in self.nodes.values()]

    def leaders(self) -> list[Run]:
        """Return the runs that believe they lead, the newest epoch last."""
        return sorted((run for run in self.runs if run.leads), key=lambda run: run.raft.epoch)

    def run_at(self, endpoint: str) -> Run:
        return self.nodes[int(endpoint.removeprefix("host").partition(":")[0])].run

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def marked(self, made: Batch) -> Batch:
        """Give the batch bytes that no other batch has."""
        return replace(made, data=b"%d" % self.number())

    def say(self, what: str) -> None:
        self.trace.append(f"{self.now_ms:8} ms  {what}")

    def strikes(self, run: Run, likelihood: float) -> bool:
        """Let the run die here with that probability, but not after calm began; return if down."""
        if run.is_up and not self.is_calm and self.chance.random() < likelihood:
            run.crash()
        return not run.is_up

    def after(self, wait_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now_ms + wait_ms, self.number(), action))

    def pass_time(self, for_ms: int) -> None:
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            self.now_ms = max(self.now_ms + 1, min(end_ms, self._next_ms()))
            while self._due and self._due[0][0] <= self.now_ms:
                heapq.heappop(self._due)[2]()
            for run in self.runs:
                self._go_on(run)

    def _next_ms(self) -> int:
        """Return the next time at which something is due: now, if a disk or a download has work."""
        up = [run for run in self.runs if run.is_up]
        if any(run.saves or run.hard_state or run.install for run in up):
            return self.now_ms
        soonest = [run.raft.deadline_ms() for run in up] + [at for at, *_ in self._due[:1]]
        return min(soonest, default=NEVER_MS)

    def _go_on(self, run: Run) -> None:
        if run.is_up and (run.saves or run.hard_state) and self.chance.random() < DISK_CHANCE:
            run.work_on_disk()
        run.tick()
        if run.is_up:
            run.end_download()
