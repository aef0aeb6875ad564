"""What a coordinator knows of a member beyond the log. A new coordinator begins it anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.values import Task

#: A member sends at least so many heartbeats within its session timeout.
HEARTBEATS_A_SESSION: Final = 3
#: How long the holder of a static name may take to find a new coordinator, before another member
#: with this name counts as its program after a restart.
FIRST_STREAM_MS: Final = 2_000


@dataclass(slots=True)
class Session:
    """A member's signs of life, and the states on their way to it.

    A member gets one state at a time: its epoch and assignment change only after it echoed the
    number of the last state. So a heartbeat that crosses a state on its way is never more than one
    state behind, and what it says of its partitions is never taken for an answer to that state.
    """

    session_timeout_ms: int
    rebalance_timeout_ms: int
    expires_ms: int
    #: The number of the last state. Numbers of one coordinator only grow, whatever member they are
    #: for: the echo of a state from before the member joined again means nothing.
    number: int
    #: The member has a stream on which states can be pushed.
    has_stream: bool = False
    #: The member joined on this stream. If it sends that again, it waits for the answer still.
    has_joined: bool = False
    #: When its stream broke; None: it has one, or never had one at this coordinator.
    broken_ms: int | None = None
    #: When this coordinator began to wait for the member's first stream; None: it had one here.
    awaited_ms: int | None = None
    #: The last number that came back on this stream.
    echoed: int = 0
    #: The number of the last state whose assignment was sent on this stream; 0: none yet.
    sent: int = 0
    #: What the member said last on this stream that it has; None: nothing yet.
    owned: PartitionSet | None = None
    #: When the member must have taken in its last state, and given back what it names.
    settle_by_ms: int | None = None
    #: A task that the member works on; `is_task_sent`: on this stream.
    task: Task | None = None
    is_task_sent: bool = False

    @property
    def has_echoed(self) -> bool:
        """Whether the member has taken in its last state."""
        return self.echoed == self.number

    def heartbeat_interval_ms(self, most_ms: int) -> int:
        """Return how often the member must be heard: two heartbeats may be late or lost."""
        return min(most_ms, self.session_timeout_ms // HEARTBEATS_A_SESSION)

    def begin_stream(self) -> None:
        """Forget what was said on the stream before."""
        self.has_stream, self.broken_ms, self.awaited_ms = True, None, None
        self.echoed, self.sent, self.owned = 0, 0, None
        self.has_joined = self.is_task_sent = False

    def end_stream(self, now_ms: int) -> None:
        """The member's stream is gone. What was sent on it may be lost."""
        self.has_stream, self.broken_ms = False, now_ms

    def is_deserted(self, grace_ms: int, now_ms: int) -> bool:
        """Return whether the member has had no stream for so long that its name may be taken."""
        if self.broken_ms is not None:
            return self.broken_ms + grace_ms <= now_ms
        return self.awaited_ms is not None and self.awaited_ms + FIRST_STREAM_MS <= now_ms

    def renew(self, now_ms: int) -> None:
        """The member was heard."""
        self.expires_ms = now_ms + self.session_timeout_ms

    def postpone(self, by_ms: int) -> None:
        """The coordinator stood still, and has not read what members sent in that time."""
        self.expires_ms += by_ms
        if self.settle_by_ms is not None:
            self.settle_by_ms += by_ms
        if self.broken_ms is not None:
            self.broken_ms += by_ms
        if self.awaited_ms is not None:
            self.awaited_ms += by_ms

    def state_changed(self, number: int, now_ms: int) -> None:
        """The member's epoch or assignment is another one now."""
        self.number = number
        self.settle_by_ms = now_ms + self.rebalance_timeout_ms

    def due_ms(self, grace_ms: int, *, is_static: bool) -> int:
        """Return when the member is removed, if nothing is heard of it until then."""
        due = self.expires_ms
        if self.settle_by_ms is not None:
            due = min(due, self.settle_by_ms)
        if self.broken_ms is not None and not is_static:
            due = min(due, self.broken_ms + grace_ms)
        return due
