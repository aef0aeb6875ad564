"""Whether the voters may change: one at a time, and never so that a majority has not caught up.

By these rules any two sets of voters that follow one another have a majority in common, whichever
leads (Ongaro's correction of 2015 to the single-server change; KIP-853): the leader has committed a
record of its own epoch, no earlier change waits for its commit, and exactly one voter comes, goes
or moves.
"""

from __future__ import annotations

from quorate.errors import InvalidRequestError, OverloadedError
from quorate_quorum.raft.machine.replicas import Replicas
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.voters import Voter, VoterSet


def check_may_change_voters(state: State, replicas: Replicas, voters: VoterSet) -> None:
    """Raise unless this may be the next set; the leader's epoch has a committed record.

    InvalidRequestError for a change that is not of one voter; OverloadedError (retriable) while an
    earlier one is not committed, the new voter is not caught up, or too few of the new set are.
    """
    added = _added(state.ledger.voters, voters)
    if not state.ledger.are_voters_committed:
        raise OverloadedError("an earlier change of the voters is not committed yet: ask again")
    for voter in added:
        _check_caught_up(state, replicas, voter)
    _check_majority_is_caught_up(state, replicas, voters)


def _added(old: VoterSet, new: VoterSet) -> list[Voter]:
    """Return the voters that come; InvalidRequestError unless exactly one comes, goes or moves."""
    ids = [voter.id for voter in new.voters]
    added = [voter for voter in new.voters if voter.key not in old]
    gone = [voter for voter in old.voters if voter.key not in new]
    moved = [v for v in new.voters if v not in old.voters and v not in added]
    if not ids or len(set(ids)) != len(ids) or len(added) + len(gone) + len(moved) != 1:
        raise InvalidRequestError(
            f"voters change one at a time: {len(added)} would be added, {len(gone)} removed,"
            f" {len(moved)} moved, which makes {ids}"
        )
    return added


def _check_caught_up(state: State, replicas: Replicas, voter: Voter) -> None:
    progress = replicas.of(voter.key)
    if not _is_caught_up(replicas, voter):
        raise OverloadedError(
            f"node {voter.id} has not caught up as an observer: it holds"
            f" {progress.log_end_offset} of {state.ledger.log_end_offset} records"
            f"{' and gives no votes yet' if progress.is_behind else ''}; ask again"
        )


def _check_majority_is_caught_up(state: State, replicas: Replicas, voters: VoterSet) -> None:
    """A set of which a majority is silent could not even commit the way back out of it.

    Nor is it enough that they are heard: a voter that fell behind gives no votes until a leader
    has brought it up, and if this leader died first, the set could have no other.
    """
    others = voters.others(state.me)
    late = [voter.id for voter in others if not _is_caught_up(replicas, voter)]
    if len(voters.voters) - len(late) < voters.majority:
        raise OverloadedError(
            f"of the voters that would be left {late} are not heard or have not caught up, and a"
            " majority must be: bring them back, or remove those first; ask again"
        )


def _is_caught_up(replicas: Replicas, voter: Voter) -> bool:
    """Say whether it held all that we did within the last fetch timeout."""
    return replicas.is_recent(replicas.of(voter.key).last_caught_up_ms)
