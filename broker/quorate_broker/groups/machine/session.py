"""What a coordinator knows of a member beyond the log. A new coordinator begins it anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate_broker.groups.assignors.values import PartitionSet
from quorate_broker.groups.machine.values import JOIN, Conversation, Heartbeat, Task

#: A member sends at least so many heartbeats within its session timeout.
HEARTBEATS_A_SESSION: Final = 3
#: How often a member without a stream is heard, at least, while it waits for its share.
POLL_MS: Final = 1_000
#: How long the holder of a static name may take to find a new coordinator, before another member
#: with this name counts as its program after a restart.
FIRST_STREAM_MS: Final = 2_000


@dataclass(slots=True)
class Session:
    """A member's signs of life, and the states on their way to it.

    A member gets one state at a time: its epoch and assignment change only after it echoed the
    number of the last state. So a heartbeat that crosses a state on its way is never more than one
    state behind, and what it says of its partitions is never taken for an answer to that state.

    A member without a stream *polls*: its state changes only while it is heard, and leaves with the
    answer. It echoes no number. Its next call is the echo, if that comes in the same conversation
    and with the epoch of that state; else the answer may be lost, and is given again.
    """

    session_timeout_ms: int
    rebalance_timeout_ms: int
    expires_ms: int
    #: The number of the last state. Numbers of one coordinator only grow, whatever member they are
    #: for: the echo of a state from before the member joined again means nothing.
    number: int
    #: The member has a stream on which states can be pushed.
    has_stream: bool = False
    #: Of a member that polls: the last conversation in which it was heard. None: it has a stream,
    #: or was not heard here yet.
    conversation: Conversation | None = None
    #: It is a member of the classic protocol. What it has when it joins is all that it will have
    #: until it is answered, so a join is the echo of its last state.
    is_classic: bool = False
    #: The member joined on this stream, or polls and was not heard since. If it sends that again,
    #: it waits for the answer still.
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
    def polls(self) -> bool:
        """Whether the member learns its state from the answers to its heartbeats alone."""
        return self.conversation is not None

    @property
    def has_echoed(self) -> bool:
        """Whether the member has taken in its last state."""
        return self.echoed == self.number

    def heartbeat_interval_ms(self, most_ms: int, *, is_waiting: bool) -> int:
        """Return how often the member must be heard: two heartbeats may be late or lost.

        A member that polls asks more often while it waits for its share.
        """
        if is_waiting and self.polls:
            most_ms = min(most_ms, POLL_MS)
        return min(most_ms, self.session_timeout_ms // HEARTBEATS_A_SESSION)

    def begin_stream(self) -> None:
        """Forget what was said on the stream before."""
        self.has_stream, self.broken_ms, self.awaited_ms = True, None, None
        self.conversation = None
        self._forget_what_was_said()
        self.has_joined = False

    def _forget_what_was_said(self) -> None:
        self.echoed, self.sent, self.owned = 0, 0, None
        self.is_task_sent = False

    def hear(self, heartbeat: Heartbeat, epoch: int) -> None:
        """Take in what the member says; `epoch` is the one that it has."""
        if heartbeat.owned is not None:
            self.owned = heartbeat.owned
        if heartbeat.conversation is None:
            self.echoed = heartbeat.state_number
            return
        self.echoed = self.sent if heartbeat.member_epoch == epoch else 0
        if self.is_classic:
            self.echoed = self.number
        if heartbeat.member_epoch != JOIN:
            self.has_joined = False
        if heartbeat.says_all or not self.echoed:
            self.sent = 0

    def is_outdated(self, conversation: Conversation | None) -> bool:
        """Return whether the member has given up the connection of this call, which comes late."""
        last = self.conversation
        return conversation is not None and last is not None and conversation < last

    def begin_conversation(self, conversation: Conversation | None) -> None:
        """A member that polls is heard. What was said in another conversation is forgotten."""
        if conversation is not None and conversation != self.conversation:
            self.conversation, self.broken_ms, self.awaited_ms = conversation, None, None
            self._forget_what_was_said()

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
        if self.polls and not self.is_classic:
            # What it said before this state is no answer to it. Its next heartbeats may name no
            # partitions while its program still takes up those of the state before.
            self.owned = None
        self.settle_by_ms = now_ms + self.rebalance_timeout_ms

    def due_ms(self, grace_ms: int, *, is_static: bool) -> int:
        """Return when the member is removed, if nothing is heard of it until then."""
        due = self.expires_ms
        if self.settle_by_ms is not None:
            due = min(due, self.settle_by_ms)
        if self.broken_ms is not None and not is_static:
            due = min(due, self.broken_ms + grace_ms)
        return due
