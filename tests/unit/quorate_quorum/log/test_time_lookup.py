"""Lookups by time: few indexes in memory, large batches in a thread."""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quorate.record.batch import BatchBuilder, parse_header
from quorate.record.compression import ZSTD
from quorate_quorum.log.index import SegmentIndex
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.segments import INDEXES_MAX
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import (
    PATH,
    Seen,
    filled,
    new_disk,
)

T = TypeVar("T")


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
