"""A pass over a log: whoever reads it before, during or after sees the same last values."""

from __future__ import annotations

import asyncio
import errno
import random
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorate.errors import CorruptRecordError, StorageError
from quorate.record import compression
from quorate.record.batch import BatchHeader, parse_header, records, split
from quorate_broker.compaction.cleaning import Cleaning
from quorate_broker.compaction.job import Cleaned, Done
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.run_file import UNKNOWN, Run
from tests.unit.quorate_broker.compaction.builders import (
    NOW_MS,
    PATH,
    CrashAt,
    Pair,
    append,
    carry_out,
    compact,
    final,
    job_for,
    keyed,
    new_disk,
    new_log,
    read,
)

SAME_BOOT = Run(marker_present=False, boot_id="boot-1", sync_failed=False, same_boot=True)
KEYS = [b"a", b"b", b"c", b"a longer key than the sixteen bytes of a hash", b""]


def drawn(chance: random.Random) -> list[Pair]:
    """Return the records of one batch: few keys, some tombstones, now and then no key."""
    pairs: list[Pair] = []
    for _ in range(chance.randint(1, 4)):
        key = None if chance.random() < 0.05 else chance.choice(KEYS)
        value = None if key is not None and chance.random() < 0.3 else chance.randbytes(20)
        pairs.append((key, value))
    return pairs


async def fill(
    log: Log,
    chance: random.Random,
    batches: int,
    epoch: int = 1,
    raw: list[tuple[BatchHeader, bytes]] | None = None,
) -> int:
    """Append batches, to `raw` too, now and then in a new epoch; return the last one."""
    codecs = [compression.NONE, *compression.CODECS.values()]
    for _ in range(batches):
        epoch += chance.random() < 0.1
        batch = keyed(log.log_end_offset, drawn(chance), epoch=epoch, codec=chance.choice(codecs))
        await log.append([(parse_header(batch), (batch,))])
        if raw is not None:
            raw.append((parse_header(batch), batch))
    return epoch


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 1 << 32),
    keys=st.sampled_from([1, 2, 3, 1000]),
    segment_bytes=st.sampled_from([150, 400, 1500]),
)
def test_a_compacted_log_has_the_same_last_values_as_the_raw_one(
    seed: int, keys: int, segment_bytes: int
) -> None:
    """Over several lives, passes and restarts, with a map that holds all keys or only some.

    The raw log is a list of all batches that were ever written. Batches have any codec; records are
    deleted up to an offset, which may lie in a gap or inside a batch.
    """

    async def check() -> None:
        chance = random.Random(seed)
        disk = await new_disk(seed)
        log = await new_log(disk, segment_bytes)
        raw: list[tuple[BatchHeader, bytes]] = []
        epoch, now_ms = 1, NOW_MS

        async def check_map() -> None:
            start = log.log_start_offset
            assert final(await read(log), start) == final(raw, start)

        for _ in range(4):
            epoch = await fill(log, chance, 12, epoch, raw)
            await check_map()
            await compact(disk, log, now_ms, keys)
            await check_map()
            now_ms += chance.choice([0, 50, 200])
            if chance.random() < 0.3:
                await log.move_start(chance.randint(log.log_start_offset, log.log_end_offset))
                await log.remove_below_start()
                await check_map()
            epochs = log.epochs.entries
            if chance.random() < 0.5:
                await log.close(clean=chance.random() < 0.5)
                log = await Log.open(disk, PATH, LogConfig(segment_bytes=segment_bytes))
                await check_map()
                assert log.epochs.entries == epochs
        await log.close(clean=False)

    asyncio.run(check())


async def test_only_the_last_record_of_each_key_is_left() -> None:
    disk = await new_disk()
    log = await new_log(disk)
    for number in range(40):
        await append(log, [(b"%d" % (number % 4), b"v" * 30)])
    assert await compact(disk, log) == 1
    last_closed = (await log.segments())[-2].end_offset - 1
    below = [header for header, _ in await read(log) if header.end_offset <= last_closed + 1]
    assert sum(header.count for header in below) == 4
    assert len(await log.segments()) == 2, "small segments become one"
    await log.close(clean=False)


