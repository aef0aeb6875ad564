"""Elections: standing, votes asked for and given, how the reigns of others begin and end.

Functions over the machine of raft.py, which holds all state; machines too. Laws held here (DESIGN
section 4): one vote in an epoch, on disk before it is spoken (2); who may have led in an epoch
before a restart does not stand in it again (5). Where an election ends, `following.follow` or
`leading.begin_reign` goes on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quorate_quorum.raft.machine import following, leading
from quorate_quorum.raft.machine.messages import (
    EPOCH_MAX,
    BeginEpochRequest,
    BeginEpochRequested,
    Call,
    EndEpochRequest,
    EndEpochRequested,
    EpochAnswered,
    EpochResponse,
    FindLeader,
    LeaderFound,
    Refusal,
    ReplicaKey,
    Reply,
    VoteAnswered,
    VoteRequest,
    VoteRequested,
    VoteResponse,
)
from quorate_quorum.raft.machine.roles import (
    Candidate,
    Follower,
    Leader,
    Prospective,
    Resigned,
    Unattached,
)
from quorate_quorum.raft.machine.timing import FRESH_START_MS, REFUSED_MS

if TYPE_CHECKING:
    from quorate_quorum.raft.machine.raft import Raft


# --- standing -----------------------------------------------------------------------------------


def start(raft: Raft) -> None:
    """Take the first role of this process; a sole voter stands at once."""
    if raft.is_sole_voter() and not raft.hard_state.is_behind:
        deadline = raft.now_ms
    else:
        deadline = raft.now_ms + raft.draw(*FRESH_START_MS)
    if raft.hard_state.voted_for == raft.me:
        # It may have led in this epoch, and its disk may have lost what it wrote then.
        raft.become(Resigned(deadline), "started, having stood in this epoch before")
    else:
        raft.become(Unattached(deadline), "started")


def stand(raft: Raft, reason: str, *, transfer: bool = False, for_silence: bool = False) -> None:
    """Begin an election, if this replica may."""
    if not raft.may_stand() or raft.hard_state.is_behind:
        _wait_for_a_leader(raft, reason)
    elif raft.is_sole_voter() or transfer:
        _become_candidate(raft, reason, transfer=transfer, for_silence=for_silence)
    else:
        _become_prospective(raft, reason)


def _wait_for_a_leader(raft: Raft, reason: str) -> None:
    """Who may not stand asks who leads: to a node that is no voter no leader announces itself."""
    _ask_who_leads(raft, *(voter.endpoint for voter in raft.ledger.voters.others(raft.me)))
    match raft.role:
        case Unattached() | Resigned() as role:
            role.deadline_ms = raft.election_deadline()
        case _:
            raft.become_unattached(raft.epoch, f"{reason}; it may not stand")


def _become_prospective(raft: Raft, reason: str) -> None:
    role = Prospective(_new_attempt(raft), raft.election_deadline(), [raft.me])
    raft.become(role, reason)
    _ask_for_votes(raft, role.attempt, pre_vote=True)
    _ask_who_leads(raft)


def _become_candidate(raft: Raft, reason: str, *, transfer: bool, for_silence: bool) -> None:
    if raft.epoch >= EPOCH_MAX:
        raft.fatal = f"epoch {raft.epoch} is the last there is"
        return
    for_silence = for_silence or raft.silenced_epoch == raft.epoch
    raft.set_hard_state(replace(raft.hard_state, epoch=raft.epoch + 1, voted_for=raft.me))
    if for_silence:
        raft.silenced_epoch = raft.epoch  # for another try, should this one fail
    role = Candidate(
        _new_attempt(raft), raft.election_deadline(), [], for_silence, is_transfer=transfer
    )
    raft.become(role, reason)
    _ask_for_votes(raft, role.attempt, pre_vote=False, transfer=transfer)


def _ask_who_leads(raft: Raft, *endpoints: str) -> None:
    """Ask there, and at the bootstrap servers: all voters that we know may have been replaced."""
    known = [voter.endpoint for voter in raft.ledger.voters.voters]
    others = [server for server in raft.bootstrap_servers if server not in known]
    for endpoint in dict.fromkeys((*endpoints, *others)):
        if endpoint != raft.endpoint:
            raft.send(FindLeader(endpoint))


def leader_found(raft: Raft, event: LeaderFound) -> None:
    """Follow the leader that somebody hears, unless we hear one."""
    if event.epoch < raft.epoch or event.leader == raft.me or hears_a_leader(raft):
        return
    who = f"leader {event.leader.id}"
    if not raft.meet_epoch(event.epoch, who, is_heeded=True) or isinstance(raft.role, Follower):
        return
    following.follow(raft, event.leader, event.endpoint, "a node that we asked hears the leader")


def _new_attempt(raft: Raft) -> int:
    raft.attempts += 1
    return raft.attempts


def _ask_for_votes(raft: Raft, attempt: int, *, pre_vote: bool, transfer: bool = False) -> None:
    for voter in raft.ledger.voters.others(raft.me):
        request = VoteRequest(
            ReplicaKey(voter.id, voter.directory_id),
            raft.me,
            raft.epoch,
            raft.ledger.last_epoch,
            raft.ledger.log_end_offset,
            pre_vote,
            transfer,
        )
        raft.send(Call(voter, request, attempt))


# --- votes asked for ----------------------------------------------------------------------------


def vote_answered(raft: Raft, event: VoteAnswered) -> None:
    """A voter granted or denied, or knows of a higher epoch or of the leader."""
    response = event.response
    if response.epoch > raft.epoch:
        _meet_answer(raft, event)
        return
    role = raft.role
    if not isinstance(role, Prospective | Candidate) or role.attempt != event.attempt:
        return
    if event.voter not in raft.ledger.voters:
        return
    if response.granted:
        grant(raft, role, event.voter)
    elif isinstance(role, Prospective) and response.epoch == raft.epoch:
        _follow_hint(raft, event)


def grant(raft: Raft, role: Prospective | Candidate, voter: ReplicaKey) -> None:
    """Count a vote; a candidate's own comes once it is on disk, and counts if it is a voter."""
    if voter not in role.granted:
        role.granted.append(voter)
    voters = raft.ledger.voters
    if sum(one in voters for one in role.granted) < voters.majority:
        return
    if isinstance(role, Prospective):
        _become_candidate(raft, "a majority would vote", transfer=False, for_silence=False)
    elif raft.me in role.granted:
        leading.begin_reign(raft, role)


