"""The heartbeat streams that are open at this controller, one for each broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from quorate.aio.bell import Bell
from quorate.errors import FencedError, OverloadedError, QuorateError
from quorate_quorum.metadata.partitions import Key
from quorate_quorum.v1.controller_pb2 import HeartbeatRequest

SESSIONS_MAX = 10_000


@dataclass(slots=True, eq=False)
class Session:
    """One heartbeat stream of one registration of a broker, and the state that the broker told."""

    #: The number of the stream. It grows, so that the end of an older stream is not mistaken for
    #: the end of a newer one.
    number: int
    broker_id: int
    broker_epoch: int
    incarnation: bytes
    applied_offset: int = 0
    wants_fence: bool = False
    wants_shutdown: bool = False
    #: Whether the broker was told that it may stop. If so, the end of its stream is expected.
    was_told_to_go: bool = False
    #: The partitions whose log end the controller asks the broker for.
    ends_wanted: tuple[Key, ...] = ()
    #: Rings when the broker must get an answer now.
    bell: Bell = field(default_factory=Bell)
    is_over: bool = False
    #: The reason why the controller ended the stream; None: the broker ended it. The last answer
    #: tells this reason.
    failure: QuorateError | None = None

    def end(self, failure: QuorateError | None = None) -> None:
        """End the stream. The last answer tells `failure`, if there is one."""
        if not self.is_over:
            self.is_over, self.failure = True, failure
        self.bell.ring()


class Sessions:
    """The newest open session of each broker."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._opened = 0

    def get(self, broker_id: int) -> Session | None:
        """Return a broker's session; None if the broker has no open stream."""
        return self._sessions.get(broker_id)

    def open(self, first: HeartbeatRequest) -> Session:
        """Begin a session, and end an older one of the same broker.

        Raises OverloadedError if too many sessions are open.
        """
        if len(self._sessions) >= SESSIONS_MAX:
            raise OverloadedError(f"the controller holds {SESSIONS_MAX} heartbeat streams")
        older = self._sessions.pop(first.broker_id, None)
        if older is not None:
            older.end(FencedError("a newer stream of this broker is open"))
        self._opened += 1
        session = self._sessions[first.broker_id] = Session(
            number=self._opened,
            broker_id=first.broker_id,
            broker_epoch=first.broker_epoch,
            incarnation=first.incarnation,
        )
        return session

    def close(self, session: Session) -> bool:
        """End a session whose stream is gone. Return whether it was the broker's newest."""
        session.end()
        if self._sessions.get(session.broker_id) is not session:
            return False
        del self._sessions[session.broker_id]
        return True

    def ring_all(self) -> None:
        """Send an answer to every broker now."""
        for session in self._sessions.values():
            session.bell.ring()

    def end_all(self, failure: QuorateError) -> None:
        """End every session with this failure."""
        for session in list(self._sessions.values()):
            session.end(failure)
