"""The base of all roles: giving votes, learning of the leader, answering requests.

A role is a class with `step`, `tick` and `deadline`. It changes the State that all roles share,
and returns the Transition to the next role, or None to stay. A request of a newer epoch first ends
the role (Raft, 5.1). The transition holds the request, and the new role answers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from quorate_quorum.raft.machine.events import (
    BeginEpochRequested,
    EndEpochRequested,
    EpochAnswered,
    Event,
    FetchReceived,
    LeaderFound,
    VoteAnswered,
    VoteRequested,
)
from quorate_quorum.raft.machine.hard_state import EPOCH_MAX
from quorate_quorum.raft.machine.messages import (
    EndEpochRequest,
    EpochResponse,
    FetchResponse,
    Refusal,
    VoteRequest,
    VoteResponse,
)
from quorate_quorum.raft.machine.ready import FetchReply, FindLeader, Install, Reply
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.transitions import (
    ToCandidate,
    ToFollower,
    ToProspective,
    ToUnattached,
    Transition,
)
from quorate_quorum.raft.machine.voters import NOBODY, ReplicaKey

NO_SESSION = 0


class Role(ABC):
    """One role of a replica. The object is made at a transition and dropped at the next."""

    #: The leader of this epoch (NOBODY if it is not known) and its endpoint.
    leader: ReplicaKey = NOBODY
    endpoint: str = ""
    #: The only fetch stream that may stay open.
    session: int = NO_SESSION
    #: The only download that may go on.
    install: Install | None = None

    def __init__(self, state: State) -> None:
        self.state = state

    def begin(self) -> None:
        """Begin the role. The change of role is already noted for the log."""

    def end(self) -> None:
        """End the role. The next role is already in place, and its epoch has begun."""

    @abstractmethod
    def tick(self) -> Transition | None:
        """Do what is due at the present time."""

    @abstractmethod
    def deadline(self) -> int:
        """Return the time at which the next tick is due, in ms."""

    def settle(self) -> Transition | None:
        """Carry out what follows from a changed state. Called after every event."""
        return None

    def check(self) -> None:
        """Assert the role's invariants. Nothing that a peer sends can break them."""

    def hears_a_leader(self) -> bool:
        """Return whether a leader is alive, as far as this replica knows."""
        return False

    def step(self, event: Event) -> Transition | None:
        """Take in an event."""
        match event:
            case FetchReceived():
                return self._fetch_received(event)
            case VoteRequested():
                return self._vote_requested(event)
            case VoteAnswered() | EpochAnswered():
                return self._answered(event)
            case BeginEpochRequested():
                return self._begin_epoch_requested(event)
            case EndEpochRequested():
                return self._end_epoch_requested(event)
            case LeaderFound():
                return self._leader_found(event)
            case _:
                return None

    # --- epochs ---------------------------------------------------------------------------------

    def _enter(
        self, epoch: int, sender: str, *, is_heeded: bool, event: Event | None = None
    ) -> ToUnattached | None:
        """Return the transition into a peer's newer epoch; None if it must not be entered."""
        if not self.state.may_enter(epoch, is_heeded=is_heeded):
            return None
        return ToUnattached(epoch, f"{sender} is in epoch {epoch}", event=event)

    def _heeds(self, replica: ReplicaKey) -> bool:
        """Return whether a replica that leads, or wants to lead, may raise this replica's epoch.

        The sender may not be a voter in this log, for two reasons. It became a voter by a record
        that this log lacks: then the quorum may need this replica's vote to elect it. Or it was
        removed, and asks for votes because it hears no leader: then it must not depose a leader
        that this replica hears.
        """
        return replica in self.state.ledger.voters or not self.hears_a_leader()

    # --- votes given ----------------------------------------------------------------------------

    def _vote_requested(self, event: VoteRequested) -> Transition | None:
        """Answer a candidate. A granted vote is final; a granted pre-vote is not."""
        state, request = self.state, event.request
        candidate = request.candidate
        # The request may be meant for an earlier disk of this voter id. If so, this disk must not
        # vote.
        is_meant = request.voter == state.me and candidate != state.me
        if is_meant:
            sender, is_heeded = f"candidate {candidate.id}", self._heeds(candidate)
            if entered := self._enter(request.epoch, sender, is_heeded=is_heeded, event=event):
                return entered
        granted = is_meant and request.epoch == state.epoch and self._may_grant(request)
        state.send(
            Reply(
                event.caller,
                VoteResponse(state.epoch, self.leader.id, granted, self.leader.directory_id),
            )
        )
        if not granted or request.pre_vote:
            return None
        state.save(state.hard_state.voting_for(candidate))
        return ToUnattached(state.epoch, f"voted for {candidate.id}")

    def _may_grant(self, request: VoteRequest) -> bool:
        state = self.state
        if self._may_have_forgotten(request):
            return False
        if not state.ledger.is_up_to_date(request.last_epoch, request.log_end_offset):
            return False
        if request.pre_vote:
            # A voter that was cut off must not end a healthy reign when it returns (KIP-996).
            return not self.hears_a_leader()
        if state.hard_state.voted_for is not None:
            return state.hard_state.voted_for == request.candidate and self.leader == NOBODY
        return self.leader == NOBODY

    def _may_have_forgotten(self, request: VoteRequest) -> bool:
        """Return whether this vote could elect a candidate without records that this disk forgot.

        The disk may be a replacement. If so, this replica acknowledged records that it does not
        hold. The vote is safe if this disk first voted in the epoch of the candidate's last record,
        or earlier: the leader of that epoch held all records that were committed before it, and
        this disk has forgotten nothing since. Without this exception, a quorum could stop for ever
        after a power loss of all voters. Example: the first EpochStart was written, but not
        committed. Then the other voters would refuse the only voter that wrote it.
        """
        state = self.state
        first_vote = state.hard_state.first_vote_epoch
        if request.last_epoch <= 0 or 0 < first_vote <= request.last_epoch:
            return False
        if state.ledger.holds_only_bootstrap:
            state.fall_behind()
        return state.hard_state.is_behind

    # --- elections ------------------------------------------------------------------------------

    def _stand(
        self, reason: str, *, is_transfer: bool = False, for_silence: bool = False
    ) -> Transition | None:
        """Begin an election, if this replica may begin one; else wait for a leader."""
        state = self.state
        if not state.may_stand() or state.hard_state.is_behind:
            return self._wait_for_a_leader(reason)
        if state.is_sole_voter() or is_transfer:
            return self._raise_epoch(reason, is_transfer=is_transfer, for_silence=for_silence)
        return ToProspective(reason)

    def _wait_for_a_leader(self, reason: str) -> Transition | None:
        """Ask for the leader. A leader announces itself only to voters: a non-voter has to ask."""
        self._ask_voters_who_leads()
        return ToUnattached(self.state.epoch, f"{reason}; it may not stand")

    def _ask_voters_who_leads(self) -> None:
        others = self.state.ledger.voters.others(self.state.me)
        self.state.ask_for_leader(*(voter.endpoint for voter in others))

    def _raise_epoch(
        self, reason: str, *, is_transfer: bool = False, for_silence: bool = False
    ) -> ToCandidate | None:
        state = self.state
        if state.epoch >= EPOCH_MAX:
            state.outbox.fatal = f"epoch {state.epoch} is the last there is"
            return None
        for_silence = for_silence or state.silenced_epoch == state.epoch
        return ToCandidate(reason, is_transfer, for_silence)

    # --- the leader -----------------------------------------------------------------------------

    def _begin_epoch_requested(self, event: BeginEpochRequested) -> Transition | None:
        """Follow a replica that says it leads in this epoch, unless another leader is known."""
        state, leader = self.state, event.request.leader
        if leader != state.me:
            sender, is_heeded = f"leader {leader.id}", self._heeds(leader)
            if entered := self._enter(
                event.request.epoch, sender, is_heeded=is_heeded, event=event
            ):
                return entered
        is_possible = leader != state.me and self.leader in (NOBODY, leader)
        refusal = self._refusal(event.request.epoch, is_possible=is_possible)
        self._answer(event.caller, self.leader if refusal else leader, refusal)
        if refusal is not None or self.leader == leader:
            return None
        voter = state.ledger.voters.of_key(leader)
        endpoint = voter.endpoint if voter else event.request.endpoint
        return ToFollower(leader, endpoint, "the leader of the epoch said so")

    def _end_epoch_requested(self, event: EndEpochRequested) -> Transition | None:
        """Take note that a leader resigns. Begin an election at once, or after a wait."""
        state, request = self.state, event.request
        if request.leader_id != state.me.id:
            sender = f"leader {request.leader_id}"
            is_voter = state.ledger.voters.by_id(request.leader_id) is not None
            if entered := self._enter(request.epoch, sender, is_heeded=is_voter, event=event):
                return entered
        is_possible = request.leader_id != state.me.id and self.leader.id in (
            NOBODY.id,
            request.leader_id,
        )
        refusal = self._refusal(request.epoch, is_possible=is_possible)
        self._answer(event.caller, self.leader, refusal)
        if refusal is not None:
            return None
        if request.handed_over_for_silence:
            state.silenced_epoch = request.epoch
        return self._succeed(request)

    def _succeed(self, request: EndEpochRequest) -> Transition | None:
        """Begin an election at once, without a pre-vote, if the leader named this replica first."""
        if self._successors(request)[:1] != (self.state.me.id,):
            return None
        return self._stand(
            ended(request), is_transfer=True, for_silence=request.handed_over_for_silence
        )

    def _successors(self, request: EndEpochRequest) -> tuple[int, ...]:
        """Return the successors that the leader named, but no more than there are voters.

        A peer can name any number of ids, and each of them makes this replica wait longer.
        """
        return request.preferred_successors[: len(self.state.ledger.voters.voters)]

    def _leader_found(self, event: LeaderFound) -> Transition | None:
        """Follow the leader that another node named, unless this replica hears a leader."""
        state = self.state
        if event.epoch < state.epoch or event.leader == state.me or self.hears_a_leader():
            return None
        sender = f"leader {event.leader.id}"
        if entered := self._enter(event.epoch, sender, is_heeded=True, event=event):
            return entered
        if event.epoch > state.epoch or self.leader != NOBODY:
            return None
        reason = "a node that we asked hears the leader"
        return ToFollower(event.leader, event.endpoint, reason)

    def _answered(self, event: VoteAnswered | EpochAnswered) -> Transition | None:
        """Enter the newer epoch of a voter that answered, and follow the leader that it named."""
        response = event.response
        voter = self.state.ledger.voters.of_key(event.voter)
        sender = f"voter {event.voter.id}"
        entered = self._enter(response.epoch, sender, is_heeded=voter is not None)
        if entered is None or voter is None:
            return None
        follow = self._hint(response.leader, voter.endpoint)
        return ToUnattached(entered.epoch, entered.reason, follow)

    def _hint(self, leader: ReplicaKey, told_at: str) -> ToFollower | None:
        """Follow the leader that a peer named. If it is no voter here, ask for its endpoint.

        A voter here with the leader's id but another disk is another replica: its endpoint does not
        count.
        """
        if leader.id < 0 or leader == self.state.me:
            return None
        voter = self.state.ledger.voters.of_key(leader)
        if voter is None:
            self.state.send(FindLeader(told_at))
            return None
        return ToFollower(leader, voter.endpoint, "a voter knows the leader")

    def _refusal(self, epoch: int, *, is_possible: bool) -> Refusal | None:
        """Return why a leader's request is refused; None if it is accepted.

        A request of a higher epoch gets here only if this replica may not enter that epoch.
        """
        if epoch < self.state.epoch:
            return Refusal.FENCED_EPOCH
        return None if epoch == self.state.epoch and is_possible else Refusal.INVALID

    def _answer(self, caller: int, leader: ReplicaKey, refusal: Refusal | None) -> None:
        response = EpochResponse(self.state.epoch, leader.id, refusal, leader.directory_id)
        self.state.send(Reply(caller, response))

    # --- fetches --------------------------------------------------------------------------------

    def _fetch_received(self, event: FetchReceived) -> Transition | None:
        """Take a fetch. Only a voter's fetch may raise the epoch: no observer deposes a leader."""
        state, replica, request = self.state, event.stream.replica, event.request
        is_heeded = replica in state.ledger.voters and replica != state.me
        sender = f"replica {replica.id}"
        if entered := self._enter(request.epoch, sender, is_heeded=is_heeded, event=event):
            return entered
        if request.epoch < state.epoch:
            self._refuse_fetch(event, Refusal.FENCED_EPOCH)
        elif request.epoch > state.epoch or replica == state.me or request.fetch_offset < 0:
            self._refuse_fetch(event, Refusal.INVALID)
        else:
            self._take_fetch(event)
        return None

    def _take_fetch(self, event: FetchReceived) -> None:
        self._refuse_fetch(event, Refusal.NOT_LEADER)

    def _refuse_fetch(self, event: FetchReceived, refusal: Refusal) -> None:
        response = FetchResponse(
            self.state.epoch,
            self.leader.id,
            event.request.fetch_offset,
            refusal=refusal,
            leader_directory_id=self.leader.directory_id,
        )
        self.state.send(FetchReply(event.caller, response))


def ended(request: EndEpochRequest) -> str:
    """Return the reason for the change of role after an EndEpoch request."""
    return f"leader {request.leader_id} ended its reign"
