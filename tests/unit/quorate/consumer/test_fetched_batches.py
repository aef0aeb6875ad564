"""What a consumer makes of the bytes of a fetch answer: only batches that follow one another."""

from __future__ import annotations

import pytest

from quorate.consumer.fetched_batches import whole_batches
from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchBuilder

BASE_OFFSET_AT, LENGTH_AT, EPOCH_AT, MAGIC_AT = 7, 9, 13, 16
LEADER_EPOCH = 3


def batch(base_offset: int, epoch: int = 0) -> bytearray:
    builder = BatchBuilder()
    builder.append(0, None, b"a value")
    return bytearray(builder.build(base_offset=base_offset, leader_epoch=epoch))


def offsets(data: bytearray, fetch_offset: int) -> list[int]:
    batches, _ = whole_batches(memoryview(data), fetch_offset, leader_epoch=LEADER_EPOCH)
    return [header.base_offset for header, _ in batches]


@pytest.mark.parametrize("byte", [BASE_OFFSET_AT, LENGTH_AT])
def test_a_first_batch_that_is_not_the_one_asked_for_is_corrupt(byte: int) -> None:
    """Else the consumer would fetch the same batch for ever, without an error."""
    data = batch(8)
    data[byte] ^= 1
    with pytest.raises(CorruptRecordError):
        whole_batches(memoryview(data), 8, leader_epoch=LEADER_EPOCH)


def test_a_later_batch_that_does_not_follow_is_left_for_the_next_answer() -> None:
    assert offsets(batch(8) + batch(9) + batch(10), 8) == [8, 9, 10]
    assert offsets(batch(8) + batch(10), 8) == [8]
    assert offsets(batch(8) + batch(9)[:70], 8) == [8]
    assert offsets(batch(8) + batch(9)[:20], 8) == [8]


@pytest.mark.parametrize("byte", [BASE_OFFSET_AT, LENGTH_AT, EPOCH_AT, MAGIC_AT])
def test_a_later_batch_that_is_no_good_hides_none_before_it(byte: int) -> None:
    """The complaint to the leader names the first bad batch, not the begin of the answer."""
    bad = batch(9)
    bad[byte] ^= 1
    assert offsets(batch(8) + bad, 8) == [8]
    with pytest.raises(CorruptRecordError):
        whole_batches(memoryview(bad), 9, leader_epoch=LEADER_EPOCH)


def test_a_compacted_log_may_skip_offsets_and_never_goes_back() -> None:
    data = batch(8) + batch(10) + batch(9)
    batches, _ = whole_batches(memoryview(data), 5, leader_epoch=LEADER_EPOCH, gaps=True)
    assert [header.base_offset for header, _ in batches] == [8, 10]


def test_an_epoch_above_the_leaders_is_not_believed() -> None:
    """The next fetch would name it, and no leader would know it: the consumer stood still."""
    with pytest.raises(CorruptRecordError):
        whole_batches(memoryview(batch(8, LEADER_EPOCH + 1)), 8, leader_epoch=LEADER_EPOCH)
    assert offsets(batch(8, LEADER_EPOCH), 8) == [8]


def test_epochs_never_fall_within_an_answer() -> None:
    assert offsets(batch(8, 2) + batch(9, 2) + batch(10, 1), 8) == [8, 9]
