"""Whether this controller itself may be deaf, because most brokers fell silent together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Verdict(Enum):
    """What follows from the silence of some brokers."""

    FENCE = "fence"
    HAND_OVER = "hand over"
    WAIT = "wait"


@dataclass(slots=True)
class Hearing:
    """Judges silences in one reign. Times are those of the machine's own ticks.

    Leadership is handed over for silence only if another voter exists, and if this reign did not
    begin that way. If no voter takes over within a session timeout, the controller fences.
    """

    session_timeout_ms: int
    may_hand_over: bool
    #: Whether another voter can take over. The driver sets it at each change of the voters.
    has_other_voter: bool
    _handed_over_at: int | None = None
    #: For each broker that was fenced for silence: the time at which its silence began.
    _fell_silent: list[int] = field(default_factory=list)

    def judge(self, now_ms: int, silences_ms: Sequence[int]) -> Verdict:
        """Judge the silences of all unfenced brokers, one of which is over the session timeout."""
        if not self._is_deaf(now_ms, silences_ms):
            return Verdict.FENCE
        if self._handed_over_at is None:
            self._handed_over_at = now_ms
            return Verdict.HAND_OVER
        if now_ms - self._handed_over_at < self.session_timeout_ms:
            return Verdict.WAIT
        self.may_hand_over = False  # no voter took over: now this controller must fence
        return Verdict.FENCE

    def fenced(self, now_ms: int, silence_ms: int) -> None:
        """Take in that a broker is fenced for a silence."""
        self._fell_silent.append(now_ms - silence_ms)

    def _is_deaf(self, now_ms: int, silences_ms: Sequence[int]) -> bool:
        """Return whether most of the unfenced brokers, and at least two, fell silent together.

        Together means within one session timeout. A broker counts as silent after half a session
        timeout: by then it has missed several heartbeats.
        """
        if not (self.may_hand_over and self.has_other_voter):
            return False
        timeout = self.session_timeout_ms
        silent = [silence for silence in silences_ms if silence >= timeout // 2]
        latest = max(now_ms - silence for silence in silent)
        self._fell_silent = [at for at in self._fell_silent if latest - at <= timeout]
        together = len(silent) + len(self._fell_silent)
        return together >= 2 and 2 * together > len(silences_ms) + len(self._fell_silent)
