"""The turns of a node's machine: an event or the time goes in, what follows is carried out."""

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

    Everything happens in the turns of one event loop. Whatever fails here that is not a peer's
    fault (the disk, an invariant, the listener) ends in `fail`: the node stops, the others go on.
    """

    def __init__(
        self, node_id: int, now_ms: Callable[[], int], on_failure: Callable[[str], None]
    ) -> None:
        self.tasks = Tasks(self._task_failed)
        self.raft: Raft
        #: Whether events are stepped. Ends with `stop` or `fail`, and never begins again.
        self.is_running = False
        self.node_id = node_id
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._effects: Effects
        self._event_loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # the handles of some loops do not say when
        self._is_carrying_out = False

    @property
    def snapshot(self) -> SnapshotId | None:
        """The newest whole snapshot on this disk, from which the log goes on."""
        below = self.raft.ledger.snapshot
        return None if below is None else below.id

    @property
    def log_start_offset(self) -> int:
        """The first offset of the log; what lies below is in the snapshot."""
        return self.raft.ledger.log_start_offset

    def start(self, raft: Raft, effects: Effects) -> None:
        """Step events into that machine from now on."""
        self.raft = raft
        self._effects = effects
        self._event_loop = asyncio.get_running_loop()
        self.is_running = True

    def stop(self, error: StoppingError) -> None:
        """Step nothing more; whatever waits for the machine ends with that error."""
        self.is_running = False
        self._cancel_timer()
        self._effects.end(error)

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """Do nothing more, and tell the node's owner the reason; once."""
        if not self.is_running:
            return
        log.error("raft node failed", node=self.node_id, reason=reason, exc_info=error)
        self.stop(StoppingError(f"node {self.node_id} has failed: {reason}"))
        self.tasks.cancel(*self.tasks)
        self._on_failure(reason)

    def step(self, event: Event) -> None:
        """Take in what happened, and carry out what follows."""
        self.advance(lambda: self.raft.step(event, self._now_ms()))

    def advance(self, change: Callable[[], object]) -> None:
        """Change the machine's state, and carry out what follows; a broken invariant is the end."""
        if not self.is_running:
            return
        # Raises where there is no loop, too: another thread would break the machine's invariants
        # between two lines of it (KAFKA-15100).
        if asyncio.get_running_loop() is not self._event_loop:
            raise RuntimeError(f"node {self.node_id} belongs to another event loop")
        try:
            change()
            self._carry_out_all()
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}", error)

    def _carry_out_all(self) -> None:
        """Carry Readies out in order, also when carrying one out has led to another."""
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
        """Be woken when the next tick is due. A timer that comes sooner may stay: it looks again,
        which costs less than to move it at every event, for most of them put the deadline off.
        """
        if not self.is_running:
            self._cancel_timer()
            return
        # One millisecond up: time is whole milliseconds, and a timer may come a hair early.
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
