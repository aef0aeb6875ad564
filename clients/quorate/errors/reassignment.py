"""The errors of reassignments. The tree of all errors stands in quorate.errors."""

from __future__ import annotations

from quorate.errors.base import InvalidRequestError, QuorateError


class InvalidReplicaAssignmentError(InvalidRequestError):
    """A partition can't have the replicas that were asked for."""

    advice = "`quorate cluster info` shows the brokers, and `quorate topic describe` the replicas."


class NoReassignmentInProgressError(QuorateError):
    """The replicas of the partition are not being moved, so there is nothing to cancel."""

    advice = "There is nothing to do; `quorate partition list-moves` shows what is moved."
