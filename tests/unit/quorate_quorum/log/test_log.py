"""The log in good weather: append, read, roll, cut, find by time, close and open again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from quorate.errors import OffsetOutOfRangeError, StorageError
from quorate.record.batch import BatchBuilder, BatchHeader, parse_header, split
from quorate_quorum.disk import Disk
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_testing.simulated.disk import SimulatedDisk

SMALL = LogConfig(segment_bytes=600, index_interval_bytes=100)
Batch = tuple[BatchHeader, Sequence[bytes]]


def batch(
    base_offset: int, epoch: int = 1, count: int = 1, *, size: int = 30, time: int = 0
) -> Batch:
    """Return a batch of `count` records whose bytes follow from its place."""
    builder = BatchBuilder()
    for index in range(count):
        seed = random.Random((base_offset + index) * 1000 + epoch)
        builder.append(time + index, None, seed.randbytes(size))
    data = builder.build(base_offset=base_offset, leader_epoch=epoch)
    return parse_header(data), (data[:16], data[16:])


async def append(log: Log, times: int, epoch: int = 1, count: int = 1) -> None:
    for _ in range(times):
        await log.append([batch(log.log_end_offset, epoch, count)])


async def offsets(log: Log, start: int, end: int | None = None, bytes_max: int = 1000) -> list[int]:
    """Read all from `start`, as a follower would, and return the batches' base offsets."""
    found = []
    end = log.log_end_offset if end is None else end
    while start < end:
        data = await log.read(start, end=end, bytes_max=bytes_max)
        if not data:
            break
        for header, view in split(data):
            assert bytes(view) == b"".join(
                batch(
                    header.base_offset,
                    header.leader_epoch,
                    header.count,
                    time=header.base_timestamp,
                )[1]
            )
            found.append(header.base_offset)
            start = header.end_offset
    return found


@pytest.fixture(params=["simulated", "real"])
async def disk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Disk, str]]:
    if request.param == "simulated":
        simulated = SimulatedDisk(random.Random(1))
        await simulated.make_directory("/data")
        yield simulated, "/data/topic-0"
    else:
        real = RealDisk()
        yield real, f"{tmp_path}/topic-0"
        real.close()


async def test_nothing_is_made_before_the_first_append(disk: tuple[Disk, str]) -> None:
    log = await Log.open(*disk, SMALL)
    assert (log.log_start_offset, log.log_end_offset, log.last_epoch) == (0, 0, -1)
    assert not await disk[0].exists(disk[1])
    await append(log, 1)
    assert "00000000000000000000.log" in await disk[0].list(disk[1])
    await log.close(clean=False)


@pytest.mark.parametrize("clean", [True, False])
async def test_what_was_appended_is_read_before_and_after_opening_again(
    disk: tuple[Disk, str], clean: bool
) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 20)
    await append(log, 20, epoch=3, count=2)
    expected = [*range(20), *range(20, 60, 2)]
    for bytes_max in (1, 150, 500, 100_000):
        assert await offsets(log, 0, bytes_max=bytes_max) == expected
    await log.close(clean=clean)
    log = await Log.open(*disk, SMALL)
    assert (log.log_end_offset, log.last_epoch) == (60, 3)
    assert log.epochs.entries == [(1, 0), (3, 20)]
    for bytes_max in (1, 150, 500, 100_000):
        assert await offsets(log, 0, bytes_max=bytes_max) == expected
    for start in range(60):
        found = await offsets(log, start)
        assert found == [one for one in expected if one >= start - (start > 20 and start % 2)]
    assert not log.recovered.cut_bytes
    await log.close(clean=True)


