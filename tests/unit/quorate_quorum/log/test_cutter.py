"""Cuts at the end of a log whose bytes are damaged near the cut."""

from __future__ import annotations

from typing import Final

import pytest

from quorate.record.batch import HEADER_BYTES, BatchBuilder, parse_header
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from tests.unit.quorate_quorum.log.builders import FIRST, PATH, append, new_disk

BATCH_BYTES: Final = 109
#: The batch that ends at the cut, and the one that begins there.
BEFORE: Final = 2
CUT: Final = 3


@pytest.mark.parametrize("damaged", [BEFORE, CUT])
@pytest.mark.parametrize("config", [LogConfig(), LogConfig(index_interval_bytes=0)])
async def test_a_cut_beside_a_damaged_batch_removes_just_what_was_asked_or_fails(
    damaged: int, config: LogConfig
) -> None:
    """A flipped bit in an offset moved the cut to another place, below the high watermark."""
    failed = 0
    for bit in range(HEADER_BYTES * 8):
        disk = await new_disk()
        log = await Log.open(disk, PATH, config)
        await append(log, 6)
        disk.flip_bit(FIRST, damaged * BATCH_BYTES + bit // 8, bit % 8)
        try:
            await log.truncate(CUT)
        except LogCorruptError:
            failed += 1
        else:
            assert log.log_end_offset == CUT
            assert len(disk.content(FIRST)) == CUT * BATCH_BYTES
        await log.close(clean=False)
    assert failed >= 64, "every bit of base_offset is seen"


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_cut_inside_a_batch_removes_it_only_if_it_is_good(*, is_damaged: bool) -> None:
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 2)
    builder = BatchBuilder()
    for value in range(4):
        builder.append(value, b"k", b"v")
    data = builder.build(base_offset=2, leader_epoch=1)
    await log.append([(parse_header(data), (data,))])
    if is_damaged:
        disk.flip_bit(FIRST, 2 * BATCH_BYTES + 24)  # last_offset_delta, which the CRC covers
        with pytest.raises(LogCorruptError):
            await log.truncate(4)
    else:
        await log.truncate(4)
        assert log.log_end_offset == 2
    await log.close(clean=False)
