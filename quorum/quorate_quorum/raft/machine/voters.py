"""Replicas, the voters among them, and the arithmetic of majorities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class ReplicaKey(NamedTuple):
    """The identity of a replica: its id *and* its disk.

    The same id on another disk lacks the records and votes of the first disk. If both disks counted
    as one replica, their votes could complete a majority that never existed (KIP-853).
    """

    id: int
    directory_id: bytes


#: The key of a leader that is not known.
NOBODY = ReplicaKey(-1, b"")


@dataclass(frozen=True, slots=True)
class Voter:
    """A voter: its id, its disk and its endpoint."""

    id: int
    directory_id: bytes
    endpoint: str

    @property
    def key(self) -> ReplicaKey:
        return ReplicaKey(self.id, self.directory_id)


@dataclass(frozen=True, slots=True)
class VoterSet:
    """The voters of one Voters event, in its order. Ids are unique."""

    voters: tuple[Voter, ...] = ()

    def __contains__(self, replica: object) -> bool:
        return any((voter.id, voter.directory_id) == replica for voter in self.voters)

    def of_key(self, replica: ReplicaKey) -> Voter | None:
        """Return the voter that has this id *and* directory; None if there is none."""
        return next((v for v in self.voters if (v.id, v.directory_id) == replica), None)

    def by_id(self, voter_id: int) -> Voter | None:
        return next((voter for voter in self.voters if voter.id == voter_id), None)

    def others(self, me: ReplicaKey) -> tuple[Voter, ...]:
        return tuple(v for v in self.voters if (v.id, v.directory_id) != me)

    @property
    def majority(self) -> int:
        return majority(len(self.voters))


def majority(voters: int) -> int:
    """Return how many of `voters` make a majority.

    >>> [majority(count) for count in range(1, 8)]
    [1, 2, 2, 3, 3, 4, 4]
    """
    return voters // 2 + 1


def reached_by_majority(values: Iterable[int]) -> int:
    """Return the greatest value that a majority has reached. `values` has one value per voter.

    >>> reached_by_majority([7, 5, 9])
    7
    >>> reached_by_majority([7, 5, 9, 2])
    5
    """
    descending = sorted(values, reverse=True)
    return descending[len(descending) // 2]
