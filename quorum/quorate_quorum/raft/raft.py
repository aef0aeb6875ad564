"""The Raft machine of one voter: sans-IO, KRaft style (replicas pull).

Door: `step(event, now_ms)`, `tick(now_ms)`, `propose`, `read`, `resign` put decisions into the
next `Ready`, which `ready()` hands out once. Time, chance and encodings are arguments. The driver
carries Readies out in order and steps the completions back in.

Laws held here (DESIGN section 4): nothing is committed by counting replicas of an older epoch's
records (3); nothing below the high watermark is cut (4); nobody leads twice in an epoch (5);
epoch and vote are on disk before anything of them is spoken (2). What peers send is checked, never
asserted; what we ourselves hold is asserted after every step (11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from quorate.errors import NotControllerError, OverloadedError
from quorate_quorum.raft.ledger import Ledger
from quorate_quorum.raft.messages import (
    EPOCH_MAX,
    Batch,
    BeginEpochRequest,
    BeginEpochRequested,
    Call,
    DivergingEpoch,
    EndEpochRequest,
    EndEpochRequested,
    EpochAnswered,
    EpochResponse,
    Event,
    Fetch,
    FetchAbandoned,
    FetchAnswered,
    FetchBroken,
    FetchReceived,
    FetchReply,
    FetchRequest,
    FetchResponse,
    HardState,
    HardStateSaved,
    Message,
    QuorumStatus,
    Ready,
    Refusal,
    Reign,
    ReplicaKey,
    ReplicaStatus,
    Reply,
    RoleChange,
    Save,
    Saved,
    VoteAnswered,
    VoteRequest,
    VoteRequested,
    VoteResponse,
    Written,
)
from quorate_quorum.raft.progress import ParkedFetch, Progress
from quorate_quorum.raft.roles import (
    Candidate,
    Follower,
    Leader,
    Prospective,
    Resigned,
    Role,
    Unattached,
)

OBSERVERS_MAX = 32
READS_MAX = 10_000
#: A follower whose sync takes longer repeats its last synced offset, so that it is not forgotten.
REPEAT_MS = 200
FRESH_START_MS = (200, 500)
#: A leader whose process is gone is followed by an election this soon.
REFUSED_MS = (50, 150)
NO_SESSION = 0

#: (epoch, handed_over_for_silence, base offset) -> the batch that holds the EpochStart event.
EpochStartEncoder = Callable[[int, bool, int], Batch]
#: (low, high) -> a whole number between them, both included.
Chance = Callable[[int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds; upper bounds of the random ones follow from the lower."""

    fetch_timeout_ms: int = 1000  # to 1.5 times that
    election_timeout_ms: int = 500  # to twice that
    fetch_wait_ms: int = 250  # the longest that a leader keeps a fetch without news
    uncommitted_max: int = 10_000  # batches proposed and not committed
    uncommitted_bytes_max: int = 64 * 2**20  # and their bytes

    def __post_init__(self) -> None:
        for name in ("fetch_timeout_ms", "election_timeout_ms"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name} must be 10 or more, not {getattr(self, name)}")

    @property
    def check_quorum_ms(self) -> int:
        return self.fetch_timeout_ms * 3 // 2


