"""The greatest timestamp of a segment: its index files have no checksum, and may be damaged."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from quorate_quorum.log.log import Log, LogConfig
from quorate_testing.simulated.disk import SimulatedDisk
from tests.harness.amounts import few_or_many
from tests.unit.quorate_quorum.log.builders import FIRST, PATH, append, batch, new_disk

#: A segment closes after these batches of 109 bytes, and every second one has an index entry.
COUNT = 7
#: Every fifth bit of an index is flipped. No entry has a number of bits that 5 divides, so each bit
#: of an entry is hit in one of five entries.
BITS = few_or_many(5, 1)
CONFIG = LogConfig(segment_bytes=COUNT * 109, index_interval_bytes=109)


async def closed_segment(times: list[int]) -> SimulatedDisk:
    """Return a disk with a log of a closed segment with these timestamps, and one more batch."""
    disk = await new_disk()
    log = await Log.open(disk, PATH, CONFIG)
    for offset, time in enumerate(times):
        await log.append([batch(offset, time=time)])
    await append(log, 1)
    assert log.compaction.bases == [0, COUNT]
    await log.close(clean=True)
    return disk


async def described(log: Log) -> int:
    return (await log.segments())[0].max_timestamp


async def described_after_a_lookup(log: Log) -> int:
    await log.offset_for_time(0, end=COUNT)
    return (await log.segments())[0].max_timestamp


async def described_after_a_cut(log: Log) -> int:
    await log.truncate(COUNT - 1)
    return (await log.segments())[0].max_timestamp


@pytest.mark.parametrize(
    ("look", "count"),
    [(described, COUNT), (described_after_a_lookup, COUNT), (described_after_a_cut, COUNT - 1)],
)
@pytest.mark.parametrize("order", ["rising", "falling", "mixed", "equal"])
async def test_no_flipped_bit_of_an_index_changes_the_age_of_a_segment(
    order: str, look: Callable[[Log], Awaitable[int]], count: int
) -> None:
    """Retention deleted a young segment on all replicas."""
    rising = [1000 + 10 * number for number in range(COUNT)]
    times = {
        "rising": rising,
        "falling": rising[::-1],
        "mixed": random.Random(3).sample(rising, COUNT),
        "equal": [1000] * COUNT,
    }[order]
    disk = await closed_segment(times)
    for ending in (".index", ".timeindex"):
        path = FIRST.replace(".log", ending)
        size = len(disk.content(path))
        assert size
        for bit in range(0, size * 8, BITS):
            damaged = disk.copy()
            damaged.flip_bit(path, bit // 8, bit % 8)
            log = await Log.open(damaged, PATH, CONFIG)
            assert await look(log) == max(times[:count]), (ending, bit)
            await log.close(clean=False)


@pytest.mark.parametrize("kept", [0, 12])
async def test_a_time_index_that_lost_its_end_changes_no_age(kept: int) -> None:
    disk = await closed_segment([1000 + 10 * number for number in range(COUNT)])
    path = FIRST.replace(".log", ".timeindex")
    disk.put(path, bytes(disk.content(path))[:kept])
    log = await Log.open(disk, PATH, CONFIG)
    assert await described(log) == 1000 + 10 * (COUNT - 1)
    await log.close(clean=False)
