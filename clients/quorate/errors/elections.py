"""The errors of elections on request. The tree of all errors stands in quorate.errors."""

from __future__ import annotations

from quorate.errors.base import QuorateError


class ElectionNotNeededError(QuorateError):
    """The preferred replica leads already; or, for an unclean election, there is a leader."""

    advice = "There is nothing to do."


class LeaderNotElectableError(QuorateError):
    """No replica that was asked for may lead the partition now."""

    advice = "Bring the brokers back that `quorate cluster health` names, and ask again."


class PreferredLeaderNotAvailableError(LeaderNotElectableError):
    """The first replica of the assignment is not in the ISR, or its broker is not alive."""

    advice = "Ask again when that replica is in the ISR; `quorate topic describe` shows it."


class EligibleLeadersNotAvailableError(LeaderNotElectableError):
    """The partition has no leader, and no broker with a replica of it is alive."""