class Raft:
    """One replica's view of the quorum, and what it is going to do about it."""

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
    ) -> None:
        self.me = me
        self.ledger = ledger
        self.hard_state = hard_state
        self.timing = timing
        self._chance = chance
        self._epoch_start = epoch_start
        self._endpoint = endpoint
        self._now_ms = now_ms
        self._attempts = 0
        self._sessions = 0
        #: Grows over all reigns of this process: a read's id is never used again (R43).
        self._round = 0
        self._hard_state_version = 0
        self._saved_version = 0
        self._high_watermark_before = ledger.high_watermark
        self._last_led_epoch = -1
        #: The epoch whose leader handed over for silence: whoever stands next after it says so,
        #: or leadership could go round for ever while no reign fences anybody.
        self._silenced_epoch = -1
        self._clear_ready()
        self._gated: list[Message] = []
        self._readable_told = -1
        self._handlers: dict[type, Callable[[Any], None]] = {
            VoteRequested: self._vote_requested,
            VoteAnswered: self._vote_answered,
            BeginEpochRequested: self._begin_epoch_requested,
            EndEpochRequested: self._end_epoch_requested,
            EpochAnswered: self._epoch_answered,
            FetchReceived: self._fetch_received,
            FetchAbandoned: self._fetch_abandoned,
            FetchAnswered: self._fetch_answered,
            FetchBroken: self._fetch_broken,
            HardStateSaved: self._on_hard_state_saved,
            Written: self._written,
            Saved: self._saved,
        }
        epoch = max(hard_state.epoch, ledger.last_epoch, 0)
        if epoch != hard_state.epoch:
            self._set_hard_state(HardState(epoch, None, hard_state.is_behind))
        self.role: Role = Unattached(0)
        self._start()

    # --- the door -------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self.hard_state.epoch

    @property
    def leader_id(self) -> int:
        """The leader of this epoch as far as known, else -1."""
        if isinstance(self.role, Leader):
            return self.me.id
        return self.role.leader.id if isinstance(self.role, Follower) else -1

    @property
    def leader_endpoint(self) -> str:
        if isinstance(self.role, Leader):
            return self._endpoint
        return self.role.endpoint if isinstance(self.role, Follower) else ""

    @property
    def high_watermark(self) -> int:
        return self.ledger.high_watermark

    def step(self, event: Event, now_ms: int) -> None:
        """Take in what happened."""
        self._now_ms = max(self._now_ms, now_ms)
        self._handlers[type(event)](event)
        self._settle()

    def tick(self, now_ms: int) -> None:
        """Let time pass; due at `deadline_ms()`, and harmless at any other time."""
        self._now_ms = max(self._now_ms, now_ms)
        match self.role:
            case Leader() as leader:
                self._tick_leader(leader)
            case Follower() as follower:
                self._tick_follower(follower)
            case role:
                if self._now_ms >= role.deadline_ms:
                    self._stand("the election timeout passed")
        self._settle()

    def deadline_ms(self) -> int:
        """Return when the next tick is due."""
        match self.role:
            case Leader() as leader:
                due = [leader.heard_ms + self.timing.check_quorum_ms, leader.announce_at_ms]
                if self._is_sole_voter():
                    due = [self._now_ms + self.timing.check_quorum_ms]
                parked = [p.parked for p in leader.replicas.values() if p.parked is not None]
                return min(due + [fetch.deadline_ms for fetch in parked])
            case Follower() as follower:
                if follower.repeat_at_ms >= 0:
                    return min(follower.deadline_ms, follower.repeat_at_ms)
                return follower.deadline_ms
            case role:
                return role.deadline_ms

    def check_may_propose(self, epoch: int) -> None:
        """Raise NotControllerError unless leading in that epoch, its first record committed."""
        leader = self.role
        if not isinstance(leader, Leader) or leader.epoch != epoch:
            raise NotControllerError(
                f"node {self.me.id} does not lead in epoch {epoch}; epoch {self.epoch},"
                f" leader {self.leader_id}"
            )
        if not self._has_committed_own(leader):
            raise NotControllerError(
                f"node {self.me.id} leads in epoch {epoch}, but nothing of it is committed yet"
            )
        batches, size = len(leader.uncommitted), leader.uncommitted_bytes
        if batches >= self.timing.uncommitted_max or size > self.timing.uncommitted_bytes_max:
            raise OverloadedError(
                f"{batches} batches of {size} bytes are proposed and not committed; at most"
                f" {self.timing.uncommitted_max} of {self.timing.uncommitted_bytes_max}"
            )

    def propose(self, batch: Batch, now_ms: int) -> None:
        """Append a batch of our own epoch that starts at our log end (after check_may_propose)."""
        self._now_ms = max(self._now_ms, now_ms)
        self.check_may_propose(batch.epoch)
        assert isinstance(self.role, Leader)
        self._append_own(self.role, batch)
        self._settle()

    def read(self, now_ms: int) -> int:
        """Begin a linearizable read; its id comes back in Ready.confirmed_reads.

        NotControllerError if not leading; a reign that ends drops its reads (Ready.lost_epoch).
        """
        self._now_ms = max(self._now_ms, now_ms)
        leader = self.check_may_read()
        self._round += 1
        read = leader.urgent_round = self._round
        leader.reads.append(read)
        self._settle()
        return read

    def check_may_read(self) -> Leader:
        """Raise NotControllerError unless leading, OverloadedError if too many reads wait."""
        leader = self.role
        if not isinstance(leader, Leader):
            raise NotControllerError(
                f"node {self.me.id} does not lead; epoch {self.epoch}, leader {self.leader_id}"
            )
        if len(leader.reads) >= READS_MAX:
            raise OverloadedError(f"{READS_MAX} reads wait for the voters already")
        return leader

    def resign(self, now_ms: int, *, reason: str, for_silence: bool = False) -> None:
        """Give up the reign, if there is one, in favour of the most caught-up other voter."""
        self._now_ms = max(self._now_ms, now_ms)
        if isinstance(self.role, Leader) and self.ledger.voters.others(self.me):
            self._end_reign(self.role, reason, for_silence=for_silence)
            self._settle()

    def still_holds(self, reply: FetchReply) -> bool:
        """Say whether bytes read for this answer are still those that were meant."""
        leads = isinstance(self.role, Leader) and self.epoch == reply.response.epoch
        return leads and self.ledger.truncations == reply.truncations

    def status(self) -> QuorumStatus:
        """Return what this node knows of the quorum; progress only if it leads."""
        replicas = self.role.replicas if isinstance(self.role, Leader) else {}
        voters = self.ledger.voters.voters
        keys = [ReplicaKey(voter.id, voter.directory_id) for voter in voters]
        return QuorumStatus(
            self.leader_id,
            self.epoch,
            self.high_watermark,
            tuple(
                self._status_of(key, v.endpoint, replicas)
                for key, v in zip(keys, voters, strict=True)
            ),
            tuple(self._status_of(key, "", replicas) for key in replicas if key not in keys),
        )

    def ready(self) -> Ready | None:
        """Return what is to be done since the last call; None if nothing is."""
        self._release_gated()
        readable = min(self.ledger.high_watermark, self.ledger.written_end)
        save = self._take_save()
        ready = Ready(
            role_changes=tuple(self._role_changes),
            lost_epoch=self._lost_epoch,
            reign=self._reign,
            hard_state=self._hard_state_to_save,
            hard_state_version=self._hard_state_version,
            save=save,
            messages=tuple(self._messages),
            session=self.role.session if isinstance(self.role, Follower) else NO_SESSION,
            readable_end=readable,
            confirmed_reads=tuple(self._confirmed_reads),
            fatal=self._fatal,
        )
        is_empty = (
            not (ready.role_changes or ready.messages or ready.confirmed_reads)
            and ready.lost_epoch is None
            and ready.reign is None
            and ready.hard_state is None
            and save is None
            and readable == self._readable_told
            and ready.fatal is None
        )
        self._clear_ready()
        self._readable_told = readable
        return None if is_empty else ready

    # --- Ready ----------------------------------------------------------------------------------

    def _clear_ready(self) -> None:
        self._role_changes: list[RoleChange] = []
        self._lost_epoch: int | None = None
        self._reign: Reign | None = None
        self._hard_state_to_save: HardState | None = None
        self._messages: list[Message] = []
        self._confirmed_reads: list[tuple[int, int]] = []
        self._fatal: str | None = None
        self._truncate_to: int | None = None
        self._appended: list[Batch] = []
        self._wants_sync = False

    def _take_save(self) -> Save | None:
        if not (self._wants_sync or self._appended or self._truncate_to is not None):
            return None
        return Save(
            self.epoch,
            self.ledger.log_end_offset,
            self.ledger.truncations,
            self._truncate_to,
            tuple(self._appended),
        )

    def _send(self, message: Message) -> None:
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

    def _set_hard_state(self, state: HardState) -> None:
        before = self.hard_state
        assert state.epoch >= before.epoch, (state, before)
        if state.epoch == before.epoch and before.voted_for is not None:
            assert state.voted_for == before.voted_for, "one vote in an epoch, for good"
        if state == before:
            return
        self.hard_state = state
        self._hard_state_to_save = state
        self._hard_state_version += 1

    def _on_hard_state_saved(self, event: HardStateSaved) -> None:
        self._saved_version = max(self._saved_version, event.version)
        is_current = self._saved_version == self._hard_state_version
        if is_current and isinstance(self.role, Candidate):
            self._grant(self.role, self.me)

    def _settle(self) -> None:
        """Let what follows from a change follow, then check that all is well."""
        if isinstance(self.role, Leader):
            self._advance_high_watermark(self.role)
            self._confirm_rounds(self.role)
            self._answer_parked(self.role)
        self._check()

    def _check(self) -> None:
        """The invariants of the machine; what peers send never reaches one of them."""
        ledger = self.ledger
        assert ledger.log_start_offset <= ledger.high_watermark <= ledger.log_end_offset
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
                for progress in leader.replicas.values():
                    assert progress.log_end_offset <= ledger.log_end_offset
                    assert progress.round <= self._round
            case Candidate():
                assert self.hard_state.voted_for == self.me
            case Follower() as follower:
                assert follower.leader != self.me
            case _:
                pass

    # --- timers ---------------------------------------------------------------------------------

    def _draw(self, low: int, high: int) -> int:
        """Draw from chance, shifted by our id: two voters with one seed still differ (R28)."""
        span = high - low + 1
        return low + (self._chance(0, span - 1) + self.me.id * 7919) % span

    def _election_deadline(self) -> int:
        shortest = self.timing.election_timeout_ms
        return self._now_ms + self._draw(shortest, shortest * 2)

    def _fetch_deadline(self) -> int:
        shortest = self.timing.fetch_timeout_ms
        return self._now_ms + self._draw(shortest, shortest * 3 // 2)

    def _tick_follower(self, follower: Follower) -> None:
        if self._now_ms >= follower.deadline_ms:
            self._stand(f"leader {follower.leader.id} was not heard for a fetch timeout")
        elif 0 <= follower.repeat_at_ms <= self._now_ms:
            self._fetch(follower)

    def _tick_leader(self, leader: Leader) -> None:
        if self._is_sole_voter():
            return
        if self._now_ms >= leader.heard_ms + self.timing.check_quorum_ms:
            # Its vote stays as it is: the epoch is not over for those who voted (R2).
            self._end_reign(leader, "no majority of voters was heard", is_quiet=True)
        elif self._now_ms >= leader.announce_at_ms:
            self._announce(leader)

    # --- roles ----------------------------------------------------------------------------------

    def _is_voter(self) -> bool:
        return self.me in self.ledger.voters

    def _is_sole_voter(self) -> bool:
        return len(self.ledger.voters.voters) == 1 and self._is_voter()

    def _start(self) -> None:
        if self._is_sole_voter() and not self.hard_state.is_behind:
            deadline = self._now_ms
        else:
            deadline = self._now_ms + self._draw(*FRESH_START_MS)
        if self.hard_state.voted_for == self.me:
            # It may have led in this epoch, and its disk may have lost what it wrote then.
            self._become(Resigned(deadline), "started, having stood in this epoch before")
        else:
            self._become(Unattached(deadline), "started")

    def _become(self, role: Role, reason: str) -> None:
        before = self.role
        self.role = role
        if isinstance(before, Leader):
            self._lost_epoch = before.epoch
            self._reign = None
            self._confirmed_reads.clear()
            for progress in before.replicas.values():
                if progress.parked is not None:
                    self._refuse_fetch(progress.parked, Refusal.NOT_LEADER)
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

    def _become_unattached(self, epoch: int, reason: str) -> None:
        if epoch > self.epoch:
            self._set_hard_state(HardState(epoch, None, self.hard_state.is_behind))
        self._become(Unattached(self._election_deadline()), reason)

    def _become_follower(self, leader: ReplicaKey, endpoint: str, reason: str) -> None:
        follower = Follower(leader, endpoint, self._new_session(), self._fetch_deadline())
        self._become(follower, reason)
        self._fetch(follower)

    def _stand(self, reason: str, *, transfer: bool = False, for_silence: bool = False) -> None:
        """Begin an election, if this replica may."""
        if not self._is_voter() or self.hard_state.is_behind:
            self._wait_for_a_leader(reason)
        elif self._is_sole_voter() or transfer:
            self._become_candidate(reason, transfer=transfer, for_silence=for_silence)
        else:
            self._become_prospective(reason)

    def _wait_for_a_leader(self, reason: str) -> None:
        match self.role:
            case Unattached() | Resigned() as role:
                role.deadline_ms = self._election_deadline()
            case _:
                self._become_unattached(self.epoch, f"{reason}; it may not stand")

    def _new_session(self) -> int:
        self._sessions += 1
        return self._sessions

    def _new_attempt(self) -> int:
        self._attempts += 1
        return self._attempts

    def _become_prospective(self, reason: str) -> None:
        role = Prospective(self._new_attempt(), self._election_deadline(), [self.me])
        self._become(role, reason)
        self._ask_for_votes(role.attempt, pre_vote=True)

    def _become_candidate(self, reason: str, *, transfer: bool, for_silence: bool) -> None:
        if self.epoch >= EPOCH_MAX:
            self._fatal = f"epoch {self.epoch} is the last there is"
            return
        for_silence = for_silence or self._silenced_epoch == self.epoch
        self._set_hard_state(HardState(self.epoch + 1, self.me, self.hard_state.is_behind))
        if for_silence:
            self._silenced_epoch = self.epoch  # for another try, should this one fail
        role = Candidate(
            self._new_attempt(), self._election_deadline(), [], for_silence, is_transfer=transfer
        )
        self._become(role, reason)
        self._ask_for_votes(role.attempt, pre_vote=False, transfer=transfer)

    def _ask_for_votes(self, attempt: int, *, pre_vote: bool, transfer: bool = False) -> None:
        for voter in self.ledger.voters.others(self.me):
            request = VoteRequest(
                ReplicaKey(voter.id, voter.directory_id),
                self.me,
                self.epoch,
                self.ledger.last_epoch,
                self.ledger.log_end_offset,
                pre_vote,
                transfer,
            )
            self._send(Call(voter, request, attempt))

    def _become_leader(self, candidate: Candidate) -> None:
        assert self.epoch > self._last_led_epoch, "nobody leads twice in an epoch"
        self._last_led_epoch = self.epoch
        self._silenced_epoch = -1
        self._round += 1
        leader = Leader(
            self.epoch,
            self.ledger.log_end_offset,
            check_round=self._round,
            check_since_ms=self._now_ms,
            heard_ms=self._now_ms,
            handed_over_for_silence=candidate.handed_over_for_silence,
        )
        for voter in self.ledger.voters.others(self.me):
            leader.replicas[ReplicaKey(voter.id, voter.directory_id)] = Progress()
        self._become(leader, "elected")
        handed = leader.handed_over_for_silence
        self._append_own(leader, self._epoch_start(self.epoch, handed, leader.epoch_start_offset))
        self._announce(leader)

    def _announce(self, leader: Leader) -> None:
        """Tell voters that have not fetched of late who leads."""
        leader.announce_at_ms = self._now_ms + self.timing.fetch_wait_ms
        request = BeginEpochRequest(leader.epoch, self.me, self._endpoint)
        for voter in self.ledger.voters.others(self.me):
            progress = leader.replicas.get(ReplicaKey(voter.id, voter.directory_id))
            last = -1 if progress is None else progress.last_fetch_ms
            if last < 0 or last + self.timing.fetch_timeout_ms <= self._now_ms:
                self._send(Call(voter, request))

    def _end_reign(
        self, leader: Leader, reason: str, *, for_silence: bool = False, is_quiet: bool = False
    ) -> None:
        """Resign; unless `is_quiet`, name successors, the most caught-up voter first."""
        others = self.ledger.voters.others(self.me)
        ends = {key.id: progress.log_end_offset for key, progress in leader.replicas.items()}
        successors = sorted((v.id for v in others), key=lambda v: (-ends.get(v, 0), v))
        self._become(Resigned(self._election_deadline()), reason)
        if is_quiet:
            return
        if for_silence:
            self._silenced_epoch = leader.epoch
        request = EndEpochRequest(leader.epoch, self.me.id, tuple(successors), for_silence)
        for voter in others:
            self._send(Call(voter, request))

    def _meet_epoch(self, epoch: int, who: str) -> None:
        """A higher epoch ends whatever we are in this one (Raft, 5.1)."""
        if epoch > self.epoch:
            self._become_unattached(epoch, f"{who} is in epoch {epoch}")

    # --- votes ----------------------------------------------------------------------------------

    def _vote_requested(self, event: VoteRequested) -> None:
        request = event.request
        is_for_us = request.voter == self.me and request.candidate != self.me
        if is_for_us and request.epoch <= EPOCH_MAX:
            self._meet_epoch(request.epoch, f"candidate {request.candidate.id}")
            granted = self._may_grant(request)
        else:
            granted = False
        if granted and not request.pre_vote:
            self._set_hard_state(replace(self.hard_state, voted_for=request.candidate))
            self._become_unattached(self.epoch, f"voted for {request.candidate.id}")
        self._send(Reply(event.caller, VoteResponse(self.epoch, self.leader_id, granted)))

    def _may_grant(self, request: VoteRequest) -> bool:
        if request.epoch < self.epoch or self._is_amnesiac_before(request):
            return False
        if not self.ledger.is_up_to_date(request.last_epoch, request.log_end_offset):
            return False
        if request.pre_vote:
            return self._may_grant_pre_vote()
        if self.hard_state.voted_for is not None:
            return self.hard_state.voted_for == request.candidate and self.leader_id == -1
        return self.leader_id == -1

    def _may_grant_pre_vote(self) -> bool:
        """Deny while there is a leader to our knowledge of now (KIP-996)."""
        match self.role:
            case Leader():
                return False
            case Follower() as follower:
                return self._now_ms >= follower.fresh_until_ms
            case _:
                return True

    def _is_amnesiac_before(self, request: VoteRequest) -> bool:
        """Our disk may be a replaced one: its vote could elect a log that lacks what it forgot."""
        if request.last_epoch <= 0:
            return False
        if self.ledger.holds_only_bootstrap:
            self._fall_behind()
        return self.hard_state.is_behind

    def _fall_behind(self) -> None:
        self._set_hard_state(replace(self.hard_state, is_behind=True))
        if isinstance(self.role, Prospective | Candidate):
            self._become_unattached(self.epoch, "it holds less than the quorum's history")

    def _vote_answered(self, event: VoteAnswered) -> None:
        response = event.response
        if response.epoch > EPOCH_MAX:
            return
        if response.epoch > self.epoch:
            self._meet_epoch(response.epoch, f"voter {event.voter.id}")
            self._follow_hint(response.leader_id)
            return
        role = self.role
        if not isinstance(role, Prospective | Candidate) or role.attempt != event.attempt:
            return
        if event.voter not in self.ledger.voters:
            return
        if response.granted:
            self._grant(role, event.voter)
        elif isinstance(role, Prospective) and response.epoch == self.epoch:
            self._follow_hint(response.leader_id)

    def _follow_hint(self, leader_id: int) -> None:
        leader = self.ledger.voters.by_id(leader_id)
        if leader is not None and leader_id != self.me.id:
            key = ReplicaKey(leader.id, leader.directory_id)
            self._become_follower(key, leader.endpoint, "a voter knows the leader")

    def _grant(self, role: Prospective | Candidate, voter: ReplicaKey) -> None:
        if voter not in role.granted:
            role.granted.append(voter)
        if len(role.granted) < self.ledger.voters.majority:
            return
        if isinstance(role, Prospective):
            self._become_candidate("a majority would vote", transfer=False, for_silence=False)
        elif self.me in role.granted:
            self._become_leader(role)

    # --- who leads ------------------------------------------------------------------------------

    def _begin_epoch_requested(self, event: BeginEpochRequested) -> None:
        request = event.request
        refusal = self._refusal_of_leader(request)
        if refusal is None:
            self._meet_epoch(request.epoch, f"leader {request.leader.id}")
            if not isinstance(self.role, Follower):
                voter = self.ledger.voters.by_id(request.leader.id)
                endpoint = voter.endpoint if voter else request.endpoint
                self._become_follower(request.leader, endpoint, "the leader of the epoch said so")
        self._send(Reply(event.caller, EpochResponse(self.epoch, self.leader_id, refusal)))

    def _refusal_of_leader(self, request: BeginEpochRequest) -> Refusal | None:
        if request.epoch < self.epoch:
            return Refusal.FENCED_EPOCH
        if request.epoch > EPOCH_MAX or request.leader == self.me:
            return Refusal.INVALID
        if request.epoch == self.epoch:
            other = isinstance(self.role, Follower) and self.role.leader != request.leader
            if other or isinstance(self.role, Leader):
                return Refusal.INVALID
        return None

    def _end_epoch_requested(self, event: EndEpochRequested) -> None:
        request = event.request
        refusal = None
        if request.epoch < self.epoch:
            refusal = Refusal.FENCED_EPOCH
        elif request.epoch > EPOCH_MAX or self._contradicts(request):
            refusal = Refusal.INVALID
        else:
            self._meet_epoch(request.epoch, f"leader {request.leader_id}")
            self._succeed(request)
        self._send(Reply(event.caller, EpochResponse(self.epoch, self.leader_id, refusal)))

    def _contradicts(self, request: EndEpochRequest) -> bool:
        if request.leader_id == self.me.id or request.epoch > self.epoch:
            return request.leader_id == self.me.id
        known = self.leader_id
        return isinstance(self.role, Leader) or (known >= 0 and known != request.leader_id)

    def _succeed(self, request: EndEpochRequest) -> None:
        """The first named stands at once; the others leave it time, each a little more."""
        successors = request.preferred_successors[: len(self.ledger.voters.voters)]
        reason = f"leader {request.leader_id} ended its reign"
        if request.handed_over_for_silence:
            self._silenced_epoch = request.epoch
        if isinstance(self.role, Candidate):
            return
        if successors[:1] == (self.me.id,):
            self._stand(reason, transfer=True, for_silence=request.handed_over_for_silence)
            return
        position = successors.index(self.me.id) if self.me.id in successors else len(successors)
        if isinstance(self.role, Follower):
            self._become_unattached(self.epoch, reason)
        if isinstance(self.role, Unattached | Resigned):
            self.role.deadline_ms = (
                self._now_ms + position * REFUSED_MS[1] + self._draw(*REFUSED_MS)
            )

    def _epoch_answered(self, event: EpochAnswered) -> None:
        response = event.response
        if self.epoch < response.epoch <= EPOCH_MAX:
            self._meet_epoch(response.epoch, f"voter {event.voter.id}")
            self._follow_hint(response.leader_id)

    # --- the follower's fetches -----------------------------------------------------------------

    def _fetch(self, follower: Follower) -> None:
        """Acknowledge what is synced and ask for more."""
        ledger = self.ledger
        request = FetchRequest(
            self.epoch,
            ledger.synced_end,
            ledger.epoch_before(ledger.synced_end),
            ledger.log_start_offset,
            ledger.high_watermark,
            follower.round,
        )
        follower.is_waiting = True
        follower.repeat_at_ms = -1
        self._send(Fetch(follower.session, follower.endpoint, request))

    def _fetch_answered(self, event: FetchAnswered) -> None:
        response, follower = event.response, self.role
        if response.epoch > EPOCH_MAX:
            return
        if response.epoch > self.epoch:
            self._meet_epoch(response.epoch, "the node fetched from")
            self._follow_hint(response.leader_id)
            return
        if not isinstance(follower, Follower) or event.session != follower.session:
            return
        follower.is_waiting = False
        if response.refusal is not None or response.epoch < self.epoch:
            self._suspect(follower, refused=True)
            return
        follower.deadline_ms = self._fetch_deadline()
        follower.fresh_until_ms = self._now_ms + self.timing.fetch_timeout_ms
        follower.has_reconnected = False
        follower.round = response.round
        if response.base_offset == self.ledger.log_end_offset:
            self._take_answer(follower, response)
        self._fetch_or_wait(follower)

    def _fetch_or_wait(self, follower: Follower) -> None:
        """The next fetch acknowledges, so it waits for the sync; but not for too long."""
        if follower.is_waiting or self.role is not follower:
            return
        if self.ledger.synced_end == self.ledger.log_end_offset:
            self._fetch(follower)
        elif follower.repeat_at_ms < 0:
            follower.repeat_at_ms = self._now_ms + REPEAT_MS

    def _take_answer(self, follower: Follower, response: FetchResponse) -> None:
        """The answer is to a fetch from our end of now: its past is ours, or diverges."""
        if response.diverging is not None:
            self._diverge(follower, response.diverging)
            return
        if not self._is_sound(response):
            self._suspect(follower, refused=True)
            return
        self._notice_history(response)
        is_caught_up = 0 < response.high_watermark <= self.ledger.synced_end
        if is_caught_up and self.hard_state.is_behind:
            self._set_hard_state(replace(self.hard_state, is_behind=False))
        for batch in response.batches:
            self._append(batch)
        self._raise_high_watermark(min(response.high_watermark, self.ledger.log_end_offset))

    def _is_sound(self, response: FetchResponse) -> bool:
        """Say whether the batches follow on our log and belong to epochs that have been."""
        offset, epoch = self.ledger.log_end_offset, self.ledger.last_epoch
        for batch in response.batches:
            follows = batch.base_offset == offset and batch.end_offset > offset
            if not follows or not epoch <= batch.epoch <= response.epoch:
                return False
            offset, epoch = batch.end_offset, batch.epoch
        return True

    def _notice_history(self, response: FetchResponse) -> None:
        """A voter that holds only the bootstrap batch meets a quorum that has gone on without it.

        Its disk may have been replaced. A quorum that begins now shows nothing but the EpochStart
        of its present epoch.
        """
        if not response.batches or not self.ledger.holds_only_bootstrap:
            return
        end = response.batches[-1].end_offset
        if response.high_watermark > end or response.batches[0].epoch < response.epoch:
            self._fall_behind()

    def _diverge(self, follower: Follower, diverging: DivergingEpoch) -> None:
        """Cut back to where our log may agree with the leader's; the next fetch asks again."""
        epoch, end = self.ledger.end_offset_for(diverging.epoch)
        if epoch == diverging.epoch:
            end = min(end, diverging.end_offset)
        if end >= self.ledger.log_end_offset:
            self._suspect(follower, refused=True)  # no way to agree is a broken leader
        elif end < self.ledger.high_watermark:
            self._fatal = (
                f"leader {follower.leader.id} of epoch {self.epoch} asks to cut the metadata log"
                f" at {end}, below the high watermark {self.ledger.high_watermark}: committed"
                " events would be lost; compare the voters' disks before restarting"
            )
            self._become_unattached(self.epoch, "its log contradicts the leader's")
        else:
            self._cut(end)

    def _cut(self, end: int) -> None:
        assert not self._appended, "a cut comes before the appends of one Ready"
        self.ledger.truncate(end)
        self._truncate_to = end
        self._wants_sync = True

    def _fetch_broken(self, event: FetchBroken) -> None:
        follower = self.role
        if isinstance(follower, Follower) and event.session == follower.session:
            self._suspect(follower, refused=event.refused)

    def _suspect(self, follower: Follower, *, refused: bool) -> None:
        """A broken stream: one reconnect. Refused, or broken again: stand soon."""
        follower.fresh_until_ms = -1
        follower.is_waiting = False
        follower.repeat_at_ms = -1
        follower.session = self._new_session()
        if not refused and not follower.has_reconnected:
            follower.has_reconnected = True
            self._fetch(follower)
            return
        soon = self._now_ms + self._draw(*REFUSED_MS)
        follower.deadline_ms = min(follower.deadline_ms, soon)
        # Nothing is asked of it until then: a refusal a moment later says nothing new.

    # --- the leader's answers -------------------------------------------------------------------

    def _fetch_received(self, event: FetchReceived) -> None:
        request, stream = event.request, event.stream
        fetch = ParkedFetch(stream, request, event.caller, self._now_ms + self.timing.fetch_wait_ms)
        if stream.replica != self.me and request.epoch <= EPOCH_MAX:
            self._meet_epoch(request.epoch, f"replica {stream.replica.id}")
        leader = self.role
        if request.epoch < self.epoch:
            self._refuse_fetch(fetch, Refusal.FENCED_EPOCH)
        elif not isinstance(leader, Leader):
            self._refuse_fetch(fetch, Refusal.NOT_LEADER)
        elif request.epoch > self.epoch or stream.replica == self.me or request.fetch_offset < 0:
            self._refuse_fetch(fetch, Refusal.INVALID)
        else:
            self._record_fetch(leader, fetch)

    def _record_fetch(self, leader: Leader, fetch: ParkedFetch) -> None:
        progress = self._progress_of(leader, fetch.stream.replica)
        if progress is None:
            self._refuse_fetch(fetch, Refusal.OVERLOADED)
            return
        superseded = progress.parked
        if not progress.admits(fetch.stream):
            self._refuse_fetch(fetch, Refusal.OLD_STREAM)
            return
        if superseded is not None and superseded.stream != fetch.stream:
            self._refuse_fetch(superseded, Refusal.OLD_STREAM)  # or it would wait for ever
        diverging = self._divergence(fetch.request)
        if diverging is not None:
            # It moves no state: what it holds is not what we hold (K8). It did hear us, though.
            self._note_round(progress, fetch.request)
            self._answer(fetch, diverging=diverging)
            return
        self._note_round(progress, fetch.request)
        progress.record(fetch.request, self.ledger.log_end_offset, self._now_ms)
        progress.parked = fetch

    def _note_round(self, progress: Progress, request: FetchRequest) -> None:
        if request.round <= self._round:  # one that we never issued proves nothing
            progress.round = max(progress.round, request.round)

    def _progress_of(self, leader: Leader, replica: ReplicaKey) -> Progress | None:
        progress = leader.replicas.get(replica)
        if progress is None:
            voters = self.ledger.voters
            observers = sum(known not in voters for known in leader.replicas)
            if replica not in voters and observers >= OBSERVERS_MAX:
                return None
            progress = leader.replicas[replica] = Progress()
        return progress

    def _divergence(self, request: FetchRequest) -> DivergingEpoch | None:
        if request.fetch_offset == self.ledger.log_start_offset == 0:
            return None
        epoch, end = self.ledger.end_offset_for(request.last_fetched_epoch)
        if epoch == request.last_fetched_epoch and request.fetch_offset <= end:
            return None
        return DivergingEpoch(epoch, end)

    def _answer_parked(self, leader: Leader) -> None:
        for progress in leader.replicas.values():
            fetch = progress.parked
            if fetch is not None and self._has_something_to_say(leader, fetch):
                progress.parked = None
                self._answer(fetch)

    def _has_something_to_say(self, leader: Leader, fetch: ParkedFetch) -> bool:
        return (
            fetch.request.fetch_offset < self.ledger.written_end
            or fetch.request.high_watermark < self._told_high_watermark(leader)
            or fetch.request.round < leader.urgent_round
            or self._now_ms >= fetch.deadline_ms
        )

    def _told_high_watermark(self, leader: Leader) -> int:
        return self.ledger.high_watermark if self._has_committed_own(leader) else 0

    def _answer(self, fetch: ParkedFetch, diverging: DivergingEpoch | None = None) -> None:
        assert isinstance(self.role, Leader)
        response = FetchResponse(
            self.epoch,
            self.me.id,
            fetch.request.fetch_offset,
            self._told_high_watermark(self.role),
            self.ledger.log_start_offset,
            self._round,
            diverging=diverging,
        )
        end = 0 if diverging else self.ledger.written_end
        self._send(FetchReply(fetch.caller, response, end, self.ledger.truncations))

    def _refuse_fetch(self, fetch: ParkedFetch, refusal: Refusal) -> None:
        response = FetchResponse(
            self.epoch, self.leader_id, fetch.request.fetch_offset, refusal=refusal
        )
        self._send(FetchReply(fetch.caller, response))

    def _fetch_abandoned(self, event: FetchAbandoned) -> None:
        if isinstance(self.role, Leader):
            progress = self.role.replicas.get(event.stream.replica)
            if progress and progress.parked and progress.parked.stream == event.stream:
                progress.parked = None

    # --- commit ---------------------------------------------------------------------------------

    def _has_committed_own(self, leader: Leader) -> bool:
        return self.ledger.high_watermark > leader.epoch_start_offset

    def _advance_high_watermark(self, leader: Leader) -> None:
        voters = self.ledger.voters
        if not voters.voters:
            return
        end = leader.majority_end(voters, self.me, self.ledger.synced_end)
        if end <= leader.epoch_start_offset or end <= self.ledger.high_watermark:
            return
        was_serving = self._has_committed_own(leader)
        self._raise_high_watermark(end)
        while leader.uncommitted and leader.uncommitted[0][0] <= end:
            leader.uncommitted_bytes -= leader.uncommitted.pop(0)[1]
        if not was_serving:
            since = leader.epoch_start_offset + 1
            self._reign = Reign(leader.epoch, since, leader.handed_over_for_silence)

    def _raise_high_watermark(self, offset: int) -> None:
        self.ledger.high_watermark = max(self.ledger.high_watermark, offset)

    def _confirm_rounds(self, leader: Leader) -> None:
        """An echo of a round proves that who sent it was in our epoch after we issued it."""
        voters = self.ledger.voters
        if not voters.voters:
            return
        heard = leader.majority_round(voters, self.me, self._round)
        if heard >= leader.check_round:
            leader.heard_ms = leader.check_since_ms
            if leader.check_since_ms < self._now_ms:
                self._round += 1
                leader.check_round, leader.check_since_ms = self._round, self._now_ms
        if not self._has_committed_own(leader):
            return  # it may not know yet what its predecessors committed (R42)
        while leader.reads and leader.reads[0] <= heard:
            self._confirmed_reads.append((leader.reads.pop(0), self.ledger.high_watermark))

    # --- the log --------------------------------------------------------------------------------

    def _append(self, batch: Batch) -> None:
        self.ledger.append(batch)
        self._appended.append(batch)

    def _append_own(self, leader: Leader, batch: Batch) -> None:
        assert batch.epoch == leader.epoch
        self._append(batch)
        leader.uncommitted.append((batch.end_offset, len(batch.data)))
        leader.uncommitted_bytes += len(batch.data)

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
            self._fetch_or_wait(self.role)

    def _status_of(
        self, key: ReplicaKey, endpoint: str, replicas: dict[ReplicaKey, Progress]
    ) -> ReplicaStatus:
        end, caught_up_ms = -1, -1
        if key == self.me:
            end = self.ledger.log_end_offset
            caught_up_ms = self._now_ms if isinstance(self.role, Leader) else -1
        elif key in replicas:
            end, caught_up_ms = replicas[key].log_end_offset, replicas[key].last_caught_up_ms
        lag = self.ledger.log_end_offset - end if end >= 0 else -1
        return ReplicaStatus(key.id, key.directory_id, endpoint, end, lag, caught_up_ms)
