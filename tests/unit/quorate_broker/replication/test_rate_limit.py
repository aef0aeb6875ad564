"""A rate limit: debt, the line, what is saved up. Times are in milliseconds from 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate_broker.replication.rate_limit import BURST_MS, RateLimit

RATE = 1000


def limit(rate: int = RATE) -> RateLimit[str]:
    return RateLimit(rate, 0.0)


def test_the_first_grant_is_given_at_once_and_the_next_when_its_bytes_have_passed() -> None:
    one = limit()
    assert one.next_ms is None
    assert one.ask("a", 400, 0) == 400
    assert one.next_ms is None
    one.used("a", 400)
    assert one.ask("a", 400, 399) == 0
    assert one.next_ms == 400
    assert one.grant(399.9) is None
    assert one.grant(400) == "a"
    assert one.ask("a", 400, 400) == 400, "it has its grant"


@pytest.mark.parametrize(
    ("rate", "asked", "granted"),
    [(RATE, 999, 999), (RATE, 1 << 20, RATE), (1, 1 << 20, 1), (1 << 40, 1 << 20, 1 << 20)],
)
def test_a_grant_is_of_no_more_than_a_second(rate: int, asked: int, granted: int) -> None:
    assert limit(rate).ask("a", asked, 0) == granted


def test_a_batch_that_is_larger_than_the_grant_is_copied_and_delays_the_next() -> None:
    one = limit(rate=1)
    assert one.ask("a", 1 << 20, 0) == 1
    one.used("a", 1 << 20)
    assert one.ask("a", 1 << 20, 5) == 0
    assert one.next_ms == pytest.approx((1 << 20) * 1000)


def test_what_a_grant_did_not_use_is_given_back() -> None:
    one = limit()
    assert one.ask("a", 1000, 0) == 1000
    assert one.ask("b", 100, 0) == 0
    one.used("a", 0)
    assert one.next_ms == 0
    assert one.grant(0) == "b"
    one.leave("b")
    assert one.is_idle(0)


def test_the_line_is_served_in_order_and_a_place_is_kept() -> None:
    one = limit()
    assert one.ask("x", 1000, 0) == 1000
    assert [one.ask(key, 1000, 0) for key in "abcab"] == [0] * 5
    assert [one.grant(t) for t in (999, 1000, 1500, 2000, 3000, 4000)] == [
        None, "a", None, "b", "c", None,
    ]  # fmt: skip


def test_nobody_overtakes_the_line() -> None:
    one = limit()
    assert one.ask("x", 10, 0) == 10
    assert one.ask("a", 10, 0) == 0
    assert one.ask("b", 10, 20) == 0, "a is before it"
    assert one.ask("a", 10, 20) == 10


@pytest.mark.parametrize("how", ["leave", "used"])
def test_one_that_leaves_is_forgotten(how: str) -> None:
    """A copy may be made without a grant: its replica came into the ISR meanwhile."""
    one = limit()
    one.ask("x", 1000, 0)
    one.ask("a", 1000, 0)
    one.ask("b", 1000, 0)
    if how == "leave":
        one.leave("a")
    else:
        one.used("a", 5000)
    assert one.grant(1000) == "b"


def test_idle_time_saves_up_one_second_and_no_more() -> None:
    one = limit()
    asked = [one.ask(key, RATE, 60_000) for key in "abcd"]
    assert asked == [RATE, RATE, 0, 0], "one of the time saved up, and one on credit"


def test_it_is_idle_without_debt() -> None:
    one = limit()
    assert one.is_idle(0)
    assert one.ask("a", 500, 0) == 500
    assert not one.is_idle(500), "its grant is not reported"
    one.used("a", 2000)
    assert not one.is_idle(1999)
    assert one.is_idle(2000)


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 5_000), st.integers(0, 1500)), max_size=60
)


@given(rate=st.integers(1, 5_000), steps=STEPS, larger=st.integers(0, 3_000))
def test_in_any_time_no_more_is_copied_than_the_limit_allows(
    rate: int, steps: list[tuple[int, int, int]], larger: int
) -> None:
    """One copy after the other, each up to `larger` bytes above its grant."""
    one: RateLimit[int] = RateLimit(rate, 0.0)
    now_ms, copied = 0, 0
    for key, size, pause_ms in steps:
        granted = one.ask(key, size, now_ms)
        if granted:
            one.used(key, granted + larger)
            copied += granted + larger
        now_ms += pause_ms
        most = rate * (now_ms + BURST_MS) / 1000 + one.grant_max + larger
        assert copied <= most + 1e-6


@given(rate=st.integers(1, 5_000), sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=30))
def test_all_that_wait_are_served_at_the_times_that_it_tells(rate: int, sizes: list[int]) -> None:
    one: RateLimit[int] = RateLimit(rate, 0.0)
    now_ms, served = 0.0, []
    for key, size in enumerate(sizes):
        if one.ask(key, size, now_ms):
            served.append(key)
    while one.next_ms is not None:
        assert one.next_ms >= now_ms
        now_ms = one.next_ms + 1e-6
        granted_to = one.grant(now_ms)
        assert granted_to is not None
        served.append(granted_to)
    assert served == list(range(len(sizes)))
    granted = sum(min(size, one.grant_max) for size in sizes)
    assert now_ms <= granted * 1000 / rate + 1
