"""Which brokers are alive: a broken stream is suspicion, silence is proof.

When the stream of a broker breaks, the controller dials the broker at once:

* the port refuses, or another incarnation answers: the process is gone, so the broker is fenced;
* the same incarnation answers: the broker is fenced only if it stays silent;
* nothing answers: the broker is fenced after a short grace.

Silence is counted only in ticks that this controller itself ran, so that a stall of the controller
fences no broker. Many breaks at once without a refusal mean that the controller is cut off; then
only silence counts. If most brokers fall silent together, the controller hands leadership to
another voter, as it may be deaf itself.

The machine lives as long as a reign. The driver steps in all frames that have arrived before each
tick, carries out the effects, and reports their results.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

#: One tick adds at most this much to silence and grace.
TICK_MS_MAX = 100
#: A new controller dials a broker that has not opened its stream after this time.
NEW_REIGN_DIAL_MS = 500
#: Breaks within this time count as one event, if they are many.
MASS_BREAK_MS = 1_000


@dataclass(frozen=True, slots=True)
class Dial:
    """Probe the broker's endpoint; report the result with this number."""

    broker_id: int
    number: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Decide to fence this broker."""

    broker_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Hand leadership to the most caught-up voter: EpochStart says `handed_over_for_silence`."""

    reason: str


Effect = Dial | Fence | HandOver


class Phase(Enum):
    """What the machine believes about a broker."""

    #: A stream is open, or none was open yet and the broker was not dialled.
    TRUSTED = "trusted"
    #: No stream: it was dialled, and the result is not known yet.
    DIALLED = "dialled"
    #: No stream and no answer: it is fenced at the end of the grace.
    GRACE = "grace"
    #: No stream; only silence counts.
    SILENCE = "silence"
    #: Its process is gone.
    DEAD = "dead"


@dataclass(slots=True)
class _Session:
    """One incarnation of a broker, as this reign knows it."""

    incarnation: bytes
    fenced: bool
    grace_ms: int
    phase: Phase = Phase.TRUSTED
    #: Ticked time since its last frame.
    silence_ms: int = 0
    #: What is left of the grace, in phase GRACE.
    grace_left_ms: int = 0
    #: Whether the controller can reach its port; None: not known yet.
    can_be_dialled: bool | None = None
    #: The number of the dial under way; 0: none. A trial only asks whether dialling works.
    dial: int = 0
    dial_is_trial: bool = False
    #: When its stream broke, by the caller's clock; None once its port has refused.
    broke_ms: int | None = None
    was_fenced_by_disconnect: bool = False
    streams: dict[int, None] = field(default_factory=dict)


