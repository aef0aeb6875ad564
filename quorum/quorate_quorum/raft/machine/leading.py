"""Leading: the reign of this node, the fetches it receives and answers, and what they commit.

Functions over the machine of raft.py, which holds all state; machines too. Laws held here (DESIGN
section 4): nothing is committed by counting replicas of an older epoch's records (3); nobody leads
twice in an epoch (5). Fetches wait until there is something to say; `settle` says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.errors import InvalidRequestError
from quorate_quorum.raft.machine.messages import (
    Applied,
    Batch,
    BeginEpochRequest,
    Call,
    DivergingEpoch,
    EndEpochRequest,
    FetchAbandoned,
    FetchReceived,
    FetchReply,
    FetchRequest,
    FetchResponse,
    Refusal,
    Reign,
    ReplicaKey,
)
from quorate_quorum.raft.machine.progress import ParkedFetch, Progress
from quorate_quorum.raft.machine.roles import Candidate, Leader, Resigned, Transfer
from quorate_quorum.raft.machine.timing import OBSERVER_SILENCE_FETCH_TIMEOUTS
from quorate_quorum.snapshots.snapshot_file import SnapshotId

if TYPE_CHECKING:
    from quorate_quorum.raft.machine.ledger import Ledger
    from quorate_quorum.raft.machine.raft import Raft
    from quorate_quorum.raft.machine.voters import Voter

OBSERVERS_MAX = 32


# --- the reign ----------------------------------------------------------------------------------


def begin_reign(raft: Raft, candidate: Candidate) -> None:
    """Lead in our epoch; nothing is committed until its first record, appended here, is."""
    assert raft.epoch > raft.last_led_epoch, "nobody leads twice in an epoch"
    raft.last_led_epoch = raft.epoch
    raft.silenced_epoch = -1
    raft.round += 1
    leader = Leader(
        raft.epoch,
        raft.ledger.log_end_offset,
        check_round=raft.round,
        check_since_ms=raft.now_ms,
        heard_ms=raft.now_ms,
        handed_over_for_silence=candidate.handed_over_for_silence,
    )
    for voter in raft.ledger.voters.others(raft.me):
        leader.replicas[ReplicaKey(voter.id, voter.directory_id)] = Progress()
    raft.become(leader, "elected")
    handed = leader.handed_over_for_silence
    append_own(raft, leader, raft.epoch_start(raft.epoch, handed, leader.epoch_start_offset))
    _announce(raft, leader)


def end_reign(
    raft: Raft,
    leader: Leader,
    reason: str,
    *,
    for_silence: bool = False,
    is_quiet: bool = False,
    first: int = -1,
) -> None:
    """Resign; unless `is_quiet`, name successors: `first`, then the most caught-up voters."""
    others = raft.ledger.voters.others(raft.me)
    ends = {key.id: progress.log_end_offset for key, progress in leader.replicas.items()}
    successors = sorted((v.id for v in others), key=lambda v: (v != first, -ends.get(v, 0), v))
    raft.become(Resigned(raft.election_deadline()), reason)
    if is_quiet:
        return
    if for_silence:
        raft.silenced_epoch = leader.epoch
    request = EndEpochRequest(leader.epoch, raft.me.id, tuple(successors), for_silence)
    for voter in others:
        raft.send(Call(voter, request))


def _announce(raft: Raft, leader: Leader) -> None:
    """Tell voters that have not fetched of late who leads."""
    leader.announce_at_ms = raft.now_ms + raft.timing.fetch_wait_ms
    request = BeginEpochRequest(leader.epoch, raft.me, raft.endpoint)
    for voter in raft.ledger.voters.others(raft.me):
        progress = leader.replicas.get(ReplicaKey(voter.id, voter.directory_id))
        last = -1 if progress is None else progress.last_fetch_ms
        if last < 0 or last + raft.timing.fetch_timeout_ms <= raft.now_ms:
            raft.send(Call(voter, request))


def append_own(raft: Raft, leader: Leader, batch: Batch) -> None:
    """Append what is our own, and keep count of what is not committed."""
    assert batch.epoch == leader.epoch
    raft.append(batch)
    if batch.voters is not None:
        leader.heard_ms = raft.now_ms  # those that count since now had no time to be heard
    leader.uncommitted.append((batch.end_offset, len(batch.data)))
    leader.uncommitted_bytes += len(batch.data)


def has_committed_own(raft: Raft, leader: Leader) -> bool:
    """Say whether the first record of this reign is committed (Raft, 5.4.2)."""
    return raft.ledger.high_watermark > leader.epoch_start_offset


# --- leadership transfer (Raft dissertation, 3.10) ----------------------------------------------


def successor(raft: Raft, leader: Leader, voter_id: int | None) -> int:
    """Return who is to lead: that voter, or of the others the one that we hear and that holds most.

    InvalidRequestError for an id that is no voter's, or if there is no other voter.
    """
    ids = [voter.id for voter in raft.ledger.voters.voters]
    if voter_id is not None:
        if voter_id not in ids and voter_id != raft.me.id:
            raise InvalidRequestError(f"{voter_id} is not the id of a voter: voters are {ids}")
        return voter_id
    if leader.transfer is not None:
        return leader.transfer.to.id
    others = raft.ledger.voters.others(raft.me)
    if not others:
        raise InvalidRequestError(f"voter {raft.me.id} has no other voter to transfer to")

    def rank(voter: Voter) -> tuple[bool, int, int]:
        progress = leader.replicas.get(ReplicaKey(voter.id, voter.directory_id), Progress())
        return not is_heard(raft, progress), -progress.log_end_offset, voter.id

    return min(others, key=rank).id


def transfer(raft: Raft, leader: Leader, voter_id: int) -> None:
    """Begin to give the reign to a `successor`; one under way goes on only if it is to the same."""
    current = leader.transfer
    if current is not None and current.to.id == voter_id:
        return  # and its deadline stays: who asks again and again stops the proposals no longer
    if current is not None:
        _give_up_transfer(raft, leader, current, f"voter {voter_id} was named instead")
    voter = raft.ledger.voters.by_id(voter_id)
    if voter is not None and voter_id != raft.me.id:
        deadline = raft.now_ms + raft.timing.election_timeout_ms
        leader.transfer = Transfer(ReplicaKey(voter_id, voter.directory_id), deadline)


def _give_up_transfer(raft: Raft, leader: Leader, current: Transfer, reason: str) -> None:
    leader.transfer = None
    raft.transfers_given_up.append((current.to.id, reason))


def _complete_transfer(raft: Raft, leader: Leader, current: Transfer) -> None:
    """Make way as soon as the successor holds all that we do, and is not known to be silent."""
    progress = leader.replicas.get(current.to)
    if progress is None or not is_heard(raft, progress):
        return
    if progress.log_end_offset == raft.ledger.log_end_offset:
        end_reign(raft, leader, f"transferred to voter {current.to.id}", first=current.to.id)


def is_heard(raft: Raft, progress: Progress) -> bool:
    """Say whether it has fetched within a fetch timeout; nobody is made to wait for the dead."""
    last = progress.last_fetch_ms
    return last >= 0 and last + raft.timing.fetch_timeout_ms > raft.now_ms


def deadline_ms(raft: Raft, leader: Leader) -> int:
    """Return when the next tick of a leader is due."""
    due = [leader.heard_ms + raft.timing.check_quorum_ms, leader.announce_at_ms]
    if raft.is_sole_voter():
        due = [raft.now_ms + raft.timing.check_quorum_ms]
    if leader.transfer is not None:
        due.append(leader.transfer.deadline_ms)
    parked = [p.parked for p in leader.replicas.values() if p.parked is not None]
    return min(due + [fetch.deadline_ms for fetch in parked])


def tick(raft: Raft, leader: Leader) -> None:
    """End a reign that no majority hears (check quorum), or announce it again."""
    _forget_silent_observers(raft, leader)
    if raft.is_sole_voter():
        return
    current = leader.transfer
    if current is not None and raft.now_ms >= current.deadline_ms:
        waited_ms = raft.timing.election_timeout_ms
        _give_up_transfer(raft, leader, current, f"it had not caught up after {waited_ms} ms")
    if raft.now_ms >= leader.heard_ms + raft.timing.check_quorum_ms:
        # Its vote stays as it is: the epoch is not over for those who voted (R2).
        end_reign(raft, leader, "no majority of voters was heard", is_quiet=True)
    elif raft.now_ms >= leader.announce_at_ms:
        _announce(raft, leader)


def settle(raft: Raft, leader: Leader) -> None:
    """Commit what can be, confirm the rounds that were heard, answer the fetches."""
    _advance_high_watermark(raft, leader)
    _confirm_rounds(raft, leader)
    _answer_parked(raft, leader)
    is_removed = not raft.is_voter() and raft.ledger.are_voters_committed
    if is_removed and not leader.is_leaving:
        leader.is_leaving = True
        raft.wants_applied = raft.high_watermark
    elif leader.transfer is not None and not is_removed:
        _complete_transfer(raft, leader, leader.transfer)


def applied(raft: Raft, event: Applied) -> None:
    """Our removal is told of: resign (R37); sooner, who asked would not learn that it is done."""
    if isinstance(raft.role, Leader) and raft.role.is_leaving:
        end_reign(raft, raft.role, "it was removed from the voters")


# --- fetches received ---------------------------------------------------------------------------


def fetch_received(raft: Raft, event: FetchReceived) -> None:
    """Take in what a replica acknowledges; refuse it, or keep it until there is an answer."""
    request, stream = event.request, event.stream
    fetch = ParkedFetch(
        stream,
        request,
        event.caller,
        raft.now_ms + raft.timing.fetch_wait_ms,
        told_high_watermark=request.high_watermark,
    )
    is_heeded = stream.replica in raft.ledger.voters and stream.replica != raft.me
    is_met = raft.meet_epoch(request.epoch, f"replica {stream.replica.id}", is_heeded=is_heeded)
    leader = raft.role
    if request.epoch < raft.epoch:
        _refuse_fetch(raft, fetch, Refusal.FENCED_EPOCH)
    elif not is_met or stream.replica == raft.me or request.fetch_offset < 0:
        _refuse_fetch(raft, fetch, Refusal.INVALID)
    elif not isinstance(leader, Leader):
        _refuse_fetch(raft, fetch, Refusal.NOT_LEADER)
    else:
        _record_fetch(raft, leader, fetch, event.endpoint)


def _record_fetch(raft: Raft, leader: Leader, fetch: ParkedFetch, endpoint: str) -> None:
    progress = _progress_of(raft, leader, fetch.stream.replica, endpoint)
    if progress is None:
        _refuse_fetch(raft, fetch, Refusal.OVERLOADED)
        return
    superseded = progress.parked
    if not progress.admits(fetch.stream):
        _refuse_fetch(raft, fetch, Refusal.OLD_STREAM)
        return
    if superseded is not None and superseded.stream != fetch.stream:
        _refuse_fetch(raft, superseded, Refusal.OLD_STREAM)  # or it would wait for ever
    _note_round(raft, progress, fetch.request)
    other_past = _compare(raft.ledger, fetch.request)
    if other_past is not None:
        # It moves no state: what it holds is not what we hold (K8). It did hear us, though.
        _answer(raft, fetch, other_past)
        return
    progress.record(fetch.request, raft.ledger.log_end_offset, raft.now_ms)
    progress.parked = fetch


def _progress_of(raft: Raft, leader: Leader, replica: ReplicaKey, endpoint: str) -> Progress | None:
    progress = leader.replicas.get(replica)
    if progress is None:
        voters = raft.ledger.voters
        _forget_silent_observers(raft, leader)
        observers = sum(known not in voters for known in leader.replicas)
        if replica not in voters and observers >= OBSERVERS_MAX:
            return None
        progress = leader.replicas[replica] = Progress()
    progress.heard_ms = raft.now_ms
    progress.is_connected = True
    progress.endpoint = endpoint or progress.endpoint
    return progress


def _forget_silent_observers(raft: Raft, leader: Leader) -> None:
    """An observer that is gone must not keep its place for the rest of the reign."""
    silence_ms = OBSERVER_SILENCE_FETCH_TIMEOUTS * raft.timing.fetch_timeout_ms
    for key, progress in list(leader.replicas.items()):
        is_gone = progress.parked is None and progress.heard_ms + silence_ms <= raft.now_ms
        if is_gone and key not in raft.ledger.voters:
            del leader.replicas[key]


def _note_round(raft: Raft, progress: Progress, request: FetchRequest) -> None:
    if request.round <= raft.round:  # one that we never issued proves nothing
        progress.round = max(progress.round, request.round)


def _compare(ledger: Ledger, request: FetchRequest) -> DivergingEpoch | SnapshotId | None:
    """Return None if our log goes on where the replica's ends, else how it comes to agree.

    By our newest snapshot, where the log does not reach down to what it lacks, or to where its
    past and ours part: every epoch that we can name is newer than its last (R41).
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


