"""Giving leadership to another voter (Raft dissertation, 3.10)."""

from __future__ import annotations

from dataclasses import dataclass

from quorate.errors import InvalidRequestError
from quorate_quorum.raft.machine.replicas import Replicas
from quorate_quorum.raft.machine.state import State
from quorate_quorum.raft.machine.voters import ReplicaKey, Voter


@dataclass(frozen=True, slots=True)
class Transfer:
    """The leader is to give its place to that voter, once it holds all that the leader does."""

    to: ReplicaKey
    deadline_ms: int


def successor(state: State, replicas: Replicas, voter_id: int | None) -> int:
    """Return the voter of that id; None: the other one that we hear and that holds most.

    InvalidRequestError for an id that is no voter's, or if there is no other voter.
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
    """Say whether the successor holds all that we do, and is not known to be silent.

    A voter that lacks records could not be elected; one that is silent would not stand, and the
    quorum would wait for an election timeout.
    """
    progress = replicas.of(transfer.to)
    if not replicas.is_recent(progress.last_fetch_ms):
        return False
    return progress.log_end_offset == state.ledger.log_end_offset