# --- votes given --------------------------------------------------------------------------------


def vote_requested(raft: Raft, event: VoteRequested) -> None:
    """Answer a candidate; a vote that is not a pre-vote is for good."""
    request = event.request
    candidate = request.candidate
    granted = (
        request.voter == raft.me
        and candidate != raft.me
        and raft.meet_epoch(
            request.epoch, f"candidate {candidate.id}", is_heeded=_is_heeded(raft, candidate)
        )
        and _may_grant(raft, request)
    )
    if granted and not request.pre_vote:
        raft.set_hard_state(replace(raft.hard_state, voted_for=request.candidate))
        raft.become_unattached(raft.epoch, f"voted for {request.candidate.id}")
    leader = raft.leader
    response = VoteResponse(raft.epoch, leader.id, granted, leader.directory_id)
    raft.send(Reply(event.caller, response))


def _may_grant(raft: Raft, request: VoteRequest) -> bool:
    if request.epoch < raft.epoch or _is_amnesiac_before(raft, request):
        return False
    if not raft.ledger.is_up_to_date(request.last_epoch, request.log_end_offset):
        return False
    if request.pre_vote:
        return not hears_a_leader(raft)  # KIP-996
    if raft.hard_state.voted_for is not None:
        return raft.hard_state.voted_for == request.candidate and raft.leader_id == -1
    return raft.leader_id == -1


def hears_a_leader(raft: Raft) -> bool:
    """Say whether there is a leader to our knowledge of now."""
    role = raft.role
    return isinstance(role, Leader) or (
        isinstance(role, Follower) and raft.now_ms < role.fresh_until_ms
    )


def _is_heeded(raft: Raft, replica: ReplicaKey) -> bool:
    """Say whether one that wants to lead, or does, is heard when its epoch is higher.

    Who is no voter to our knowledge may have become one later than our log tells (R36); or it was
    removed, and does not hear the leader that we hear (R25).
    """
    return replica in raft.ledger.voters or not hears_a_leader(raft)


def _is_amnesiac_before(raft: Raft, request: VoteRequest) -> bool:
    """Our disk may be a replaced one: its vote could elect a log that lacks what it forgot.

    Not a log that reaches into an epoch in which, or after which, this very disk has voted: the
    leader of that epoch held all that was committed before, and since then we forgot nothing.
    Without this, voters that all lose power after the first EpochStart was written and before it
    was committed would refuse its writer for ever.
    """
    first_vote = raft.hard_state.first_vote_epoch
    if request.last_epoch <= 0 or 0 < first_vote <= request.last_epoch:
        return False
    if raft.ledger.holds_only_bootstrap:
        following.fall_behind(raft)
    return raft.hard_state.is_behind


