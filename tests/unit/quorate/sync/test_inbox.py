"""The inbox between threads and the loop: its bound, its order, its wake-ups, its end."""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from quorate.errors import ClosedError, InvalidTimestampError, OverloadedError
from quorate.producer.bulk import Bulk
from quorate.record.batch import TIMESTAMP_MAX
from quorate.record.column_builder import RecordColumns
from quorate.record.record import record_bytes_max
from quorate.sync import inbox
from quorate.sync.inbox import BULK_RECORDS_MAX, Inbox, parts_of

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
        self.inbox = Inbox(bytes_max, self.wake, self.asked)

    def put(self, item: str, size: int, timeout_s: float) -> None:
        self.inbox.put("t", None, 0, None, item.encode(), (), size, timeout_s)

    def take(self) -> list[str]:
        bulks = self.inbox.take()
        return [(value or b"").decode() for bulk in bulks for value in bulk.records.values]

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
            owner.put(str(number), 1, WAIT_S)
        assert owner.take() == [str(number) for number in range(10)]
    assert owner.wakes == 3


def test_a_record_that_is_refused_leaves_nothing_and_the_next_one_wakes_the_loop() -> None:
    owner = Owner(1000)
    with pytest.raises(InvalidTimestampError):
        owner.inbox.put("t", None, TIMESTAMP_MAX + 1, None, b"bad", (), 3, WAIT_S)
    assert (owner.wakes, owner.inbox.puts) == (0, 0)
    owner.put("next", 4, WAIT_S)
    assert owner.wakes == 1
    assert owner.take() == ["next"]


