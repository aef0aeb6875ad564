"""One member on its way to the target: what it gives back, what it waits for, in which epoch."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest

from quorate_broker.groups.machine.reconciliation import reconciled
from quorate_broker.groups.records.values import (
    STABLE,
    UNRELEASED_PARTITIONS,
    UNREVOKED_PARTITIONS,
    CurrentValue,
    Partition,
)

TOPIC = bytes(16)


def at(epoch: int, *numbers: int) -> dict[Partition, int]:
    return {(TOPIC, number): epoch for number in numbers}


def moved(
    current: CurrentValue,
    target_epoch: int,
    target: set[int],
    held: AbstractSet[int] = frozenset(),
    *,
    has_released: bool = False,
) -> CurrentValue:
    """Return the next state; `held`: partitions that other members have."""
    wanted = frozenset((TOPIC, number) for number in target)
    return reconciled(
        current, target_epoch, wanted, lambda one: one[1] not in held, has_released=has_released
    )


@pytest.mark.parametrize(
    ("current", "target_epoch", "target", "held", "following"),
    [
        pytest.param(
            CurrentValue(0, 0, STABLE),
            4,
            {0, 1},
            set(),
            CurrentValue(4, 0, STABLE, at(4, 0, 1)),
            id="a new member gets what is free",
        ),
        pytest.param(
            CurrentValue(3, 2, STABLE, at(2, 0)),
            4,
            {0, 1},
            set(),
            CurrentValue(4, 3, STABLE, at(2, 0) | at(4, 1)),
            id="what a member keeps has the epoch in which it got it",
        ),
        pytest.param(
            CurrentValue(3, 2, STABLE, at(2, 0)),
            4,
            {0, 1},
            {1},
            CurrentValue(4, 3, UNRELEASED_PARTITIONS, at(2, 0)),
            id="what another has is waited for",
        ),
        pytest.param(
            CurrentValue(4, 3, UNRELEASED_PARTITIONS, at(2, 0)),
            4,
            {0, 1},
            set(),
            CurrentValue(4, 4, STABLE, at(2, 0) | at(4, 1)),
            id="what was released is taken in the same epoch",
        ),
        pytest.param(
            CurrentValue(3, 2, STABLE, at(3, 0, 1)),
            4,
            {1, 2},
            set(),
            CurrentValue(3, 3, UNREVOKED_PARTITIONS, at(3, 1), at(3, 0)),
            id="a member gives back before it takes, in its old epoch",
        ),
        pytest.param(
            CurrentValue(4, 3, UNRELEASED_PARTITIONS, at(2, 0)),
            5,
            {1},
            {1},
            CurrentValue(4, 4, UNREVOKED_PARTITIONS, {}, at(2, 0)),
            id="a newer target is followed while waiting",
        ),
    ],
)
def test_a_member_moves_one_state(
    current: CurrentValue,
    target_epoch: int,
    target: set[int],
    held: set[int],
    following: CurrentValue,
) -> None:
    assert moved(current, target_epoch, target, held) == following


@pytest.mark.parametrize(
    ("current", "target_epoch", "target", "held"),
    [
        pytest.param(CurrentValue(4, 3, STABLE, at(4, 0)), 4, {0}, set(), id="at its target"),
        pytest.param(
            CurrentValue(3, 2, UNREVOKED_PARTITIONS, at(3, 1), at(3, 0)),
            5,
            {1, 2},
            set(),
            id="while it gives back, whatever the target is",
        ),
        pytest.param(
            CurrentValue(4, 4, UNRELEASED_PARTITIONS, at(2, 0)),
            4,
            {0, 1},
            {1},
            id="while another still has what it waits for",
        ),
    ],
)
def test_a_member_stays_as_it_is(
    current: CurrentValue, target_epoch: int, target: set[int], held: set[int]
) -> None:
    assert moved(current, target_epoch, target, held) is current


def test_a_member_that_gave_back_reaches_the_newest_target() -> None:
    current = CurrentValue(3, 2, UNREVOKED_PARTITIONS, at(3, 1), at(3, 0))
    following = moved(current, 5, {1, 2}, has_released=True)
    assert following == CurrentValue(5, 3, STABLE, at(3, 1) | at(5, 2))


def test_a_member_that_gave_back_and_must_give_more_is_one_epoch_on() -> None:
    current = CurrentValue(3, 2, UNREVOKED_PARTITIONS, at(3, 1), at(3, 0))
    assert moved(current, 5, {2}, has_released=True) == CurrentValue(
        4, 3, UNREVOKED_PARTITIONS, {}, at(3, 1)
    )


def test_what_a_member_gave_back_and_gets_again_is_new_to_it() -> None:
    current = CurrentValue(3, 2, UNREVOKED_PARTITIONS, at(2, 1), at(2, 0))
    following = moved(current, 5, {0, 1}, has_released=True)
    assert following.assigned == at(2, 1) | at(5, 0)
