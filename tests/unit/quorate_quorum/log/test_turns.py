"""Nothing that walks through a log holds the loop up, or holds more in memory than a little."""

from __future__ import annotations

import asyncio
import gc
import random
from array import array
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import TypeVar

import pytest

from quorate.errors import CorruptRecordError
from quorate.record.batch import BatchBuilder, BatchHeader, parse_header
from quorate.record.compression import ZSTD
from quorate_quorum.log import segment as segment_module
from quorate_quorum.log.index import OFFSET_ENTRY, PIECE_ROWS, TIME_ENTRY, SegmentIndex
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.observer import ObserverSnapshots, superfluous
from quorate_quorum.log.segment import CHUNK_BATCHES_MAX
from quorate_quorum.log.segments import INDEXES_MAX
from quorate_testing.simulated.disk import SimulatedDisk

PATH = "/data/t-0"
T = TypeVar("T")
BATCHES = 8 * CHUNK_BATCHES_MAX


class Seen:
    """An observer that knows which batches it was shown, and how many since it was restored."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.observed = 0

    def observe(self, header: BatchHeader) -> None:
        self.offsets.append(header.base_offset)
        self.observed += 1

    def reset(self) -> None:
        self.offsets = []
        self.observed = 0

    def snapshot(self) -> bytes:
        return array("q", self.offsets).tobytes()

    def restore(self, data: bytes) -> None:
        if len(data) % 8:
            raise CorruptRecordError("of another release")
        self.offsets = list(array("q", data))


class Turns:
    """Counts batch headers that are parsed in one turn of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.all = 0
        monkeypatch.setattr(segment_module, "parse_header", self._parse)

    def _parse(self, data: bytes, position: int = 0) -> BatchHeader:
        self.now += 1
        self.all += 1
        self.most = max(self.most, self.now)
        return parse_header(data, position)

    async def during(self, work: Awaitable[object]) -> None:
        """Do it; then `most` is the most of one turn."""
        self.now = self.most = self.all = 0
        task = asyncio.ensure_future(work)
        while not task.done():
            self.now = 0
            await asyncio.sleep(0)
        task.result()


def batch(offset: int, epoch: int = 1) -> tuple[BatchHeader, list[bytes]]:
    builder = BatchBuilder()
    builder.append(1000 + offset, None, b"v")
    data = builder.build(base_offset=offset, leader_epoch=epoch)
    return parse_header(data), [data]


async def new_disk() -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(1))
    await disk.make_directory("/data")
    return disk


async def filled(
    disk: SimulatedDisk, config: LogConfig, count: int = BATCHES, *, at_once: int = 100
) -> Log:
    log = await Log.open(disk, PATH, config, observer=Seen())
    for start in range(0, count, at_once):
        await log.append([batch(offset) for offset in range(start, min(start + at_once, count))])
    return log


async def without_indexes(disk: SimulatedDisk, log: Log) -> Log:
    """Open it again as if it had never had an index on disk, below what was synced."""
    await log.close(clean=True)
    for name in await disk.list(PATH):
        if name.endswith((".index", ".timeindex", ".snapshot")):
            await disk.remove(f"{PATH}/{name}")
    return await Log.open(disk, PATH, LogConfig())


