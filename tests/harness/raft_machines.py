"""Raft machines for tests: builders, a disk that saves at once, a link without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quorate_quorum.raft.machine.events import (
    Applied,
    BeginEpochRequested,
    EndEpochRequested,
    EpochAnswered,
    Event,
    FetchAbandoned,
    FetchAnswered,
    FetchReceived,
    HardStateSaved,
    Saved,
    VoteAnswered,
    VoteRequested,
    Written,
)
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.ledger import Batch, Ledger
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    EndEpochRequest,
    FetchRequest,
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
    Message,
    Ready,
    Reply,
)
from quorate_quorum.raft.machine.timing import Timing
from quorate_quorum.raft.machine.voters import ReplicaKey, Voter, VoterSet


def directory(voter_id: int) -> bytes:
    return bytes([voter_id]) * 16


def key(voter_id: int) -> ReplicaKey:
    return ReplicaKey(voter_id, directory(voter_id))


def voters(*ids: int) -> VoterSet:
    return VoterSet(tuple(Voter(i, directory(i), f"host{i}:1") for i in ids))


def batch(
    offset: int,
    epoch: int,
    count: int = 1,
    members: VoterSet | None = None,
    *,
    begins: bool = False,
) -> Batch:
    """Return a batch; if it `begins` its epoch, its event is an EpochStart."""
    return Batch(
        offset, offset + count, epoch, b"x" * 10, members, epoch_start=epoch if begins else None
    )


def ledger(epochs: Sequence[int], members: VoterSet, *, synced: int | None = None) -> Ledger:
    """Return a log with one record per entry, the first being the bootstrap batch (epoch 0)."""
    made = Ledger()
    for offset, epoch in enumerate(epochs):
        made.append(batch(offset, epoch, members=members if offset == 0 else None))
    made.written_end = made.log_end_offset
    made.synced_end = made.log_end_offset if synced is None else synced
    return made


@dataclass
class Machine:
    """A machine, and everything that it has emitted."""

    raft: Raft
    saves_at_once: bool = True
    applies_at_once: bool = True
    now_ms: int = 0
    readies: list[Ready] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    log: dict[int, Batch] = field(default_factory=dict)

    def step(self, event: Event) -> list[Message]:
        self.raft.step(event, self.now_ms)
        return self.drain()

    def tick(self, after_ms: int = 0) -> list[Message]:
        self.now_ms += after_ms
        self.raft.tick(self.now_ms)
        return self.drain()

    def due(self) -> list[Message]:
        """Let time pass until the next deadline."""
        self.now_ms = max(self.now_ms, self.raft.deadline_ms())
        return self.tick()

    def drain(self) -> list[Message]:
        said: list[Message] = []
        while (ready := self.raft.ready()) is not None:
            self.readies.append(ready)
            said += ready.messages
            save = ready.save
            if save is not None:
                for one in save.batches:
                    self.log[one.base_offset] = one
            if self.saves_at_once:
                if ready.hard_state is not None:
                    self.raft.step(HardStateSaved(ready.hard_state_version), self.now_ms)
                if save is not None:
                    end = save.end_offset
                    self.raft.step(Written(end, save.truncations), self.now_ms)
                    self.raft.step(Saved(save.epoch, end, save.truncations), self.now_ms)
            if self.applies_at_once and ready.wants_applied is not None:
                self.raft.step(Applied(), self.now_ms)
        self.sent += said
        return said

    @property
    def role(self) -> str:
        return type(self.raft.role).__name__.lower()

    @property
    def reign(self) -> Leader:
        assert isinstance(self.raft.role, Leader)
        return self.raft.role

    @property
    def epoch(self) -> int:
        return self.raft.epoch

    def range(self, base: int, end: int) -> tuple[Batch, ...]:
        return tuple(self.log[offset] for offset in range(base, end) if offset in self.log)

    def ask_vote(
        self,
        candidate: int,
        epoch: int,
        *,
        last_epoch: int = 0,
        end: int = 1,
        pre_vote: bool = False,
        voter: ReplicaKey | None = None,
    ) -> VoteResponse:
        request = VoteRequest(
            voter or self.raft.me, key(candidate), epoch, last_epoch, end, pre_vote
        )
        replies = [m for m in self.step(VoteRequested(request, 7)) if isinstance(m, Reply)]
        (reply,) = replies
        assert isinstance(reply.response, VoteResponse)
        return reply.response

    def vote_answered(self, voter: int, *, granted: bool = True, epoch: int = -1) -> list[Message]:
        attempt = getattr(self.raft.role, "attempt", 0)
        response = VoteResponse(self.epoch if epoch < 0 else epoch, -1, granted)
        return self.step(VoteAnswered(key(voter), attempt, response))

    def fetch(
        self,
        replica: int,
        offset: int,
        last_epoch: int,
        *,
        epoch: int | None = None,
        round: int = 0,
        high_watermark: int = 0,
        number: int = 1,
        incarnation: bytes = b"a",
        is_behind: bool = False,
    ) -> list[FetchReply]:
        """Let a fetch arrive; return the immediate answers."""
        request = FetchRequest(
            self.epoch if epoch is None else epoch,
            offset,
            last_epoch,
            0,
            high_watermark,
            round,
            is_behind,
        )
        stream = StreamKey(key(replica), incarnation, number)
        said = self.step(FetchReceived(stream, request, replica))
        return [m for m in said if isinstance(m, FetchReply)]

    def begin_epoch(self, leader: int, epoch: int) -> list[Message]:
        request = BeginEpochRequest(epoch, key(leader), f"host{leader}:1")
        return self.step(BeginEpochRequested(request, 9))

    def end_epoch(self, leader: int, epoch: int, *successors: int, silence: bool = False) -> None:
        self.step(EndEpochRequested(EndEpochRequest(epoch, leader, successors, silence), 9))

    def answered(self, response: FetchResponse) -> list[Message]:
        session = getattr(self.raft.role, "session", 0)
        return self.step(FetchAnswered(session, response))


def machine(
    me: int = 1,
    ids: Sequence[int] = (1, 2, 3),
    log: Sequence[int] = (0,),
    *,
    epoch: int = 0,
    voted_for: int | None = None,
    is_behind: bool = False,
    first_vote_epoch: int = 0,
    saves_at_once: bool = True,
    seed: int = 0,
    synced: int | None = None,
    bootstrap_servers: tuple[str, ...] = (),
) -> Machine:
    """Return a started machine whose log holds one record of each epoch listed."""
    members = voters(*ids)
    kept = ledger(log, members, synced=synced)

    def chance(low: int, high: int) -> int:
        return low + seed % (high - low + 1)

    vote = None if voted_for is None else key(voted_for)
    hard_state = HardState(epoch, vote, is_behind, first_vote_epoch)
    raft = Raft(
        key(me),
        kept,
        hard_state,
        timing=Timing(),
        chance=chance,
        epoch_start=lambda epoch, _, offset: batch(offset, epoch, begins=True),
        endpoint=f"host{me}:1",
        now_ms=0,
        bootstrap_servers=bootstrap_servers,
    )
    made = Machine(raft, saves_at_once)
    for offset, of_epoch in enumerate(log):
        made.log[offset] = batch(
            offset,
            of_epoch,
            members=members if offset == 0 else None,
            begins=offset > 0 and of_epoch != log[offset - 1],
        )
    made.drain()
    return made


def candidate(me: int = 1, ids: Sequence[int] = (1, 2, 3), **given: object) -> Machine:
    """Return a machine that won its pre-vote."""
    made = machine(me, ids, **given)  # type: ignore[arg-type]
    made.due()
    assert made.role == "prospective"
    for other in ids:
        if other != me and made.role == "prospective":
            made.vote_answered(other)
    assert made.role == "candidate"
    return made


def leader(me: int = 1, ids: Sequence[int] = (1, 2, 3), **given: object) -> Machine:
    """Return a machine that has just been elected."""
    made = candidate(me, ids, **given)
    for other in ids:
        if other != me and made.role == "candidate":
            made.vote_answered(other)
    assert made.role == "leader"
    return made


def serving_leader(me: int = 1, ids: Sequence[int] = (1, 2, 3), **given: object) -> Machine:
    """Return a leader whose EpochStart is committed; the others hold its whole log.

    No fetch waits for an answer.
    """
    made = leader(me, ids, **given)
    for other in ids:
        if other != me:
            made.fetch(other, made.raft.ledger.log_end_offset, made.epoch)
            made.step(FetchAbandoned(StreamKey(key(other), b"a", 1)))
    assert made.raft.high_watermark == made.raft.ledger.log_end_offset
    return made


def follower(me: int = 1, leader: int = 2, epoch: int = 1, **given: object) -> Machine:
    made = machine(me, **given)  # type: ignore[arg-type]
    made.begin_epoch(leader, epoch)
    assert made.role == "follower"
    return made


def heard_follower() -> Machine:
    """Return a follower whose leader has answered it."""
    made = follower()
    made.answered(FetchResponse(1, 2, 1))
    return made


@dataclass
class Cluster:
    """Machines that share a link without loss. Those in `cut` are cut off from the others."""

    machines: dict[int, Machine]
    cut: list[int] = field(default_factory=list)
    leaders: dict[int, int] = field(default_factory=dict)  # epoch -> id

    def run(self, for_ms: int) -> None:
        end = next(iter(self.machines.values())).now_ms + for_ms
        while True:
            self.deliver()
            due = min(m.raft.deadline_ms() for m in self.machines.values())
            now = max(due, next(iter(self.machines.values())).now_ms + 1)
            for one in self.machines.values():
                one.now_ms = min(now, end)
            if now >= end:
                return
            for one in self.machines.values():
                one.tick()
            self.check()

    def deliver(self) -> None:
        for _ in range(200):
            moved = False
            for sender, one in self.machines.items():
                one.drain()
                messages, one.sent = one.sent, []
                for message in messages:
                    moved |= self._deliver(sender, message)
            self.check()
            if not moved:
                return

    def _deliver(self, sender: int, message: Message) -> bool:
        if isinstance(message, Call):
            return self._call(sender, message)
        if isinstance(message, Fetch):
            return self._fetch(sender, message)
        if isinstance(message, FetchReply):
            return self._answer(sender, message)
        if isinstance(message, FindLeader):
            return self._tell_leader(sender, message)
        return False

    def _is_cut(self, one: int, other: int) -> bool:
        return one in self.cut or other in self.cut or other not in self.machines

    def _tell_leader(self, sender: int, message: FindLeader) -> bool:
        target = int(message.endpoint.removeprefix("host").partition(":")[0])
        if self._is_cut(sender, target):
            return False
        heard = self.machines[target].raft.leader_heard()
        if heard is not None:
            self.machines[sender].step(heard)
        return heard is not None

    def _call(self, sender: int, message: Call) -> bool:
        if self._is_cut(sender, message.to.id):
            return False
        target = self.machines[message.to.id]
        request = message.request
        if isinstance(request, VoteRequest):
            target.step(VoteRequested(request, 0))
        elif isinstance(request, BeginEpochRequest):
            target.step(BeginEpochRequested(request, 0))
        else:
            target.step(EndEpochRequested(request, 0))
        for reply in [m for m in target.sent if isinstance(m, Reply)]:
            target.sent.remove(reply)
            if isinstance(reply.response, VoteResponse):
                answer: Event = VoteAnswered(key(message.to.id), message.attempt, reply.response)
            else:
                answer = EpochAnswered(key(message.to.id), reply.response)
            self.machines[sender].step(answer)
        return True

    def _fetch(self, sender: int, message: Fetch) -> bool:
        target = int(message.endpoint.removeprefix("host").partition(":")[0])
        if self._is_cut(sender, target):
            return False
        stream = StreamKey(key(sender), b"run", message.session)
        self.machines[target].step(
            FetchReceived(stream, message.request, sender * 1_000_000 + message.session)
        )
        return True

    def _answer(self, sender: int, message: FetchReply) -> bool:
        target, session = divmod(message.caller, 1_000_000)
        if self._is_cut(sender, target):
            return False
        response = message.response
        if message.end > response.base_offset:
            batches = self.machines[sender].range(response.base_offset, message.end)
            response = FetchResponse(
                response.epoch,
                response.leader_id,
                response.base_offset,
                response.high_watermark,
                0,
                response.round,
                batches,
            )
        self.machines[target].step(FetchAnswered(session, response))
        return True

    def check(self) -> None:
        for voter, one in self.machines.items():
            if one.role == "leader":
                assert self.leaders.setdefault(one.epoch, voter) == voter, "two leaders in an epoch"

    @property
    def leading(self) -> list[int]:
        return [voter for voter, one in self.machines.items() if one.role == "leader"]


def cluster(*ids: int, seed: int = 0) -> Cluster:
    return Cluster({i: machine(i, ids, seed=seed) for i in ids})
