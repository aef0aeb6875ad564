"""Writes logs as a broker writes them: every codec, before and after compaction, with gaps."""

from __future__ import annotations

import random
from contextlib import aclosing
from dataclasses import dataclass

from quorate.record import compression
from quorate.record.batch import DELETE_HORIZON, BatchBuilder, parse_header, split
from quorate_broker.compaction.cleaning import Cleaning
from quorate_broker.compaction.job import Cleaned, Done, Job
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk

CODECS = [compression.NONE, *compression.CODECS.values()]
START_MS = 1_700_000_000_000
#: Producers of a log. The last batches of these two stay, even if they are empty.
PRODUCERS = (7, 8)


@dataclass(slots=True)
class Written:
    """What a log has, as Quorate reads it: Kafka's tools must find the same."""

    directory: str
    is_compacted: bool
    batches: int = 0
    records: int = 0
    empty_batches: int = 0
    delete_horizons: int = 0
    #: Places where compaction has removed whole batches.
    gaps: int = 0


async def write(folder: str, seed: int, *, codec: int | None, passes: int) -> Written:
    """Write a log with one codec, or None: all codecs in turn. Compact it `passes` times."""
    chance = random.Random(seed)
    disk = RealDisk()
    directory = f"{folder}/t-{seed}"
    config = LogConfig(segment_bytes=16_384, index_interval_bytes=512)
    log = await Log.open(disk, directory, config)
    sequences = dict.fromkeys((-1, *PRODUCERS), 0)
    epoch = 1
    for life in range(max(passes, 1)):
        for number in range(250):
            epoch += chance.random() < 0.02
            used = CODECS[number % len(CODECS)] if codec is None else codec
            await _append(log, chance, sequences, codec=used, epoch=epoch)
        if passes:
            await log.roll()
            await _compact(disk, log, now_ms=START_MS + life * 1_000_000)
    found = Written(directory, is_compacted=passes > 0)
    await _count(log, found)
    await log.close(clean=True)
    disk.close()
    return found


async def _append(
    log: Log, chance: random.Random, sequences: dict[int, int], *, codec: int, epoch: int
) -> None:
    builder = BatchBuilder(codec=codec)
    producer = chance.choice([-1, *PRODUCERS])
    if producer >= 0:
        builder.producer_id, builder.producer_epoch = producer, 0
        builder.base_sequence = sequences[producer]
    count = chance.randint(1, 12)
    sequences[producer] += count
    for number in range(count):
        value = None if chance.random() < 0.2 else chance.randbytes(chance.randint(0, 120))
        key = b"key-%d" % int(chance.paretovariate(0.5) % 500)
        time_ms = START_MS + log.log_end_offset + number + chance.randint(-20, 20)
        builder.append(time_ms, key, value, [("header", b"%d" % number)])
    batch = builder.build(base_offset=log.log_end_offset, leader_epoch=epoch)
    await log.append([(parse_header(batch), (batch,))])


async def _compact(disk: RealDisk, log: Log, *, now_ms: int) -> None:
    closed = (await log.segments())[:-1]
    job = Job(
        directory=log.compaction.directory,
        segments=tuple((one.base_offset, one.end_offset, one.size) for one in closed),
        first_dirty=max(log.compaction.cleaned_end, log.log_start_offset),
        now_ms=now_ms,
        delete_retention_ms=500_000,
        may_drop_tombstones=True,
        segment_bytes=16_384,
        index_interval_bytes=log.compaction.index_interval_bytes,
        epochs=tuple(log.epochs.entries),
        producers=tuple((producer, 0) for producer in PRODUCERS),
        map_bytes=1 << 20,
        bytes_per_second=-1,
        salt="00" * 16,
    )
    async with aclosing(Cleaning(disk, job).carry_out()) as reports:
        async for report in reports:
            if isinstance(report, Cleaned):
                assert await log.compaction.replace_segments(report.new, log.truncations)
            elif isinstance(report, Done):
                await log.compaction.note_cleaned(report.end)


async def _count(log: Log, found: Written) -> None:
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = await log.read(offset, end=log.log_end_offset, bytes_max=1 << 20)
        for header, _ in split(data):
            found.gaps += header.base_offset > offset
            found.batches += 1
            found.records += header.count
            found.empty_batches += not header.count
            found.delete_horizons += bool(header.attributes & DELETE_HORIZON)
            offset = header.end_offset
