"""Decides what a follower of a partition does with its leader's answer: append, cut or refuse.

A machine. It exists while the replica follows one leader in one leader_epoch. The rules:

* A follower cuts its log by epochs, never to its high watermark (KIP-101, KIP-279). The follower's
  high watermark lags behind the leader's, so a cut to it would remove committed records. If the
  leader died then, these records would be lost.
* The high watermark is a lower bound for cuts: records below it are committed, so every later
  leader must have them. Only a lossy election (recovered_epoch) allows a cut below it, and only if
  the follower learnt the high watermark before this election.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: Given an epoch, returns (epoch, end offset) of this log's largest epoch that is not above it. If
#: the given epoch is above the log's last epoch, returns None. If it is below the log's first
#: epoch, the end offset is the start of that first epoch.
EndOffsetFor = Callable[[int], tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Append:
    """Append the batches. After that, call `learn` with the leader's high watermark."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut the log to `end_offset`. `drops_committed`: the cut removes committed records."""

    end_offset: int
    drops_committed: bool = False


@dataclass(frozen=True, slots=True)
class StartAt:
    """Drop the whole log. It begins again, empty, at `offset`."""

    offset: int
    drops_committed: bool = False


@dataclass(frozen=True, slots=True)
class Ignore:
    """Ignore the answer. It came too late, and does not fit the follower's epoch or log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The leader asks for a cut that would lose committed records: take this replica offline."""

    reason: str


Step = Append | Truncate | StartAt | Ignore | Refuse


@dataclass(slots=True, kw_only=True)
class Follower:
    """A replica that follows one leader in one leader_epoch.

    Invariants: high_watermark <= log_end_offset. The high watermark moves back only by a cut that
    the recovered_epoch allows.
    """

    leader: int
    leader_epoch: int
    #: The leader_epoch of the last lossy election; -1: there was no such election.
    recovered_epoch: int
    high_watermark: int
    #: The leader_epoch in which high_watermark was learnt.
    high_watermark_epoch: int
    #: Whether the leader has found this log's end in its own log. From then on the leader may count
    #: on this log, and propose this replica for the ISR.
    has_matched: bool = False

    def answered(
        self, *, leader_epoch: int, base_offset: int, log_end_offset: int, has_batches: bool
    ) -> Step:
        """Decide about an answer that has batches, or only a high watermark."""
        if leader_epoch != self.leader_epoch:
            return self._other_epoch(leader_epoch)
        if has_batches and base_offset != log_end_offset:
            return Ignore(f"base offset {base_offset}, and our log ends at {log_end_offset}")
        return Append()

    def learn(self, high_watermark: int, log_end_offset: int) -> bool:
        """Take over the leader's high watermark. Return whether it moved.

        Call this only after an answer without divergence. If the log still had a diverging tail,
        consumers would see records that were never committed (KAFKA-14704).
        """
        known = min(high_watermark, log_end_offset)
        if known < self.high_watermark:
            # keep the known one, which stays true: a new leader may know a lower one for a moment
            return False
        moved = known > self.high_watermark
        self.high_watermark = known
        self.high_watermark_epoch = self.leader_epoch
        return moved

    def diverged(
        self,
        *,
        leader_epoch: int,
        epoch: int,
        end_offset: int,
        log_start_offset: int,
        log_end_offset: int,
        end_offset_for: EndOffsetFor,
    ) -> Step:
        """Decide about a divergence.

        The answer has the leader's largest epoch that is not above this log's last epoch, and the
        epoch's end in the leader's log.

        If both logs have this epoch, they agree up to the lower of its two ends. If this log does
        not have this epoch, the follower cuts to the end of its own largest epoch below it, and the
        next answer compares that epoch. So one answer may not be enough (KIP-279).
        """
        if leader_epoch != self.leader_epoch:
            return self._other_epoch(leader_epoch)
        if end_offset < 0:
            return Ignore(f"a diverging end offset of {end_offset}")
        ours = end_offset_for(epoch)
        if ours is None:
            return Ignore(f"it diverges at epoch {epoch}, which is above our last")
        cut = min(ours[1], end_offset) if ours[0] == epoch else ours[1]
        cut = max(cut, log_start_offset)
        if cut >= log_end_offset:
            return Ignore(f"it diverges at {epoch}, {end_offset}, which leaves our log as it is")
        return self._unless_committed(cut, Truncate(cut, cut < self.high_watermark))

    def out_of_range(
        self,
        *,
        leader_epoch: int,
        leader_log_start_offset: int,
        log_start_offset: int,
        log_end_offset: int,
    ) -> Step:
        """Decide about the answer that this log's end is not within the leader's log.

        If this log's end is below the leader's start, the leader has deleted records that this
        replica lacks. They were committed, so this log begins again at the leader's start. If this
        log's end is above the leader's end, this log must be empty: otherwise the leader would have
        compared epochs. An empty log begins again at the leader's start, too.
        """
        if leader_epoch != self.leader_epoch:
            return self._other_epoch(leader_epoch)
        if leader_log_start_offset < 0:
            return Ignore(f"a log_start_offset of {leader_log_start_offset}")
        if log_end_offset < leader_log_start_offset:
            return StartAt(leader_log_start_offset)
        if log_start_offset != log_end_offset:
            return Ignore("out of range, and our log is neither below the leader's nor empty")
        drops = leader_log_start_offset < self.high_watermark
        return self._unless_committed(
            leader_log_start_offset, StartAt(leader_log_start_offset, drops)
        )

    def truncated(self, end_offset: int) -> None:
        """Take note that the log was cut to `end_offset`."""
        if end_offset < self.high_watermark:
            assert self.high_watermark_epoch < self.recovered_epoch
            self.high_watermark = end_offset

    def started_at(self, offset: int) -> None:
        """Take note that the log begins again at `offset`. All records below are committed.

        The high watermark moves to `offset`, too. A high watermark below the log's start would
        count records that this log does not have (KAFKA-12996).
        """
        self.high_watermark = offset

    def _other_epoch(self, leader_epoch: int) -> Ignore:
        return Ignore(f"leader_epoch {leader_epoch}, and we follow {self.leader_epoch}")

    def _unless_committed(self, cut: int, step: Truncate | StartAt) -> Step:
        if cut >= self.high_watermark or self.high_watermark_epoch < self.recovered_epoch:
            return step
        return Refuse(
            f"the leader wants a cut to {cut}, below our high watermark {self.high_watermark} of "
            f"leader_epoch {self.high_watermark_epoch}; recovered_epoch is {self.recovered_epoch}"
        )
