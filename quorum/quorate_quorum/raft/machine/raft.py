"""The Raft machine of one voter: sans-IO, KRaft style (replicas pull).

Door: `step(event, now_ms)`, `tick(now_ms)`, `propose`, `read`, `transfer`, `resign` put decisions
into the next `Ready`, which `ready()` hands out once. Time, chance and encodings are arguments.
The driver carries Readies out in order and steps the completions back in.

All state is here; what is decided lies in four modules of functions over it: `elections`, which
goes on in `following` or `leading`, these two, which know nothing of each other, and `changing`.

Laws (DESIGN section 4): nothing is committed by counting replicas of an older epoch's records (3,
leading); nothing below the high watermark is cut (4, following); nobody leads twice in an epoch
(5, leading and elections); epoch and vote are on disk before anything of them is spoken (2, here).
What peers send is checked, never asserted; what we ourselves hold is asserted after every step
(11, here).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from quorate.errors import NotControllerError, OverloadedError
from quorate_quorum.raft.machine import changing, elections, following, leading
from quorate_quorum.raft.machine.ledger import Ledger
from quorate_quorum.raft.machine.messages import (
    EPOCH_LEAP_MAX,
    EPOCH_MAX,
    Applied,
    Batch,
    BeginEpochRequested,
    Below,
    Call,
    Downloaded,
    EndEpochRequested,
    EpochAnswered,
    Event,
    Fetch,
    FetchAbandoned,
    FetchAnswered,
    FetchBroken,
    FetchReceived,
    FetchReply,
    HardState,
    HardStateSaved,
    Install,
    LeaderFound,
    LogCut,
    Message,
    QuorumStatus,
    Ready,
    Reign,
    ReplicaKey,
    RoleChange,
    Save,
    Saved,
    SnapshotTaken,
    VoteAnswered,
    VoteRequested,
    Written,
)
from quorate_quorum.raft.machine.roles import Candidate, Follower, Leader, Role, Unattached
from quorate_quorum.raft.machine.status import quorum_status
from quorate_quorum.raft.machine.timing import Timing
from quorate_quorum.raft.machine.voters import VoterSet
from quorate_quorum.snapshots.snapshot_file import SnapshotId

READS_MAX = 10_000
NO_SESSION = 0
NOBODY = ReplicaKey(-1, b"")

#: (epoch, handed_over_for_silence, base offset) -> the batch that holds the EpochStart event.
EpochStartEncoder = Callable[[int, bool, int], Batch]
#: (low, high) -> a whole number between them, both included.
Chance = Callable[[int, int], int]


class Raft:
    """One replica's view of the quorum, and what it is going to do about it.

    Its driver uses the door; what lies behind it without an underscore is for elections, following
    and leading.
    """

    def __init__(
        self,
        me: ReplicaKey,
        ledger: Ledger,
        hard_state: HardState,
        *,
        timing: Timing,
        chance: Chance,
        epoch_start: EpochStartEncoder,
        endpoint: str,
        now_ms: int,
        bootstrap_servers: tuple[str, ...] = (),
    ) -> None:
        self.me = me
        self.ledger = ledger
        self.hard_state = hard_state
        self.timing = timing
        self._chance = chance
        self.epoch_start = epoch_start
        self.endpoint = endpoint
        self.bootstrap_servers = bootstrap_servers
        self.now_ms = now_ms
        self.attempts = 0  # elections stood in, by which answers are told apart
        self.sessions = 0  # fetch streams opened
        #: Grows over all reigns of this process: a read's id is never used again (R43).
        self.round = 0
        self._hard_state_version = 0
        self._saved_version = 0
        self._high_watermark_before = ledger.high_watermark
        self.last_led_epoch = -1
        #: The epoch whose leader handed over for silence: whoever stands next after it says so,
        #: or leadership could go round for ever while no reign fences anybody.
        self.silenced_epoch = -1
        self._clear_ready()
        self._gated: list[Message] = []
        self._readable_told = -1
        self._install_told: Install | None = None
        epoch = max(hard_state.epoch, ledger.last_epoch, 0)
        if epoch != hard_state.epoch:
            self.set_hard_state(replace(hard_state, epoch=epoch, voted_for=None))
        self.role: Role = Unattached(0)
        elections.start(self)

    # --- the door -------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.hard_state.epoch

    @property
    def leader(self) -> ReplicaKey:
        """The leader of this epoch as far as known, else NOBODY."""
        if isinstance(self.role, Leader):
            return self.me
        return self.role.leader if isinstance(self.role, Follower) else NOBODY

    @property
    def leader_id(self) -> int:
        """Its id; -1 if it is not known."""
        return self.leader.id

    @property
    def leader_endpoint(self) -> str:
        if isinstance(self.role, Leader):
            return self.endpoint
        return self.role.endpoint if isinstance(self.role, Follower) else ""

    @property
    def high_watermark(self) -> int:
        return self.ledger.high_watermark

    def step(self, event: Event, now_ms: int) -> None:
        """Take in what happened."""
        self.now_ms = max(self.now_ms, now_ms)
        _HANDLERS[type(event)](self, event)
        self._settle()

    def tick(self, now_ms: int) -> None:
        """Let time pass; due at `deadline_ms()`, and harmless at any other time."""
        self.now_ms = max(self.now_ms, now_ms)
        match self.role:
            case Leader() as leader:
                leading.tick(self, leader)
            case Follower() as follower:
                self._tick_follower(follower)
            case role:
                if self.now_ms >= role.deadline_ms:
                    elections.stand(self, "the election timeout passed")
        self._settle()

    def deadline_ms(self) -> int:
        """Return when the next tick is due."""
        match self.role:
            case Leader() as leader:
                return leading.deadline_ms(self, leader)
            case Follower() as follower:
                if follower.repeat_at_ms >= 0:
                    return min(follower.deadline_ms, follower.repeat_at_ms)
                return follower.deadline_ms
            case role:
                return role.deadline_ms

    def check_may_propose(self, epoch: int) -> None:
        """Raise NotControllerError unless leading in that epoch, its first record committed.

        OverloadedError while too much is not committed, or the reign is being transferred.
        """
        leader = self.role
        if not isinstance(leader, Leader) or leader.epoch != epoch:
            raise NotControllerError(
                f"node {self.me.id} does not lead in epoch {epoch}; epoch {self.epoch},"
                f" leader {self.leader_id}"
            )
        if not leading.has_committed_own(self, leader):
            raise NotControllerError(
                f"node {self.me.id} leads in epoch {epoch}, but nothing of it is committed yet"
            )
        if leader.transfer is not None:
            raise OverloadedError(
                f"leadership goes to voter {leader.transfer.to.id}: nothing is proposed meanwhile"
            )
        batches, size = len(leader.uncommitted), leader.uncommitted_bytes
        if batches >= self.timing.uncommitted_max or size > self.timing.uncommitted_bytes_max:
            raise OverloadedError(
                f"{batches} batches of {size} bytes are proposed and not committed; at most"
                f" {self.timing.uncommitted_max} of {self.timing.uncommitted_bytes_max}"
            )

    def check_may_change_voters(self, voters: VoterSet, now_ms: int) -> None:
        """Raise unless this may be the next set (after check_may_propose); see changing.

        Who is heard turns on the time: `propose` at that same time will not refuse it.
        """
        self.now_ms = max(self.now_ms, now_ms)
        assert isinstance(self.role, Leader)
        changing.check_may_change_voters(self, self.role, voters)

    def propose(self, batch: Batch, now_ms: int) -> None:
        """Append a batch of our own epoch that starts at our log end (after check_may_propose)."""
        self.now_ms = max(self.now_ms, now_ms)
        self.check_may_propose(batch.epoch)
        assert isinstance(self.role, Leader)
        if batch.voters is not None:
            changing.check_may_change_voters(self, self.role, batch.voters)
        leading.append_own(self, self.role, batch)
        self._settle()

    def read(self, now_ms: int) -> int:
        """Begin a linearizable read; its id comes back in Ready.confirmed_reads.

        NotControllerError if not leading; a reign that ends drops its reads (Ready.lost_epoch).
        """
        self.now_ms = max(self.now_ms, now_ms)
        leader = self.check_may_read()
        self.round += 1
        read = leader.urgent_round = self.round
        leader.reads.append(read)
        self._settle()
        return read

    def check_may_read(self) -> Leader:
        """Raise NotControllerError unless leading, OverloadedError if too many reads wait."""
        leader = self._leading()
        if len(leader.reads) >= READS_MAX:
            raise OverloadedError(f"{READS_MAX} reads wait for the voters already")
        return leader

    def check_may_transfer(self, voter_id: int | None) -> int:
        """Return the voter that `transfer` would name; None stands for the most caught-up one.

        NotControllerError if not leading, InvalidRequestError for an id that is no voter's.
        """
        return leading.successor(self, self._leading(), voter_id)

    def transfer(self, voter_id: int, now_ms: int) -> None:
        """Give leadership to that voter once it holds all of our log (after check_may_transfer).

        Until then nothing is proposed; after an election timeout all goes on as it was, and
        Ready.transfers_given_up says so. Our own id takes a transfer that is under way back.
        """
        self.now_ms = max(self.now_ms, now_ms)
        self.check_may_transfer(voter_id)
        leading.transfer(self, self._leading(), voter_id)
        self._settle()

    def resign(self, now_ms: int, *, reason: str, for_silence: bool = False) -> None:
        """Give up the reign, if there is one, in favour of the most caught-up other voter."""
        self.now_ms = max(self.now_ms, now_ms)
        if isinstance(self.role, Leader) and self.ledger.voters.others(self.me):
            leading.end_reign(self, self.role, reason, for_silence=for_silence)
            self._settle()

    def still_holds(self, reply: FetchReply) -> bool:
        """Say whether bytes read for this answer are still those that were meant."""
        leads = isinstance(self.role, Leader) and self.epoch == reply.response.epoch
        return leads and self.ledger.truncations == reply.truncations

    def status(self) -> QuorumStatus:
        """Return what this node knows of the quorum; progress only if it leads."""
        return quorum_status(self)

    def ready(self) -> Ready | None:
        """Return what is to be done since the last call; None if nothing is."""
        self._release_gated()
        readable = min(self.ledger.high_watermark, self.ledger.written_end)
        if not self._has_news(readable):
            return None
        ready = Ready(
            role_changes=tuple(self._role_changes),
            lost_epoch=self._lost_epoch,
            reign=self.reign,
            hard_state=self._hard_state_to_save,
            hard_state_version=self._hard_state_version,
            save=self._take_save(),
            messages=tuple(self._messages),
            session=self._session,
            readable_end=readable,
            confirmed_reads=tuple(self.confirmed_reads),
            transfers_given_up=tuple(self.transfers_given_up),
            fatal=self.fatal,
            wants_applied=self.wants_applied,
            install=self._install,
        )
        self._clear_ready()
        self._readable_told = readable
        self._install_told = self._install
        return ready

    def _has_news(self, readable: int) -> bool:
        """Say whether a Ready would ask for anything; most events end with one that does not."""
        return bool(
            self._messages
            or readable != self._readable_told
            or self._wants_sync
            or self._appended
            or self._role_changes
            or self.confirmed_reads
            or self.transfers_given_up
            or self._lost_epoch is not None
            or self.reign is not None
            or self._hard_state_to_save is not None
            or self.fatal is not None
            or self.wants_applied is not None
            or self._install != self._install_told
        )

    # --- behind the door ------------------------------------------------------------------------

    def _leading(self) -> Leader:
        if not isinstance(self.role, Leader):
            raise NotControllerError(
                f"node {self.me.id} does not lead; epoch {self.epoch}, leader {self.leader_id}"
            )
        return self.role

    def _tick_follower(self, follower: Follower) -> None:
        if self.now_ms >= follower.deadline_ms:
            elections.stand(self, f"leader {follower.leader.id} was not heard for a fetch timeout")
        elif 0 <= follower.repeat_at_ms <= self.now_ms:
            following.fetch(self, follower)

    def _settle(self) -> None:
        """Let what follows from a change follow, then check that all is well."""
        if isinstance(self.role, Leader):
            leading.settle(self, self.role)
        self._check()

    def _check(self) -> None:
        """The invariants of the machine; what peers send never reaches one of them."""
        ledger = self.ledger
        below = ledger.snapshot
        assert ledger.log_start_offset <= ledger.high_watermark <= ledger.log_end_offset
        assert ledger.log_start_offset <= (0 if below is None else below.offset), (
            "snapshot at start"
        )
        assert below is None or below.offset <= ledger.high_watermark
        assert ledger.synced_end <= ledger.written_end <= ledger.log_end_offset
        assert ledger.high_watermark >= self._high_watermark_before, "the high watermark went back"
        self._high_watermark_before = ledger.high_watermark
        assert ledger.last_epoch <= self.epoch
        match self.role:
            case Leader() as leader:
                assert leader.epoch == self.epoch
                assert self.hard_state.voted_for == self.me
                assert ledger.last_epoch == leader.epoch
                assert leader.epoch_start_offset < ledger.log_end_offset
                assert leader.transfer is None or leader.transfer.to in ledger.voters
                for progress in leader.replicas.values():
                    assert progress.log_end_offset <= ledger.log_end_offset
                    assert progress.round <= self.round
            case Candidate():
                assert self.hard_state.voted_for == self.me
            case Follower() as follower:
                assert follower.leader != self.me
            case _:
                pass

    # --- Ready ----------------------------------------------------------------------------------

    def _clear_ready(self) -> None:
        self._role_changes: list[RoleChange] = []
        self._lost_epoch: int | None = None
        self.reign: Reign | None = None
        self._hard_state_to_save: HardState | None = None
        self._messages: list[Message] = []
        self.confirmed_reads: list[tuple[int, int]] = []
        self.transfers_given_up: list[tuple[int, str]] = []
        self.fatal: str | None = None
        self.wants_applied: int | None = None
        self._truncate_to: int | None = None
        self._begin_at: int | None = None
        self._appended: list[Batch] = []
        self._wants_sync = False

    def _take_save(self) -> Save | None:
        if not (self._wants_sync or self._appended):
            return None
        return Save(
            self.epoch,
            self.ledger.log_end_offset,
            self.ledger.truncations,
            self._truncate_to,
            tuple(self._appended),
            self._begin_at,
        )

    def send(self, message: Message) -> None:
        """Nothing is spoken while an epoch or a vote is not on disk yet (law 2)."""
        self._gated.append(message)

    def _release_gated(self) -> None:
        if self._saved_version != self._hard_state_version:
            return
        for message in self._gated:
            if isinstance(message, Call | Fetch) and message.epoch != self.epoch:
                continue  # asked in an epoch that has passed meanwhile
            if isinstance(message, Fetch) and message.session != self._session:
                continue
            self._messages.append(message)
        self._gated.clear()

    @property
    def _session(self) -> int:
        return self.role.session if isinstance(self.role, Follower) else NO_SESSION

    @property
    def _install(self) -> Install | None:
        """Nothing of a snapshot may be on disk before the word that we fell behind is.

        After a crash between them we would hold a history, and not know what we forgot of it.
        """
        if self._saved_version != self._hard_state_version:
            return None
        match self.role:
            case Follower(install=SnapshotId() as snapshot, endpoint=endpoint):
                return Install(snapshot, self.epoch, endpoint)
            case _:
                return None

    # --- the hard state -------------------------------------------------------------------------

    def set_hard_state(self, state: HardState) -> None:
        before = self.hard_state
        assert state.epoch >= before.epoch, (state, before)
        if state.epoch == before.epoch and before.voted_for is not None:
            assert state.voted_for == before.voted_for, "one vote in an epoch, for good"
        if state.voted_for is not None and not state.first_vote_epoch:
            state = replace(state, first_vote_epoch=state.epoch)
        if state == before:
            return
        self.hard_state = state
        self._hard_state_to_save = state
        self._hard_state_version += 1

    def _on_hard_state_saved(self, event: HardStateSaved) -> None:
        self._saved_version = max(self._saved_version, event.version)
        is_current = self._saved_version == self._hard_state_version
        if is_current and isinstance(self.role, Candidate):
            elections.grant(self, self.role, self.me)

    # --- time -----------------------------------------------------------------------------------

    def draw(self, low: int, high: int) -> int:
        """Draw from chance, shifted by our id: two voters with one seed still differ (R28)."""
        span = high - low + 1
        return low + (self._chance(0, span - 1) + self.me.id * 7919) % span

    def election_deadline(self) -> int:
        shortest = self.timing.election_timeout_ms
        return self.now_ms + self.draw(shortest, shortest * 2)

    # --- roles ----------------------------------------------------------------------------------

    def is_voter(self) -> bool:
        return self.me in self.ledger.voters

    def may_stand(self) -> bool:
        """Say whether it is a voter, or one whose removal it does not know to be committed.

        If that record is on no other disk, no other log is as complete as ours, and nobody else
        can be elected where our vote is needed (Raft dissertation, 4.2.2). It never counts itself.
        """
        return self.is_voter() or self.me in self.ledger.voters_before_change

    def is_sole_voter(self) -> bool:
        return len(self.ledger.voters.voters) == 1 and self.is_voter()

    def become(self, role: Role, reason: str) -> None:
        before = self.role
        self.role = role
        if isinstance(before, Leader):
            self._lost_epoch = before.epoch
            self.reign = None
            self.confirmed_reads.clear()
            leading.refuse_parked(self, before)
        self._role_changes.append(
            RoleChange(
                type(role).__name__.lower(),
                self.epoch,
                self.leader_id,
                self.leader_endpoint,
                reason,
            )
        )
        if self.ledger.synced_end < self.ledger.log_end_offset:
            self._wants_sync = True  # a completion of the old epoch would be ignored

    def become_unattached(self, epoch: int, reason: str) -> None:
        if epoch > self.epoch:
            self.set_hard_state(replace(self.hard_state, epoch=epoch, voted_for=None))
        self.become(Unattached(self.election_deadline()), reason)

    def meet_epoch(self, epoch: int, who: str, *, is_heeded: bool) -> bool:
        """A higher epoch ends whatever we are in this one (Raft, 5.1); say whether we are in it.

        Not if who tells of it has no say here, or it lies too far ahead: one message of anybody
        could use up the epochs, or depose a leader. A voter that has seen no epoch yet may be new
        in an old quorum, and takes any.
        """
        if epoch <= self.epoch:
            return True
        furthest = self.epoch + EPOCH_LEAP_MAX if self.epoch else EPOCH_MAX
        if not is_heeded or epoch > min(furthest, EPOCH_MAX):
            return False
        self.become_unattached(epoch, f"{who} is in epoch {epoch}")
        return True

    # --- the log --------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        self.ledger.append(batch)
        self._appended.append(batch)

    def cut(self, end: int) -> None:
        assert not self._appended, "a cut comes before the appends of one Ready"
        self.ledger.truncate(end)
        self._truncate_to = end
        self._wants_sync = True

    def begin_anew(self, below: Below) -> None:
        """The log is dropped whole, what is not handed out yet too: a snapshot stands for it."""
        self.ledger.begin_anew(below)
        self._appended.clear()
        self._truncate_to, self._begin_at = None, below.offset
        self._wants_sync = True

    def _snapshot_taken(self, event: SnapshotTaken) -> None:
        self.ledger.note_snapshot(event.snapshot)

    def _log_cut(self, event: LogCut) -> None:
        self.ledger.cut_below(event.log_start_offset)

    def raise_high_watermark(self, offset: int) -> None:
        self.ledger.high_watermark = max(self.ledger.high_watermark, offset)

    def _written(self, event: Written) -> None:
        if event.truncations == self.ledger.truncations:
            self.ledger.written_end = max(self.ledger.written_end, event.end_offset)

    def _saved(self, event: Saved) -> None:
        ledger = self.ledger
        if event.truncations != ledger.truncations or event.epoch != self.epoch:
            self._wants_sync |= ledger.synced_end < ledger.log_end_offset
            return
        ledger.written_end = max(ledger.written_end, event.end_offset)
        ledger.synced_end = max(ledger.synced_end, event.end_offset)
        if isinstance(self.role, Follower):
            following.fetch_or_wait(self, self.role)


#: What happened -> where it is decided.
_HANDLERS: dict[type[Event], Callable[[Raft, Any], None]] = {
    Applied: leading.applied,
    Downloaded: following.downloaded,
    SnapshotTaken: Raft._snapshot_taken,
    LogCut: Raft._log_cut,
    VoteRequested: elections.vote_requested,
    VoteAnswered: elections.vote_answered,
    BeginEpochRequested: elections.begin_epoch_requested,
    EndEpochRequested: elections.end_epoch_requested,
    EpochAnswered: elections.epoch_answered,
    LeaderFound: elections.leader_found,
    FetchReceived: leading.fetch_received,
    FetchAbandoned: leading.fetch_abandoned,
    FetchAnswered: following.fetch_answered,
    FetchBroken: following.fetch_broken,
    HardStateSaved: Raft._on_hard_state_saved,
    Written: Raft._written,
    Saved: Raft._saved,
}
