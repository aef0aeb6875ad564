"""How far moves of replicas have come, how fast they are, and how long they may still take."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from quorate import LogDirDescription, Reassignment, TopicPartition
from quorate_cli.cluster_disks import readable

#: The speed of a move is that of so much time, at most. A throttled copy comes in bursts.
WINDOW_S: Final = 30.0
DAYS_MAX: Final = 999
#: Why it is not known how far a move is.
NO_LEADER: Final = "no leader: nothing is copied"
NO_SIZE: Final = "the leader does not tell its bytes"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the replicas that a reassignment adds have come, in bytes of their logs.

    `unknown`: why it is not known; empty if it is. Of several moves, the bytes are those known.
    """

    done: int
    total: int
    unknown: str = ""

    @property
    def share(self) -> float:
        if self.total == 0:
            return 0.0 if self.unknown else 1.0
        return self.done / self.total

    @property
    def left(self) -> int:
        return self.total - self.done

    def __str__(self) -> str:
        if self.unknown and self.total == 0:
            return "-"
        return f"{readable(self.done)} of {readable(self.total)} ({100 * self.share:.0f} %)"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a move is. `bytes_per_s` is None if it is not known yet.

    `seconds_left`: None, too, if the move would not end at this pace. `watched_s`: the time between
    the looks. `at_most`: the throttle, if that says more than the looks do; else 0.
    """

    bytes_per_s: float | None = None
    seconds_left: float | None = None
    watched_s: float = 0.0
    at_most: int = 0

    @property
    def speed(self) -> str:
        """The speed in words."""
        if self.at_most:
            return f"at most {readable(self.at_most)}/s"
        return "-" if self.bytes_per_s is None else f"{readable(round(self.bytes_per_s))}/s"

    def left(self, now: Progress) -> str:
        """The time that is left, in words."""
        if now.unknown:
            return now.unknown
        if now.left == 0:
            return "all copied"
        if self.at_most and self.seconds_left is not None:
            return f"{duration(self.seconds_left)} or more"
        if self.bytes_per_s is None:
            return "not known yet"
        if self.seconds_left is not None:
            return duration(self.seconds_left)
        if self.bytes_per_s > 0:
            return "falls behind"
        # A copy goes in batches: in a shorter time than that, none may have ended.
        still = self.watched_s >= WINDOW_S
        return "stands still" if still else f"nothing copied for {duration(self.watched_s)}"


def pace(before: Progress, now: Progress, seconds: float, throttle: int = 0) -> Pace:
    """Return the pace between two looks at a move.

    What is written to the partition meanwhile must be copied, too: the time that is left is that
    in which the missing bytes come to nothing. A throttled copy comes in bursts, one batch after a
    pause: until it was watched for WINDOW_S, its `throttle` says more than what was seen.

    >>> pace(Progress(100, 1000), Progress(300, 1000), 2.0).left(Progress(300, 1000))
    '7 s'
    >>> pace(Progress(100, 1000), Progress(300, 1500), 2.0).left(Progress(300, 1500))
    'falls behind'
    >>> pace(Progress(100, 1000), Progress(100, 1000), 2.0, 10).left(Progress(100, 1000))
    '2 min or more'
    """
    if before.unknown or now.unknown:
        return Pace()
    if throttle and seconds < WINDOW_S:
        return Pace(None, now.left / throttle, seconds, throttle)
    if seconds <= 0:
        return Pace()
    speed = max(0, now.done - before.done) / seconds
    closing = (before.left - now.left) / seconds
    if now.left == 0:
        return Pace(speed, 0.0, seconds)
    return Pace(speed, now.left / closing if speed > 0 and closing > 0 else None, seconds)


def hindrance(target: Iterable[int], isr: Collection[int], dead: Collection[int]) -> str:
    """Return why a move can't end, and what to do; empty if nothing is known to hinder it.

    >>> hindrance([3, 1], [1], {3})
    'broker 3 is not alive: start it, or cancel the move'
    """
    away = [b for b in target if b in dead and b not in isr]
    if not away:
        return ""
    if len(away) == 1:
        return f"broker {away[0]} is not alive: start it, or cancel the move"
    *others, last = map(str, away)
    names = f"{', '.join(others)} and {last}"
    return f"brokers {names} are not alive: start them, or cancel the move"


def duration(seconds: float) -> str:
    """Return a length of time in words, rounded up.

    >>> [duration(s) for s in (0.2, 59, 90, 7200, 200_000, 1e12)]
    ['1 s', '59 s', '2 min', '2 h', '3 d', 'over 999 d']
    """
    for size, word, most in ((1, "s", 60), (60, "min", 120), (3600, "h", 48)):
        count = -int(-seconds // size)
        if count < most:
            return f"{max(1, count)} {word}"
    days = -int(-seconds // 86_400)
    return f"{days} d" if days <= DAYS_MAX else f"over {DAYS_MAX} d"


def progress_of(
    key: TopicPartition, move: Reassignment, directories: Iterable[LogDirDescription]
) -> Progress:
    """Return how far the added replicas have come. One that is in sync counts as complete.

    Only the leader knows how much there is to copy.
    """
    sizes = {
        found.broker_id: replica.size
        for found in directories
        for replica in found.replicas
        if (replica.topic, replica.partition) == key
    }
    if move.leader not in sizes:
        return Progress(0, 0, NO_LEADER if move.leader < 0 else NO_SIZE)
    whole = sizes[move.leader]
    done = sum(whole if b in move.isr else min(sizes.get(b, 0), whole) for b in move.adding)
    return Progress(done, whole * len(move.adding))


@dataclass(frozen=True, slots=True)
class Look:
    """The moves under way at one time."""

    at_s: float
    moves: Mapping[TopicPartition, Reassignment]
    progress: Mapping[TopicPartition, Progress]
    #: The registered brokers that are not alive.
    dead: frozenset[int] = frozenset()

    def hindrance(self, key: TopicPartition) -> str:
        """Return why a move can't end; empty if nothing is known to hinder it."""
        move = self.moves[key]
        return hindrance(move.target, move.isr, self.dead)