async def test_reads_end_at_the_end_asked_for_and_keep_to_bytes_max(
    disk: tuple[Disk, str],
) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 5, count=2)
    size = len(await log.read(0, end=2, bytes_max=1))
    assert await log.read(0, end=2, bytes_max=1, at_least_one=False) == b""
    assert len(await log.read(0, end=10, bytes_max=2 * size)) == 2 * size
    assert len(await log.read(0, end=10, bytes_max=2 * size - 1)) == size
    assert len(await log.read(0, end=5, bytes_max=10_000)) == 2 * size, "5 is inside a batch"
    assert len(await log.read(3, end=4, bytes_max=10_000)) == size
    assert await log.read(10, end=10, bytes_max=10) == b""
    with pytest.raises(OffsetOutOfRangeError):
        await log.read(11, end=11, bytes_max=10)
    await log.close(clean=False)


@pytest.mark.parametrize("end", [0, 1, 7, 19, 20, 33, 39])
async def test_a_cut_log_ends_there_goes_on_and_stays_cut(disk: tuple[Disk, str], end: int) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 20)
    await append(log, 20, epoch=2)
    await log.sync()
    await log.truncate(end)
    assert (log.log_end_offset, log.truncations) == (end, 1)
    assert log.synced_end <= end
    assert await offsets(log, 0) == list(range(end))
    await append(log, 5, epoch=4)
    assert log.epochs.end_offset_for(3, log.log_end_offset) == (
        {0: (3, 0)}.get(end, (1 if end <= 20 else 2, end))
    )
    await log.close(clean=False)
    log = await Log.open(*disk, SMALL)
    assert await offsets(log, 0) == list(range(end + 5))
    assert log.epochs.epoch_at(end) == 4
    await log.close(clean=True)


async def test_a_cut_inside_a_batch_takes_the_whole_batch(disk: tuple[Disk, str]) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 4, count=3)
    await log.truncate(7)
    assert log.log_end_offset == 6
    await log.close(clean=False)


@pytest.mark.parametrize("offset", [0, 5, 100])
async def test_a_log_can_start_again_at_an_offset(disk: tuple[Disk, str], offset: int) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 20)
    await log.sync()
    await log.truncate_fully_and_start_at(offset)
    for _ in range(2):
        assert (log.log_start_offset, log.log_end_offset) == (offset, offset)
        assert log.last_epoch == -1
        await log.close(clean=False)
        log = await Log.open(*disk, SMALL)
    await append(log, 3)
    assert await offsets(log, offset) == list(range(offset, offset + 3))
    await log.close(clean=False)


async def test_whole_segments_are_deleted_and_never_the_active_one(disk: tuple[Disk, str]) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 40)
    segments = await log.segments()
    assert len(segments) > 3
    assert segments[0].end_offset == segments[1].base_offset
    await log.move_start(segments[2].base_offset + 1)
    await log.remove_below_start()
    assert log.log_start_offset == segments[2].base_offset + 1
    assert [one.base_offset for one in await log.segments()] == [
        one.base_offset for one in segments[2:]
    ]
    with pytest.raises(OffsetOutOfRangeError):
        await log.read(0, end=40, bytes_max=100)
    await log.move_start(1000)
    await log.remove_below_start()
    assert log.log_start_offset == segments[2].base_offset + 1, "not within the log"
    start = segments[-1].base_offset + 1
    await log.move_start(start)
    await log.remove_below_start()
    assert len(await log.segments()) == 1
    await log.close(clean=True)
    log = await Log.open(*disk, SMALL)
    assert (log.log_start_offset, log.log_end_offset) == (start, 40)
    assert log.epochs.entries == [(1, start)]
    assert await offsets(log, start) == list(range(start, 40))
    await log.close(clean=True)


async def test_records_are_found_by_time_even_out_of_order(disk: tuple[Disk, str]) -> None:
    log = await Log.open(*disk, SMALL)
    times = [random.Random(5).randint(0, 300) for _ in range(60)]
    times = [time + 5 * index for index, time in enumerate(times)]
    for index, time in enumerate(times):
        await log.append([batch(index, time=time)])
    for _ in range(2):
        for wanted in range(0, 700, 3):
            expected = next(((i, t) for i, t in enumerate(times) if t >= wanted), None)
            assert await log.offset_for_time(wanted, end=60) == expected
        assert await log.offset_for_time(0, end=0) is None
        await log.close(clean=True)
        log = await Log.open(*disk, SMALL)
    await log.close(clean=True)


