"""What a follower of a partition decides about an answer of its leader: append, cut or refuse.

A machine: it lives as long as one leader_epoch is followed. The rules:

* Truncation is by epochs, never to the high watermark (KIP-101, KIP-279). A follower's high
  watermark lags behind its leader's: a cut to it would remove records that are committed, and if
  the leader died then, they would be lost.
* The high watermark is a floor: what is below it was committed, and another leader must have it.
  Only an election that may lose records (recovered_epoch) allows a cut below it, and only if the
  high watermark was learnt before that election.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: (epoch, end offset) of this log's largest epoch that is at most the one asked; None if the one
#: asked is above its last. An epoch below its first ends where the first begins.
EndOffsetFor = Callable[[int], tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Append:
    """Append the batches; then `learn` the high watermark."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut the log to `end_offset`. `drops_committed`: records below the high watermark go."""

    end_offset: int
    drops_committed: bool = False


@dataclass(frozen=True, slots=True)
class StartAt:
    """Drop the whole log and begin again, empty, at `offset`."""

    offset: int
    drops_committed: bool = False


@dataclass(frozen=True, slots=True)
class Ignore:
    """The answer does not fit the follower's current epoch or log: it came too late."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """To do what the leader says would lose what is committed: this replica must stop following."""

    reason: str


Step = Append | Truncate | StartAt | Ignore | Refuse


@dataclass(slots=True, kw_only=True)
class Follower:
    """A replica that follows, under one leader_epoch.

    Invariant: high_watermark <= log_end_offset; it goes back only by a cut that the
    recovered_epoch allows.
    """

    leader: int
    leader_epoch: int
    #: The leader_epoch of the last election that may have lost records; -1: there was none.
    recovered_epoch: int
    high_watermark: int
    #: The leader_epoch under which high_watermark was learnt.
    high_watermark_epoch: int
    #: The leader has found this log's end in its own past: it may count on what is here, and
    #: propose this replica for the ISR.
    has_matched: bool = False

    def answered(
        self, *, leader_epoch: int, base_offset: int, log_end_offset: int, has_batches: bool
    ) -> Step:
        """Judge an answer with batches, or with a high watermark only."""
        if leader_epoch != self.leader_epoch:
            return self._other_epoch(leader_epoch)
        if has_batches and base_offset != log_end_offset:
            return Ignore(f"base offset {base_offset}, and our log ends at {log_end_offset}")
        return Append()

    def learn(self, high_watermark: int, log_end_offset: int) -> bool:
        """Take the leader's high watermark; tell if it moved.

        Only after an answer without divergence: with the diverging tail still in the log,
        consumers would be shown records that were never committed (KAFKA-14704).
        """
        known = min(high_watermark, log_end_offset)
        if known < self.high_watermark:
            return False  # a new leader may know less for a moment; what is known here stays true
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
        """Judge a divergence: the leader's largest epoch that is at most the last one here, and
        that epoch's end in the leader's log.

        Both logs have that epoch: all up to the lower one of its two ends is the same. This log
        lacks it: it is cut to the end of its own largest epoch below, and the next answer compares
        that one. So one answer may not be enough (KIP-279).
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
        """Judge an answer that this log's end is not within the leader's log.

        Below the leader's start, retention has passed this replica: all that it lacks is
        committed, so it begins again at that start. Above the leader's end without an epoch to
        compare, this log is empty.
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
        """The log was cut to `end_offset`."""
        if end_offset < self.high_watermark:
            assert self.high_watermark_epoch < self.recovered_epoch
            self.high_watermark = end_offset

    def started_at(self, offset: int) -> None:
        """The log begins again at `offset`, and what lies below is committed. The high watermark
        follows, for below the log's own start it would name records that are not here
        (KAFKA-12996).
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
