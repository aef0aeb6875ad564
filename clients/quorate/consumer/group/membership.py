"""The membership of one consumer in its group: a machine, with the member's side of KIP-848.

* Each state of the coordinator names all partitions that the member shall have. What the member has
  beyond that is revoked first.
* The member echoes each state at once, and says what it owns whenever this differs from what it
  said before. The coordinator gives a partition to another member when this one has echoed a state
  without the partition and does not own it.
* A member starts only partitions that the last state of the present stream names. A state of a
  broken stream gives nothing any more: the coordinator may have given those partitions away since.
* A fenced member has lost all partitions at once. It joins anew after the application knows that.
* A member that leaves revokes first. One that leaves because the application is silent does not
  wait: its partitions are lost.

Times (`now_ms`) are of one clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from quorate.cluster.parts import NO_PARTS, Parts, from_wire, to_wire
from quorate.errors import QuorateError
from quorate.v1.groups_pb2 import (
    AssignmentTask,
    MemberHeartbeat,
    MembersAssignment,
    MemberState,
    Subscription,
)

JOIN, LEAVE, LEAVE_STATIC = 0, -1, -2
#: Until the coordinator names an interval.
HEARTBEAT_INTERVAL_MS = 5000


@dataclass(frozen=True, slots=True)
class Revoke:
    """Stop with these partitions, commit, tell the application; then call `released`."""

    parts: Parts


@dataclass(frozen=True, slots=True)
class Lose:
    """Tell the application that others have these partitions already; then call `told_lost`."""

    parts: Parts


@dataclass(frozen=True, slots=True)
class Take:
    """Find the positions in these partitions; then call `take_up`, and tell the application."""

    parts: Parts


Step = Revoke | Lose | Take
#: out: no member. leaving: a member that gives everything back, and then goes.
Phase = Literal["out", "joining", "member", "leaving"]


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """What a member says of itself for as long as it lives."""

    group_id: str
    member_id: str
    client_id: str
    instance_id: str = ""
    rack: str = ""
    assignor: str = ""
    session_timeout_ms: int = 45_000
    rebalance_timeout_ms: int = 300_000


class Membership:
    """One member. The rules stand at the top of the module."""

    def __init__(self, settings: MemberSettings) -> None:
        self.settings = settings
        self.phase: Phase = "out"
        #: The epoch that the coordinator named last; 0: not a member yet.
        self.epoch = JOIN
        #: What the member has: from before its `assigned` callback until `released`.
        self.owned: Parts = NO_PARTS
        #: What the application shall be told to be lost.
        self.lost: Parts = NO_PARTS
        #: The application did not ask for records for too long, and the member left.
        self.is_silent = False
        #: The refusal that ended the membership; None: there is none.
        self.failure: QuorateError | None = None
        #: The coordinator asks this member for the group's assignment.
        self.task: AssignmentTask | None = None
        #: Whether a state with an assignment has come since the member joined.
        self.has_joined = False
        #: How often partitions that were given were taken away. What was learnt of the partitions
        #: before such a time may be old: others may have had them meanwhile.
        self.withdrawals = 0
        self._given: Parts = NO_PARTS
        self._topics: tuple[str, ...] = ()
        self._pattern = ""
        self._proposal: MembersAssignment | None = None
        self._interval_ms = HEARTBEAT_INTERVAL_MS
        self._heard_ms = self._sent_ms = 0
        #: The number of the last state on this stream, and the last one that the coordinator knows
        #: to have arrived. It changes nothing more for this member before it knows that.
        self._state_number = self._echoed_number = 0
        self._is_first = True
        #: What the coordinator knows that this member owns.
        self._reported: Parts = NO_PARTS
        self._owes_subscription = False
        self._has_asked = False  # to join, or to leave, on this stream
        self._joins_after = False

    # -- what the application wants ----------------------------------------------------------------

    def subscribe(self, topics: Iterable[str], pattern: str) -> None:
        """Read these topics, and those that the pattern matches. Join if the member is out."""
        self._topics, self._pattern = tuple(sorted(set(topics))), pattern
        self._owes_subscription = True
        self.failure = None
        if self.phase == "out":
            self._join()
        elif self.phase == "leaving":
            self._joins_after = True

    def leave(self) -> None:
        """Give everything back, and go."""
        self._joins_after = self.is_silent = False
        if self.phase == "joining":
            # an unanswered request to join may have made a member of us
            self.phase = "leaving" if self._has_asked else "out"
        elif self.phase == "member":
            self.phase = "leaving"
        self._has_asked = False
        self._give(NO_PARTS)

    @property
    def may_fall_silent(self) -> bool:
        """Whether this member has a place, or partitions, that others wait for."""
        return self.phase in ("joining", "member") or (self.phase == "leaving" and bool(self.owned))

    def fell_silent(self) -> None:
        """Go at once: the application has not asked for records within max_poll_interval_ms."""
        if self.may_fall_silent:
            self.is_silent = self.phase != "leaving"
            self._lose_all()
            self.phase, self._has_asked = "leaving", False

    def resume(self) -> None:
        """Join again: the application asks for records after it was silent."""
        if self.is_silent:
            self.is_silent = False
            if self.phase == "out":
                self._join()
            else:
                self._joins_after = True

    def fail(self, error: QuorateError) -> None:
        """End the membership, because the coordinator refuses it for good."""
        self._lose_all()
        self.phase, self.failure = "out", error

    # -- what to do with the partitions ------------------------------------------------------------

    def step(self) -> Step | None:
        """Return what must be done next; None: nothing."""
        if self.lost:
            return Lose(self.lost)
        if self.surplus:
            return Revoke(self.surplus)
        missing = self._given - self.owned
        return Take(missing) if missing else None

    @property
    def surplus(self) -> Parts:
        """What the member has and shall not have any more."""
        return self.owned - self._given

    def released(self, parts: Parts) -> None:
        """The application has given these partitions back, and their offsets are committed."""
        self.owned -= parts
        self.lost -= parts

    def told_lost(self, parts: Parts) -> None:
        """The application knows that it has lost these partitions."""
        self.lost -= parts

    def still_given(self, withdrawals: int) -> bool:
        """Return whether all that was given at this number of withdrawals is given ever since."""
        return self.withdrawals == withdrawals

    def take_up(self, parts: Parts) -> None:
        """Own these partitions. Call it without a wait after `still_given`."""
        assert parts <= self._given, "only what the last state gives may be taken up"
        self.owned |= parts

    # -- the stream --------------------------------------------------------------------------------

    def stream_ended(self) -> None:
        """The stream is over. The next one may begin at once."""
        self._has_asked = False

    def stream_opened(self) -> None:
        """A new stream begins: its first message says everything."""
        self._is_first, self._has_asked = True, False
        self._state_number = self._echoed_number = 0
        # what was given on the last stream and is not taken up may belong to another member by now
        self._give(self._given & self.owned)

    def due_ms(self, now_ms: int) -> int | None:
        """Return when the next heartbeat is due; None: not before something changes."""
        if self.phase == "out":
            return None
        if self.phase == "joining":
            return None if self.lost or self._has_asked else now_ms
        if self.phase == "leaving" and not self.owned:
            return None if self._has_asked else now_ms
        if self._is_first or self._has_news:
            return now_ms
        return self._sent_ms + self._interval_ms

    @property
    def _has_news(self) -> bool:
        if self.phase != "member":
            return False
        return (
            self._state_number != self._echoed_number
            or self.owned != self._reported
            or self._owes_subscription
            or self._proposal is not None
        )

    def next_heartbeat(self, now_ms: int) -> MemberHeartbeat | None:
        """Return the heartbeat that is due; None: none is due yet."""
        due_ms = self.due_ms(now_ms)
        if due_ms is None or due_ms > now_ms:
            return None
        heartbeat = MemberHeartbeat(
            member_epoch=self._epoch_to_send(), state_number=self._state_number
        )
        if self._is_first:
            self._introduce(heartbeat)
        if self._is_first or self._owes_subscription:
            self._owes_subscription = False
            heartbeat.subscription.CopyFrom(
                Subscription(topics=self._topics, pattern=self._pattern)
            )
        if self._is_first or self.owned != self._reported:
            self._reported = self.owned
            heartbeat.owned.CopyFrom(to_wire(self.owned))
        if self._proposal is not None and self.phase == "member":
            heartbeat.proposal.CopyFrom(self._proposal)
            self._proposal = None
        self._echoed_number = self._state_number
        self._has_asked = heartbeat.member_epoch <= JOIN
        self._is_first, self._sent_ms = False, now_ms
        return heartbeat

    def _epoch_to_send(self) -> int:
        if self.phase == "leaving" and not self.owned:
            return LEAVE_STATIC if self.settings.instance_id and not self.is_silent else LEAVE
        return self.epoch

    def _introduce(self, heartbeat: MemberHeartbeat) -> None:
        settings = self.settings
        heartbeat.group_id, heartbeat.member_id = settings.group_id, settings.member_id
        heartbeat.client_id = settings.client_id
        heartbeat.instance_id, heartbeat.rack = settings.instance_id, settings.rack
        heartbeat.assignor = settings.assignor
        heartbeat.session_timeout_ms = settings.session_timeout_ms
        heartbeat.rebalance_timeout_ms = settings.rebalance_timeout_ms

    def take(self, state: MemberState, now_ms: int) -> None:
        """Take in a state without an error."""
        self._heard_ms = now_ms
        if self.phase == "out" or state.member_epoch <= JOIN:
            return
        self.epoch = state.member_epoch
        self._state_number = state.state_number
        self._interval_ms = state.heartbeat_interval_ms or HEARTBEAT_INTERVAL_MS
        if self.phase == "leaving":
            return
        self.phase = "member"
        if state.HasField("assignment"):
            self._give(from_wire(state.assignment))
            self.has_joined = True
        self.task = state.task if state.HasField("task") else self.task

    def propose(self, proposal: MembersAssignment) -> None:
        """Send the assignment that the coordinator asked for."""
        self._proposal = proposal

    def fenced(self) -> None:
        """The coordinator has removed this member: lose everything, and join anew."""
        self._lose_all()
        if self.phase == "leaving":
            self.left()
        elif self.phase != "out":
            self._join()

    def left(self) -> None:
        """The coordinator knows that this member has left, or cannot be told."""
        self.epoch, self.phase = JOIN, "out"
        if self._joins_after:
            self._join()

    def session_has_ended(self, now_ms: int) -> bool:
        """Return whether the coordinator must have removed this member, for it was not heard."""
        is_member = self.phase == "member" or (self.phase == "leaving" and bool(self.owned))
        return is_member and now_ms - self._heard_ms >= self.settings.session_timeout_ms

    def _give(self, parts: Parts) -> None:
        if not self._given <= parts:
            self.withdrawals += 1
        self._given = parts

    def _join(self) -> None:
        self.phase, self.epoch = "joining", JOIN
        self._has_asked = self._joins_after = self.has_joined = False

    def _lose_all(self) -> None:
        self.lost |= self.owned
        self.owned = NO_PARTS
        self._give(NO_PARTS)
        self.epoch, self.task, self._proposal = JOIN, None, None
        self.has_joined = False
