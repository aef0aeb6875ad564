"""Decides which brokers are alive. A broken stream is a suspicion; silence is a proof.

When the stream of a broker breaks, the controller dials the broker at once:

* the port refuses, or another incarnation answers: the process is gone, so the broker is fenced;
* the same incarnation answers: the broker is fenced only if it stays silent;
* nothing answers: the broker is fenced after a short grace.

The dial is repeated while the broker is suspected. A port that gave a false answer while the broker
ran proves nothing, and of one that gave no answer only a refusal does (`reach`).

Silence is counted only in ticks that this controller itself ran, so that a stall of the controller
fences no broker. If many streams break at once, and the brokers' ports do not refuse, the
controller itself may be cut off. In that case only silence counts. If most brokers fall silent
together, the controller may be unable to hear them: it hands leadership to another voter
(`hearing`).

The machine lives as long as a reign. Before each tick, the driver passes all frames that have
arrived to the machine. The driver carries out the effects and reports their results.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from quorate.durations import duration
from quorate_quorum.controller.decisions.hearing import Hearing, Verdict
from quorate_quorum.controller.decisions.reach import Found, Reach
from quorate_quorum.metadata.history import Cause
from quorate_quorum.v1 import events_pb2 as ev

#: The most that one tick adds to the silence of a broker, or takes from its grace.
TICK_MS_MAX = 100
#: The time after which a new controller dials a broker that has not opened its stream.
NEW_REIGN_DIAL_MS = 500
#: The time from the end of a dial of a suspected broker to the next one.
DIAL_AGAIN_MS = 200
#: The time within which many breaks count as one event.
MASS_BREAK_MS = 1_000


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial the broker's endpoint, and report the result with this number."""

    broker_id: int
    number: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Propose to fence this broker."""

    broker_id: int
    because: Cause


@dataclass(frozen=True, slots=True)
class HandOver:
    """Hand leadership to the most caught-up voter, with `handed_over_for_silence` in EpochStart.

    Because of that flag, the new leader does not hand leadership over again.
    """

    reason: str


Effect = Dial | Fence | HandOver


class Phase(Enum):
    """What the machine believes about a broker."""

    #: A stream is open; or no stream was open yet, and the broker was not dialled for that reason.
    TRUSTED = "trusted"
    #: No stream is open. The broker was dialled, and the result is not known yet.
    DIALLED = "dialled"
    #: No stream is open, and the dial got no answer. The broker is fenced when the grace ends.
    GRACE = "grace"
    #: No stream is open. The broker is fenced only after a silence of the session timeout.
    SILENCE = "silence"
    #: The broker's process is gone.
    DEAD = "dead"


@dataclass(slots=True)
class _Session:
    """One incarnation of a broker, as this reign knows it."""

    incarnation: bytes
    fenced: bool
    grace_ms: int
    phase: Phase = Phase.TRUSTED
    #: The time since the broker's last frame, as the ticks have added it.
    silence_ms: int = 0
    #: The rest of the grace, in phase GRACE.
    grace_left_ms: int = 0
    #: Whether the controller can reach the broker's port.
    reach: Reach = field(default_factory=Reach)
    #: The number of the dial under way; 0: none. A trial dial suspects no broker: it only finds out
    #: whether the controller can reach the port.
    dial: int = 0
    dial_is_trial: bool = False
    #: The rest of the time to the next dial of a suspected broker.
    dial_again_ms: int = 0
    #: The time at which the last stream broke, by the caller's clock. None if no stream broke, if a
    #: stream is open again, or if the process is known to be gone.
    broke_ms: int | None = None
    was_fenced_by_disconnect: bool = False
    streams: dict[int, None] = field(default_factory=dict)

    @property
    def is_suspected(self) -> bool:
        """Whether the broker's fencing depends on dials, on a grace or on its silence."""
        return self.phase in (Phase.DIALLED, Phase.GRACE, Phase.SILENCE) and not self.fenced

    def pass_time(self, elapsed_ms: int) -> None:
        """Add a tick's time to the silence, and take it from what is waited for."""
        self.silence_ms += elapsed_ms
        self.dial_again_ms = max(self.dial_again_ms - elapsed_ms, 0)
        self.reach.pass_time(elapsed_ms)
        if self.phase is Phase.GRACE:
            self.grace_left_ms -= elapsed_ms


