"""The role of a replica that leads: it appends records, answers fetches, and commits.

A fetch waits until there is news for it. `settle` is called after every event: it commits records,
confirms the reads whose round a majority has heard, and answers fetches.
"""

from __future__ import annotations

from quorate.errors import NotControllerError, OverloadedError
from quorate_quorum.raft.machine import voter_change
from quorate_quorum.raft.machine.events import Applied, Event, FetchAbandoned, FetchReceived
from quorate_quorum.raft.machine.ledger import Batch, Ledger
from quorate_quorum.raft.machine.messages import (
    BeginEpochRequest,
    DivergingEpoch,
    EndEpochRequest,
    FetchRequest,
    FetchResponse,
    Refusal,
)
from quorate_quorum.raft.machine.progress import ParkedFetch
from quorate_quorum.raft.machine.ready import Call, FetchReply, Reign
from quorate_quorum.raft.machine.replicas import Replicas
from quorate_quorum.raft.machine.role import Role
from quorate_quorum.raft.machine.rounds import Rounds
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.transfer import Transfer, is_ready, successor
from quorate_quorum.raft.machine.transitions import ToResigned, Transition
from quorate_quorum.raft.machine.voters import NOBODY, VoterSet
from quorate_quorum.snapshots.file import SnapshotId


class Leader(Role):
    """The reign of this replica over one epoch. The object is dropped when the reign ends.

    Only the leader of an epoch appends records of it, and the leader never cuts its log. So two
    logs that agree on an (offset, epoch) agree on all records below it (Raft, 5.3).
    """

    def __init__(self, state: State, *, handed_over_for_silence: bool) -> None:
        super().__init__(state)
        assert state.epoch > state.last_led_epoch, "no replica leads twice in an epoch"
        state.last_led_epoch = state.epoch
        state.silenced_epoch = -1
        self.leader = state.me
        self.endpoint = state.endpoint
        self.epoch = state.epoch
        #: The first offset of this epoch. Nothing is committed until the record *at* it is. Even if
        #: a majority holds an older record, a log of a newer epoch can win an election and replace
        #: that record (Raft, 5.4.2 and figure 8). KAFKA-12619 is this rule, off by one.
        self.epoch_start_offset = state.ledger.log_end_offset
        self.handed_over_for_silence = handed_over_for_silence
        self.replicas = Replicas(state)
        self.rounds = Rounds(state)
        #: The time at which the reign is announced again to voters that do not fetch.
        self.announce_at_ms = -1
        #: (end offset, bytes) of each uncommitted proposal, and the sum of the bytes.
        self.uncommitted: list[tuple[int, int]] = []
        self.uncommitted_bytes = 0
        #: The transfer under way. It bars proposals, so that the successor can catch up.
        self.transfer: Transfer | None = None
        #: Whether this replica's removal is committed. Once it is applied, the leader resigns.
        self.is_leaving = False

    # --- the role -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Append the epoch's first record and announce the reign."""
        state = self.state
        silence, offset = self.handed_over_for_silence, self.epoch_start_offset
        self.append(state.epoch_start(self.epoch, silence, offset))
        self._announce()

    def end(self) -> None:
        """Refuse waiting fetches and drop the reads, because later answers could be stale."""
        self.leader = NOBODY
        outbox = self.state.outbox
        outbox.lost_epoch = self.epoch
        outbox.reign = None
        outbox.confirmed_reads.clear()
        for progress in self.replicas.known.values():
            if progress.parked is not None:
                self._refuse_fetch(progress.parked.event, Refusal.NOT_LEADER)

    def step(self, event: Event) -> Transition | None:
        match event:
            case FetchAbandoned():
                self._fetch_abandoned(event)
            case Applied() if self.is_leaving:
                # Only now, for the callers that asked for the removal have their answer.
                return self.resign("it was removed from the voters")
            case _:
                return super().step(event)
        return None

    def tick(self) -> Transition | None:
        """Resign if no majority hears this leader (check quorum), or announce the reign again."""
        state = self.state
        self.replicas.forget_silent_observers()
        if state.is_sole_voter():
            return None
        if self.transfer is not None and state.now_ms >= self.transfer.deadline_ms:
            waited_ms = state.timing.election_timeout_ms
            self._give_up_transfer(self.transfer, f"it had not caught up after {waited_ms} ms")
        if state.now_ms >= self.rounds.heard_ms + state.timing.check_quorum_ms:
            # A leader that is cut off must not answer clients that can't reach the next leader.
            # The vote is kept: a forgotten vote could be given again in this epoch.
            return ToResigned("no majority of voters was heard")
        if state.now_ms >= self.announce_at_ms:
            self._announce()
        return None

    def deadline(self) -> int:
        state = self.state
        due = [self.rounds.heard_ms + state.timing.check_quorum_ms, self.announce_at_ms]
        if state.is_sole_voter():
            due = [state.now_ms + state.timing.check_quorum_ms]
        if self.transfer is not None:
            due.append(self.transfer.deadline_ms)
        parked = [p.parked for p in self.replicas.known.values() if p.parked is not None]
        return min(due + [fetch.deadline_ms for fetch in parked])

    def settle(self) -> Transition | None:
        """Commit records, confirm the reads whose round a majority heard, and answer fetches."""
        state = self.state
        voters = state.ledger.voters
        if voters.voters:
            self._advance_high_watermark(self.replicas.majority_end(voters))
            heard = self.replicas.majority_round(voters)
            self.rounds.heard(heard, may_confirm=self.has_committed_own())
        self._answer_parked()
        is_removed = not state.is_voter() and state.ledger.are_voters_committed
        if is_removed and not self.is_leaving:
            self.is_leaving = True
            state.outbox.wants_applied = state.ledger.high_watermark
        elif not is_removed and self.transfer and is_ready(state, self.replicas, self.transfer):
            to = self.transfer.to.id
            return self.resign(f"transferred to voter {to}", first=to)
        return None

    def check(self) -> None:
        state = self.state
        assert self.epoch == state.epoch == state.ledger.last_epoch
        assert state.hard_state.voted_for == state.me
        assert self.epoch_start_offset < state.ledger.log_end_offset
        assert self.transfer is None or self.transfer.to in state.ledger.voters
        self.replicas.check()

    def hears_a_leader(self) -> bool:
        return True

    # --- proposals and transfers ----------------------------------------------------------------

    def check_may_propose(self) -> None:
        """Raise OverloadedError if too much is uncommitted, or during a transfer.

        NotControllerError before the epoch's first commit: a decision could come from an old image.
        """
        state = self.state
        if not self.has_committed_own():
            raise NotControllerError(
                f"node {state.me.id} leads in epoch {self.epoch}, but nothing of it is committed"
                " yet"
            )
        if self.transfer is not None:
            raise OverloadedError(
                f"leadership goes to voter {self.transfer.to.id}: nothing is proposed meanwhile"
            )
        batches, size, timing = len(self.uncommitted), self.uncommitted_bytes, state.timing
        if batches >= timing.uncommitted_max or size > timing.uncommitted_bytes_max:
            raise OverloadedError(
                f"{batches} batches of {size} bytes are proposed and not committed; at most"
                f" {timing.uncommitted_max} of {timing.uncommitted_bytes_max}"
            )

    def check_may_change_voters(self, voters: VoterSet) -> None:
        voter_change.check_may_change_voters(self.state, self.replicas, voters)

    def append(self, batch: Batch) -> None:
        """Append a batch of this epoch, and count it as uncommitted."""
        assert batch.epoch == self.epoch
        self.state.append(batch)
        if batch.voters is not None:
            self.rounds.heard_ms = self.state.now_ms  # the new voters need time to hear this leader
        self.uncommitted.append((batch.end_offset, len(batch.data)))
        self.uncommitted_bytes += len(batch.data)

    def successor(self, voter_id: int | None) -> int:
        """Return the voter to transfer to: `voter_id`; without one, the present or the best one."""
        if voter_id is None and self.transfer is not None:
            return self.transfer.to.id
        return successor(self.state, self.replicas, voter_id)

    def begin_transfer(self, voter_id: int) -> None:
        """Begin a transfer to a voter. A transfer under way to another voter is given up."""
        current, state = self.transfer, self.state
        if current is not None and current.to.id == voter_id:
            # The transfer's deadline stays: otherwise repeats could bar proposals for ever.
            return
        if current is not None:
            self._give_up_transfer(current, f"voter {voter_id} was named instead")
        voter = state.ledger.voters.by_id(voter_id)
        if voter is not None and voter_id != state.me.id:
            deadline = state.now_ms + state.timing.election_timeout_ms
            self.transfer = Transfer(voter.key, deadline)

    def _give_up_transfer(self, current: Transfer, reason: str) -> None:
        self.transfer = None
        self.state.outbox.transfers_given_up.append((current.to.id, reason))

    def resign(self, reason: str, *, for_silence: bool = False, first: int = -1) -> ToResigned:
        """Return the transition that ends the reign in favour of `first`; -1: the best voter."""
        state = self.state
        others = state.ledger.voters.others(state.me)
        ends = {voter.id: self.replicas.of(voter.key).log_end_offset for voter in others}
        successors = sorted(ends, key=lambda voter: (voter != first, -ends[voter], voter))
        if for_silence:
            state.silenced_epoch = self.epoch
        request = EndEpochRequest(self.epoch, state.me.id, tuple(successors), for_silence)
        return ToResigned(reason, tuple(Call(voter, request) for voter in others))

    def has_committed_own(self) -> bool:
        """Return whether the first record of this reign is committed (Raft, 5.4.2)."""
        return self.state.ledger.high_watermark > self.epoch_start_offset

    def _announce(self) -> None:
        """Announce the reign to voters that have not fetched lately."""
        state = self.state
        self.announce_at_ms = state.now_ms + state.timing.fetch_wait_ms
        request = BeginEpochRequest(self.epoch, state.me, state.endpoint)
        for voter in state.ledger.voters.others(state.me):
            if not self.replicas.is_recent(self.replicas.of(voter.key).last_fetch_ms):
                state.send(Call(voter, request))

    # --- fetches --------------------------------------------------------------------------------

    def _take_fetch(self, event: FetchReceived) -> None:
        """Note what a fetch acknowledges, and park the fetch until there is an answer."""
        state, request, stream = self.state, event.request, event.stream
        progress = self.replicas.heard(stream.replica, event.endpoint)
        if progress is None:
            self._refuse_fetch(event, Refusal.OVERLOADED)
            return
        superseded = progress.parked
        if not progress.admits(stream):
            # The request came late, on a superseded stream: the progress would go back.
            self._refuse_fetch(event, Refusal.OLD_STREAM)
            return
        if superseded is not None and superseded.event.stream != stream:
            # Otherwise the fetch of the old stream would wait for ever.
            self._refuse_fetch(superseded.event, Refusal.OLD_STREAM)
        self.replicas.note_round(progress, request)
        deadline_ms = state.now_ms + state.timing.fetch_wait_ms
        fetch = ParkedFetch(event, deadline_ms, request.high_watermark)
        other_past = _compare(state.ledger, request)
        if other_past is not None:
            # Do not move the progress: below its fetch_offset the replica holds other records than
            # this leader (KAFKA-13141). Only the round counts: the replica did hear the leader.
            self._answer_fetch(fetch, other_past)
            return
        progress.record(request, state.ledger.log_end_offset, state.now_ms)
        progress.parked = fetch

    def _fetch_abandoned(self, event: FetchAbandoned) -> None:
        """Forget the fetch that waits on a stream that has ended."""
        progress = self.replicas.known.get(event.stream.replica)
        if progress is None or progress.stream != event.stream:
            return
        progress.is_connected = False
        if progress.parked and progress.parked.event.stream == event.stream:
            progress.parked = None

    def _answer_parked(self) -> None:
        high_watermark = self._told_high_watermark()
        for progress in self.replicas.known.values():
            fetch = progress.parked
            if fetch is None:
                continue
            if self._is_due(fetch):
                progress.parked = None
                self._answer_fetch(fetch)
            elif fetch.told_high_watermark < high_watermark:
                # Leave the fetch parked. To end it would cost one more message in each direction.
                fetch.told_high_watermark = high_watermark
                self._answer_fetch(fetch, interim=True)

    def _is_due(self, fetch: ParkedFetch) -> bool:
        request = fetch.event.request
        return (
            request.fetch_offset < self.state.ledger.written_end
            or request.round < self.rounds.urgent_round
            or self.state.now_ms >= fetch.deadline_ms
        )

    def _told_high_watermark(self) -> int:
        """Return the high watermark to put into answers; 0 before this epoch's first commit."""
        # A follower that is behind catches up to this offset. Before the commit, it may be too low.
        return self.state.ledger.high_watermark if self.has_committed_own() else 0

    def _answer_fetch(
        self,
        fetch: ParkedFetch,
        other_past: DivergingEpoch | SnapshotId | None = None,
        *,
        interim: bool = False,
    ) -> None:
        ledger = self.state.ledger
        response = FetchResponse(
            self.epoch,
            self.state.me.id,
            fetch.event.request.fetch_offset,
            self._told_high_watermark(),
            ledger.log_start_offset,
            self.state.round,
            diverging=other_past if isinstance(other_past, DivergingEpoch) else None,
            snapshot=other_past if isinstance(other_past, SnapshotId) else None,
            interim=interim,
        )
        end = 0 if other_past is not None or interim else ledger.written_end
        self.state.send(FetchReply(fetch.event.caller, response, end, ledger.truncations))

    def _advance_high_watermark(self, end: int) -> None:
        state = self.state
        if end <= self.epoch_start_offset or end <= state.ledger.high_watermark:
            return
        was_serving = self.has_committed_own()
        state.raise_high_watermark(end)
        while self.uncommitted and self.uncommitted[0][0] <= end:
            self.uncommitted_bytes -= self.uncommitted.pop(0)[1]
        if not was_serving:
            since = self.epoch_start_offset + 1
            state.outbox.reign = Reign(self.epoch, since, self.handed_over_for_silence)


def _compare(ledger: Ledger, request: FetchRequest) -> DivergingEpoch | SnapshotId | None:
    """Return what makes the logs agree; None if the leader's log continues the replica's log.

    That is the leader's newest snapshot in two cases: the leader has cut the records that the
    replica needs next; or all epochs of the leader's log are newer than the replica's last one.
    Otherwise it is a diverging epoch.
    """
    start = ledger.log_start_offset
    if request.fetch_offset == start == 0:
        return None
    epoch, end = ledger.end_offset_for(request.last_fetched_epoch)
    if ledger.snapshot is not None and start > 0 and (request.fetch_offset < start or epoch < 0):
        return ledger.snapshot.id
    if epoch == request.last_fetched_epoch and request.fetch_offset <= end:
        return None
    return DivergingEpoch(epoch, end)
