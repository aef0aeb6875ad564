"""Idempotence: the window of five, duplicates, gaps, epochs, snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from quorate.errors import (
    CorruptRecordError,
    InvalidRequestError,
    OutOfOrderSequenceError,
    ProducerFencedError,
    UnknownProducerIdError,
)
from quorate_broker.replica.producers import BATCHES_REMEMBERED, Producers, Remembered


class Header(NamedTuple):
    producer_id: int = 9
    producer_epoch: int = 0
    base_sequence: int = 0
    base_offset: int = 0
    last_offset_delta: int = 0


def producers_after(*headers: Header) -> Producers:
    producers = Producers()
    for header in headers:
        producers.observe(header)
    return producers


def written(count: int) -> list[Header]:
    """Batches of two records, at offsets 100, 102 and so on."""
    return [
        Header(base_sequence=2 * number, base_offset=100 + 2 * number, last_offset_delta=1)
        for number in range(count)
    ]


def test_the_next_sequence_is_new() -> None:
    producers = producers_after(*written(3))

    assert producers.staging().check(Header(base_sequence=6, base_offset=106)) is None


@pytest.mark.parametrize("back", range(1, 6))
def test_each_of_the_last_five_batches_is_known_again(back: int) -> None:
    """A producer may have five batches in flight: a smaller window makes duplicates of them."""
    headers = written(7)
    again = headers[-back]._replace(base_offset=500)

    original = producers_after(*headers).staging().check(again)

    assert original is not None
    assert original.base_offset == headers[-back].base_offset
    assert original.end_offset == headers[-back].base_offset + 2


@pytest.mark.parametrize("sequence", [1, 2, 7, 9], ids=["torn", "too old", "overlap", "gap"])
def test_what_neither_follows_nor_repeats_is_out_of_order(sequence: int) -> None:
    staging = producers_after(*written(4 + BATCHES_REMEMBERED - 5)).staging()

    with pytest.raises(OutOfOrderSequenceError):
        staging.check(Header(base_sequence=sequence, last_offset_delta=0))


@pytest.mark.parametrize("number", [0, 1])
def test_a_batch_older_than_the_window_is_a_duplicate_and_no_gap(number: int) -> None:
    """If it were called a gap, the producer would write it again under the next epoch."""
    headers = written(7)
    again = headers[number]._replace(base_offset=500)

    original = producers_after(*headers).staging().check(again)

    assert original is not None
    assert original.base_offset == -1
    assert (
        original.end_offset == headers[2].base_offset
    )  # answered once the oldest remembered batch is committed


def test_sequences_wrap_to_zero() -> None:
    last = 2**31 - 1
    producers = producers_after(Header(base_sequence=last - 1, last_offset_delta=3, base_offset=0))

    assert producers.staging().check(Header(base_sequence=2, base_offset=4)) is None
    repeated = producers.staging().check(Header(base_sequence=last - 1, last_offset_delta=3))
    assert repeated == Remembered(last - 1, 1, 0, 3)


def test_an_unknown_producer_starts_at_zero_only() -> None:
    staging = Producers().staging()

    assert staging.check(Header(base_sequence=0)) is None
    with pytest.raises(UnknownProducerIdError):
        staging.check(Header(producer_id=10, base_sequence=3))


def test_a_newer_epoch_starts_at_zero_and_fences_the_older() -> None:
    producers = producers_after(*written(2))
    staging = producers.staging()

    with pytest.raises(OutOfOrderSequenceError):
        staging.check(Header(producer_epoch=1, base_sequence=4))
    assert staging.check(Header(producer_epoch=1, base_sequence=0)) is None
    with pytest.raises(ProducerFencedError):
        staging.check(Header(producer_epoch=0, base_sequence=4))


def test_batches_checked_together_follow_one_another() -> None:
    staging = Producers().staging()

    assert staging.check(Header(base_sequence=0, base_offset=0)) is None
    assert staging.check(Header(base_sequence=1, base_offset=1)) is None
    again = staging.check(Header(base_sequence=0, base_offset=2))
    assert again == Remembered(0, 0, 0, 0)


def test_a_failed_append_leaves_no_trace() -> None:
    producers = Producers()
    producers.staging().check(Header(base_sequence=0))

    assert producers.get(9) is None


@pytest.mark.parametrize(
    "header",
    [Header(producer_id=-2), Header(producer_epoch=-1), Header(base_sequence=-1)],
    ids=["producer_id", "epoch", "sequence"],
)
def test_impossible_numbers_are_refused(header: Header) -> None:
    with pytest.raises(InvalidRequestError):
        Producers().staging().check(header)


def test_batches_without_a_producer_are_not_remembered() -> None:
    assert len(producers_after(Header(producer_id=-1, producer_epoch=-1, base_sequence=-1))) == 0


def test_a_snapshot_brings_the_window_back() -> None:
    before = producers_after(*written(7), Header(producer_id=10))
    after = Producers()

    after.restore(before.snapshot())

    assert after.get(9) == before.get(9)
    assert after.get(10) == before.get(10)
    assert after.snapshot() == before.snapshot()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: b"\x00\x03" + data[2:],
        lambda data: b"",
    ],
    ids=["cut", "longer", "one bit", "newer version", "empty"],
)
def test_a_snapshot_that_is_not_whole_is_refused(change: Callable[[bytes], bytes]) -> None:
    producers = producers_after(*written(3))
    data = producers.snapshot()

    with pytest.raises(CorruptRecordError):
        producers.restore(change(data))
    assert len(producers) == 0
