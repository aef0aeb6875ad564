"""How far moves are, how fast, and what is left, in numbers and words."""

from __future__ import annotations

import pytest

from quorate import LogDirDescription, Reassignment, ReplicaSize, TopicPartition
from quorate_cli.move_progress import (
    NO_LEADER,
    NO_SIZE,
    WINDOW_S,
    Look,
    Looks,
    Pace,
    Progress,
    hindrance,
    pace,
    progress_of,
)

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
NONE = Progress(0, 0, NO_LEADER)
MOVE = Reassignment(replicas=(3, 1, 2), adding=(3,), removing=(2,), isr=(1, 2), leader=1)


@pytest.mark.parametrize(
    ("sizes", "isr", "found"),
    [
        ({1: 1000, 3: 0}, (1,), Progress(0, 1000)),
        ({1: 1000, 3: 400}, (1,), Progress(400, 1000)),
        ({1: 1000, 3: 1400}, (1,), Progress(1000, 1000)),  # compaction has shrunk the leader's
        ({1: 1000, 3: 400}, (1, 3), Progress(1000, 1000)),
        ({3: 400}, (1,), Progress(0, 0, NO_SIZE)),  # the leader's broker does not answer
        ({3: 400}, (1, 3), Progress(0, 0, NO_SIZE)),
        ({1: 0}, (1,), Progress(0, 0)),
        ({1: 1000}, (1,), Progress(0, 1000)),
    ],
)
def test_progress_counts_bytes_and_replicas_in_sync(
    sizes: dict[int, int], isr: tuple[int, ...], found: Progress
) -> None:
    directories = [
        LogDirDescription(b, "/d", "", "", 9, (ReplicaSize("t", 0, size, 0, 9, b == 1),))
        for b, size in sizes.items()
    ]
    assert progress_of(T0, MOVE._replace(isr=isr), directories) == found
    assert Progress(0, 0).share == 1.0


@pytest.mark.parametrize(
    ("before", "now", "seconds", "speed", "left"),
    [
        # 100 bytes a second, 700 left
        (Progress(100, 1000), Progress(300, 1000), 2, "100 B/s", "7 s"),
        # the leader grows by half of that
        (Progress(100, 1000), Progress(300, 1100), 2, "100 B/s", "16 s"),
        (Progress(100, 1000), Progress(300, 1200), 2, "100 B/s", "falls behind"),
        (Progress(100, 1000), Progress(300, 5000), 2, "100 B/s", "falls behind"),
        (Progress(100, 1000), Progress(100, 1000), 2, "0 B/s", "nothing copied for 2 s"),
        # retention deleted from the leader, and the copy stands
        (Progress(100, 1000), Progress(100, 900), 2, "0 B/s", "nothing copied for 2 s"),
        # the copy began again
        (Progress(900, 1000), Progress(0, 1000), 2, "0 B/s", "nothing copied for 2 s"),
        (Progress(100, 1000), Progress(100, 1000), 30, "0 B/s", "stands still"),
        (Progress(100, 1000), Progress(1000, 1000), 2, "450 B/s", "all copied"),
        (Progress(0, 0), Progress(0, 0), 2, "0 B/s", "all copied"),
        (Progress(100, 1000), Progress(300, 1000), 0, "-", "not known yet"),
        (Progress(100, 1000), Progress(0, 0, NO_LEADER), 2, "-", "no leader: nothing is copied"),
        (Progress(0, 0, NO_LEADER), Progress(100, 1000), 2, "-", "not known yet"),
        (Progress(0, 1 << 60), Progress(1, 1 << 60), 1, "1 B/s", "over 999 d"),
    ],
)
def test_the_time_that_is_left_is_an_estimate_or_why_there_is_none(
    before: Progress, now: Progress, seconds: float, speed: str, left: str
) -> None:
    found = pace(before, now, seconds)
    assert (found.speed, found.left(now)) == (speed, left)


KIB = 1024


@pytest.mark.parametrize(
    ("before", "now", "seconds", "speed", "left"),
    [
        # no batch ended between the looks, or a large one did
        (Progress(0, 1000 * KIB), Progress(0, 1000 * KIB), 2, "at most 50.0 KiB/s", "20 s or more"),
        (
            Progress(0, 1000 * KIB),
            Progress(500 * KIB, 1000 * KIB),
            2,
            "at most 50.0 KiB/s",
            "10 s or more",
        ),
        (Progress(0, 1000 * KIB), Progress(0, 1000 * KIB), 0, "at most 50.0 KiB/s", "20 s or more"),
        (Progress(0, 100), Progress(100, 100), 2, "at most 50.0 KiB/s", "all copied"),
        # watched for long enough
        (Progress(0, 90 * KIB), Progress(30 * KIB, 90 * KIB), 30, "1.0 KiB/s", "1 min"),
        (Progress(0, 1000), Progress(0, 1000), 30, "0 B/s", "stands still"),
    ],
)
def test_a_throttled_move_is_told_by_its_throttle_until_it_was_watched_for_long_enough(
    before: Progress, now: Progress, seconds: float, speed: str, left: str
) -> None:
    """It was said to stand still while it went on: no batch had ended between two looks."""
    found = pace(before, now, seconds, 50 * KIB)
    assert (found.speed, found.left(now)) == (speed, left)