async def test_keys_that_do_not_fit_the_map_take_several_passes() -> None:
    disk = await new_disk()
    log = await new_log(disk)
    for number in range(60):
        await append(log, [(b"%d" % (number % 20), b"v" * 30)])
    expected = final(await read(log))
    assert await compact(disk, log, keys=3) > 2
    assert final(await read(log)) == expected
    below = (await log.segments())[-1].base_offset
    counts = [header.count for header, _ in await read(log) if header.end_offset <= below]
    assert sum(counts) == 20
    await log.close(clean=False)


async def tombstone_expires(*, first: list[Pair], second: list[Pair], keys: int) -> bool:
    """Compact two batches, and again after the delete horizon; return whether b"a" has a value."""
    disk = await new_disk()
    log = await new_log(disk)
    await append(log, first)
    await append(log, second)
    for value in (b"1", b"2"):
        await append(log, [(b"z", value)])
        await log.roll()
    await append(log, [(b"z", b"3")])
    await compact(disk, log, keys=keys)
    await append(log, [(b"z", b"4")])
    await log.roll()
    await append(log, [(b"z", b"5")])
    await compact(disk, log, now_ms=NOW_MS + 1_000, keys=keys)
    return b"a" in final(await read(log))


@pytest.mark.parametrize(
    ("pairs", "left"),
    [
        ([(b"a", b"1"), (None, b"2"), (b"b", b"3")], [None]),
        ([(b"%d" % n, b"v") for n in range(9)], 9),
    ],
)
async def test_a_batch_with_a_record_without_a_key_or_a_large_one_is_not_passed_over(
    pairs: list[Pair], left: object
) -> None:
    """The map has no offset of such records, and yet they stay."""
    disk = await new_disk()
    log = await new_log(disk, segment_bytes=1 << 20)
    await append(log, pairs)
    for _ in range(3):
        await append(log, [(b"a", b"later"), (b"b", b"later")])
    await log.roll()
    await compact(disk, log, keys=6)
    header, batch = (await read(log))[0]
    kept = [record.key for record in records(batch, header)]
    assert left in (kept, len(kept))
    await log.close(clean=True)


async def test_a_tombstone_stays_if_its_batch_does_not_fit_the_map() -> None:
    """Earlier records of its keys stay then, too, and would come back without it."""
    many: list[Pair] = [(b"%d" % number, b"v") for number in range(20)]
    deleted: list[Pair] = [*many, (b"a", None)]
    assert not await tombstone_expires(first=[(b"a", b"v")], second=deleted, keys=12)


