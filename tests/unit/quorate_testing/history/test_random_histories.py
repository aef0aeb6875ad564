"""Random histories: good ones raise no alarm, and one planted error is found."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from quorate_testing.history import Operation, Poll, Send, check
from quorate_testing.history.errors import KINDS
from quorate_testing.history.operations import Name
from tests.harness.random_histories import PLANTS, NoPlace, good_history

VALUES: list[Name] = [1, 2, "v3", ""]


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_a_good_history_has_no_failure(first: int) -> None:
    for seed in range(first, first + 25):
        verdict = check(good_history(seed))
        assert verdict.is_good, f"seed {seed}\n{verdict}"


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"empty"}))
def test_a_planted_error_is_found(kind: str) -> None:
    planted = 0
    for seed in range(20):
        try:
            history = PLANTS[kind](random.Random(seed), good_history(seed))
        except NoPlace:
            continue
        planted += 1
        verdict = check(history)
        found = {finding.kind for finding in (*verdict.failures, *verdict.by_design)}
        assert kind in found, f"seed {seed}\n{verdict}"
    assert planted > 10


def test_a_history_may_come_in_any_order() -> None:
    history = good_history(1)
    shuffled = random.Random(1).sample(history, len(history))
    assert str(check(shuffled)) == str(check(history))


@pytest.mark.parametrize("seed", range(40))
def test_no_history_makes_the_check_fail(seed: int) -> None:
    """What is wrong with a history is an error of it, and never of the checker."""
    rng = random.Random(seed)
    history = [_broken(rng, one) for one in good_history(seed, 60) if rng.random() < 0.9]
    rng.shuffle(history)
    text = str(check(history))
    assert text, f"seed {seed}"


def _broken(rng: random.Random, one: Operation) -> Operation:
    """Return the operation with chance in any of its fields."""
    if rng.random() < 0.7:
        return one
    steps = list(one.steps)
    rng.shuffle(steps)
    if rng.random() < 0.5:
        offset = rng.choice([None, -5, 0, 3, 10**15])
        steps.append(Send(rng.choice("xyq"), rng.choice(VALUES), offset))
    if rng.random() < 0.5:
        records = [(rng.randint(-2, 20), rng.choice(VALUES)) for _ in range(4)]
        steps.append(Poll({rng.choice("xyq"): records, "empty": []}))
    return replace(
        one,
        kind=rng.choice(["send", "poll", "txn", "assign", "subscribe", "crash"]),
        start=rng.randint(-100, 5000),
        end=rng.choice([None, one.end, -1000, 0]),
        outcome=rng.choice(["done", "failed", "unknown"]),
        process=rng.choice([1, "a", ""]),
        steps=tuple(steps),
        keys=tuple(rng.sample("xyz", 2)),
        seeks=rng.random() < 0.5,
    )
