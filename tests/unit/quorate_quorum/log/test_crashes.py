"""The log against a model, with a crash at each operation of the disk.

The operations are those of a life: appends, rolls, syncs, cuts, moves of the start (retention),
compactions (new segments take the place of old ones), closes and opens.

The model is the list of batches. After a crash of the process no batch is missing whose write had
completed. After a power loss no synced batch is missing. In both cases the log is a prefix of what
was written, and what was cut does not come back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from quorate.errors import StorageError
from quorate.record.batch import BatchBuilder, BatchHeader, parse_header, split
from quorate_quorum.log.checksum import Checksummer
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.run_file import UNKNOWN
from quorate_testing.simulated.disk import SimulatedDisk

DIRECTORY = "/data/t-0"
QUIET = ("read", "open")


class Crash(OSError):
    """The process or the machine ends in the middle of an operation."""


class Seen:
    """An observer whose state is the list of headers that it was shown."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def observe(self, header: BatchHeader) -> None:
        self.batches.append((header.base_offset, header.leader_epoch))

    def reset(self) -> None:
        self.batches = []

    def snapshot(self) -> bytes:
        return repr(self.batches).encode()

    def restore(self, data: bytes) -> None:
        self.batches = eval(data)


@dataclass
class World:
    """A disk, the log on it, and the model."""

    chance: random.Random
    config: LogConfig
    #: Batches, as bytes, whose append has completed.
    model: list[bytes] = field(default_factory=list)
    start: int = 0
    synced: int = 0
    #: (start, batches) that the operation under way may leave instead of the model.
    also: list[tuple[int, list[bytes]]] = field(default_factory=list)
    #: Whether batches may have gaps between them: the log was compacted once.
    has_gaps: bool = False
    #: All records below it were compacted: the highest value that may be on the disk.
    cleaned: int = 0
    #: How often an operation was carried out, by its name.
    done: Counter[str] = field(default_factory=Counter)
    #: All high watermarks that the disk may remember.
    marks: list[tuple[int, int]] = field(default_factory=lambda: [(0, -1)])
    epoch: int = 0
    operations: int = 0
    crash_at: int = -1
    by_power: bool = False
    #: Whether there was no power loss since the log was last opened.
    same_boot: bool = True
    crashed: bool = False
    log: Log | None = None

    def __post_init__(self) -> None:
        self.disk = SimulatedDisk(self.chance)

    async def set_up(self) -> None:
        await self.disk.make_directory("/data")
        await self.disk.sync_directory("/")
        self.disk.hook = self.hook

    def hook(self, name: str, path: str) -> None:
        if name in QUIET:
            return
        self.operations += 1
        if self.operations == self.crash_at:
            if self.by_power:
                self.disk.lose_power()
            else:
                self.disk.crash_process()
            self.same_boot = self.same_boot and not self.by_power
            self.crashed = True
            raise Crash

    @property
    def end(self) -> int:
        return end_of(self.start, self.model)

    async def open(self) -> None:
        """Open the log and compare it with the model; what is found is the new model."""
        seen = Seen()
        run = replace(UNKNOWN, same_boot=self.same_boot)
        self.log = log = await Log.open(self.disk, DIRECTORY, self.config, observer=seen, run=run)
        found = await read_all(log)
        start = log.log_start_offset
        allowed = [(self.start, self.model), *self.also]
        if self.same_boot:
            assert (start, found) in allowed, describe(start, found, allowed)
            assert not log.recovered.lossy
        else:
            assert any(
                start == one and found == batches[: len(found)] for one, batches in allowed
            ), describe(start, found, allowed)
            assert log.log_end_offset >= self.synced, "lost what was synced"
        headers = [parse_header(one) for one in found]
        expected = [(one.base_offset, one.leader_epoch) for one in headers]
        # What is below the start may still be known to the observer.
        if self.has_gaps:  # and what compaction removed
            assert set(expected) <= set(seen.batches)
        else:
            assert seen.batches[len(seen.batches) - len(expected) :] == expected
        assert seen.batches == sorted(set(seen.batches))
        epochs = dict[int, int]()
        for one in headers:
            epochs.setdefault(one.leader_epoch, max(one.base_offset, start))
        expected_epochs = [list(epochs.items())]
        if found and self.has_gaps and start < headers[0].base_offset:
            # In the gap at the start the epoch of the first batch, or an older one, may be known.
            (first, _), *rest = expected_epochs[0]
            expected_epochs.append([(first, start), *rest])
            older, at = log.epochs.entries[0]
            if older < first and at == start:
                expected_epochs.append([(older, start), *expected_epochs[0]])
        if found:
            assert log.epochs.entries in expected_epochs
        else:  # perhaps the epoch of the last deleted record
            assert [at for _, at in log.epochs.entries] in ([], [start])
            assert log.last_epoch <= self.epoch
        assert log.synced_end <= log.log_end_offset
        assert log.high_watermark <= log.log_end_offset
        assert log.compaction.cleaned_end <= min(self.cleaned, log.log_end_offset)
        assert log.high_watermark <= max(start, *(mark for mark, _ in self.marks)), self.marks
        if self.config.track_synced:
            assert log.synced_end == log.log_end_offset
        self.start, self.model, self.also = start, found, []
        self.synced = max(self.synced, log.synced_end) if found else log.synced_end
        self.synced = min(self.synced, log.log_end_offset)
        self.marks = [(log.high_watermark, log.hw_epoch)]
        self.same_boot = True

    async def append(self) -> None:
        assert self.log is not None
        self.epoch += self.chance.random() < 0.2
        new: list[bytes] = []
        for _ in range(self.chance.randint(1, 3)):
            gap = self.chance.choice((0, 0, 0, 2)) if self.log.compaction.has_gaps else 0
            new.append(make(self.chance, end_of(self.end, new) + gap, self.epoch))
        self.also = [(self.start, self.model + new[: n + 1]) for n in range(len(new))]
        await self.log.append([(parse_header(one), (one[:16], one[16:])) for one in new])
        self.model, self.also = self.model + new, []

    async def truncate(self) -> None:
        assert self.log is not None
        if not self.model:
            return
        kept = self.chance.randint(max(0, len(self.model) - 8), len(self.model))
        end = end_of(self.start, self.model[:kept])
        self.also = [(self.start, self.model[:n]) for n in range(kept, len(self.model))]
        # The batch that lies across the start goes as a whole.
        start = min(self.start, parse_header(self.model[0]).base_offset if not kept else end)
        if start < self.start:
            self.also.append((start, []))
            end = start
        self.synced = min(self.synced, end)
        await self.log.truncate(end_of(self.start, self.model[:kept]))
        self.epoch += 1
        self.start, self.model, self.also = start, self.model[:kept], []
        assert (self.log.log_start_offset, self.log.log_end_offset) == (start, end)
        self.marks.append((min(self.marks[-1][0], end), self.marks[-1][1]))

    async def start_again(self) -> None:
        assert self.log is not None
        offset = self.chance.choice([self.end + 50, self.chance.randint(0, self.end)])
        self.also = [(self.start, self.model[:n]) for n in range(len(self.model))]
        self.also += [(offset, [])]
        self.synced = 0
        await self.log.truncate_fully_and_start_at(offset)
        self.start, self.model, self.also = offset, [], []
        self.synced = offset
        self.marks.append((offset, -1))

    async def move_start(self) -> None:
        assert self.log is not None
        offset = self.chance.randint(self.start, self.end)
        kept = [one for one in self.model if parse_header(one).end_offset > offset]
        self.also = [(offset, kept)]
        await self.log.move_start(offset)
        await self.log.remove_below_start()
        self.start, self.model, self.also = offset, kept, []
        self.synced = max(self.synced, offset)
        assert self.log.log_start_offset == self.start
        if self.log.has_segments:
            assert self.log.segment_base(offset) == self.log.segment_base(0), "whole segments go"

    async def roll(self) -> None:
        assert self.log is not None
        await self.log.roll()

    async def compact(self) -> None:
        """Put one new segment into the place of some closed ones; some of their batches go."""
        assert self.log is not None
        closed = (await self.log.segments())[:-1]
        if not closed:
            return
        first = self.chance.randrange(len(closed))
        old = closed[first : first + self.chance.randint(1, 3)]
        base, end = old[0].base_offset, old[-1].end_offset
        kept = [one for one in self._batches_of(base, end) if self._stays(one, end)]
        self.has_gaps = True
        below = [one for one in self.model if parse_header(one).base_offset < base]
        above = [one for one in self.model if parse_header(one).base_offset >= end]
        left = [one for one in kept if parse_header(one).end_offset > self.start]
        self.also = [(self.start, [*below, *left, *above])]
        made = Checksummer(base)
        path = f"{DIRECTORY}/{base:020d}.log.cleaned"
        if await self.disk.exists(path):
            await self.disk.remove(path)
        file = await self.disk.open(path, create=True)
        for one in kept:
            made.add(parse_header(one))
            await file.append([one])
        await file.sync()
        await file.close()
        new, truncations = made.result(), self.log.truncations
        if not await self.log.compaction.replace_segments(new, truncations):
            assert self.crashed, "a crash in the background took the new segment"
            return
        self.model, self.also = self.also[0][1], []
        assert await read_all(self.log) == self.model
        self.cleaned = max(self.cleaned, end)
        await self.log.compaction.note_cleaned(end)

    def _batches_of(self, base: int, end: int) -> list[bytes]:
        """Return the batches of closed segments, from the files of the log."""
        return [
            bytes(view)
            for path, _ in self.disk.files()
            if path.startswith(DIRECTORY) and path.endswith(".log")
            for header, view in split(self.disk.content(path))
            if base <= header.base_offset < end
        ]

    def _stays(self, batch: bytes, end: int) -> bool:
        """As the compactor, keep the last batch of a segment, and the first one of an epoch."""
        assert self.log is not None
        header = parse_header(batch)
        starts = [start for _, start in self.log.epochs.entries]
        has_start = any(header.base_offset <= start < header.end_offset for start in starts)
        return header.end_offset == end or has_start or self.chance.random() < 0.5

    async def sync(self) -> None:
        assert self.log is not None
        assert await self.log.sync() == self.end
        self.synced = self.end

    async def move_recovery_point(self) -> None:
        assert self.log is not None
        await self.log.recovery_point.move()
        self.synced = self.end

    async def fail_to_sync(self) -> None:
        """Rule failed-sync-is-final: nothing is acknowledged until an open writes it again."""
        assert self.log is not None
        if not self.config.track_synced or self.log.synced_end == self.end:
            return
        self.disk.fail_next_sync()
        with pytest.raises(StorageError):
            await self.log.sync()
        with pytest.raises(StorageError):
            await self.log.sync()
        await self.reopen(clean=False)

    async def checkpoint(self) -> None:
        assert self.log is not None
        low = max(self.start, self.log.high_watermark)
        mark = (self.chance.randint(min(low, self.end), self.end), self.epoch)
        self.marks.append(mark)
        await self.log.checkpoint_high_watermark(*mark)

    async def reopen(self, clean: bool | None = None) -> None:
        assert self.log is not None
        clean = self.chance.random() < 0.5 if clean is None else clean
        await self.log.close(clean=clean)
        if clean and self.model:
            self.synced = self.end
        await self.open()

    async def cut_power(self) -> None:
        self.disk.lose_power()
        self.same_boot = False
        await self.open()

    async def live_until_crash(self, steps: int) -> bool:
        """Use the log; return whether a crash ended that."""
        self.crashed = False
        try:
            await self.live(steps)
        except (Crash, StorageError):
            if not self.crashed:
                raise
        if self.log is not None:  # the tasks of a process end with it
            await self.log.close(clean=False)
        return self.crashed

    async def live(self, steps: int) -> None:
        await self.open()
        for _ in range(steps):
            if self.crashed:
                return  # the crash was in a background task
            [operation] = self.chance.choices(
                [
                    self.append,
                    self.roll,
                    self.compact,
                    self.sync,
                    self.truncate,
                    self.checkpoint,
                    self.move_start,
                    self.reopen,
                    self.start_again,
                    self.fail_to_sync,
                    self.cut_power,
                    self.move_recovery_point,
                ],
                [50, 8, 12, 15, 10, 6, 8, 4, 2, 3, 2, 12],
            )
            await operation()
            self.done[operation.__name__] += 1


