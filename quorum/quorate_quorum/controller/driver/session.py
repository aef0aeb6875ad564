"""One broker's heartbeat stream, as the controller sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.errors import QuorateError
from quorate_quorum.controller.decisions.partitions import Key
from quorate_quorum.node.bell import Bell
from quorate_quorum.v1.controller_pb2 import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from quorate_quorum.controller.driver.leases import Leases


class Session:
    """One heartbeat stream of one registration of a broker."""

    def __init__(self, leases: Leases, first: HeartbeatRequest, number: int) -> None:
        self._leases = leases
        self.number = number
        self.broker_id = first.broker_id
        self.broker_epoch = first.broker_epoch
        self.incarnation = first.incarnation
        self.applied_offset = 0
        self.wants_fence = False
        self.wants_shutdown = False
        self.ends_wanted: tuple[Key, ...] = ()
        self.was_told_to_go = False
        #: Rings when there is something to say.
        self.bell = Bell()
        self.is_over = False
        #: Why it ended, if the broker must know.
        self.failure: QuorateError | None = None

    @property
    def interval_ms(self) -> int:
        """The longest silence of the controller on this stream."""
        return self._leases.config.heartbeat_interval_ms

    def take(self, request: HeartbeatRequest) -> None:
        """The broker spoke."""
        if not self.is_over:
            try:
                self._leases.heard(self, request)
            except Exception as error:
                self._leases.broken(f"what broker {self.broker_id} said broke it: {error!r}")
                raise

    def answer(self) -> HeartbeatResponse:
        """What the broker must know now; all of it is committed."""
        return self._leases.answer(self)

    def end(self, failure: QuorateError | None = None) -> None:
        """No more is said on this stream but why."""
        if not self.is_over:
            self.is_over, self.failure = True, failure
        self.bell.ring()

    def close(self) -> None:
        """The stream is gone."""
        self.end()
        self._leases.closed(self)