WALKS: dict[str, Callable[[SimulatedDisk, Log], Awaitable[object]]] = {
    "open": lambda disk, log: Log.open(disk, PATH, LogConfig(), observer=Seen()),
    "verify": lambda disk, log: Log.open(disk, PATH, LogConfig(verify_all=True)),
    "cut": lambda disk, log: log.truncate(BATCHES - 1),
    "deep cut": lambda disk, log: log.truncate(3),
    "lookup": lambda disk, log: log.offset_for_time(10**9, end=BATCHES),
    "describe": lambda disk, log: log.segments(),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("is_indexed", [True, False])
async def test_no_walk_through_a_log_looks_at_many_batches_in_one_turn(
    walk: str, is_indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await new_disk()
    log = await filled(disk, LogConfig(snapshot_batches=10**9))
    if not is_indexed:
        log = await without_indexes(disk, log)
    turns = Turns(monkeypatch)
    await turns.during(WALKS[walk](disk, log))
    assert turns.most <= CHUNK_BATCHES_MAX + 4
    if walk in ("open", "verify", "cut"):
        assert is_indexed is False or turns.all >= BATCHES, "there was something to walk through"


async def test_many_batches_of_one_append_are_noted_in_turns() -> None:
    disk = await new_disk()
    seen = Seen()
    log = await Log.open(disk, PATH, LogConfig(), observer=seen)
    appending = asyncio.ensure_future(log.append([batch(offset) for offset in range(BATCHES)]))
    most = before = 0
    while not appending.done():
        await asyncio.sleep(0)
        most, before = max(most, seen.observed - before), seen.observed
        assert log.log_end_offset in (0, BATCHES), "an append is seen whole or not at all"
    assert 0 < most <= 512


async def test_a_cut_replays_about_as_much_as_it_takes_away() -> None:
    disk = await new_disk()
    config = LogConfig(snapshot_batches=100)
    log = await filled(disk, config)
    await log.close(clean=False)
    chance = random.Random(1)
    seen = Seen()
    log = await Log.open(disk, PATH, config, observer=seen)
    assert seen.observed <= 100
    for depth in (1, 99, 100, 101, 150, 400, 1000, BATCHES - 1, *chance.sample(range(BATCHES), 9)):
        cut = BATCHES - depth
        await log.truncate(cut)
        assert seen.offsets == list(range(cut))
        assert seen.observed <= 200 + depth, depth
        for offset in range(cut, BATCHES):
            await log.append([batch(offset)])
    await log.close(clean=False)


async def test_a_snapshot_follows_so_many_bytes_too() -> None:
    disk = await new_disk()
    log = await filled(disk, LogConfig(snapshot_bytes=1000), 40)
    assert await ObserverSnapshots(disk, PATH).offsets()
    await log.close(clean=False)


async def test_snapshots_stay_few_however_long_a_segment_is() -> None:
    offsets: list[int] = []
    for end in range(1, 3000):
        offsets.append(end)
        gone = superfluous(offsets, end)
        offsets = [offset for offset in offsets if offset not in gone]
        assert len(offsets) <= 2 * end.bit_length()
        assert offsets[-1] == end
        for older, newer in pairwise(offsets):
            assert newer - older <= max(end - newer, 1), "a cut to just below one replays no more"


async def test_a_snapshot_that_can_not_be_restored_is_passed_over() -> None:
    """Another release wrote it, or it is damaged: the batches still say all that it did."""
    disk = await new_disk()
    config = LogConfig(snapshot_batches=10)
    log = await filled(disk, config, 35)
    await log.close(clean=True)
    snapshots = ObserverSnapshots(disk, PATH)
    newest = (await snapshots.offsets())[-1]
    await snapshots.write(newest, 1, b"odd")
    seen = Seen()
    log = await Log.open(disk, PATH, config, observer=seen)
    assert seen.offsets == list(range(35))
    await log.close(clean=False)


async def test_a_snapshot_of_a_history_that_was_cut_is_not_believed() -> None:
    """A power loss may bring back the file that a cut removed."""
    disk = await new_disk()
    config = LogConfig(snapshot_batches=10)
    log = await filled(disk, config, 20)
    snapshots = ObserverSnapshots(disk, PATH)
    state = await snapshots.read(20)
    assert state is not None
    await log.truncate(15)
    for offset in range(15, 24):
        await log.append([batch(offset, epoch=2)])
    await log.close(clean=False)
    await snapshots.remove_above(15)
    await snapshots.write(20, state[0], array("q", [99]).tobytes())
    seen = Seen()
    log = await Log.open(disk, PATH, config, observer=seen)
    assert seen.offsets == list(range(24))
    await log.close(clean=False)


async def test_a_full_disk_costs_the_snapshot_and_not_the_append() -> None:
    disk = await new_disk()
    config = LogConfig(snapshot_batches=10)
    log = await filled(disk, config, 5)
    pieces = [batch(offset) for offset in range(5, 25)]
    disk.fill(sum(header.size for header, _ in pieces))
    await log.append(pieces)
    assert log.log_end_offset == 25
    disk.fill(None)
    await log.close(clean=False)


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
        lambda: log.offset_for_time(1000, end=300),
        lambda: log.segments(),
        lambda: log.truncate(299),
    )
    for look in looks:
        await look()
        assert len(await log.segments()) > 4 * INDEXES_MAX
        assert indexes_in_memory() - before <= INDEXES_MAX + 1
    assert await log.offset_for_time(1150, end=300) == (150, 1150)
    await log.close(clean=False)


def rows(index: SegmentIndex) -> tuple[bytes, bytes]:
    return index.encode_offsets(), index.encode_times()


def by_hand(
    layout: object, content: bytes, before: tuple[int, int], below: int
) -> Iterator[tuple[int, int]]:
    """Yield the entries that may follow one another, one by one."""
    assert layout in (OFFSET_ENTRY, TIME_ENTRY)
    entry = OFFSET_ENTRY if layout is OFFSET_ENTRY else TIME_ENTRY
    whole = len(content) - len(content) % entry.size
    for first, second in entry.iter_unpack(content[:whole]):
        if not (first > before[0] and before[1] < second < below):
            return
        before = (first, second)
        yield before


@pytest.mark.parametrize("seed", range(40))
def test_an_index_is_believed_up_to_the_first_entry_that_can_not_be(seed: int) -> None:
    chance = random.Random(seed)
    index = SegmentIndex(10)
    count = chance.choice((0, 1, 5, PIECE_ROWS, PIECE_ROWS + 7))
    for number in range(count):
        index.add(number * 3, number * 20 + 1, 20, number * 2)
    offsets, times = (bytearray(content) for content in rows(index))
    for content in (offsets, times):
        if content and chance.random() < 0.7:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del content[chance.randrange(len(content) + 1) :]
    segment_bytes = chance.choice((1 << 30, count * 10))
    good = list(by_hand(OFFSET_ENTRY, bytes(offsets), (-1, 0), segment_bytes))
    good_times = list(by_hand(TIME_ENTRY, bytes(times), (-(1 << 63) - 1, -1), 1 << 32))
    loaded = SegmentIndex(10)
    for _ in loaded.load(bytes(offsets), bytes(times), segment_bytes):
        pass
    good = good if good_times else []
    covered = good[-1][0] if good else -1
    good_times = [entry for entry in good_times if entry[1] <= covered]
    assert list(OFFSET_ENTRY.iter_unpack(loaded.encode_offsets())) == good
    assert list(TIME_ENTRY.iter_unpack(loaded.encode_times())) == good_times


def test_an_index_is_loaded_in_turns() -> None:
    index = SegmentIndex(10)
    for number in range(3 * PIECE_ROWS):
        index.add(number, number * 20 + 1, 20, number)
    assert sum(1 for _ in SegmentIndex(10).load(*rows(index), 1 << 30)) >= 4


async def test_a_large_batch_is_searched_for_a_time_in_a_thread() -> None:
    """Decompressing and reading 64 MiB in one turn would stop the broker for all others."""
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
