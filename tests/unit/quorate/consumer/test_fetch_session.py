"""A request names what changed since the last request, and no more."""

from __future__ import annotations

from quorate.consumer.fetch_session import CHANGES_MAX, FetchSession
from tests.unit.quorate.consumer.builders import TOPIC_ID, fetch, state_at


def test_a_request_names_what_changed_and_forgets_what_is_not_wanted() -> None:
    session = FetchSession(100)
    states = [state_at(number) for number in range(3)]
    for state in states:
        session.add(state)
    first = session.next_request()
    assert first is not None
    assert (first.named, first.forgotten) == (states, [])
    assert session.next_request() is None  # nothing to name while one is under way
    session.answered(first.request_id)
    fetch(states[0], 10)
    session.touch(states[0])
    states[1].paused = True
    session.touch(states[1])
    second = session.next_request()
    assert second is not None
    assert (second.named, second.forgotten) == ([states[0]], [(TOPIC_ID, 1)])
    session.answered(second.request_id)
    third = session.next_request()
    assert third is not None
    assert (third.named, third.forgotten) == ([], [])


def test_nothing_is_asked_where_nothing_is_wanted() -> None:
    session = FetchSession(100)
    state = state_at()
    state.paused = True
    session.add(state)
    assert session.next_request() is None
    assert session.is_idle


def test_an_answer_to_an_older_fetch_is_dropped() -> None:
    session = FetchSession(100)
    state = state_at(offset=5)
    session.add(state)
    first = session.next_request()
    assert first is not None
    assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is state
    state.seek(7)
    session.touch(state)
    assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is None
    state.seek(5, 3)  # the same offset, and another question: of what epoch it is
    session.touch(state)
    assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is None
    second = session.next_request()
    assert second is not None
    assert session.awaits(first.request_id, TOPIC_ID, 0, 5) is None
    assert session.awaits(second.request_id, TOPIC_ID, 0, 5) is state


def test_two_requests_are_under_way_at_most() -> None:
    session = FetchSession(100)
    for number in range(3):
        session.add(state_at(number))
        assert (session.next_request() is not None) == (number < 2)


def test_a_partition_that_left_is_forgotten_and_may_come_back() -> None:
    session = FetchSession(100)
    old, stays = state_at(0), state_at(1)
    session.add(old)
    session.add(stays)
    first = session.next_request()
    assert first is not None
    session.answered(first.request_id)
    session.remove(old)
    assert session.next_request() is not None
    new = state_at(0, 3)
    session.add(new)
    session.answered(2)
    last = session.next_request()
    assert last is not None
    assert last.named == [new]
    assert session.awaits(last.request_id, TOPIC_ID, 0, 3) is new


def test_a_new_stream_is_told_everything() -> None:
    session = FetchSession(100)
    states = [state_at(number) for number in range(3)]
    for state in states:
        session.add(state)
    assert session.next_request() is not None
    session.restart()
    again = session.next_request()
    assert again is not None
    assert again.named == states
    assert again.request_id == 2  # it grows on


def test_a_request_names_a_bounded_number_and_the_next_ones_the_rest() -> None:
    session = FetchSession(100)
    for number in range(CHANGES_MAX + 10):
        session.add(state_at(number))
    sizes = []
    while (asked := session.next_request()) is not None and asked.named:
        sizes.append(len(asked.named))
        session.answered(asked.request_id)
    assert sizes == [CHANGES_MAX, 10]
