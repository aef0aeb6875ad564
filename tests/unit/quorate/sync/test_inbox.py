"""The inbox between threads and the loop: its bound, its order, its wake-ups, its end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from quorate.errors import ClosedError, OverloadedError
from quorate.sync.inbox import Inbox

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def without_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wait end by a notice alone, and not because it looks again for a signal."""
    monkeypatch.setattr("quorate.sync.inbox.SIGNAL_LATE_S", 10 * WAIT_S)


class Owner:
    """The loop's side of an inbox."""

    def __init__(self, bytes_max: int) -> None:
        self.wakes = 0
        self.is_here = False
        #: Set when a put has begun to wait. It holds the lock until it waits.
        self.waits = threading.Event()
        self.inbox: Inbox[Any] = Inbox(bytes_max, self.wake, self.asked)

    def wake(self) -> None:
        self.wakes += 1

    def asked(self) -> bool:
        self.waits.set()
        return self.is_here


def in_thread(call: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_the_loop_is_woken_once_for_all_items_of_an_inbox_that_was_empty() -> None:
    owner = Owner(1000)
    for _ in range(3):
        for number in range(10):
            owner.inbox.put(number, 1, WAIT_S)
        assert owner.inbox.take() == deque(range(10))
    assert owner.wakes == 3


def test_a_put_without_room_waits_until_the_loop_gives_some_back() -> None:
    owner = Owner(100)
    owner.inbox.put("first", 60, WAIT_S)
    thread, errors = in_thread(lambda: owner.inbox.put("second", 50, WAIT_S))
    assert owner.waits.wait(WAIT_S)
    assert owner.inbox.take() == deque(["first"])  # taken, and still in memory
    owner.inbox.give_back(5)
    assert owner.inbox.puts == 1
    owner.inbox.give_back(55)
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert (owner.inbox.take(), errors) == (deque(["second"]), [])


def test_a_put_without_room_is_refused_after_its_time_out() -> None:
    owner = Owner(100)
    owner.inbox.put("first", 60, WAIT_S)
    with pytest.raises(OverloadedError, match=r"buffer_memory\) was full for 10 ms"):
        owner.inbox.put("second", 60, 0.01)
    owner.inbox.put("third", 40, WAIT_S)
    assert owner.inbox.take() == deque(["first", "third"])


def test_an_item_larger_than_the_inbox_goes_in_alone() -> None:
    owner = Owner(100)
    owner.inbox.put("large", 500, WAIT_S)
    with pytest.raises(OverloadedError):
        owner.inbox.put("small", 1, 0.01)
    owner.inbox.give_back(500)
    owner.inbox.put("small", 1, WAIT_S)
    owner.waits.clear()
    thread, errors = in_thread(lambda: owner.inbox.put("large", 500, WAIT_S))
    assert owner.waits.wait(WAIT_S)
    owner.inbox.give_back(1)
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert (list(owner.inbox.take()), errors) == (["large", "small", "large"], [])


def test_the_loop_itself_never_waits_for_room() -> None:
    owner = Owner(100)
    owner.inbox.put("first", 60, WAIT_S)
    owner.is_here = True
    with pytest.raises(OverloadedError, match="a callback can't wait"):
        owner.inbox.put("second", 60, WAIT_S)
    owner.inbox.give_back(60)
    owner.inbox.put("larger than the inbox", 500, WAIT_S)


def test_a_closed_inbox_refuses_all_and_ends_the_waits() -> None:
    owner = Owner(100)
    owner.inbox.put("first", 60, WAIT_S)
    thread, errors = in_thread(lambda: owner.inbox.put("second", 60, WAIT_S))
    assert owner.waits.wait(WAIT_S)
    closed = ClosedError("closed")
    owner.inbox.close(closed)
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert errors == [closed]
    with pytest.raises(ClosedError):
        owner.inbox.put("third", 1, WAIT_S)
    assert owner.inbox.take() == deque(["first"])


def test_threads_keep_their_order_and_the_bound_and_cost_one_wake_up_a_take() -> None:
    threads, items, size = 8, 500, 7
    owner = Owner(100)
    rings = threading.Semaphore(0)
    owner.inbox._wake = rings.release
    begin = threading.Barrier(threads)

    def send(sender: int) -> None:
        begin.wait(WAIT_S)
        for number in range(items):
            owner.inbox.put((sender, number), size, WAIT_S)

    senders = [in_thread(partial(send, sender)) for sender in range(threads)]
    got: dict[int, list[int]] = {sender: [] for sender in range(threads)}
    left = threads * items
    while left:
        assert rings.acquire(timeout=WAIT_S)
        taken = owner.inbox.take()
        assert 0 < len(taken) * size <= 100
        for sender, number in taken:
            got[sender].append(number)
        left -= len(taken)
        owner.inbox.give_back(len(taken) * size)
    for thread, errors in senders:
        thread.join(WAIT_S)
        assert errors == []
    assert not rings.acquire(blocking=False)
    assert got == {sender: list(range(items)) for sender in range(threads)}
