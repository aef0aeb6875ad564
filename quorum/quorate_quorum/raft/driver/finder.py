"""Asks other nodes which leader they follow (DescribeNode)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from quorate.errors import DeadlineExceededError, QuorateError, raise_if_error
from quorate_quorum.methods import DESCRIBE_NODE
from quorate_quorum.node.history import History
from quorate_quorum.raft.driver.transport import Transport
from quorate_quorum.raft.machine.events import Event, LeaderFound
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.v1.raft_pb2 import DescribeNodeRequest, DescribeNodeResponse

log = structlog.get_logger(__name__)

#: The most nodes asked at one time. Further questions are dropped: the machine asks again.
ASKED_MAX = 32
ENDPOINT_LENGTH_MAX = 300


@dataclass(eq=False)
class Finder:
    """Carries out FindLeader, with at most one question under way to each endpoint."""

    _transport: Transport
    _history: History
    _timeout_ms: int
    _step: Callable[[Event], None]
    _spawn: Callable[[Any, str], asyncio.Task[None]]
    _epoch: Callable[[], int]
    _asked: dict[str, None] = field(default_factory=dict)
    _told: tuple[int, int] | None = None

    def ask(self, endpoint: str) -> None:
        """Ask the node at `endpoint`. If it knows a leader, pass LeaderFound to the machine."""
        if endpoint not in self._asked and len(self._asked) < ASKED_MAX:
            self._asked[endpoint] = None
            self._spawn(self._ask(endpoint), f"raft asks {endpoint} for the leader")

    async def _ask(self, endpoint: str) -> None:
        connection = self._transport.connection(endpoint)
        try:
            answer = await connection.unary(
                DESCRIBE_NODE, DescribeNodeRequest(), timeout_ms=self._timeout_ms
            )
            raise_if_error(answer.error)
        except QuorateError as error:
            log.debug("no answer about the leader", endpoint=endpoint, error=str(error))
            if isinstance(error, DeadlineExceededError):
                self._transport.drop(endpoint, connection)
            return
        finally:
            del self._asked[endpoint]
        refusal = self._history.refusal_of(
            History(answer.cluster_id, answer.quorum_generation, b"")
        )
        if refusal is not None:
            log.warning(
                "a node of another cluster was asked",
                endpoint=endpoint,
                error=refusal,
                repeats=True,
            )
        elif (found := leader_in(answer)) is not None:
            self._tell_if_earlier(found)
            self._step(found)

    def _tell_if_earlier(self, found: LeaderFound) -> None:
        """Warn if this disk is in a later epoch than the quorum: the disk's epoch can't go back.

        This happens to a voter that lost elections and then was removed. A voter in a later epoch
        makes the quorum move on to that epoch; an observer cannot do so.
        """
        told = (found.epoch, self._epoch())
        if found.epoch < told[1] and told != self._told:
            self._told = told
            log.warning(
                "others hear a leader of an earlier epoch than this disk is in; if this goes on,"
                " and this node was removed, it can follow again with a new disk only",
                leader=found.leader.id,
                epoch=found.epoch,
                own_epoch=told[1],
            )


def leader_in(answer: DescribeNodeResponse) -> LeaderFound | None:
    """Return the leader that a node's answer names; None if it names no valid leader."""
    has_directory = len(answer.leader_directory_id) == 16
    if answer.leader_id < 0 or not has_directory:
        return None
    if not 0 < len(answer.leader_endpoint) <= ENDPOINT_LENGTH_MAX:
        return None
    leader = ReplicaKey(answer.leader_id, answer.leader_directory_id)
    return LeaderFound(answer.epoch, leader, answer.leader_endpoint)
