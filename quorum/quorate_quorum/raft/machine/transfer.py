"""The transfer of leadership to another voter (Raft dissertation, 3.10)."""

from __future__ import annotations

from dataclasses import dataclass

from quorate.errors import InvalidRequestError
from quorate_quorum.raft.machine.replicas import Replicas
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.voters import ReplicaKey, Voter


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer under way: the leader resigns once the voter `to` holds the leader's whole log."""

    to: ReplicaKey
    deadline_ms: int


def successor(state: State, replicas: Replicas, voter_id: int | None) -> int:
    """Return the voter to transfer to: `voter_id`; for None, the other voter with the longest log.

    A voter that has fetched lately is preferred to a voter that has not. InvalidRequestError if the
    id is not a voter's, or if there is no other voter.
    """
    ids = [voter.id for voter in state.ledger.voters.voters]
    if voter_id is not None:
        if voter_id not in ids and voter_id != state.me.id:
            raise InvalidRequestError(f"{voter_id} is not the id of a voter: voters are {ids}")
        return voter_id
    others = state.ledger.voters.others(state.me)
    if not others:
        raise InvalidRequestError(f"voter {state.me.id} has no other voter to transfer to")

    def rank(voter: Voter) -> tuple[bool, int, int]:
        progress = replicas.of(voter.key)
        is_heard = replicas.is_recent(progress.last_fetch_ms)
        return not is_heard, -progress.log_end_offset, voter.id

    return min(others, key=rank).id


def is_ready(state: State, replicas: Replicas, transfer: Transfer) -> bool:
    """Return whether the successor holds the leader's whole log, and has fetched lately.

    A voter that lacks records could not be elected. A silent voter would not begin an election, and
    the quorum would have no leader until an election timeout passes.
    """
    progress = replicas.of(transfer.to)
    if not replicas.is_recent(progress.last_fetch_ms):
        return False
    return progress.log_end_offset == state.ledger.log_end_offset
