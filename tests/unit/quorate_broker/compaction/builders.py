"""Builders for the tests of compaction: logs of keyed records, and a pass over one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import aclosing

from quorate.record.batch import BatchBuilder, BatchHeader, parse_header, records, split
from quorate_broker.compaction.cleaning import Cleaning
from quorate_broker.compaction.job import Cleaned, Done, Job
from quorate_broker.compaction.offset_map import HASH_BYTES, SLOT_BYTES
from quorate_quorum.log.log import Log, LogConfig
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import CrashAt

__all__ = ["CrashAt"]

PATH = "/data/t-0"
NOW_MS = 1_000_000
SALT = bytes(HASH_BYTES).hex()
#: Key and value of one record; None: null.
Pair = tuple[bytes | None, bytes | None]


def keyed(
    base_offset: int,
    pairs: Sequence[Pair],
    *,
    epoch: int = 1,
    codec: int = 0,
    producer: tuple[int, int] | None = None,
) -> bytes:
    """Return a batch; each record's timestamp is its offset, and it has a header.

    `producer`: its id, and its first sequence.
    """
    builder = BatchBuilder(codec=codec)
    if producer is not None:
        builder.producer_id, builder.base_sequence = producer
        builder.producer_epoch = 0
    for number, (key, value) in enumerate(pairs):
        builder.append(base_offset + number, key, value, [("of", b"%d" % (base_offset + number))])
    return builder.build(base_offset=base_offset, leader_epoch=epoch)


async def append(log: Log, pairs: Sequence[Pair], *, epoch: int = 1, codec: int = 0) -> None:
    batch = keyed(log.log_end_offset, pairs, epoch=epoch, codec=codec)
    await log.append([(parse_header(batch), (batch,))])


async def read(log: Log) -> list[tuple[BatchHeader, bytes]]:
    """Return all batches of a log."""
    found: list[tuple[BatchHeader, bytes]] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = await log.read(offset, end=log.log_end_offset, bytes_max=2000)
        assert data, offset
        for header, view in split(data):
            found.append((header, bytes(view)))
            offset = header.end_offset
    return found


def final(
    batches: Sequence[tuple[BatchHeader, bytes]], start: int = 0
) -> dict[bytes, tuple[int, bytes]]:
    """Return the last value of each key with its offset, as a reader from `start` on sees it."""
    last: dict[bytes, tuple[int, bytes]] = {}
    for header, batch in batches:
        for record in records(batch, header):
            if record.key is None or record.offset < start:
                continue
            if record.value is None:
                last.pop(record.key, None)
            else:
                last[record.key] = record.offset, record.value
    return last


async def job_for(
    log: Log,
    *,
    now_ms: int = NOW_MS,
    keys: int = 1000,
    segment_bytes: int = 1 << 20,
    delete_retention_ms: int = 100,
    may_drop_tombstones: bool = True,
    producers: tuple[tuple[int, int], ...] = (),
) -> Job | None:
    """Return a pass over all closed segments; None: there is none."""
    closed = (await log.segments())[:-1]
    first_dirty = max(log.compaction.cleaned_end, log.log_start_offset)
    if not closed or closed[-1].end_offset <= first_dirty:
        return None
    return Job(
        directory=log.compaction.directory,
        segments=tuple((one.base_offset, one.end_offset, one.size) for one in closed),
        first_dirty=first_dirty,
        now_ms=now_ms,
        delete_retention_ms=delete_retention_ms,
        may_drop_tombstones=may_drop_tombstones,
        segment_bytes=segment_bytes,
        index_interval_bytes=100,
        epochs=tuple(log.epochs.entries),
        producers=producers,
        map_bytes=SLOT_BYTES * keys * 4 // 3 + SLOT_BYTES,
        bytes_per_second=-1,
        salt=SALT,
    )


async def carry_out(disk: SimulatedDisk, log: Log, job: Job) -> Done:
    """Carry out a pass, and put its segments into the log."""
    async with aclosing(Cleaning(disk, job).carry_out()) as reports:
        async for report in reports:
            if isinstance(report, Cleaned):
                assert await log.compaction.replace_segments(report.new, log.truncations)
            elif isinstance(report, Done):
                await log.compaction.note_cleaned(report.end)
                return report
    raise AssertionError("the pass has no result")


async def compact(disk: SimulatedDisk, log: Log, now_ms: int = NOW_MS, keys: int = 1000) -> int:
    """Compact a log until nothing is dirty; return the number of passes."""
    passes = 0
    while (job := await job_for(log, now_ms=now_ms, keys=keys)) is not None:
        await carry_out(disk, log, job)
        passes += 1
    return passes


async def new_disk(seed: int = 1) -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory("/data")
    await disk.sync_directory("/")
    return disk


async def new_log(disk: SimulatedDisk, segment_bytes: int = 400) -> Log:
    return await Log.open(disk, PATH, LogConfig(segment_bytes=segment_bytes))
