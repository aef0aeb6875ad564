"""Elects leaders where records may be lost, as the LossyElections machine decides."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import structlog

from quorate.aio.clock import Deadline, loop_ms
from quorate_quorum.controller.decisions.lossy_elections import (
    AskEnds,
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.controller.driver.sessions import Sessions
from quorate_quorum.metadata.partitions import NO_LEADER, Key

#: The longest wait for an election that an operator asked for, and the pause between two looks.
REQUESTED_WAIT_MS: Final = 10_000
LOOK_AGAIN_S: Final = 0.05

log = structlog.get_logger(__name__)


class Elections:
    """Asks brokers for the ends of their logs, by heartbeat answers, and proposes the elections."""

    def __init__(self, lossy_elections: LossyElections, reign: Reign, sessions: Sessions) -> None:
        self._lossy_elections = lossy_elections
        self._reign = reign
        self._sessions = sessions

    def tick(self, now_ms: int) -> None:
        """Ask brokers and propose elections, as the machine decides for this time."""
        chosen: list[LossyElection] = []
        for effect in self._lossy_elections.tick(self._reign.pending, now_ms):
            if isinstance(effect, AskEnds):
                self._ask(effect)
            else:
                _log(effect)
                chosen.append(effect)
        if chosen:
            self._reign.attempt("recover", lambda i, c: elect_all(i, chosen, c.free_space))

    async def elect(self, partitions: Mapping[Key, Collection[int]], timeout_ms: int) -> None:
        """Elect leaders although records may be lost. Wait until they are, or too late.

        `partitions`: with the replicas of each that were live when the request was accepted.
        `timeout_ms`: how long the caller waits for its answer; 0: not known.
        """
        wait_ms = min(timeout_ms * 4 // 5 or REQUESTED_WAIT_MS, REQUESTED_WAIT_MS)
        deadline, left = Deadline(wait_ms), list(partitions)
        self._lossy_elections.ask_for(partitions, loop_ms() + wait_ms)
        while left and not deadline.has_passed and not self._reign.is_over:
            await asyncio.sleep(LOOK_AGAIN_S)
            left = [key for key in left if self._is_leaderless(key)]

    def _is_leaderless(self, key: Key) -> bool:
        partition = self._reign.pending.partition(*key)
        return partition is not None and partition.leader == NO_LEADER

    def _ask(self, effect: AskEnds) -> None:
        session = self._sessions.get(effect.broker_id)
        if session is not None:
            session.ends_wanted = effect.partitions
            session.bell.ring()


def _log(effect: LossyElection) -> None:
    log.warning(
        "partition_recovered_with_possible_loss",
        topic_id=effect.topic_id.hex(),
        partition=effect.partition,
        leader=effect.leader,
        reason=effect.reason,
    )
