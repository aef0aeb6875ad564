"""Lookups by time: few indexes in memory, large batches in a thread."""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from quorate.record.batch import HEADER_BYTES, BatchBuilder, parse_header
from quorate.record.compression import ZSTD
from quorate_quorum.log.index import SegmentIndex
from quorate_quorum.log.log import Log, LogConfig, LogCorruptError
from quorate_quorum.log.segments import INDEXES_MAX
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.amounts import few_or_many
from tests.unit.quorate_quorum.log.builders import (
    FIRST,
    PATH,
    Seen,
    batch,
    filled,
    new_disk,
)
from tests.unit.quorate_quorum.log.damage_builders import starts

T = TypeVar("T")
#: Every fifth bit of an index is flipped. No entry has a number of bits that 5 divides, so each bit
#: of an entry is hit in one of five entries.
BITS = few_or_many(5, 1)


def indexes_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, SegmentIndex) for one in gc.get_objects())


async def test_lookups_by_time_keep_few_indexes() -> None:
    disk = await new_disk()
    config = LogConfig(segment_bytes=1000, index_interval_bytes=100)
    log = await filled(disk, config, 300, at_once=1)
    await log.close(clean=True)
    del log
    before = indexes_in_memory()
    log = await Log.open(disk, PATH, config, observer=Seen())
    looks: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: log.offset_for_time(10**9, end=300),
        lambda: log.offset_for_time(1, end=300),
        lambda: log.segments(),
        lambda: log.truncate(299),
    )
    for look in looks:
        await look()
        assert len(await log.segments()) > 4 * INDEXES_MAX
        assert indexes_in_memory() - before <= INDEXES_MAX + 1
    assert await log.offset_for_time(150, end=300) == (150, 150)
    await log.close(clean=False)


async def test_a_large_batch_is_searched_for_a_time_in_a_thread() -> None:
    """Decompressing and reading 64 MiB in one turn would block all other work of the broker."""
    in_threads: list[object] = []

    class Watched(SimulatedDisk):
        async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
            in_threads.append(work)
            return await super().in_thread(work, *arguments)

    disk = Watched(random.Random(1))
    log = await Log.open(disk, "/log", LogConfig())
    for number, count in enumerate((3, 5_000)):
        builder = BatchBuilder(codec=ZSTD)
        for index in range(count):
            builder.append(1_000 * number + index, None, b"x" * 20)
        batch = builder.build(base_offset=log.log_end_offset, leader_epoch=0)
        await log.append([(parse_header(batch), [batch])])
    assert await log.offset_for_time(2, end=log.log_end_offset) == (2, 2)
    assert not in_threads
    assert await log.offset_for_time(5_000, end=log.log_end_offset) == (4_003, 5_000)
    assert in_threads
    await log.close(clean=False)


