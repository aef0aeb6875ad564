"""Reads that a cut overtakes, and reads of files that are not what they were."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from quorate.errors import CorruptRecordError
from quorate.record.batch import check, parse_header
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.parts import Parts
from quorate_quorum.log.reader import Reader
from quorate_testing.simulated.loop import SimulatedLoop, simulate
from tests.unit.quorate_quorum.log.builders import (
    FIRST,
    PATH,
    append,
    batch,
    new_disk,
)


def test_a_read_that_a_cut_overtook_leaves_no_position_behind() -> None:
    """A later reader would start in the middle of a batch, and call the log corrupt."""

    async def program(_: SimulatedLoop) -> None:
        disk = await new_disk()
        log = await Log.open(disk, PATH, LogConfig())
        await append(log, 10)
        await log.roll()  # positions in the active segment are in memory
        disk.slow = 0.01
        cut = asyncio.create_task(log.truncate(1))  # looks three times at the disk before it begins
        await asyncio.sleep(0.015)
        assert await log.read(0, end=10, bytes_max=400) == b"", "it began before the cut"
        await cut
        disk.slow = 0.0
        for offset in range(1, 10):
            await log.append([batch(offset, epoch=2, value=b"longer" * 10)])
        await log.roll()
        for offset in reversed(range(10)):  # each read would correct where the next one begins
            assert parse_header(await log.read(offset, end=10, bytes_max=1)).base_offset == offset
        await log.close(clean=False)

    simulate(program, 1)


async def test_a_read_never_passes_over_records_that_are_not_there() -> None:
    """A segment is shorter than when its index was made: what it lost is not skipped."""
    disk = await new_disk()
    config = LogConfig(segment_bytes=250)
    log = await Log.open(disk, PATH, config)
    await append(log, 8)
    bases = [one.base_offset for one in await log.segments()]
    await log.close(clean=True)
    parts = Parts(disk, PATH, config)
    for base in bases:
        await parts.segments.open(base)
    parts.extent.end = 8
    parts.extent.epochs.assign(1, 0)
    reader = Reader(parts.segments, parts.extent)
    whole = await reader.read(bases[1], 8, 1, at_least_one=True)
    parts.segments.all[1].size = len(whole)
    lost = parse_header(whole).end_offset
    with pytest.raises(CorruptRecordError, match=f"ends below offset {lost}"):
        await reader.read(lost, 8, 1000, at_least_one=True)
    await parts.close()


async def read_first(log: Log, offset: int) -> None:
    data = await log.read(offset, end=log.log_end_offset, bytes_max=10_000)
    check(data[: parse_header(data).size])


@pytest.mark.parametrize(("byte", "bit"), [(7, 0), (7, 1), (9, 4), (11, 3), (26, 0), (26, 7)])
async def test_a_flipped_bit_in_offsets_or_length_of_an_open_log_is_told(
    byte: int, bit: int
) -> None:
    """Else readers would wait for that batch for ever, or skip records."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, LogConfig())
    await append(log, 10)
    await log.close(clean=True)
    log = await Log.open(disk, PATH, LogConfig())
    before = len(await log.read(0, end=3, bytes_max=10_000))
    disk.flip_bit(FIRST, before + byte, bit)
    assert await log.read(0, end=10, bytes_max=before)
    for _ in range(2):
        # The log finds it, or its readers do: the CRC of the batch that they get is wrong.
        with pytest.raises((LogCorruptError, CorruptRecordError)):
            await read_first(log, 3)
    await log.close(clean=False)


@pytest.mark.parametrize("byte", [7, 16, 26], ids=["offset", "magic", "last offset"])
async def test_a_bad_batch_that_the_index_names_costs_no_other_batch(byte: int) -> None:
    """The index was dropped, and could not be built again: no append worked any more."""
    disk = await new_disk()
    config = LogConfig(index_interval_bytes=250)
    log = await Log.open(disk, PATH, config)
    await append(log, 60)
    _, position = log._segments.active.index.floor(30)  # type: ignore[union-attr]
    await log.close(clean=True)
    log = await Log.open(disk, PATH, config)
    disk.flip_bit(FIRST, position + byte, 3)
    failed = []
    for offset in range(60):
        try:
            await log.read(offset, end=60, bytes_max=1)
        except LogCorruptError:
            failed.append(offset)
    assert 1 <= len(failed) <= 3, "those that a search from this entry would find"
    with suppress(LogCorruptError):
        await log.offset_for_time(30, end=60)
    await append(log, 1)
    assert log.log_end_offset == 61
    await log.close(clean=False)
