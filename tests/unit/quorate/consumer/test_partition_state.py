"""Where a consumer stands in one partition, and what it must fetch next."""

from __future__ import annotations

import pytest

from quorate.consumer.partition_state import UNKNOWN
from tests.unit.quorate.consumer.builders import batch, fetch, read, state_at


def test_a_fetch_tells_the_epoch_of_the_last_record_fetched() -> None:
    state = state_at(offset=5, epoch=2)
    assert (state.fetch_offset, state.fetch_epoch) == (5, 2)
    fetch(state, 10, batch(5, 3, epoch=2), batch(8, 2, epoch=4))
    assert (state.fetch_offset, state.fetch_epoch) == (10, 4)
    state.fetch_again()  # what is held is dropped: the user has read nothing of it
    assert (state.fetch_offset, state.fetch_epoch) == (5, 2)
    assert not state.is_readable


def test_every_other_fetch_is_another_version() -> None:
    state = state_at()
    versions = [state.version]
    fetch(state, 10)
    versions.append(state.version)
    state.seek(5)
    versions.append(state.version)
    state.seek_to("latest")
    versions.append(state.version)
    assert len(set(versions)) == 4


def test_an_offset_that_was_looked_up_before_a_seek_is_dropped() -> None:
    state = state_at()
    state.seek_to("latest")
    asked = state.version
    state.seek_to("latest")
    state.found(7, 1, asked)
    assert state.needs_offset
    state.found(9, 1, state.version)
    assert (state.position, state.position_epoch) == (9, 1)


def test_a_seek_within_what_is_held_keeps_it() -> None:
    state = state_at()
    fetch(state, 10, batch(0, 10))
    version = state.version
    state.seek(4)
    assert (state.position, state.fetch_offset, state.held_bytes) == (4, 10, 10)
    assert state.version == version
    assert state.position_epoch == UNKNOWN  # of the record before it nothing is known
    state.seek(3)  # back: it is not certain what lies there
    assert (state.fetch_offset, state.held_bytes) == (3, 0)


@pytest.mark.parametrize(
    ("epoch", "end_offset", "safe"),
    [
        (4, 12, 12),  # the last epoch is cut
        (2, 7, 7),  # the epoch before it too
        (2, 99, 8),  # the leader wrote on in epoch 2 where we read epoch 4
        (0, 99, 5),  # of all that we read nothing is there
        (-1, 0, 0),
    ],
)
def test_the_safe_offset_is_where_the_first_record_read_may_differ(
    epoch: int, end_offset: int, safe: int
) -> None:
    state = state_at(offset=5)
    fetch(state, 10, batch(5, 3, epoch=2), batch(8, 7, epoch=4))
    read(state)
    assert (state.position, state.position_epoch) == (15, 4)
    assert state.epochs == [(2, 5), (4, 8)]
    assert state.safe_offset(epoch, end_offset) == safe


def test_epochs_that_are_remembered_are_bounded() -> None:
    state = state_at()
    fetch(state, 10, *(batch(number, epoch=number) for number in range(100)))
    read(state)
    assert len(state.epochs) == 32
    assert state.safe_offset(0, 50) == 50