@dataclass(slots=True)
class Looks:
    """The looks of the last WINDOW_S seconds, from which the paces come."""

    _looks: deque[Look] = field(default_factory=deque)

    def add(self, look: Look) -> None:
        """Add the next look. Drop the oldest as long as the rest spans WINDOW_S."""
        self._looks.append(look)
        while len(self._looks) > 2 and look.at_s - self._looks[1].at_s >= WINDOW_S:
            self._looks.popleft()

    def pace_of(self, key: TopicPartition) -> Pace:
        """Return the pace of a move of the last look, since the first that saw the same move."""
        now = self._looks[-1]
        same = _what_is_copied(now.moves[key])
        first = next(
            one
            for one in self._looks
            if key in one.moves and _what_is_copied(one.moves[key]) == same
        )
        watched_s = now.at_s - first.at_s
        return pace(first.progress[key], now.progress[key], watched_s, now.moves[key].throttle)

    def pace_of_all(self, keys: Iterable[TopicPartition]) -> tuple[Progress, Pace]:
        """Return how far these moves are together, and the pace of the slowest."""
        now = self._looks[-1]
        named = [key for key in keys if key in now.moves]
        total = Progress(
            sum(now.progress[key].done for key in named),
            sum(now.progress[key].total for key in named),
            next((why for key in named if (why := now.progress[key].unknown)), ""),
        )
        paces = {key: self.pace_of(key) for key in named}
        if not paces or any(p.bytes_per_s is None and not p.at_most for p in paces.values()):
            return total, Pace()
        times = [one.seconds_left for one in paces.values()]
        longest = None if None in times else max(time or 0.0 for time in times)
        watched_s = min(one.watched_s for one in paces.values())
        if any(one.at_most for one in paces.values()):
            # each leader sends so much
            limits = {(now.moves[key].leader, one.at_most) for key, one in paces.items()}
            return total, Pace(None, longest, watched_s, sum(limit for _, limit in limits))
        return total, Pace(sum(p.bytes_per_s or 0 for p in paces.values()), longest, watched_s)


def _what_is_copied(move: Reassignment) -> tuple[tuple[int, ...], int]:
    return move.adding, move.throttle