# --- reigns of others begin and end -------------------------------------------------------------


def begin_epoch_requested(raft: Raft, event: BeginEpochRequested) -> None:
    """Follow who says that it leads in an epoch not below ours, unless we know otherwise."""
    request = event.request
    refusal = _refusal_of_leader(raft, request)
    if refusal is None:
        who, is_heeded = f"leader {request.leader.id}", _is_heeded(raft, request.leader)
        if not raft.meet_epoch(request.epoch, who, is_heeded=is_heeded):
            refusal = Refusal.INVALID
    if refusal is None and not isinstance(raft.role, Follower):
        voter = raft.ledger.voters.of_key(request.leader)
        endpoint = voter.endpoint if voter else request.endpoint
        following.follow(raft, request.leader, endpoint, "the leader of the epoch said so")
    raft.send(Reply(event.caller, _epoch_response(raft, refusal)))


def _epoch_response(raft: Raft, refusal: Refusal | None) -> EpochResponse:
    leader = raft.leader
    return EpochResponse(raft.epoch, leader.id, refusal, leader.directory_id)


def _refusal_of_leader(raft: Raft, request: BeginEpochRequest) -> Refusal | None:
    if request.epoch < raft.epoch:
        return Refusal.FENCED_EPOCH
    if request.leader == raft.me:
        return Refusal.INVALID
    if request.epoch == raft.epoch:
        other = isinstance(raft.role, Follower) and raft.role.leader != request.leader
        if other or isinstance(raft.role, Leader):
            return Refusal.INVALID
    return None


def end_epoch_requested(raft: Raft, event: EndEpochRequested) -> None:
    """A leader takes its leave: succeed it, or leave time to who is named before us."""
    request = event.request
    who = f"leader {request.leader_id}"
    is_heeded = raft.ledger.voters.by_id(request.leader_id) is not None
    refusal = None
    if request.epoch < raft.epoch:
        refusal = Refusal.FENCED_EPOCH
    elif _contradicts(raft, request) or not raft.meet_epoch(
        request.epoch, who, is_heeded=is_heeded
    ):
        refusal = Refusal.INVALID
    else:
        _succeed(raft, request)
    raft.send(Reply(event.caller, _epoch_response(raft, refusal)))


def _contradicts(raft: Raft, request: EndEpochRequest) -> bool:
    if request.leader_id == raft.me.id or request.epoch > raft.epoch:
        return request.leader_id == raft.me.id
    known = raft.leader_id
    return isinstance(raft.role, Leader) or (known >= 0 and known != request.leader_id)


def _succeed(raft: Raft, request: EndEpochRequest) -> None:
    """The first named stands at once; the others leave it time, each a little more."""
    successors = request.preferred_successors[: len(raft.ledger.voters.voters)]
    reason = f"leader {request.leader_id} ended its reign"
    if request.handed_over_for_silence:
        raft.silenced_epoch = request.epoch
    if isinstance(raft.role, Candidate):
        return
    if successors[:1] == (raft.me.id,):
        stand(raft, reason, transfer=True, for_silence=request.handed_over_for_silence)
        return
    position = successors.index(raft.me.id) if raft.me.id in successors else len(successors)
    if isinstance(raft.role, Follower):
        raft.become_unattached(raft.epoch, reason)
    if isinstance(raft.role, Unattached | Resigned):
        raft.role.deadline_ms = raft.now_ms + position * REFUSED_MS[1] + raft.draw(*REFUSED_MS)


def epoch_answered(raft: Raft, event: EpochAnswered) -> None:
    """An answer to BeginEpoch or EndEpoch changes something only if our epoch is over."""
    if event.response.epoch > raft.epoch:
        _meet_answer(raft, event)


def _meet_answer(raft: Raft, event: VoteAnswered | EpochAnswered) -> None:
    """A voter that we asked is ahead of us; it may know who leads there."""
    voter, response = event.voter, event.response
    is_heeded = voter in raft.ledger.voters
    if raft.meet_epoch(response.epoch, f"voter {voter.id}", is_heeded=is_heeded):
        _follow_hint(raft, event)


def _follow_hint(raft: Raft, event: VoteAnswered | EpochAnswered) -> None:
    voter = raft.ledger.voters.of_key(event.voter)
    if voter is not None:
        following.follow_hint(raft, event.response.leader, voter.endpoint)
