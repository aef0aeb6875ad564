"""The rules for a change of the voters.

A change may begin only if the leader has committed a record of its own epoch, no earlier change is
uncommitted, exactly one voter is added, removed or moved, and a majority of the new set has caught
up. By these rules any majority of a set has a voter in common with any majority of the next set,
whichever replica leads (Ongaro's correction of 2015 to the single-server change; KIP-853).
"""

from __future__ import annotations

from quorate.errors import InvalidRequestError, OverloadedError
from quorate_quorum.raft.machine.replicas import Replicas
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.voters import Voter, VoterSet


def check_may_change_voters(state: State, replicas: Replicas, voters: VoterSet) -> None:
    """Raise unless `voters` may be the next set. Call after check_may_propose.

    InvalidRequestError unless exactly one voter changes. OverloadedError (retriable) if an earlier
    change is not committed, or if the new voter or a majority of the new set has not caught up.
    """
    added = _added(state.ledger.voters, voters)
    if not state.ledger.are_voters_committed:
        raise OverloadedError("an earlier change of the voters is not committed yet: ask again")
    for voter in added:
        _check_caught_up(state, replicas, voter)
    _check_majority_is_caught_up(state, replicas, voters)


def _added(old: VoterSet, new: VoterSet) -> list[Voter]:
    """Return the voters that are added.

    InvalidRequestError unless exactly one voter is added, removed or moved.
    """
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
    """Raise unless a majority of the new set has caught up.

    A set with a silent majority could commit nothing, not even the change back. Nor is it enough
    that a majority fetches: a voter with `is_behind` gives no votes until it has caught up with a
    leader. If this leader died before that, no other voter could be elected.
    """
    others = voters.others(state.me)
    late = [voter.id for voter in others if not _is_caught_up(replicas, voter)]
    if len(voters.voters) - len(late) < voters.majority:
        raise OverloadedError(
            f"of the voters that would be left {late} are not heard or have not caught up, and a"
            " majority must be: bring them back, or remove those first; ask again"
        )


def _is_caught_up(replicas: Replicas, voter: Voter) -> bool:
    """Return whether the voter had the leader's whole log within the last fetch timeout."""
    return replicas.is_recent(replicas.of(voter.key).last_caught_up_ms)
