"""Elects leaders where records may be lost, as the Recovery machine decides."""

from __future__ import annotations

import structlog

from quorate_quorum.controller.decisions.recovery import AskEnds, Recover, Recovery, recover_all
from quorate_quorum.controller.driver.reign import Reign
from quorate_quorum.controller.driver.sessions import Sessions

log = structlog.get_logger(__name__)


class Elections:
    """Asks brokers for the ends of their logs on their sessions, and proposes the elections."""

    def __init__(self, recovery: Recovery, reign: Reign, sessions: Sessions) -> None:
        self._recovery = recovery
        self._reign = reign
        self._sessions = sessions

    def tick(self, now_ms: int) -> None:
        """Ask and elect as far as it is time."""
        chosen: list[Recover] = []
        for effect in self._recovery.tick(self._reign.pending, now_ms):
            if isinstance(effect, AskEnds):
                self._ask(effect)
            else:
                _log(effect)
                chosen.append(effect)
        if chosen:
            self._reign.attempt("recover", lambda i, c: recover_all(i, chosen, c))

    def _ask(self, effect: AskEnds) -> None:
        session = self._sessions.get(effect.broker_id)
        if session is not None:
            session.ends_wanted = effect.partitions
            session.bell.ring()


def _log(effect: Recover) -> None:
    log.warning(
        "partition_recovered_with_possible_loss",
        topic_id=effect.topic_id.hex(),
        partition=effect.partition,
        leader=effect.leader,
        reason=effect.reason,
    )
