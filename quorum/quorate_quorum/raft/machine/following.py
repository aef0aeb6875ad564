"""Following: fetch from the leader, take its answers, cut what diverges, suspect it when it breaks.

Functions over the machine of raft.py, which holds all state; machines too. Laws held here (DESIGN
section 4): nothing below the high watermark is cut (4). A fetch acknowledges only what is synced.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quorate_quorum.log.epochs import misfit
from quorate_quorum.raft.machine.messages import (
    DivergingEpoch,
    Downloaded,
    Fetch,
    FetchAnswered,
    FetchBroken,
    FetchRequest,
    FetchResponse,
    FindLeader,
    ReplicaKey,
)
from quorate_quorum.raft.machine.roles import Candidate, Follower, Prospective
from quorate_quorum.raft.machine.timing import REFUSED_MS, REPEAT_MS

if TYPE_CHECKING:
    from quorate_quorum.raft.machine.raft import Raft
    from quorate_quorum.snapshots.snapshot_file import SnapshotId


# --- whom to follow -----------------------------------------------------------------------------


def follow_hint(raft: Raft, leader: ReplicaKey, told_at: str) -> None:
    """Follow the leader that a peer named; of one that we do not know, ask that peer for more."""
    voter = raft.ledger.voters.of_key(leader)
    if leader.id < 0 or leader == raft.me:
        return
    if voter is None:
        raft.send(FindLeader(told_at))
    else:
        follow(raft, leader, voter.endpoint, "a voter knows the leader")


def follow(raft: Raft, leader: ReplicaKey, endpoint: str, reason: str) -> None:
    """Become the follower of that leader in our epoch, on a new stream."""
    follower = Follower(leader, endpoint, _new_session(raft), _fetch_deadline(raft))
    raft.become(follower, reason)
    fetch(raft, follower)


def _fetch_deadline(raft: Raft) -> int:
    shortest = raft.timing.fetch_timeout_ms
    return raft.now_ms + raft.draw(shortest, shortest * 3 // 2)


def _new_session(raft: Raft) -> int:
    raft.sessions += 1
    return raft.sessions


# --- fetching -----------------------------------------------------------------------------------


def fetch(raft: Raft, follower: Follower) -> None:
    """Acknowledge what is synced and ask for more."""
    ledger = raft.ledger
    request = FetchRequest(
        raft.epoch,
        ledger.synced_end,
        ledger.epoch_before(ledger.synced_end),
        ledger.log_start_offset,
        ledger.high_watermark,
        follower.round,
        raft.hard_state.is_behind,
    )
    follower.is_waiting = True
    follower.repeat_at_ms = -1
    raft.send(Fetch(follower.session, follower.endpoint, request))


def fetch_or_wait(raft: Raft, follower: Follower) -> None:
    """The next fetch acknowledges, so it waits for the sync, or for a snapshot; but not for long.

    While it is repeated, rounds, check-quorum and the fetch timeout go on as ever.
    """
    if follower.is_waiting or raft.role is not follower:
        return
    if raft.ledger.synced_end == raft.ledger.log_end_offset and follower.install is None:
        _notice_caught_up(raft, follower)
        fetch(raft, follower)
    elif follower.repeat_at_ms < 0:
        follower.repeat_at_ms = raft.now_ms + REPEAT_MS


def fetch_broken(raft: Raft, event: FetchBroken) -> None:
    """Our stream is gone; news of an earlier one says nothing."""
    follower = raft.role
    if isinstance(follower, Follower) and event.session == follower.session:
        _suspect(raft, follower, refused=event.refused)


def _suspect(raft: Raft, follower: Follower, *, refused: bool) -> None:
    """A broken stream: one reconnect. Refused, or broken again: stand soon."""
    follower.fresh_until_ms = -1
    follower.is_waiting = False
    follower.repeat_at_ms = -1
    follower.session = _new_session(raft)
    if not refused and not follower.has_reconnected:
        follower.has_reconnected = True
        fetch(raft, follower)
        return
    soon = raft.now_ms + raft.draw(*REFUSED_MS)
    follower.deadline_ms = min(follower.deadline_ms, soon)
    # Nothing is asked of it until then: a refusal a moment later says nothing new.


# --- answers ------------------------------------------------------------------------------------


def fetch_answered(raft: Raft, event: FetchAnswered) -> None:
    """Take in what the leader says, and ask on."""
    response, follower = event.response, raft.role
    if not isinstance(follower, Follower) or event.session != follower.session:
        return
    if response.epoch > raft.epoch:
        if raft.meet_epoch(response.epoch, "the node fetched from", is_heeded=True):
            follow_hint(raft, response.leader, follower.endpoint)
        else:
            _suspect(raft, follower, refused=True)
        return
    follower.is_waiting &= response.interim
    if response.refusal is not None or response.epoch < raft.epoch or _contradicts(response):
        _suspect(raft, follower, refused=True)
        return
    follower.deadline_ms = _fetch_deadline(raft)
    follower.fresh_until_ms = raft.now_ms + raft.timing.fetch_timeout_ms
    follower.has_reconnected = False
    follower.round = response.round
    if response.base_offset == raft.ledger.log_end_offset:
        _take_answer(raft, follower, response)
    if follower.session == event.session:  # else it is suspected now
        fetch_or_wait(raft, follower)


def _contradicts(response: FetchResponse) -> bool:
    """Say whether an answer that does not end the fetch holds what only its end may hold."""
    told = response.batches or response.diverging or response.snapshot
    return response.interim and bool(told)


def _take_answer(raft: Raft, follower: Follower, response: FetchResponse) -> None:
    """The answer is to a fetch from our end of now: its past is ours, diverges, or is gone."""
    if response.snapshot is not None:
        _install(raft, follower, response.snapshot)
        return
    follower.install = None
    if response.diverging is not None:
        _diverge(raft, follower, response.diverging)
        return
    if not _is_sound(raft, response):
        _suspect(raft, follower, refused=True)
        return
    _notice_history(raft, response)
    follower.catch_up_to = follower.catch_up_to or response.high_watermark
    _notice_caught_up(raft, follower)
    for batch in response.batches:
        raft.append(batch)
    raft.raise_high_watermark(min(response.high_watermark, raft.ledger.log_end_offset))


def _is_sound(raft: Raft, response: FetchResponse) -> bool:
    """Say whether the batches follow on our log and belong to epochs that have been.

    Offset and epoch of a batch lie outside its CRC: our end and the EpochStarts vouch for them.
    """
    offset, epoch = raft.ledger.log_end_offset, raft.ledger.last_epoch
    for batch in response.batches:
        follows = batch.base_offset == offset and batch.end_offset > offset
        if not follows or batch.epoch > response.epoch:
            return False
        if misfit(batch.epoch, batch.epoch_start, epoch) is not None:
            return False
        offset, epoch = batch.end_offset, batch.epoch
    return True


def _diverge(raft: Raft, follower: Follower, diverging: DivergingEpoch) -> None:
    """Cut back to where our log may agree with the leader's; the next fetch asks again."""
    epoch, end = raft.ledger.end_offset_for(diverging.epoch)
    if epoch == diverging.epoch:
        end = min(end, diverging.end_offset)
    if end >= raft.ledger.log_end_offset:
        _suspect(raft, follower, refused=True)  # no way to agree is a broken leader
    elif end < raft.ledger.high_watermark:
        raft.fatal = (
            f"leader {follower.leader.id} of epoch {raft.epoch} asks to cut the metadata log"
            f" at {end}, below the high watermark {raft.ledger.high_watermark}: committed"
            " events would be lost; compare the voters' disks before restarting"
        )
        raft.become_unattached(raft.epoch, "its log contradicts the leader's")
    else:
        raft.cut(end)


