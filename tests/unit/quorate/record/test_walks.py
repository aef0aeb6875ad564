"""Records that are checked together are taken and refused as those that are checked one by one."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quorate.errors import QuorateError
from quorate.record import alike, walks
from quorate.record.batch import HEADER_BYTES, BatchBuilder
from quorate.record.walks import check_records

TIME_MS = 1_790_000_000_000


def records(
    sizes: list[int], *, key: bytes | None = None, step_ms: float = 0.0, headers: bool = False
) -> bytes:
    """Return the records of a batch, whose values have these sizes."""
    builder = BatchBuilder()
    for number, size in enumerate(sizes):
        with_headers = (("h", b"v"),) if headers else ()
        builder.append(TIME_MS + int(number * step_ms), key, b"v" * size, with_headers)
    return builder.build()[HEADER_BYTES:]


def checked(data: bytes, stop: int, without_key: list[int] | None = None) -> tuple[int, int]:
    """Return the position after the records, and the greatest of their timestamp deltas."""
    return check_records(
        data, 0, first=0, stop=stop, base_timestamp=TIME_MS, without_key=without_key
    )


def outcome(data: bytes, stop: int, without_key: list[int] | None = None) -> tuple[int, str]:
    """Return the position after the records, or what is wrong with them."""
    try:
        return checked(data, stop, without_key)[0], ""
    except QuorateError as error:
        return -1, f"{type(error).__name__}: {error}"


def one_by_one(data: bytes, stop: int, without_key: list[int] | None = None) -> tuple[int, str]:
    """Return the same, where no records are checked together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "OFFSETS_ALIKE", 0)
        return outcome(data, stop, without_key)


@pytest.mark.parametrize("size", [0, 1, 60, 100, 1024, 9000])
@pytest.mark.parametrize("step_ms", [0.0, 1.0, 40.0])
@pytest.mark.parametrize("key", [None, b"", b"k", b"k" * 63, b"k" * 64])
def test_records_of_one_size_are_taken(size: int, step_ms: float, key: bytes | None) -> None:
    data = records([size] * 300, key=key, step_ms=step_ms)
    assert outcome(data, 300) == (len(data), "")


@pytest.mark.parametrize("count", [63, 64, 65, 8193])
def test_the_sizes_of_offsets_change_within_a_batch(count: int) -> None:
    data = records([1] * count)
    assert outcome(data, count) == (len(data), "")
    assert outcome(data, count + 1) == one_by_one(data, count + 1)


def test_most_records_of_one_size_are_checked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    data = records([100] * 64 + [1] + [100] * 64)
    single: list[int] = []
    check = walks._check_single

    def counted(*arguments: Any, first: int, stop: int, **more: Any) -> tuple[int, int]:
        single.append(stop - first)
        return check(*arguments, first=first, stop=stop, **more)

    monkeypatch.setattr(walks, "_check_single", counted)
    assert outcome(data, 129) == (len(data), "")
    assert sum(single) == alike.SINGLE_MIN


def test_all_records_without_a_key_are_found_among_others() -> None:
    builder = BatchBuilder()
    for number in range(100):
        builder.append(TIME_MS, None if number % 40 == 3 else b"k", b"value")
    data = builder.build()[HEADER_BYTES:]
    for check in (outcome, one_by_one):
        found: list[int] = []
        assert check(data, 100, found) == (len(data), "")
        assert found == [3, 43, 83]


#: Deltas whose varints have one byte, two bytes, and more; and some of each sign.
DELTAS = st.one_of(
    st.integers(-64, 63), st.integers(64, 8191), st.integers(-8192, 8191), st.integers(-(1 << 40))
).map(lambda delta: min(delta, 1 << 40))