@pytest.mark.parametrize("order", ["rising", "mixed", "equal"])
async def test_no_flipped_bit_of_an_index_hides_a_record_from_a_lookup(order: str) -> None:
    """Lookups trusted the entries in the middle of a time index: only the last one was compared."""
    config = LogConfig(index_interval_bytes=109)
    rising = [1000 + 10 * number for number in range(12)]
    times = {
        "rising": rising,
        "mixed": random.Random(3).sample(rising, 12),
        "equal": [1000, 1000, 1000, 1040, 1040, 1040, 1040, 1020, 1020, 1090, 1090, 1090],
    }[order]

    def expected(time: int, start: int) -> tuple[int, int] | None:
        found = ((at, one) for at, one in enumerate(times) if at >= start and one >= time)
        return next(found, None)

    disk = await new_disk()
    log = await Log.open(disk, PATH, config)
    for offset, time in enumerate(times):
        await log.append([batch(offset, time=time)])
    await log.roll()
    await log.close(clean=True)
    for ending in (".index", ".timeindex"):
        path = FIRST.replace(".log", ending)
        sound = disk.content(path)
        assert len(sound) > 12
        for bit in range(0, len(sound) * 8, BITS):
            damaged = disk.copy()
            damaged.flip_bit(path, bit // 8, bit % 8)
            log = await Log.open(damaged, PATH, config)
            for start in (0, 5):
                await log.move_start(start)
                for time in (1000, 1005, 1020, 1040, 1041, 1055, 1090, 1110, 1111):
                    found = await log.offset_for_time(time, end=12)
                    assert found == expected(time, start), (ending, bit, time, start)
            await log.close(clean=False)


async def test_a_damaged_time_index_is_built_again_once() -> None:
    config = LogConfig(index_interval_bytes=109)
    disk = await new_disk()
    log = await filled(disk, config, 12, at_once=1)
    await log.roll()
    await log.close(clean=True)
    path = FIRST.replace(".log", ".timeindex")
    sound = disk.content(path)
    disk.flip_bit(path, 12 + 8 + 3, 0)  # the offset in the second entry
    log = await Log.open(disk, PATH, config)
    for time in range(12):
        assert await log.offset_for_time(time, end=12) == (time, time)
    assert disk.content(path) == sound
    await log.close(clean=False)


@pytest.mark.parametrize("seed", range(3))
async def test_a_flipped_bit_in_a_header_gives_no_wrong_offset(seed: int) -> None:
    """No CRC covers an offset. A consumer that begins at a higher one passes over records."""
    chance = random.Random(seed)
    whole = await new_disk()
    config = LogConfig(segment_bytes=1500, index_interval_bytes=250)
    log = await filled(whole, config, 60, at_once=1)
    await log.close(clean=True)
    told = 0
    for _ in range(20):
        disk = whole.copy()
        path = chance.choice([path for path, _ in disk.files() if path.endswith(".log")][:-1])
        place = chance.choice(starts(disk.content(path)))
        disk.flip_bit(path, place + chance.randrange(HEADER_BYTES), chance.randrange(8))
        with suppress(LogCorruptError):  # an open looks at the ends of segments
            log = await Log.open(disk, PATH, config)
            for offset in range(60):
                try:
                    assert await log.offset_for_time(offset, end=60) == (offset, offset)
                except LogCorruptError:
                    told += 1
            await log.close(clean=False)
    assert told


@pytest.mark.parametrize("byte", [7, 10, 16, 26], ids=["offset", "length", "magic", "last offset"])
@pytest.mark.parametrize("has_indexes", [False, True])
async def test_a_bad_batch_costs_lookups_and_reads_one_scan_of_its_segment(
    byte: int, *, has_indexes: bool
) -> None:
    """The one of an only copy stays. Each lookup at it would read the whole segment again."""
    disk = await new_disk()
    config = LogConfig(index_interval_bytes=250)
    log = await filled(disk, config, 3000)
    await log.roll()
    await log.append([batch(3000)])
    await log.close(clean=True)
    log = await Log.open(disk, PATH, config)
    if has_indexes:
        assert await log.offset_for_time(1500, end=3001) == (1500, 1500)
    else:
        for ending in (".index", ".timeindex"):
            await disk.remove(FIRST.replace(".log", ending))
    for place in starts(disk.content(FIRST))[2490:2500]:
        disk.flip_bit(FIRST, place + byte, 3)
    reads = [0]

    def hook(name: str, path: str) -> None:
        reads[0] += name == "read" and path == FIRST

    async def cost() -> int:
        """Return how often the segment is read for lookups and reads at the bad batches."""
        reads[0] = 0
        for offset in (2400, 2491, 2494, 2497):
            with suppress(LogCorruptError):
                await log.offset_for_time(offset, end=3001)
            with suppress(LogCorruptError):
                await log.read(offset, end=3001, bytes_max=1)
        return reads[0]

    disk.hook = hook
    await cost()
    assert await cost() <= 40
    await log.append([batch(3001)])
    await log.close(clean=False)


@pytest.mark.parametrize(
    ("times", "start", "end", "expected"),
    [
        ([[10], [30], [20]], 0, 3, (1, 30)),
        ([[30], [10], [20]], 1, 3, (2, 20)),  # the greatest one is deleted
        ([[30], [10], [20], [30]], 1, 4, (3, 30)),  # a later one is as great
        ([[30, 10, 20], [15]], 1, 4, (2, 20)),  # the start lies within a batch
        ([[10, 30, 20], [15]], 1, 4, (1, 30)),
        ([[30], [10], [40]], 1, 2, None),  # the greatest one is not committed
        ([[30], [10], [20]], 3, 3, None),
        ([[9], [8], [7], [6], [5], [4]], 4, 6, (4, 5)),
    ],
)
@pytest.mark.parametrize("segment_bytes", [1 << 20, 100])
async def test_the_greatest_timestamp_is_that_of_a_record_that_is_there(
    times: list[list[int]],
    start: int,
    end: int,
    expected: tuple[int, int] | None,
    segment_bytes: int,
) -> None:
    log = await Log.open(await new_disk(), PATH, LogConfig(segment_bytes=segment_bytes))
    for some in times:
        builder = BatchBuilder()
        for time in some:
            builder.append(time, None, b"x")
        made = builder.build(base_offset=log.log_end_offset, leader_epoch=0)
        await log.append([(parse_header(made), [made])])
    await log.move_start(start)
    assert await log.offset_for_time(None, end=end) == expected
    await log.close(clean=False)