class Liveness:
    """The sessions of all registered brokers during one reign.

    `unfenced` and `fenced` are the (broker id, incarnation) pairs at the beginning of the reign.
    The controller hands leadership over for silence only if another voter exists, and if it did not
    get its own leadership that way (`handed_over_for_silence`). Otherwise it fences silent brokers.
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
        #: The clock by which silence is counted: the sum of the times that the ticks have added.
        self._ticked_ms = 0
        self._has_dialled_absent = False
        self._dials = 0
        self.hearing = Hearing(session_timeout_ms, not handed_over_for_silence, has_other_voter)
        for broker_id, incarnation in unfenced:
            self._sessions[broker_id] = self._session(incarnation, fenced=False)
        for broker_id, incarnation in fenced:
            session = self._session(incarnation, fenced=True)
            session.silence_ms = session_timeout_ms  # this reign has not heard the broker yet
            self._sessions[broker_id] = session

    def _session(self, incarnation: bytes, *, fenced: bool) -> _Session:
        return _Session(incarnation, fenced, self._disconnect_grace_ms)

    # Events: decisions of the controller.

    def registered(self, broker_id: int, incarnation: bytes) -> list[Effect]:
        """Take in a registration, and find out whether the broker can be dialled."""
        session = self._sessions.get(broker_id)
        if session is None or session.incarnation != incarnation:
            session = self._sessions[broker_id] = self._session(incarnation, fenced=True)
        session.silence_ms = 0
        if session.phase is Phase.DEAD:
            session.phase = Phase.TRUSTED  # the incarnation runs, because it has just registered
        return self._first_trial(broker_id, session)

    def unfenced(self, broker_id: int) -> None:
        """Take in an unfencing. If the broker was fenced for a broken stream, double its grace."""
        session = self._sessions.get(broker_id)
        if session is None:
            return
        session.fenced = False
        session.silence_ms = 0
        if session.was_fenced_by_disconnect:
            session.was_fenced_by_disconnect = False
            session.grace_ms = min(2 * session.grace_ms, self._session_timeout_ms)

    def fenced(self, broker_id: int) -> None:
        """Take in a fencing, whatever its reason is."""
        session = self._sessions.get(broker_id)
        if session is not None:
            session.fenced = True

    def unregistered(self, broker_id: int) -> None:
        """Take in an unregistration."""
        self._sessions.pop(broker_id, None)

    def session_lives(self, broker_id: int) -> bool:
        """Return whether the incarnation has a stream, or was heard within the session timeout."""
        session = self._sessions.get(broker_id)
        if session is None or session.phase is Phase.DEAD:
            return False
        return bool(session.streams) or session.silence_ms < self._session_timeout_ms

    def silence(self, broker_id: int) -> str | None:
        """Return how long the broker is silent; None if it was heard within the session timeout."""
        session = self._sessions.get(broker_id)
        if session is None or session.silence_ms < self._session_timeout_ms:
            return None
        return f"no heartbeat for {duration(session.silence_ms)}"

    # Events: streams and frames of brokers.

    def stream_opened(self, broker_id: int, incarnation: bytes, stream: int) -> list[Effect]:
        """Take in a new stream with the caller's number. It ends any suspicion of the broker."""
        session = self._current(broker_id, incarnation)
        if session is None:
            return []
        session.streams[stream] = None
        session.phase = Phase.TRUSTED
        session.broke_ms = None
        if not session.dial_is_trial:
            session.dial = 0
        return self._first_trial(broker_id, session)

    def stream_broken(
        self, broker_id: int, incarnation: bytes, stream: int, now_ms: int
    ) -> list[Effect]:
        """Take in the break of a stream. If it was the broker's last stream, suspect the broker."""
        session = self._current(broker_id, incarnation)
        if session is None or stream not in session.streams:
            return []
        del session.streams[stream]
        return [] if session.streams else self._suspect(broker_id, session, now_ms)

    def heard(self, broker_id: int, incarnation: bytes) -> None:
        """Take in the arrival of a frame from this incarnation."""
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
        if not session.reach.has_grace:
            session.phase = Phase.SILENCE
        elif session.phase is not Phase.SILENCE:
            session.phase = Phase.DIALLED
        if not session.reach.may_dial:
            return []
        return [self._dial(broker_id, session, is_trial=False)]

    def _first_trial(self, broker_id: int, session: _Session) -> list[Effect]:
        if session.reach.found is not Found.NOTHING or session.dial:
            return []
        return [self._dial(broker_id, session, is_trial=True)]

    def _dial(self, broker_id: int, session: _Session, *, is_trial: bool) -> Dial:
        self._dials += 1
        session.dial, session.dial_is_trial = self._dials, is_trial
        return Dial(broker_id, self._dials)

    # Events: results of dials.

    def dial_refused(self, broker_id: int, number: int) -> list[Effect]:
        """Take in the result of a dial: the port refuses, so no process listens there."""
        session = self._dialled(broker_id, number)
        if session is None:
            return []
        return self._is_gone(session, Cause(ev.CAUSE_KIND_BROKER_GONE, broker_id))

    def dial_answered(self, broker_id: int, number: int, incarnation: bytes) -> list[Effect]:
        """Take in the result of a dial: this incarnation answers."""
        session = self._dialled(broker_id, number)
        if session is None:
            return []
        if incarnation != session.incarnation:
            return self._is_gone(session, Cause(ev.CAUSE_KIND_BROKER_REPLACED, broker_id))
        session.reach.found = Found.BROKER
        if session.phase in (Phase.DIALLED, Phase.GRACE):
            session.phase = Phase.SILENCE
        return []

    def dial_unanswered(self, broker_id: int, number: int) -> list[Effect]:
        """Take in the result of a dial: no answer in time. The broker may be alive, or dead."""
        session = self._dialled(broker_id, number)
        if session is None:
            return []
        if session.dial_is_trial:
            session.reach.trial_failed(Found.NO_ANSWER)
        elif session.phase is Phase.DIALLED:
            session.phase = Phase.GRACE
            session.grace_left_ms = session.grace_ms
        return []

    def _dialled(self, broker_id: int, number: int) -> _Session | None:
        """Return the session that waits for this dial's result; None if none does."""
        session = self._sessions.get(broker_id)
        if session is None or not number or session.dial != number:
            return None
        session.dial = 0
        session.dial_again_ms = DIAL_AGAIN_MS
        return session

    def _is_gone(self, session: _Session, because: Cause) -> list[Effect]:
        if session.dial_is_trial:
            session.reach.trial_failed(Found.FALSEHOOD)  # the broker was heard a moment ago
            return []
        session.phase = Phase.DEAD
        session.broke_ms = None
        return self._fence(session, because, by_disconnect=True)

    def _fence(self, session: _Session, because: Cause, *, by_disconnect: bool) -> list[Effect]:
        if session.fenced:
            return []
        session.fenced = True
        session.was_fenced_by_disconnect = by_disconnect
        return [Fence(because.broker_id, because)]

    # Events: time.

    def tick(self, now_ms: int) -> list[Effect]:
        """Let time pass. The driver must have passed in all frames that have arrived."""
        elapsed = min(max(now_ms - self._last_tick_ms, 0), TICK_MS_MAX)
        self._last_tick_ms = now_ms
        self._ticked_ms += elapsed
        for session in self._sessions.values():
            session.pass_time(elapsed)
        effects = self._dial_absent(now_ms)
        effects += self._dial_again()
        self._look_for_mass_break(now_ms)
        effects += self._end_graces()
        effects += self._judge_silence()
        return effects

    def _dial_absent(self, now_ms: int) -> list[Effect]:
        """Dial the unfenced brokers that have not opened a stream; once in a reign.

        This controller does not know yet which brokers can't be dialled. If such a broker opens no
        stream, it is fenced as soon as the grace ends. If it opens a stream, a trial dial finds out
        that it can't be dialled.
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

    def _dial_again(self) -> list[Effect]:
        """Repeat the dials that have ended: of suspected brokers, and trials that failed."""
        effects: list[Effect] = []
        for broker_id, session in self._sessions.items():
            if session.dial:
                continue
            if session.streams and session.reach.is_trial_due:
                effects.append(self._dial(broker_id, session, is_trial=True))
            if session.is_suspected and session.reach.may_dial and not session.dial_again_ms:
                effects.append(self._dial(broker_id, session, is_trial=False))
        return effects

    def _look_for_mass_break(self, now_ms: int) -> None:
        """If many streams broke together, let only silence count, as this node may be cut off."""
        unfenced = self._unfenced()
        broken = [
            session
            for _, session in unfenced
            if session.broke_ms is not None and now_ms - session.broke_ms < MASS_BREAK_MS
        ]
        if len(broken) < 2 or 3 * len(broken) <= len(unfenced):
            return
        for session in broken:
            session.phase = Phase.SILENCE  # a dial under way may still prove the process gone

    def _end_graces(self) -> list[Effect]:
        effects: list[Effect] = []
        for broker_id, session in self._sessions.items():
            if session.phase is Phase.DEAD and not session.fenced:
                because = Cause(ev.CAUSE_KIND_BROKER_VANISHED, broker_id)
                effects += self._fence(session, because, by_disconnect=True)
            if session.phase is Phase.GRACE and session.grace_left_ms <= 0:
                session.phase = Phase.SILENCE
                because = Cause(ev.CAUSE_KIND_BROKER_UNREACHABLE, broker_id, ms=session.grace_ms)
                effects += self._fence(session, because, by_disconnect=True)
        return effects

    def _judge_silence(self) -> list[Effect]:
        """Fence the brokers that were silent for the session timeout.

        If most brokers fell silent together, the controller first hands leadership over, and waits
        for another timeout.
        """
        unfenced = self._unfenced()
        over = [(b, one) for b, one in unfenced if one.silence_ms >= self._session_timeout_ms]
        if not over:
            return []
        verdict = self.hearing.judge(self._ticked_ms, [one.silence_ms for _, one in unfenced])
        if verdict is Verdict.HAND_OVER:
            return [HandOver(f"{len(over)} of {len(unfenced)} brokers fell silent together")]
        if verdict is Verdict.WAIT:
            return []
        effects: list[Effect] = []
        for broker_id, session in over:
            self.hearing.fenced(self._ticked_ms, session.silence_ms)
            because = Cause(ev.CAUSE_KIND_BROKER_SILENT, broker_id, ms=session.silence_ms)
            effects += self._fence(session, because, by_disconnect=False)
        return effects

    def _unfenced(self) -> list[tuple[int, _Session]]:
        return [(b, session) for b, session in self._sessions.items() if not session.fenced]