def fetch_abandoned(raft: Raft, event: FetchAbandoned) -> None:
    """Nobody waits for that answer any more."""
    if isinstance(raft.role, Leader):
        progress = raft.role.replicas.get(event.stream.replica)
        if progress is None or progress.stream != event.stream:
            return
        progress.is_connected = False
        if progress.parked and progress.parked.stream == event.stream:
            progress.parked = None


# --- answers ------------------------------------------------------------------------------------


def _answer_parked(raft: Raft, leader: Leader) -> None:
    high_watermark = _told_high_watermark(raft, leader)
    for progress in leader.replicas.values():
        fetch = progress.parked
        if fetch is None:
            continue
        if _is_due(raft, leader, fetch):
            progress.parked = None
            _answer(raft, fetch)
        elif fetch.told_high_watermark < high_watermark:
            # It goes on waiting: to ask again for the next batch would cost a message each way.
            fetch.told_high_watermark = high_watermark
            _answer(raft, fetch, interim=True)


def _is_due(raft: Raft, leader: Leader, fetch: ParkedFetch) -> bool:
    return (
        fetch.request.fetch_offset < raft.ledger.written_end
        or fetch.request.round < leader.urgent_round
        or raft.now_ms >= fetch.deadline_ms
    )


def _told_high_watermark(raft: Raft, leader: Leader) -> int:
    return raft.ledger.high_watermark if has_committed_own(raft, leader) else 0