async def test_a_tombstone_stays_behind_a_batch_that_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That batch may hold an earlier record of its key, which would come back without it."""
    monkeypatch.setattr("quorate_broker.compaction.batch_filter.RECORDS_MAX", 5)
    many: list[Pair] = [(b"a", b"v")] * 6
    assert not await tombstone_expires(first=many, second=[(b"a", None)], keys=100)


@pytest.mark.parametrize(("byte", "bit"), [(80, 0), (7, 1), (7, 0), (6, 0), (4, 0), (0, 7)])
async def test_a_batch_with_a_wrong_crc_or_offset_stops_the_pass(byte: int, bit: int) -> None:
    """A new batch would give its bytes a right CRC. None covers the offset, in bytes 0 to 7."""
    disk = await new_disk()
    log = await new_log(disk)
    for number in range(40):
        await append(log, [(b"%d" % (number % 4), b"v" * 30)])
    first = len(keyed(0, [(b"0", b"v" * 30)]))
    disk.flip_bit(f"{PATH}/{0:020d}.log", first + byte, bit)
    job = await job_for(log)
    assert job is not None
    with pytest.raises(CorruptRecordError):
        await carry_out(disk, log, job)
    await log.close(clean=False)


@pytest.mark.parametrize(("byte", "bit"), [(7, 0), (7, 1), (15, 0), (15, 1)])
async def test_a_changed_offset_or_epoch_of_a_compacted_segment_stops_the_pass(
    byte: int, bit: int
) -> None:
    """The new checksum file would vouch for it, and nothing would find it later."""
    disk = await new_disk()
    log = await new_log(disk, segment_bytes=1000)
    for number in range(40):
        await append(log, [(b"key %d" % (number % 9), b"v" * 30)], epoch=4)
    await compact(disk, log)
    assert log.compaction.has_gaps
    for number in range(20):
        await append(log, [(b"key %d" % (number % 9), b"v" * 30)], epoch=4)
    path = f"{PATH}/{0:020d}.log"
    first = next(iter(split(disk.content(path))))[0]
    disk.flip_bit(path, first.size + byte, bit)
    job = await job_for(log)
    assert job is not None
    with pytest.raises(CorruptRecordError):
        await carry_out(disk, log, job)
    await log.close(clean=False)


async def test_a_pass_tells_how_many_bytes_it_moved() -> None:
    disk = await new_disk()
    log = await new_log(disk)
    for number in range(40):
        await append(log, [(b"%d" % number, b"v" * 30)])
    job = await job_for(log)
    assert job is not None
    done = await carry_out(disk, log, job)
    read_twice = 2 * sum(size for _, _, size in job.segments)
    assert read_twice <= done.bytes_moved <= 2 * read_twice
    await log.close(clean=False)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("seed", range(2))
async def test_a_crash_anywhere_in_a_pass_changes_no_last_value(seed: int, *, power: bool) -> None:
    for count in range(1 + seed, 2000, 2):
        chance = random.Random(seed)
        disk = await new_disk(seed)
        log = await new_log(disk)
        await fill(log, chance, 12)
        await log.sync()
        expected = final(await read(log))
        crash = CrashAt(disk, count, power=power, quiet=("read", "open"))
        try:
            await compact(disk, log, keys=3)
        except (OSError, StorageError):
            assert crash.end()
        if not crash.end():
            break
        await log.close(clean=False)
        run = UNKNOWN if power else SAME_BOOT
        log = await Log.open(disk, PATH, LogConfig(segment_bytes=400), run=run)
        assert (log.recovered.cut_bytes, log.recovered.damaged) == (0, ""), (seed, count)
        assert final(await read(log)) == expected, (seed, count)
        if count % 5 == 0:
            await compact(disk, log, NOW_MS + 1000)
            assert final(await read(log)) == expected, (seed, count)
        await log.close(clean=False)
    assert count > 30


async def test_a_pass_that_ends_early_leaves_the_log_as_it_was() -> None:
    disk = await new_disk()
    log = await new_log(disk)
    await fill(log, random.Random(1), 30)
    before = await read(log)
    job = await job_for(log)
    assert job is not None
    async with aclosing(Cleaning(disk, job).carry_out()) as reports:
        assert isinstance(await anext(reports), Cleaned)
    assert await read(log) == before
    assert isinstance(await carry_out(disk, log, job), Done)
    await log.close(clean=False)


async def test_a_cancelled_pass_ends_though_its_file_can_not_be_removed() -> None:
    """The failed removal hid the cancellation, and the compaction went on without an end."""
    disk = await new_disk()
    log = await new_log(disk)
    await fill(log, random.Random(1), 30)
    job = await job_for(log)
    assert job is not None
    appending = asyncio.Event()

    def hook(name: str, path: str) -> None:
        if path.endswith(".cleaned") and name == "append":
            appending.set()
        if name == "remove":
            raise OSError(errno.EIO, "the disk is gone")

    async def carry_out_all() -> None:
        async with aclosing(Cleaning(disk, job).carry_out()) as reports:
            async for _ in reports:
                pass

    disk.hook = hook
    disk.slow = 0.01
    running = asyncio.create_task(carry_out_all())
    await appending.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    disk.hook, disk.slow = None, 0.0
    await log.close(clean=False)
