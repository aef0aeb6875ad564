"""Whether the controller can reach the port of a broker that runs.

Trial dials find it out while the broker is heard. A trial shows one moment: a broker that starts
may be too busy with its logs to answer in time. So a trial that failed is no verdict for the rest
of the reign. It is repeated, and a refusal is a proof also where a trial only got no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: The time from a trial that failed to the next one. It doubles up to the largest.
TRIAL_AGAIN_MS, TRIAL_AGAIN_MS_MAX = 1_000, 64_000


class Found(Enum):
    """What the last dial of a broker that runs found at its port."""

    #: No dial has ended yet.
    NOTHING = "nothing"
    #: The broker itself answers.
    BROKER = "broker"
    #: Nothing answers in time: the broker was busy, or a filter drops what the controller sends.
    NO_ANSWER = "no answer"
    #: The port refuses, or another process answers, although the broker runs: no dial is a proof.
    FALSEHOOD = "falsehood"


@dataclass(slots=True)
class Reach:
    """What the dials of one run of a broker have found, and when the next trial is due."""

    found: Found = Found.NOTHING
    _again_ms: int = TRIAL_AGAIN_MS
    _left_ms: int = 0

    @property
    def may_dial(self) -> bool:
        """Whether a dial of a suspected broker can prove that its process is gone."""
        return self.found is not Found.FALSEHOOD

    @property
    def has_grace(self) -> bool:
        """Whether a dial without an answer speaks against the broker, so that a grace begins."""
        return self.found in (Found.NOTHING, Found.BROKER)

    def trial_failed(self, found: Found) -> None:
        """Take in a trial that did not find the broker. The next one comes after a longer wait."""
        self.found = found
        self._left_ms = self._again_ms
        self._again_ms = min(2 * self._again_ms, TRIAL_AGAIN_MS_MAX)

    def pass_time(self, elapsed_ms: int) -> None:
        """Let time pass."""
        self._left_ms = max(self._left_ms - elapsed_ms, 0)

    @property
    def is_trial_due(self) -> bool:
        """Whether the last trial failed, and the next one is due."""
        return self.found in (Found.NO_ANSWER, Found.FALSEHOOD) and not self._left_ms