def _answer(
    raft: Raft,
    fetch: ParkedFetch,
    other_past: DivergingEpoch | SnapshotId | None = None,
    *,
    interim: bool = False,
) -> None:
    assert isinstance(raft.role, Leader)
    response = FetchResponse(
        raft.epoch,
        raft.me.id,
        fetch.request.fetch_offset,
        _told_high_watermark(raft, raft.role),
        raft.ledger.log_start_offset,
        raft.round,
        diverging=other_past if isinstance(other_past, DivergingEpoch) else None,
        snapshot=other_past if isinstance(other_past, SnapshotId) else None,
        interim=interim,
    )
    end = 0 if other_past is not None or interim else raft.ledger.written_end
    raft.send(FetchReply(fetch.caller, response, end, raft.ledger.truncations))


def _refuse_fetch(raft: Raft, fetch: ParkedFetch, refusal: Refusal) -> None:
    leader = raft.leader
    response = FetchResponse(
        raft.epoch,
        leader.id,
        fetch.request.fetch_offset,
        refusal=refusal,
        leader_directory_id=leader.directory_id,
    )
    raft.send(FetchReply(fetch.caller, response))


def refuse_parked(raft: Raft, leader: Leader) -> None:
    """The reign is over: say so to all that wait for an answer of it."""
    for progress in leader.replicas.values():
        if progress.parked is not None:
            _refuse_fetch(raft, progress.parked, Refusal.NOT_LEADER)


