"""Whether the voters may change: one at a time, and never so that a majority has not caught up.

Functions over the machine of raft.py, which holds all state; a machine too. By these rules any
two sets of voters that follow one another have a majority in common, whoever leads (R32, Ongaro
2015; KIP-853): the leader has committed a record of its own epoch, no earlier change waits for its
commit, and exactly one voter comes, goes or moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.errors import InvalidRequestError, OverloadedError
from quorate_quorum.raft.machine.messages import ReplicaKey
from quorate_quorum.raft.machine.progress import Progress

if TYPE_CHECKING:
    from quorate_quorum.raft.machine.raft import Raft
    from quorate_quorum.raft.machine.roles import Leader
    from quorate_quorum.raft.machine.voters import Voter, VoterSet


def check_may_change_voters(raft: Raft, leader: Leader, voters: VoterSet) -> None:
    """Raise unless this may be the next set; the leader's epoch has a committed record.

    InvalidRequestError for a change that is not of one voter; OverloadedError (retriable) while an
    earlier one is not committed, the new voter is not caught up, or too few of the new set are.
    """
    added = _added(raft.ledger.voters, voters)
    if not raft.ledger.are_voters_committed:
        raise OverloadedError("an earlier change of the voters is not committed yet: ask again")
    for voter in added:
        _check_caught_up(raft, leader, voter)
    _check_majority_is_caught_up(raft, leader, voters)


def _added(old: VoterSet, new: VoterSet) -> list[Voter]:
    """Return who comes; InvalidRequestError unless exactly one comes, goes or moves."""
    ids = [voter.id for voter in new.voters]
    added = [v for v in new.voters if (v.id, v.directory_id) not in old]
    gone = [v for v in old.voters if (v.id, v.directory_id) not in new]
    moved = [v for v in new.voters if v not in old.voters and v not in added]
    if not ids or len(set(ids)) != len(ids) or len(added) + len(gone) + len(moved) != 1:
        raise InvalidRequestError(
            f"voters change one at a time: {len(added)} would be added, {len(gone)} removed,"
            f" {len(moved)} moved, which makes {ids}"
        )
    return added


def _check_caught_up(raft: Raft, leader: Leader, voter: Voter) -> None:
    progress = _progress(leader, voter)
    if not _is_caught_up(raft, progress):
        raise OverloadedError(
            f"node {voter.id} has not caught up as an observer: it holds"
            f" {progress.log_end_offset} of {raft.ledger.log_end_offset} records"
            f"{' and gives no votes yet' if progress.is_behind else ''}; ask again"
        )


def _check_majority_is_caught_up(raft: Raft, leader: Leader, voters: VoterSet) -> None:
    """A set of which a majority is silent could not even commit the way back out of it.

    Nor is it enough that they are heard: who fell behind gives no votes until a leader has brought
    it up, and if this one died first, the set could have no other.
    """
    others = voters.others(raft.me)
    late = [v.id for v in others if not _is_caught_up(raft, _progress(leader, v))]
    if len(voters.voters) - len(late) < voters.majority:
        raise OverloadedError(
            f"of the voters that would be left {late} are not heard or have not caught up, and a"
            " majority must be: bring them back, or remove those first; ask again"
        )


def _is_caught_up(raft: Raft, progress: Progress) -> bool:
    """Say whether it held all that we did within the last fetch timeout."""
    last = progress.last_caught_up_ms
    return last >= 0 and last + raft.timing.fetch_timeout_ms > raft.now_ms


def _progress(leader: Leader, voter: Voter) -> Progress:
    return leader.replicas.get(ReplicaKey(voter.id, voter.directory_id), Progress())