# --- snapshots ----------------------------------------------------------------------------------


def _install(raft: Raft, follower: Follower, snapshot: SnapshotId) -> None:
    """Only by a snapshot do we go on; of two that one leader names the newer one counts."""
    ledger = raft.ledger
    committed_epoch = max(ledger.epoch_before(ledger.high_watermark), 0)
    follows = snapshot.offset > ledger.high_watermark
    if not follows or not committed_epoch <= snapshot.epoch <= raft.epoch:
        _suspect(raft, follower, refused=True)  # what we hold committed, it must hold too
        return
    if ledger.holds_only_bootstrap:
        fall_behind(raft)
    if follower.install is None or follower.install < snapshot:
        follower.install = snapshot


def downloaded(raft: Raft, event: Downloaded) -> None:
    """Let the log begin anew at the snapshot, if it is the one that we wait for now.

    Since the leader named it nothing was appended or cut. Any other one may end below what we
    have acknowledged to a leader that came later (R40).
    """
    follower = raft.role
    if isinstance(follower, Follower) and follower.install == event.below.id:
        follower.install = None
        raft.begin_anew(event.below)
        fetch_or_wait(raft, follower)


# --- history ------------------------------------------------------------------------------------


def _notice_history(raft: Raft, response: FetchResponse) -> None:
    """A voter that holds only the bootstrap batch meets a quorum that has gone on without it.

    Its disk may have been replaced. A quorum that begins now shows nothing but the EpochStart
    of its present epoch.
    """
    if not response.batches or not raft.ledger.holds_only_bootstrap:
        return
    end = response.batches[-1].end_offset
    if response.high_watermark > end or response.batches[0].epoch < response.epoch:
        fall_behind(raft)


def _notice_caught_up(raft: Raft, follower: Follower) -> None:
    """What was committed when we met this leader is ours now, and so is all that we forgot.

    Not the high watermark of now, which under load is always a little ahead of us. And before the
    fetch that says how far we are: who is made a voter by it must be able to vote.
    """
    if raft.hard_state.is_behind and 0 < follower.catch_up_to <= raft.ledger.synced_end:
        raft.set_hard_state(replace(raft.hard_state, is_behind=False))


def fall_behind(raft: Raft) -> None:
    """Give no votes and do not stand until a leader has brought us up to its high watermark."""
    raft.set_hard_state(replace(raft.hard_state, is_behind=True))
    if isinstance(raft.role, Prospective | Candidate):
        raft.become_unattached(raft.epoch, "it holds less than the quorum's history")
