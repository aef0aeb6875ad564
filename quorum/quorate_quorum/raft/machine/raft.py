"""The Raft machine of one replica: it does no IO, and replicas pull records as in KRaft.

    event ---> step --+                          +--> Ready: hard state, save, messages,
    time  ---> tick --+--> role --> Transition --+    readable end, reads that are confirmed,
    caller --> propose, read, transfer, resign   +    news for the RaftListener

The driver carries Readies out in order, and passes the completions back as events. Time, chance and
encodings are arguments. A role decides (leader.py, follower.py, candidate.py, unattached.py); this
module passes events to the present role and changes roles. state.py has what all roles share.

Raft's safety rules, and the code that keeps them:
    one vote in an epoch, on disk before it is sent (5.2)           hard_state.py, State.send
    a vote only for a log at least as complete (5.4.1)              Role._may_grant
    nothing is committed by counting older epochs' records (5.4.2)  Leader._advance_high_watermark
    nothing below the high watermark is cut                         Follower._diverge
    no replica leads twice in an epoch                              Leader.__init__, Resigned
    voters change one at a time, each change committed first        voter_change.py
Messages of peers are checked, and refused if they are wrong. This replica's own state is asserted
after every event.
"""

from __future__ import annotations

from quorate.errors import NotControllerError
from quorate_quorum.raft.machine.candidate import Candidate, Prospective
from quorate_quorum.raft.machine.events import Event, LeaderFound
from quorate_quorum.raft.machine.follower import Follower
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.leader import Leader
from quorate_quorum.raft.machine.ledger import Batch, Ledger
from quorate_quorum.raft.machine.ready import FetchReply, Ready, RoleChange
from quorate_quorum.raft.machine.role import Role
from quorate_quorum.raft.machine.state import Chance, EpochStartEncoder, State
from quorate_quorum.raft.machine.status import QuorumStatus, quorum_status
from quorate_quorum.raft.machine.timing import FRESH_START_MS, Timing
from quorate_quorum.raft.machine.transitions import (
    ToCandidate,
    ToFollower,
    ToLeader,
    ToProspective,
    ToResigned,
    ToUnattached,
    Transition,
)
from quorate_quorum.raft.machine.unattached import Resigned, Unattached
from quorate_quorum.raft.machine.voters import ReplicaKey, VoterSet