@settings(deadline=None, max_examples=300)
@given(
    deltas=st.lists(DELTAS, min_size=1, max_size=12),
    repeat=st.integers(1, 20),
    is_sorted=st.booleans(),
    step=st.integers(0, 90),
)
@example(deltas=[100, 8000, 70], repeat=20, is_sorted=False, step=0)
@example(deltas=[100, 8000, 70], repeat=20, is_sorted=True, step=0)
@example(deltas=[-9, -5, 7], repeat=20, is_sorted=False, step=0)
def test_the_latest_time_is_found_in_records_of_any_layout(
    *, deltas: list[int], repeat: int, is_sorted: bool, step: int
) -> None:
    builder = BatchBuilder()
    times = [0] + [one + step * number for one in deltas for number in range(repeat)]
    times = sorted(times) if is_sorted else times
    for one in times:
        builder.append(TIME_MS + one, b"k", b"value")
    data = builder.build()[HEADER_BYTES:]
    latest = max(times) - times[0]
    assert checked(data, len(times)) == (len(data), latest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "OFFSETS_ALIKE", 0)
        assert checked(data, len(times)) == (len(data), latest)


def test_records_that_are_all_earlier_than_their_batch_says_have_a_latest_time() -> None:
    """The first delta of a producer's batch need not be 0."""
    data = b"".join(
        bytes((14, 0, 2 * delta - 1, 2 * number, 1, 2, 0x76, 0))
        for number, delta in enumerate((9, 5, 7) * 10)
    )
    assert checked(data, 30) == (len(data), -5)


# The layout of a record with a value of 100 bytes: the place of each byte that matters.
PLACES = {
    "length": 0,
    "second byte of the length": 1,
    "time": 3,
    "offset": 4,
    "second byte of the offset": 5,
    "key's length": 6,
    "value's length": 7,
    "second byte of the value's length": 8,
    "headers": -1,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("number", [64, 100, 199])
def test_one_wrong_byte_among_records_alike_is_found(place: int, number: int) -> None:
    before, whole = records([100] * number), records([100] * 200)
    size = len(records([100] * (number + 1))) - len(before)
    data = bytearray(whole)
    data[len(before) + (place if place >= 0 else size + place)] ^= 0x80 if place == 3 else 2
    found = outcome(bytes(data), 200)
    assert found == one_by_one(bytes(data), 200)
    assert found[1].startswith("CorruptRecordError")


def test_every_record_may_have_the_same_headers_and_they_are_looked_into() -> None:
    data = records([3] * 50, headers=True)
    assert outcome(data, 50) == (len(data), "")
    wrong = data.replace(b"h", b"\xff")
    without = bytearray(records([3] * 50))
    size = len(without) // 50
    without[size - 1 :: size] = b"\x02" * 50  # each says one header, and has none
    for bad in (wrong, bytes(without)):
        assert outcome(bad, 50) == one_by_one(bad, 50)
        assert outcome(bad, 50)[0] == -1


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.sampled_from([3, 3, 3, 70, 200]), min_size=1, max_size=40),
    repeat=st.integers(1, 30),
    key=st.sampled_from([None, b"key"]),
    headers=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_changed_bytes_are_judged_alike(
    *, sizes: list[int], repeat: int, key: bytes | None, headers: bool, seed: int
) -> None:
    chance = random.Random(seed)
    wanted = [size for size in sizes for _ in range(repeat)]
    data = bytearray(records(wanted, key=key, step_ms=chance.choice((0, 1)), headers=headers))
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(data))
        data[at] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, data[at] ^ 1))
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    changed, stop = bytes(data), len(wanted)
    assert outcome(changed, stop) == one_by_one(changed, stop)
    without_key: list[int] = []
    found, again = outcome(changed, stop, without_key), list[int]()
    assert found == one_by_one(changed, stop, again)
    assert without_key == again


@pytest.mark.parametrize("length", [b"\xfe\xff\x00", b"\x80\x80\x00", b"\x81\x80\x00"])
@pytest.mark.parametrize("place", ["record", "key", "value"])
def test_lengths_of_three_bytes_are_judged_alike(length: bytes, place: str) -> None:
    """None of them has what it says; the last byte would pass as a count of headers."""
    data = b""
    for number in range(10):
        key, value = (length if place == one else b"\x01" for one in ("key", "value"))
        body = bytes((0, 0, 2 * number)) + key + value + (b"\x00" if place == "record" else b"")
        data += (length if place == "record" else bytes((2 * len(body),))) + body
    assert outcome(data, 10)[0] == -1
    assert outcome(data, 10) == one_by_one(data, 10)
