"""Elects leaders where records may be lost, as the LossyElections machine decides."""

from __future__ import annotations

import structlog

from quorate_quorum.controller.decisions.lossy_elections import (
    AskEnds,
    LossyElection,
    LossyElections,
    elect_all,
)
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.controller.driver.sessions import Sessions

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
