"""What a follower takes from its leader: batches that follow its log."""

from __future__ import annotations

import pytest

from quorate.record.batch import BatchBuilder
from quorate_broker.replica import checks


def batch(base_offset: int) -> bytes:
    builder = BatchBuilder()
    builder.append(0, b"k", b"v")
    return builder.build(base_offset=base_offset, leader_epoch=1)


async def taken(data: bytes, *, has_gaps: bool) -> tuple[list[int], str | None]:
    writes, fault = await checks.from_leader(
        data, log_end_offset=5, last_epoch=0, leader_epoch=1, has_gaps=has_gaps
    )
    return [header.base_offset for header, _ in writes], fault


@pytest.mark.parametrize("first", [5, 7])
async def test_a_follower_takes_gaps_only_from_a_leader_whose_log_is_compacted(first: int) -> None:
    data = batch(first) + batch(9)
    assert await taken(data, has_gaps=True) == ([first, 9], None)
    alone = [first] if first == 5 else []
    offsets, fault = await taken(data, has_gaps=False)
    assert offsets == alone
    assert fault is not None


async def test_a_batch_that_goes_back_is_refused_even_from_a_compacted_log() -> None:
    offsets, fault = await taken(batch(7) + batch(7), has_gaps=True)
    assert (offsets, fault) == ([7], "a batch at 7; 8 is next")