class Raft:
    """One replica's machine: its state and its present role."""

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
        self.state = State(
            me,
            ledger,
            hard_state,
            timing=timing,
            chance=chance,
            epoch_start=epoch_start,
            endpoint=endpoint,
            now_ms=now_ms,
            bootstrap_servers=bootstrap_servers,
        )
        self.role = self._first_role()

    def _first_role(self) -> Role:
        """Return the role in which a process starts. A sole voter begins an election at once."""
        state = self.state
        timeout_at_ms = state.now_ms
        if not state.is_sole_voter() or state.hard_state.is_behind:
            timeout_at_ms += state.draw(*FRESH_START_MS)
        if state.hard_state.voted_for == state.me:
            # Do not lead again in this epoch: this replica may have led in it, and its disk may
            # have lost records of that reign.
            role: Role = Resigned(state, timeout_at_ms)
            self._note(role, "started, having stood in this epoch before")
        else:
            role = Unattached(state, timeout_at_ms)
            self._note(role, "started")
        return role

    # --- its view -------------------------------------------------------------------------------

    @property
    def me(self) -> ReplicaKey:
        return self.state.me

    @property
    def ledger(self) -> Ledger:
        return self.state.ledger

    @property
    def hard_state(self) -> HardState:
        return self.state.hard_state

    @property
    def epoch(self) -> int:
        return self.state.epoch

    @property
    def high_watermark(self) -> int:
        return self.state.ledger.high_watermark

    @property
    def leader(self) -> ReplicaKey:
        """The leader of this epoch; NOBODY if it is not known."""
        return self.role.leader

    @property
    def leader_id(self) -> int:
        """The leader's id; -1 if it is not known."""
        return self.role.leader.id

    @property
    def leader_endpoint(self) -> str:
        return self.role.endpoint

    def leader_heard(self) -> LeaderFound | None:
        """Return the leader, for nodes that look for it; None if this replica hears none now.

        A leader that was heard earlier may be gone, and then the nodes would wait for its answer in
        vain.
        """
        if not self.role.hears_a_leader():
            return None
        return LeaderFound(self.epoch, self.leader, self.leader_endpoint)

    def status(self) -> QuorumStatus:
        """Return the quorum as this node sees it. Only a leader knows the replicas' progress."""
        return quorum_status(self.role)

    # --- events and time ------------------------------------------------------------------------

    def step(self, event: Event, now_ms: int) -> None:
        """Take in an event."""
        self._set_time(now_ms)
        if self.state.step(event):
            self._change(self.role.step(event))
        self._settle()

    def tick(self, now_ms: int) -> None:
        """Let time pass. A tick is due at `deadline_ms()`, and harmless at any other time."""
        self._set_time(now_ms)
        self._change(self.role.tick())
        self._settle()

    def deadline_ms(self) -> int:
        """Return the time at which the next tick is due."""
        return self.role.deadline()

    def ready(self) -> Ready | None:
        """Return the effects since the last call; None if there are none."""
        return self.state.take_ready(self.role.session, self.role.install)

    # --- the leader's callers -------------------------------------------------------------------

    def check_may_propose(self, epoch: int) -> None:
        """Raise unless this replica leads in `epoch` and may propose now.

        NotControllerError if it does not lead in `epoch`, or has not committed the first record of
        its reign.

        OverloadedError while too much is uncommitted, or leadership is being transferred.
        """
        self._leading(epoch).check_may_propose()

    def check_may_change_voters(self, voters: VoterSet, now_ms: int) -> None:
        """Raise unless `voters` may be the next set (voter_change.py).

        Call this after check_may_propose.

        The rules depend on the time. If this method accepts the set, `propose` accepts it at the
        same `now_ms`.
        """
        self._set_time(now_ms)
        self._leading().check_may_change_voters(voters)

    def propose(self, batch: Batch, now_ms: int) -> None:
        """Append a batch of this epoch at the log's end. Call after check_may_propose."""
        self._set_time(now_ms)
        leader = self._leading(batch.epoch)
        leader.check_may_propose()
        if batch.voters is not None:
            leader.check_may_change_voters(batch.voters)
        leader.append(batch)
        self._settle()

    def check_may_read(self) -> None:
        """Raise NotControllerError unless this replica leads, OverloadedError above READS_MAX."""
        self._leading().rounds.check_may_read()

    def read(self, now_ms: int) -> int:
        """Begin a linearizable read. Return its id, which comes back in Ready.confirmed_reads.

        NotControllerError if this replica does not lead. When the reign ends (Ready.lost_epoch),
        the reads of the reign are dropped.
        """
        self._set_time(now_ms)
        rounds = self._leading().rounds
        rounds.check_may_read()
        read = rounds.begin_read()
        self._settle()
        return read

    def check_may_transfer(self, voter_id: int | None) -> int:
        """Return the voter for `transfer`: `voter_id`, or for None the most caught-up one.

        NotControllerError if this replica does not lead.
        InvalidRequestError if the id is not a voter's.
        """
        return self._leading().successor(voter_id)

    def transfer(self, voter_id: int, now_ms: int) -> None:
        """Give leadership to that voter once it holds the whole log. Call after check_may_transfer.

        Until the transfer ends, nothing can be proposed. After an election timeout the transfer is
        given up, and Ready.transfers_given_up names the voter. This replica's own id cancels a
        transfer that is under way.
        """
        self._set_time(now_ms)
        self.check_may_transfer(voter_id)
        self._leading().begin_transfer(voter_id)
        self._settle()

    def resign(self, now_ms: int, *, reason: str, for_silence: bool = False) -> None:
        """If this replica leads, resign in favour of the most caught-up other voter."""
        self._set_time(now_ms)
        if isinstance(self.role, Leader) and self.ledger.voters.others(self.me):
            self._change(self.role.resign(reason, for_silence=for_silence))
            self._settle()

    def still_holds(self, reply: FetchReply) -> bool:
        """Return whether the bytes that were read from the log for this answer are still valid.

        During the read the reign may have ended, and another leader may have made this replica cut
        its log.
        """
        leads = isinstance(self.role, Leader) and self.epoch == reply.response.epoch
        return leads and self.ledger.truncations == reply.truncations

    def _leading(self, epoch: int | None = None) -> Leader:
        if isinstance(self.role, Leader) and epoch in (None, self.role.epoch):
            return self.role
        where = "" if epoch is None else f" in epoch {epoch}"
        raise NotControllerError(
            f"node {self.me.id} does not lead{where}; epoch {self.epoch}, leader {self.leader_id}"
        )

    # --- changes of role ------------------------------------------------------------------------

    def _set_time(self, now_ms: int) -> None:
        self.state.now_ms = max(self.state.now_ms, now_ms)

    def _settle(self) -> None:
        """Let the role settle after a change, then assert the invariants."""
        self._change(self.role.settle())
        self.state.check()
        self.role.check()

    def _change(self, to: Transition | None) -> None:
        """Carry out a transition, and those that follow from it."""
        while to is not None:
            before, self.role = self.role, self._role_of(to)
            before.end()
            self._note(self.role, to.reason)
            self.role.begin()
            to = self._go_on(to)

    def _role_of(self, to: Transition) -> Role:
        """Change the hard state as the next role needs it, and return an object of that role."""
        state = self.state
        match to:
            case ToUnattached():
                if to.epoch > state.epoch:
                    state.save(state.hard_state.entering(to.epoch))
                return Unattached(state, state.election_timeout_at())
            case ToFollower():
                return Follower(state, to.leader, to.endpoint)
            case ToProspective():
                return Prospective(state)
            case ToCandidate():
                state.save(state.hard_state.entering(state.epoch + 1).voting_for(state.me))
                return Candidate(state, is_transfer=to.is_transfer, for_silence=to.for_silence)
            case ToLeader():
                return Leader(state, handed_over_for_silence=to.handed_over_for_silence)
            case ToResigned():
                return Resigned(state, state.election_timeout_at())

    def _go_on(self, to: Transition) -> Transition | None:
        """Carry out the rest of a transition in the new role. Return the next one, or None."""
        match to:
            case ToResigned():
                for call in to.farewell:
                    self.state.send(call)
                return None
            case ToUnattached():
                return to.follow if to.event is None else self.role.step(to.event)
            case _:
                return None

    def _note(self, role: Role, reason: str) -> None:
        name = type(role).__name__.lower()
        change = RoleChange(name, self.epoch, role.leader.id, role.endpoint, reason)
        self.state.outbox.role_changes.append(change)
        self.state.sync_again()  # because the completions of the old epoch's syncs are ignored