class Interrupts:
    """Raises KeyboardInterrupt at the n-th line of a put that the thread comes to."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.has_raised = False

    def trace(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        return self._line if code.co_filename == inbox.__file__ or code in PARTS_OF_A_PUT else None

    def _line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event != "line" or self.has_raised:
            return self._line
        # Python runs no signal handler between the last line under a lock and the lock's release
        if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with"):
            return self._line
        self.left -= 1
        if self.left < 0:
            self.has_raised = True
            raise KeyboardInterrupt
        return self._line


PARTS_OF_A_PUT = {
    one.__code__
    for one in (RecordColumns.append, RecordColumns.begin_run, RecordColumns._keys, Owner.wake)
}


def put_pair(owner: Owner, name: str, count: int) -> None:
    """Put a record with a key of the same name, or many as one bulk."""
    pair, headers = name.encode(), ((name, None),)
    size = record_bytes_max(pair, pair, headers)
    if count == 1:
        owner.inbox.put("t", None, ord(name[0]), pair, pair, headers, size, WAIT_S)
        return
    records = RecordColumns()
    for _ in range(count):
        records.append(7, pair, pair, headers, size)
    owner.inbox.put_all(Bulk("t", None, records), WAIT_S)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("before", [(), ("before",)])
def test_a_signal_at_any_line_of_a_put_leaves_the_inbox_whole(
    before: tuple[str, ...], count: int
) -> None:
    """The record of the put may be there or not. All later records are, and wake the loop."""
    number = 0
    has_raised = True
    while has_raised:
        owner = Owner(1000)
        for name in before:
            owner.inbox.put("t", None, 7, None, name.encode(), (), 7, WAIT_S)
        interrupts = Interrupts(number)
        try:
            sys.settrace(interrupts.trace)
            try:
                put_pair(owner, "interrupted", count)
            finally:
                sys.settrace(None)
        except KeyboardInterrupt:
            assert interrupts.has_raised
        put_pair(owner, "after", 1)
        assert owner.wakes >= 1, number
        bulks = owner.inbox.take()
        found = []
        for bulk in bulks:
            records = bulk.records
            for index, (key, value) in enumerate(
                zip(records.keys or [None] * len(records.values), records.values, strict=False)
            ):
                assert key is None or key == value
                assert [name.encode() for name, _ in records.headers.get(index, ())] in ([], [key])
                found.append((value or b"").decode())
            bulk.seal()
        assert [one for one in found if one != "interrupted"] == [*before, "after"], number
        assert found.count("interrupted") in (0, count), number
        assert (owner.inbox.puts, sum(bulk.count for bulk in bulks)) == (len(found),) * 2, number
        # nothing is counted for ever, and no room is given back twice
        for bulk in bulks:
            owner.inbox.give_back(bulk.records.size)
        owner.put("all the room", 1000, 0.001)
        with pytest.raises(OverloadedError):
            owner.put("more", 1, 0.001)
        # the wake-up belongs to one take
        wakes = owner.wakes
        assert owner.take() == ["all the room"]
        owner.inbox.give_back(1000)
        owner.put("next", 4, WAIT_S)
        assert owner.wakes == wakes + 1, number
        has_raised = interrupts.has_raised
        number += 1
    assert number > 10


def test_records_of_several_partitions_and_bulks_keep_their_order() -> None:
    owner = Owner(1 << 20)
    for number in range(1000):  # more than a bulk has
        owner.inbox.put("t", number % 100 // 50, 0, None, b"%d" % number, (), 4, WAIT_S)
    assert owner.take() == [str(number) for number in range(1000)]
    for number in range(2 * BULK_RECORDS_MAX):
        owner.put(str(number), 1, WAIT_S)
    assert owner.take() == [str(number) for number in range(2 * BULK_RECORDS_MAX)]


def test_a_put_without_room_waits_until_the_loop_gives_some_back() -> None:
    owner = Owner(100)
    owner.put("first", 60, WAIT_S)
    thread, errors = in_thread(lambda: owner.put("second", 50, WAIT_S))
    assert owner.waits.wait(WAIT_S)
    assert owner.take() == ["first"]  # taken, and still in memory
    owner.inbox.give_back(5)
    assert owner.inbox.puts == 1
    owner.inbox.give_back(55)
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert (owner.take(), errors) == (["second"], [])


def test_a_put_without_room_is_refused_after_its_time_out() -> None:
    owner = Owner(100)
    owner.put("first", 60, WAIT_S)
    with pytest.raises(OverloadedError, match=r"buffer_memory\) was full for 10 ms"):
        owner.put("second", 60, 0.01)
    owner.put("third", 40, WAIT_S)
    assert owner.take() == ["first", "third"]


def test_an_item_larger_than_the_inbox_goes_in_alone() -> None:
    owner = Owner(100)
    owner.put("large", 500, WAIT_S)
    with pytest.raises(OverloadedError):
        owner.put("small", 1, 0.01)
    owner.inbox.give_back(500)
    owner.put("small", 1, WAIT_S)
    owner.waits.clear()
    thread, errors = in_thread(lambda: owner.put("large", 500, WAIT_S))
    assert owner.waits.wait(WAIT_S)
    owner.inbox.give_back(1)
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert (owner.take(), errors) == (["large", "small", "large"], [])


def test_the_loop_itself_never_waits_for_room() -> None:
    owner = Owner(100)
    owner.put("first", 60, WAIT_S)
    owner.is_here = True
    with pytest.raises(OverloadedError, match="a callback can't wait"):
        owner.put("second", 60, WAIT_S)
    owner.inbox.give_back(60)
    owner.put("larger than the inbox", 500, WAIT_S)


def test_a_closed_inbox_refuses_all_and_ends_the_waits() -> None:
    owner = Owner(100)
    owner.put("first", 60, WAIT_S)
    thread, errors = in_thread(lambda: owner.put("second", 60, WAIT_S))
    assert owner.waits.wait(WAIT_S)
    closed = ClosedError("closed")
    owner.inbox.close(closed)
    thread.join(WAIT_S / 2)
    assert not thread.is_alive()
    assert errors == [closed]
    with pytest.raises(ClosedError):
        owner.put("third", 1, WAIT_S)
    assert owner.take() == ["first"]


def test_threads_keep_their_order_and_the_bound_and_cost_one_wake_up_a_take() -> None:
    threads, items, size = 8, 500, 7
    owner = Owner(100)
    rings = threading.Semaphore(0)
    owner.inbox._wake = rings.release
    begin = threading.Barrier(threads)

    def send(sender: int) -> None:
        begin.wait(WAIT_S)
        for number in range(items):
            owner.put(f"{sender} {number}", size, WAIT_S)

    senders = [in_thread(partial(send, sender)) for sender in range(threads)]
    got: dict[int, list[int]] = {sender: [] for sender in range(threads)}
    left = threads * items
    while left:
        assert rings.acquire(timeout=WAIT_S)
        taken = owner.take()
        assert 0 < len(taken) * size <= 100
        for item in taken:
            sender, number = map(int, item.split())
            got[sender].append(number)
        left -= len(taken)
        owner.inbox.give_back(len(taken) * size)
    for thread, errors in senders:
        thread.join(WAIT_S)
        assert errors == []
    assert not rings.acquire(blocking=False)
    assert got == {sender: list(range(items)) for sender in range(threads)}


def test_records_of_one_topic_and_partition_that_follow_one_another_are_one_bulk() -> None:
    owner = Owner(100_000)
    for topic, partition, count in [("a", None, 3), ("a", 1, 2), ("b", 1, 1), ("b", 1, 2500)]:
        for index in range(count):
            owner.inbox.put(topic, partition, index, None, b"v", (), 1, WAIT_S)
    found = [(one.topic, one.partition, len(one.records.values)) for one in owner.inbox.take()]
    assert found == [("a", None, 3), ("a", 1, 2), *[("b", 1, n) for n in (1000, 1000, 501)]]
    owner.inbox.put("b", 1, 0, None, b"v", (), 1, WAIT_S)
    assert len(owner.inbox.take()) == 1  # a bulk that the loop has taken gets no more records


def test_many_records_go_in_as_bulks_that_fit() -> None:
    owner = Owner(1000)
    records = RecordColumns()
    for index in range(10):
        size = 900 if index == 7 else 200
        records.append(index, None, bytes(size), (), record_bytes_max(None, bytes(size), ()))
    bulks = list(parts_of("t", 3, records, owner.inbox.bytes_max))
    assert [len(one.records.values) for one in bulks] == [4, 3, 1, 2]
    for bulk in bulks:
        owner.inbox.put_all(bulk, WAIT_S)
        assert owner.inbox.take().pop() is bulk
        owner.inbox.give_back(bulk.records.size)
    assert (owner.inbox.puts, owner.wakes) == (10, 4)


def test_a_bulk_knows_the_place_of_each_record_and_then_keeps_no_bytes() -> None:
    bulk = Bulk("t", None, RecordColumns())
    for _ in range(6):
        bulk.records.append(7, None, b"v", (), record_bytes_max(None, b"v", ()))
    assert bulk.place(0) is None
    bulk.seal()
    first, second = object(), object()
    error = ClosedError("x")
    bulk.put(first, 10, 2)  # type: ignore[arg-type]
    bulk.put(first, 12, 3)  # type: ignore[arg-type]
    bulk.skip(error)
    assert (bulk.place(4), bulk.is_done) == (None, False)
    bulk.put(second, 0, 5)  # type: ignore[arg-type]
    bulk.put(second, 9, 6)  # type: ignore[arg-type]
    assert bulk.is_done
    assert bulk.count == 6
    assert [bulk.place(index) for index in range(6)] == [
        (first, 10), (first, 11), (first, 12), error, (second, 0), (second, 9)
    ]  # fmt: skip
    assert bulk.place(6) is None
    assert bulk.records.values == []