async def test_the_high_watermark_is_remembered_with_its_epoch(disk: tuple[Disk, str]) -> None:
    log = await Log.open(*disk, SMALL)
    await append(log, 10)
    await log.checkpoint_high_watermark(7, 1)
    await log.checkpoint_high_watermark(8, 1)
    await log.close(clean=False)
    log = await Log.open(*disk, SMALL)
    assert (log.high_watermark, log.hw_epoch) == (8, 1)
    await log.truncate(4)
    await log.close(clean=False)
    log = await Log.open(*disk, SMALL)
    await append(log, 10)
    assert log.high_watermark == 4
    await log.close(clean=False)


async def test_a_closed_log_refuses(disk: tuple[Disk, str]) -> None:
    log = await Log.open(*disk, SMALL)
    await log.close(clean=True)
    with pytest.raises(StorageError, match="closed"):
        await append(log, 1)


async def test_many_batches_are_one_write_and_long_histories_are_forgotten() -> None:
    operations: list[str] = []
    simulated = SimulatedDisk(random.Random(1), hook=lambda name, _: operations.append(name))
    await simulated.make_directory("/data")
    log = await Log.open(simulated, "/data/t-0", LogConfig())
    await log.append([batch(0)])
    operations.clear()
    await log.append([batch(offset) for offset in range(1, 9000)])
    assert operations == ["append"]
    await log.append([batch(offset) for offset in range(9000, 9005)])
    assert await offsets(log, 8990) == list(range(8990, 9005))
    assert await offsets(log, 8990) == list(range(8990, 9005))
    assert (await offsets(log, 0, bytes_max=5000))[:100] == list(range(100))
    operations.clear()
    assert await log.read(9004, end=9005, bytes_max=1000)
    assert operations == ["read"], "a read at the end needs no index"
    await log.close(clean=False)


def files(names: list[str], ending: str) -> list[str]:
    return [name for name in names if name.endswith(ending)]


@pytest.mark.parametrize("harm", ["missing", "cut", "flipped", "zeros"])
@pytest.mark.parametrize("ending", [".index", ".timeindex", "leader-epoch-checkpoint"])
async def test_what_can_be_built_again_is(
    harm: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    log = await Log.open(disk, "/data/t-0", SMALL)
    for offset in range(40):
        await log.append([batch(offset, 1 + offset // 10, time=offset * 10)])
    await log.close(clean=True)
    damage: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda content: content[: len(content) - 5],
        "flipped": lambda content: content[:3] + bytes([content[3] ^ 64]) + content[4:],
        "zeros": lambda content: bytes(len(content)),
    }
    for name in files(await disk.list("/data/t-0"), ending):
        path = f"/data/t-0/{name}"
        if harm == "missing":
            await disk.remove(path)
        else:
            disk.put(path, damage[harm](disk.content(path)))
    log = await Log.open(disk, "/data/t-0", SMALL)
    assert log.epochs.entries == [(1, 0), (2, 10), (3, 20), (4, 30)]
    for offset in range(40):
        assert (await offsets(log, offset))[0] == offset
    if harm != "flipped":  # Kafka's time index has no checksum
        for offset in range(40):
            assert await log.offset_for_time(offset * 10, end=40) == (offset, offset * 10)
    await log.close(clean=True)


async def test_another_segment_size_counts_from_the_next_append() -> None:
    log = await Log.open(
        SimulatedDisk(random.Random(1)), "/data/p-0", LogConfig(segment_bytes=1 << 20)
    )
    await append(log, 9)
    log.configure(LogConfig(segment_bytes=300))
    assert len(await log.segments()) == 1, "what was written stays where it is"
    await append(log, 4)
    assert len(await log.segments()) > 2
    log.configure(LogConfig(segment_bytes=1 << 20))
    before = len(await log.segments())
    await append(log, 9)
    assert len(await log.segments()) == before
    await log.close(clean=True)