def make(chance: random.Random, base_offset: int, epoch: int) -> bytes:
    """Return a batch; now and then one that lies over several sectors."""
    builder = BatchBuilder()
    size = 1500 if chance.random() < 0.1 else 20
    for _ in range(chance.randint(1, 3)):
        builder.append(chance.randint(0, 1000), None, chance.randbytes(chance.randint(0, size)))
    return builder.build(base_offset=base_offset, leader_epoch=epoch)


def end_of(start: int, batches: Sequence[bytes]) -> int:
    return parse_header(batches[-1]).end_offset if batches else start


async def read_all(log: Log) -> list[bytes]:
    found: list[bytes] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = await log.read(offset, end=log.log_end_offset, bytes_max=4000)
        assert data
        for header, view in split(data):
            is_across = not found and header.base_offset < offset < header.end_offset
            is_behind_a_gap = log.compaction.has_gaps and header.base_offset > offset
            assert header.base_offset == offset or is_across or is_behind_a_gap
            found.append(bytes(view))
            offset = header.end_offset
    return found


def describe(start: int, found: list[bytes], allowed: list[tuple[int, list[bytes]]]) -> str:
    def one(start: int, batches: list[bytes]) -> str:
        headers = [parse_header(batch) for batch in batches]
        return f"from {start}: {[(h.base_offset, h.leader_epoch) for h in headers]}"

    return f"found {one(start, found)}, allowed {[one(*each) for each in allowed]}"