def test_a_changed_throttle_begins_a_new_pace() -> None:
    looks = Looks()
    for at_s, throttle in ((0.0, 0), (1.0, 0), (40.0, 10), (41.0, 10)):
        look = Look(at_s, {T0: MOVE._replace(throttle=throttle)}, {T0: Progress(100, 1000)})
        looks.add(look)
    assert looks.pace_of(T0).speed == "at most 10 B/s"
    assert looks.pace_of_all([T0]) == (Progress(100, 1000), looks.pace_of(T0))


@pytest.mark.parametrize(
    ("move", "dead", "said"),
    [
        (MOVE, {3}, "broker 3 is not alive: start it, or cancel the move"),
        (MOVE, {2}, ""),  # it is to lose its replica
        (MOVE._replace(isr=(3, 1)), {3}, ""),  # it has died just now
        (
            MOVE._replace(replicas=(3, 4, 1), adding=(3, 4), removing=(1,)),
            {3, 4},
            "brokers 3 and 4 are not alive: start them, or cancel the move",
        ),
    ],
)
def test_a_move_to_a_broker_that_is_not_alive_says_so(
    move: Reassignment, dead: set[int], said: str
) -> None:
    assert hindrance(move.target, move.isr, dead) == said


def test_a_move_without_a_leader_has_copied_nothing_that_is_known() -> None:
    far = progress_of(T0, MOVE._replace(leader=-1, isr=()), [])
    assert far == Progress(0, 0, NO_LEADER)
    assert (far.share, str(far)) == (0.0, "-")
    directory = LogDirDescription(3, "/d", "", "", 9, (ReplicaSize("t", 0, 400, 0, 9, False),))
    assert progress_of(T0, MOVE._replace(leader=-1, isr=(3,)), [directory]) == far


def looks_at(*seen: tuple[float, dict[TopicPartition, Progress]]) -> Looks:
    looks = Looks()
    for at_s, far in seen:
        looks.add(Look(at_s, dict.fromkeys(far, MOVE), far))
    return looks


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    """Not of the last look alone: a throttled copy comes in bursts."""
    far = [(float(s), {T0: Progress(100 * (s // 10), 10_000)}) for s in range(0, 101, 2)]
    assert looks_at(*far).pace_of(T0).bytes_per_s == pytest.approx(10)
    slow = [(s + 101.0, {T0: Progress(1000 + s, 10_000)}) for s in range(2 * int(WINDOW_S))]
    assert looks_at(*far, *slow).pace_of(T0).bytes_per_s == pytest.approx(1)


def test_a_move_that_is_seen_once_or_was_replaced_has_no_pace() -> None:
    assert looks_at((1.0, {T0: Progress(1, 2)})).pace_of(T0) == Pace()
    assert looks_at((1.0, {}), (2.0, {T0: Progress(1, 2)})).pace_of(T0) == Pace()
    looks = looks_at((1.0, {T0: Progress(1, 2)}))
    other = MOVE._replace(adding=(4,))
    looks.add(Look(2.0, {T0: other}, {T0: Progress(1, 2)}))
    assert looks.pace_of(T0) == Pace()


def test_several_moves_together_end_with_the_slowest() -> None:
    looks = looks_at(
        (0.0, {T0: Progress(0, 100), T1: Progress(0, 100)}),
        (1.0, {T0: Progress(50, 100), T1: Progress(10, 100)}),
    )
    assert looks.pace_of_all([T0, T1]) == (Progress(60, 200), Pace(60.0, 9.0, 1.0))
    assert looks.pace_of_all([]) == (Progress(0, 0), Pace())
    looks = looks_at(
        (0.0, {T0: Progress(0, 100), T1: Progress(0, 100)}),
        (1.0, {T0: Progress(50, 100), T1: Progress(0, 100)}),
    )
    assert looks.pace_of_all([T0, T1]) == (Progress(50, 200), Pace(50.0, None, 1.0))
    looks.add(Look(2.0, dict.fromkeys([T0, T1], MOVE), {T0: Progress(100, 100), T1: NONE}))
    total, pace_of_all = looks.pace_of_all([T0, T1])
    assert (str(total), pace_of_all.left(total)) == ("100 B of 100 B (100 %)", NO_LEADER)