class Liveness:
    """The sessions of all registered brokers during one reign.

    `unfenced` and `fenced` are the (broker id, incarnation) pairs at the beginning of the reign. A
    controller that got its leadership by such a handover, or that has no other voter, fences silent
    brokers instead of handing leadership over again.
    """

    def __init__(
        self,
        now_ms: int,
        *,
        session_timeout_ms: int,
        disconnect_grace_ms: int,
        unfenced: Iterable[tuple[int, bytes]] = (),
        fenced: Iterable[tuple[int, bytes]] = (),
        handed_over_for_silence: bool = False,
        has_other_voter: bool = True,
    ) -> None:
        self._session_timeout_ms = session_timeout_ms
        self._disconnect_grace_ms = disconnect_grace_ms
        self._sessions: dict[int, _Session] = {}
        self._last_tick_ms = now_ms
        #: The clock that counts silence: the sum of what the ticks have added.
        self._ticked_ms = 0
        self._has_dialled_absent = False
        self._dials = 0
        #: Whether another voter can take over. It changes when voters come and go.
        self.has_other_voter = has_other_voter
        self._may_hand_over = not handed_over_for_silence
        self._handed_over_at: int | None = None
        #: When, in ticked time, brokers fenced for silence fell silent.
        self._fell_silent: list[int] = []
        for broker_id, incarnation in unfenced:
            self._sessions[broker_id] = self._session(incarnation, fenced=False)
        for broker_id, incarnation in fenced:
            session = self._session(incarnation, fenced=True)
            session.silence_ms = session_timeout_ms  # this reign has not heard of it yet
            self._sessions[broker_id] = session

    def _session(self, incarnation: bytes, *, fenced: bool) -> _Session:
        return _Session(incarnation, fenced, self._disconnect_grace_ms)

    # What the controller decided.

    def registered(self, broker_id: int, incarnation: bytes) -> list[Effect]:
        """An incarnation has registered: find out whether it can be dialled."""
        session = self._sessions.get(broker_id)
        if session is None or session.incarnation != incarnation:
            session = self._sessions[broker_id] = self._session(incarnation, fenced=True)
        session.silence_ms = 0
        if session.phase is Phase.DEAD:
            session.phase = Phase.TRUSTED  # the same incarnation has just spoken
        if session.can_be_dialled is not None or session.dial:
            return []
        return [self._dial(broker_id, session, is_trial=True)]

    def unfenced(self, broker_id: int) -> None:
        """A broker was unfenced. If it was fenced after a broken stream, its grace doubles."""
        session = self._sessions.get(broker_id)
        if session is None:
            return
        session.fenced = False
        session.silence_ms = 0
        if session.was_fenced_by_disconnect:
            session.was_fenced_by_disconnect = False
            session.grace_ms = min(2 * session.grace_ms, self._session_timeout_ms)

    def fenced(self, broker_id: int) -> None:
        """A broker was fenced, for whatever reason."""
        session = self._sessions.get(broker_id)
        if session is not None:
            session.fenced = True

    def unregistered(self, broker_id: int) -> None:
        """A broker was unregistered."""
        self._sessions.pop(broker_id, None)

    def session_lives(self, broker_id: int) -> bool:
        """Whether the registered incarnation is still heard, or was within the session timeout."""
        session = self._sessions.get(broker_id)
        if session is None or session.phase is Phase.DEAD:
            return False
        return bool(session.streams) or session.silence_ms < self._session_timeout_ms

    # What the wire said.

    def stream_opened(self, broker_id: int, incarnation: bytes, stream: int) -> list[Effect]:
        """A stream of that incarnation is open: all suspicion ends. The caller numbers streams."""
        session = self._current(broker_id, incarnation)
        if session is None:
            return []
        session.streams[stream] = None
        session.phase = Phase.TRUSTED
        session.broke_ms = None
        if not session.dial_is_trial:
            session.dial = 0
        if session.can_be_dialled is None and not session.dial:
            return [self._dial(broker_id, session, is_trial=True)]
        return []

    def stream_broken(
        self, broker_id: int, incarnation: bytes, stream: int, now_ms: int
    ) -> list[Effect]:
        """A stream broke; with the last one, the broker is suspected."""
        session = self._current(broker_id, incarnation)
        if session is None or stream not in session.streams:
            return []
        del session.streams[stream]
        return [] if session.streams else self._suspect(broker_id, session, now_ms)

    def heard(self, broker_id: int, incarnation: bytes) -> None:
        """A frame of that incarnation came."""
        session = self._current(broker_id, incarnation)
        if session is not None:
            session.silence_ms = 0

    def _current(self, broker_id: int, incarnation: bytes) -> _Session | None:
        session = self._sessions.get(broker_id)
        if session is None or session.incarnation != incarnation:
            return None
        return session

    def _suspect(self, broker_id: int, session: _Session, now_ms: int) -> list[Effect]:
        session.broke_ms = now_ms
        self._look_for_mass_break(now_ms)
        if session.can_be_dialled is False:
            session.phase = Phase.SILENCE
            return []
        if session.phase is not Phase.SILENCE:
            session.phase = Phase.DIALLED
        return [self._dial(broker_id, session, is_trial=False)]

    def _dial(self, broker_id: int, session: _Session, *, is_trial: bool) -> Dial:
        self._dials += 1
        session.dial, session.dial_is_trial = self._dials, is_trial
        return Dial(broker_id, self._dials)

    # What dialling said.

    def dial_refused(self, broker_id: int, number: int) -> list[Effect]:
        """No process listens there."""
        session = self._dialled(broker_id, number)
        if session is None:
            return []
        return self._is_gone(broker_id, session, "its stream broke, and its port refuses")

    def dial_answered(self, broker_id: int, number: int, incarnation: bytes) -> list[Effect]:
        """A process listens there."""
        session = self._dialled(broker_id, number)
        if session is None:
            return []
        if incarnation != session.incarnation:
            reason = "its stream broke, and another incarnation answers"
            return self._is_gone(broker_id, session, reason)
        session.can_be_dialled = True
        if session.phase in (Phase.DIALLED, Phase.GRACE):
            session.phase = Phase.SILENCE
        return []

    def dial_unanswered(self, broker_id: int, number: int) -> list[Effect]:
        """Nothing came back in time; that proves nothing."""
        session = self._dialled(broker_id, number)
        if session is None:
            return []
        if session.dial_is_trial:
            session.can_be_dialled = False
        elif session.phase is Phase.DIALLED:
            session.phase = Phase.GRACE
            session.grace_left_ms = session.grace_ms
        return []

    def _dialled(self, broker_id: int, number: int) -> _Session | None:
        """Return the session that this dial belongs to, if it still waits for the result."""
        session = self._sessions.get(broker_id)
        if session is None or not number or session.dial != number:
            return None
        session.dial = 0
        return session

    def _is_gone(self, broker_id: int, session: _Session, reason: str) -> list[Effect]:
        if session.dial_is_trial:  # it has just spoken, so it runs: only dialling fails
            session.can_be_dialled = False
            return []
        session.phase = Phase.DEAD
        session.broke_ms = None
        return self._fence(broker_id, session, reason, by_disconnect=True)

    def _fence(
        self, broker_id: int, session: _Session, reason: str, *, by_disconnect: bool
    ) -> list[Effect]:
        if session.fenced:
            return []
        session.fenced = True
        session.was_fenced_by_disconnect = by_disconnect
        return [Fence(broker_id, reason)]

    # Time.

    def tick(self, now_ms: int) -> list[Effect]:
        """Let time pass. All frames that have arrived must be stepped in before."""
        elapsed = min(max(now_ms - self._last_tick_ms, 0), TICK_MS_MAX)
        self._last_tick_ms = now_ms
        self._ticked_ms += elapsed
        for session in self._sessions.values():
            session.silence_ms += elapsed
            if session.phase is Phase.GRACE:
                session.grace_left_ms -= elapsed
        effects = self._dial_absent(now_ms)
        self._look_for_mass_break(now_ms)
        effects += self._end_graces()
        effects += self._judge_silence()
        return effects

    def _dial_absent(self, now_ms: int) -> list[Effect]:
        """Once in a reign, dial the unfenced brokers that have not come.

        An earlier controller knew which brokers cannot be dialled; this one does not. Such a broker
        gets the grace at most, unless it opens its stream before: a stream begins with a trial.
        """
        if self._has_dialled_absent or self._ticked_ms < NEW_REIGN_DIAL_MS:
            return []
        self._has_dialled_absent = True
        effects: list[Effect] = []
        for broker_id, session in self._sessions.items():
            is_absent = not session.streams and session.phase is Phase.TRUSTED
            if is_absent and not session.fenced:
                effects += self._suspect(broker_id, session, now_ms)
        return effects

    def _look_for_mass_break(self, now_ms: int) -> None:
        """Many streams that break at once without a refusal mean that the controller is cut off."""
        unfenced = self._unfenced()
        broken = [
            session
            for _, session in unfenced
            if session.broke_ms is not None and now_ms - session.broke_ms < MASS_BREAK_MS
        ]
        if len(broken) < 2 or 3 * len(broken) <= len(unfenced):
            return
        for session in broken:
            session.phase = Phase.SILENCE  # a dial under way may still show that it is gone

    def _end_graces(self) -> list[Effect]:
        effects: list[Effect] = []
        for broker_id, session in self._sessions.items():
            if session.phase is Phase.DEAD and not session.fenced:
                reason = "it went while it was being unfenced"
                effects += self._fence(broker_id, session, reason, by_disconnect=True)
            if session.phase is Phase.GRACE and session.grace_left_ms <= 0:
                session.phase = Phase.SILENCE
                reason = f"its stream broke, and nothing answers for {session.grace_ms} ms"
                effects += self._fence(broker_id, session, reason, by_disconnect=True)
        return effects

    def _judge_silence(self) -> list[Effect]:
        """Fence brokers that were silent for the session timeout, unless the controller is deaf."""
        timeout = self._session_timeout_ms
        unfenced = self._unfenced()
        over = [(b, session) for b, session in unfenced if session.silence_ms >= timeout]
        if not over:
            return []
        if self._is_deaf(unfenced):
            if self._handed_over_at is None:
                self._handed_over_at = self._ticked_ms
                return [HandOver(f"{len(over)} of {len(unfenced)} brokers fell silent together")]
            if self._ticked_ms - self._handed_over_at < timeout:
                return []
            self._may_hand_over = False  # no voter took over: fence, as without another voter
        effects: list[Effect] = []
        for broker_id, session in over:
            self._fell_silent.append(self._ticked_ms - session.silence_ms)
            reason = f"it was silent for {session.silence_ms} ms"
            effects += self._fence(broker_id, session, reason, by_disconnect=False)
        return effects

    def _is_deaf(self, unfenced: list[tuple[int, _Session]]) -> bool:
        """Whether more than half of the unfenced brokers, but at least two, fell silent within one
        session timeout. A broker that is silent for half of it has missed several heartbeats.
        """
        if not (self._may_hand_over and self.has_other_voter):
            return False
        timeout = self._session_timeout_ms
        silent = [session for _, session in unfenced if session.silence_ms >= timeout // 2]
        latest = max(self._ticked_ms - session.silence_ms for session in silent)
        self._fell_silent = [at for at in self._fell_silent if latest - at <= timeout]
        together = len(silent) + len(self._fell_silent)
        return together >= 2 and 2 * together > len(unfenced) + len(self._fell_silent)

    def _unfenced(self) -> list[tuple[int, _Session]]:
        return [(b, session) for b, session in self._sessions.items() if not session.fenced]