def config(chance: random.Random) -> LogConfig:
    return LogConfig(
        segment_bytes=chance.choice([400, 1500, 1 << 20]),
        index_interval_bytes=chance.choice([0, 100, 400]),
        track_synced=chance.random() < 0.5,
        verify_all=chance.random() < 0.5,
        snapshot_batches=chance.choice([1, 3, 1000]),
    )


@pytest.mark.parametrize("by_power", [False, True], ids=["process", "power"])
@pytest.mark.parametrize("seed", range(6))
async def test_a_crash_at_every_operation_of_one_life(seed: int, by_power: bool) -> None:
    crash_at = 0
    crashed = True
    while crashed:
        crash_at += 1
        chance = random.Random(seed)
        world = World(chance, config(chance), crash_at=crash_at, by_power=by_power)
        await world.set_up()
        crashed = await world.live_until_crash(14)
        world.crash_at = -1
        try:
            await world.open()
            await world.append()
            await world.sync()
            await world.cut_power()
        except BaseException as error:
            error.add_note(f"seed {seed}, crashed at operation {crash_at}, {world.config}")
            raise
        assert world.log is not None
        await world.log.close(clean=False)
    assert crash_at > 20


@pytest.mark.parametrize("seed", range(60))
async def test_many_crashes_one_after_the_other_even_while_opening(seed: int) -> None:
    chance = random.Random(1000 + seed)
    world = World(chance, config(chance))
    await world.set_up()
    for _ in range(25):
        world.by_power = chance.random() < 0.5
        world.crash_at = world.operations + chance.randint(1, 40)
        await world.live_until_crash(30)
    world.crash_at = -1
    await world.open()


async def test_the_lives_have_rolls_compactions_and_moves_of_the_start() -> None:
    done = Counter[str]()
    for seed in range(60):
        chance = random.Random(1000 + seed)
        world = World(chance, config(chance))
        await world.set_up()
        await world.live(30)
        done += world.done
    assert all(done[name] > 30 for name in ("roll", "compact", "move_start", "truncate")), done
