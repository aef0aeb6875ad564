"""Runs a node's machine: passes events and the time to it, and has its effects carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import StoppingError
from quorate_quorum.raft.driver.effects import Effects
from quorate_quorum.raft.machine.events import Event
from quorate_quorum.raft.machine.raft import Raft
from quorate_quorum.snapshots.file import SnapshotId

log = structlog.get_logger(__name__)


class RaftLoop:
    """Owns the machine and the node's background tasks. It decides nothing.

    Everything happens in one event loop. A failure that no peer caused (of the disk, an invariant
    or the RaftListener) ends in `fail`: this node stops, and the others go on.
    """

    def __init__(
        self, node_id: int, now_ms: Callable[[], int], on_failure: Callable[[str], None]
    ) -> None:
        self.tasks = Tasks(self._task_failed)
        self.raft: Raft
        #: Whether events are passed to the machine. False for good after `stop` or `fail`.
        self.is_running = False
        self.node_id = node_id
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._effects: Effects
        self._event_loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # kept here, because the timer handles of some loops do not have it
        self._is_carrying_out = False

    @property
    def snapshot(self) -> SnapshotId | None:
        """The newest whole snapshot on this disk."""
        below = self.raft.ledger.snapshot
        return None if below is None else below.id

    @property
    def log_start_offset(self) -> int:
        """The first offset of the log. The records below it are in the snapshot."""
        return self.raft.ledger.log_start_offset

    def start(self, raft: Raft, effects: Effects) -> None:
        """Pass events to `raft` from now on."""
        self.raft = raft
        self._effects = effects
        self._event_loop = asyncio.get_running_loop()
        self.is_running = True

    def stop(self, error: StoppingError) -> None:
        """Pass no more events. Everything that waits for the machine ends with `error`."""
        self.is_running = False
        self._cancel_timer()
        self._effects.end(error)

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """Stop, cancel the tasks, and tell the node's owner why. Only the first call has effect."""
        if not self.is_running:
            return
        log.error("raft node failed", node=self.node_id, reason=reason, exc_info=error)
        self.stop(StoppingError(f"node {self.node_id} has failed: {reason}"))
        self.tasks.cancel(*self.tasks)
        self._on_failure(reason)

    def step(self, event: Event) -> None:
        """Pass an event to the machine, and carry out its effects."""
        self.advance(lambda: self.raft.step(event, self._now_ms()))

    def advance(self, change: Callable[[], object]) -> None:
        """Change the machine's state, and carry out the effects. A broken invariant is fatal."""
        if not self.is_running:
            return
        # Refuse calls from other threads: such a call could change the machine between two of its
        # lines (KAFKA-15100). In a thread without an event loop, get_running_loop itself raises.
        if asyncio.get_running_loop() is not self._event_loop:
            raise RuntimeError(f"node {self.node_id} belongs to another event loop")
        try:
            change()
            self._carry_out_all()
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}", error)

    def _carry_out_all(self) -> None:
        """Carry out Readies one after the other, also those that come while one is carried out."""
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        try:
            while self.is_running and (ready := self.raft.ready()) is not None:
                if ready.fatal is None:
                    self._effects.carry_out(ready)
                else:
                    self.fail(ready.fatal)
        finally:
            self._is_carrying_out = False
        self._set_timer()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self.fail(f"{name}: {type(error).__name__}: {error}", error)

    # --- time -----------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Set the timer for the machine's next deadline.

        If a timer is set for an earlier time, keep it: its tick sets the next timer. Most events
        move the deadline to a later time, so a new timer at each event would cost more.
        """
        if not self.is_running:
            self._cancel_timer()
            return
        # Add a millisecond: the machine counts whole ones, and a timer may fire slightly early.
        when = self.raft.deadline_ms() / 1000 + 0.001
        if self._timer is not None and self._timer_at <= when:
            return
        self._cancel_timer()
        self._timer_at = when
        self._timer = self._event_loop.call_at(when, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        self.advance(lambda: self.raft.tick(self._now_ms()))