# --- commit -------------------------------------------------------------------------------------


def _advance_high_watermark(raft: Raft, leader: Leader) -> None:
    voters = raft.ledger.voters
    if not voters.voters:
        return
    end = leader.majority_end(voters, raft.me, raft.ledger.synced_end)
    if end <= leader.epoch_start_offset or end <= raft.ledger.high_watermark:
        return
    was_serving = has_committed_own(raft, leader)
    raft.raise_high_watermark(end)
    while leader.uncommitted and leader.uncommitted[0][0] <= end:
        leader.uncommitted_bytes -= leader.uncommitted.pop(0)[1]
    if not was_serving:
        since = leader.epoch_start_offset + 1
        raft.reign = Reign(leader.epoch, since, leader.handed_over_for_silence)


def _confirm_rounds(raft: Raft, leader: Leader) -> None:
    """An echo of a round proves that who sent it was in our epoch after we issued it."""
    voters = raft.ledger.voters
    if not voters.voters:
        return
    heard = leader.majority_round(voters, raft.me, raft.round)
    if heard >= leader.check_round:
        leader.heard_ms = max(leader.heard_ms, leader.check_since_ms)
        if leader.check_since_ms < raft.now_ms:
            raft.round += 1
            leader.check_round, leader.check_since_ms = raft.round, raft.now_ms
    if not has_committed_own(raft, leader):
        return  # it may not know yet what its predecessors committed (R42)
    while leader.reads and leader.reads[0] <= heard:
        raft.confirmed_reads.append((leader.reads.pop(0), raft.ledger.high_watermark))
