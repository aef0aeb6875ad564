"""How one stream divides its bytes between partitions that are in sync and those that catch up."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from quorate_broker.replication.catch_up_window import WINDOW_BYTES_MIN
from quorate_broker.replication.stream_credit import (
    CATCH_UP_SHARE,
    CHUNK_BYTES_MIN,
    FRAME_BYTES,
    LATE_MS,
    READS_MAX,
    ROOMS,
    Chunk,
    StreamCredit,
    next_batch_max,
    room_of_a_stream,
)

M = 8 << 20
KIB = 1 << 10


def begin(credit: StreamCredit, *, is_in_sync: bool, waiting: int = 1, now_ms: int = 0) -> Chunk:
    chunk = credit.begin(is_in_sync=is_in_sync, waiting=waiting, now_ms=now_ms)
    assert chunk is not None
    return chunk


def fill(credit: StreamCredit, *, is_in_sync: bool, now_ms: int = 0) -> list[Chunk]:
    """Begin chunks of one kind, which are read and sent at once, until there is no room."""
    found = []
    while chunk := credit.begin(is_in_sync=is_in_sync, waiting=1, now_ms=now_ms):
        credit.read(chunk, chunk.read_max)
        credit.sent(chunk, now_ms)
        found.append(chunk)
    return found


def wide(credit: StreamCredit) -> StreamCredit:
    """Open the window for catching up."""
    credit.window.size = credit.bytes_max
    return credit


# rooms


@pytest.mark.parametrize("first", [True, False], ids=["in sync", "catching up"])
def test_neither_kind_takes_the_room_of_the_other(first: bool) -> None:
    credit = wide(StreamCredit(M))
    assert sum(chunk.size for chunk in fill(credit, is_in_sync=first)) == M
    assert sum(chunk.size for chunk in fill(credit, is_in_sync=not first)) == M


def test_a_slow_partition_gives_its_room_back_after_a_while() -> None:
    """The fault: eight partitions on a slow disk hold the room of all others for ever."""
    credit = StreamCredit(M)
    slow = fill(credit, is_in_sync=True, now_ms=0)
    assert not credit.move_late(LATE_MS - 1)
    assert credit.begin(is_in_sync=True, waiting=1, now_ms=LATE_MS - 1) is None
    assert credit.move_late(LATE_MS)
    assert credit.bytes_out == M, "they still count"
    assert fill(credit, is_in_sync=True, now_ms=LATE_MS)
    for chunk in slow:
        credit.acknowledged(chunk, 2 * LATE_MS)
    assert credit.bytes_out == M


def late_bytes(chunks: list[Chunk]) -> int:
    return sum(chunk.size for chunk in chunks if chunk.is_late)


def test_slow_partitions_have_a_bound_too() -> None:
    """Beyond their rooms, they leave new reads of each kind the smallest room."""
    credit = wide(StreamCredit(M))
    chunks: list[Chunk] = []
    for second in range(40):
        now_ms = second * LATE_MS
        credit.move_late(now_ms)
        before, late = credit.bytes_out, late_bytes(chunks)
        for is_in_sync in (True, False):
            chunks += fill(credit, is_in_sync=is_in_sync, now_ms=now_ms)
        if late <= (ROOMS - 1) * M - WINDOW_BYTES_MIN:
            assert credit.bytes_out <= ROOMS * M
        else:
            assert credit.bytes_out - before <= 2 * WINDOW_BYTES_MIN
    assert credit.bytes_out > (ROOMS - 1) * M


def test_slow_partitions_beyond_their_room_leave_some_to_each_kind() -> None:
    credit = wide(StreamCredit(M))
    for second in range(40):
        credit.move_late(second * LATE_MS)
        for is_in_sync in (True, False):
            found = fill(credit, is_in_sync=is_in_sync, now_ms=second * LATE_MS)
            assert sum(chunk.size for chunk in found) >= WINDOW_BYTES_MIN - CHUNK_BYTES_MIN


def test_a_slow_read_stays_in_the_room_of_slow_partitions() -> None:
    """The fault: it goes back, and holds the room of the others a second time."""
    credit = StreamCredit(M)
    reads = [begin(credit, is_in_sync=True) for _ in range(M // FRAME_BYTES)]
    credit.move_late(LATE_MS)
    for chunk in reads:
        credit.read(chunk, chunk.read_max)
        credit.sent(chunk, LATE_MS)
    assert late_bytes(reads) == credit.bytes_out == M
    begin(credit, is_in_sync=True, now_ms=LATE_MS)
    for chunk in reads:
        credit.acknowledged(chunk, 2 * LATE_MS)
    assert late_bytes(reads) == 0


@pytest.mark.parametrize("room", [WINDOW_BYTES_MIN, M])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_stuck_holds_a_room_only_until_it_counts_as_slow(seed: int, room: int) -> None:
    """The fault: two partitions on a dead disk, and a batch larger than a room."""
    chance = random.Random(seed)
    credit = wide(StreamCredit(room))
    now_ms = 0
    for _ in range(chance.choice([1, 2, 3, 100])):
        kind = chance.random() < 0.5
        waiting = chance.choice([1, 4, 300])
        batch = chance.choice([0, 100 * KIB, room // 2, room, 3 * room])
        known = chance.choice([0, batch])
        chunk = credit.begin(is_in_sync=kind, waiting=waiting, now_ms=now_ms, batch_max=known)
        if chunk is None:
            now_ms += LATE_MS
            credit.move_late(now_ms)
            chunk = credit.begin(is_in_sync=kind, waiting=waiting, now_ms=now_ms, batch_max=known)
            assert chunk is not None, f"seed {seed}"
        if chance.random() < 0.5:
            credit.read(chunk, max(batch, chunk.read_max))
            credit.sent(chunk, now_ms)
    now_ms += LATE_MS
    credit.move_late(now_ms)
    for kind in (True, False):
        begin(credit, is_in_sync=kind, now_ms=now_ms)


@pytest.mark.parametrize("partitions", [20, 100, 1000])
def test_a_dead_disk_with_many_partitions_leaves_room_for_others(partitions: int) -> None:
    credit = StreamCredit(M)
    waiting = partitions
    for now_ms in range(0, 5 * LATE_MS, LATE_MS // 10):
        credit.move_late(now_ms)
        while waiting and (chunk := credit.begin(is_in_sync=True, waiting=waiting, now_ms=now_ms)):
            credit.read(chunk, chunk.read_max)
            credit.sent(chunk, now_ms)
            waiting -= 1
    assert not waiting
    assert credit.begin(is_in_sync=True, waiting=1, now_ms=10 * LATE_MS) is not None


def test_a_follower_that_leaves_the_isr_gives_its_room_to_those_in_it() -> None:
    credit = StreamCredit(M)
    chunks = fill(credit, is_in_sync=True)
    for chunk in chunks:
        credit.left_isr(chunk)
    assert credit.begin(is_in_sync=False, waiting=1, now_ms=0) is None
    assert sum(chunk.size for chunk in fill(credit, is_in_sync=True)) == M
    assert credit.bytes_out == 2 * M


def test_reads_of_a_slow_disk_do_not_stop_the_others() -> None:
    credit = StreamCredit(M)
    for _ in range(READS_MAX):
        begin(credit, is_in_sync=True, waiting=1000)
    assert credit.begin(is_in_sync=True, waiting=1000, now_ms=0) is None
    assert credit.move_late(LATE_MS)
    assert credit.begin(is_in_sync=True, waiting=1000, now_ms=LATE_MS) is not None


def test_a_chunk_that_waits_for_a_frame_is_not_slow() -> None:
    """The link is busy, not the partition."""
    credit = StreamCredit(M)
    chunk = begin(credit, is_in_sync=True)
    credit.read(chunk, chunk.read_max)
    assert not credit.move_late(10 * LATE_MS)
    credit.sent(chunk, 10 * LATE_MS)
    assert not credit.move_late(11 * LATE_MS - 1)
    assert credit.move_late(11 * LATE_MS)


@pytest.mark.parametrize(
    ("waiting", "size"),
    [(1, FRAME_BYTES), (8, FRAME_BYTES), (16, M // 16), (128, M // 128), (5000, CHUNK_BYTES_MIN)],
)
def test_partitions_that_wait_share_the_room(waiting: int, size: int) -> None:
    credit = StreamCredit(M)
    assert begin(credit, is_in_sync=True, waiting=waiting).read_max == size


@pytest.mark.parametrize(
    ("limit", "streams", "room"),
    [(64 << 20, 0, 16 << 20), (64 << 20, 4, 4 << 20), (64 << 20, 1000, WINDOW_BYTES_MIN)],
)
def test_streams_share_the_limit_of_the_broker(limit: int, streams: int, room: int) -> None:
    assert room_of_a_stream(limit, streams) == room


@pytest.mark.parametrize("batch", [100 * KIB, FRAME_BYTES])
def test_room_is_reserved_for_a_batch_as_large_as_the_last_ones(batch: int) -> None:
    credit = StreamCredit(M)
    learnt = begin(credit, is_in_sync=True, waiting=5000)
    credit.read(learnt, batch)
    found = 1
    while chunk := credit.begin(
        is_in_sync=True, waiting=5000, now_ms=0, batch_max=learnt.batch_max
    ):
        assert chunk.size == batch
        credit.read(chunk, batch)
        found += 1
    assert found == M // batch


def test_no_room_is_reserved_for_the_batches_of_another_partition() -> None:
    """The fault: one large batch ever, and each read of the stream waits for an empty room."""
    credit = StreamCredit(M)
    large = begin(credit, is_in_sync=True)
    credit.read(large, 2 * M)
    credit.sent(large, 0)
    credit.acknowledged(large, 1)
    assert len(fill(credit, is_in_sync=True)) == M // FRAME_BYTES


def test_a_large_batch_is_forgotten_by_and_by() -> None:
    sizes = [M]
    for _ in range(40):
        sizes.append(next_batch_max(sizes[-1], CHUNK_BYTES_MIN, CHUNK_BYTES_MIN))
    assert sizes[3] > M // 2
    assert sizes[-1] == 0
    assert next_batch_max(M, 2 * M, FRAME_BYTES) == 2 * M


def test_a_batch_that_is_larger_than_the_room_is_alone_in_it() -> None:
    credit = StreamCredit(WINDOW_BYTES_MIN)
    for _ in range(3):
        chunk = begin(credit, is_in_sync=True)
        credit.read(chunk, FRAME_BYTES)
        credit.sent(chunk, 0)
        assert credit.begin(is_in_sync=True, waiting=1, now_ms=0) is None
        credit.acknowledged(chunk, 1)


def test_a_slow_partition_with_a_batch_larger_than_the_room_gives_way_too() -> None:
    credit = StreamCredit(WINDOW_BYTES_MIN)
    chunk = begin(credit, is_in_sync=True)
    credit.read(chunk, FRAME_BYTES)
    credit.sent(chunk, 0)
    assert credit.move_late(LATE_MS)
    assert credit.begin(is_in_sync=True, waiting=1, now_ms=LATE_MS) is not None


# the order of frames


def test_in_sync_chunks_go_first() -> None:
    credit = StreamCredit(M)
    assert not credit.is_catch_up_next(1, FRAME_BYTES)
    assert credit.is_catch_up_next(0, FRAME_BYTES)
    assert not credit.is_catch_up_next(FRAME_BYTES, 0)


@pytest.mark.parametrize("seed", range(20))
def test_while_both_kinds_wait_neither_starves(seed: int) -> None:
    chance = random.Random(seed)
    credit = wide(StreamCredit(M))
    sent = {True: 0, False: 0}
    for _ in range(2000):
        sizes = [chance.choice([1, 100 * KIB, FRAME_BYTES]) for _ in range(2)]
        is_in_sync = not credit.is_catch_up_next(*sizes)
        chunk = Chunk(is_in_sync, sizes[0] if is_in_sync else sizes[1], 0)
        credit.taken(chunk, both_wait=True)
        sent[is_in_sync] += chunk.size
        owed = sent[True] / (CATCH_UP_SHARE - 1)
        assert owed - sent[False] <= 2 * FRAME_BYTES, f"seed {seed}"
        assert sent[False] <= owed, f"seed {seed}"


def test_what_was_sent_while_nothing_else_waited_is_not_owed() -> None:
    credit = StreamCredit(M)
    for _ in range(100):
        credit.taken(Chunk(True, FRAME_BYTES, 0), both_wait=False)
    assert not credit.is_catch_up_next(1, 1)


# all at once


@dataclass
class Stream:
    """A stream driven by chance, and the chunks that it knows of."""

    credit: StreamCredit
    reading: list[Chunk] = field(default_factory=list)
    ready: list[Chunk] = field(default_factory=list)
    sent: list[Chunk] = field(default_factory=list)

    def step(self, chance: random.Random, now_ms: int) -> None:
        credit = self.credit
        match chance.randrange(6):
            case 0 | 1:
                waiting = chance.choice([1, 3, 300])
                is_in_sync = chance.random() < 0.5
                chunk = credit.begin(is_in_sync=is_in_sync, waiting=waiting, now_ms=now_ms)
                if chunk is not None:
                    self.reading.append(chunk)
            case 2 if self.reading:
                chunk = self.reading.pop(chance.randrange(len(self.reading)))
                credit.read(chunk, chance.randint(0, chunk.read_max))
                self.ready.append(chunk)
            case 3 if self.ready:
                chunk = self.ready.pop(0)
                if chance.random() < 0.1:
                    credit.drop(chunk)
                else:
                    credit.sent(chunk, now_ms)
                    self.sent.append(chunk)
            case 4 if self.sent and chance.random() < 0.2:
                credit.left_isr(chance.choice(self.sent))
            case 4 if self.sent:
                chunk = self.sent.pop(chance.randrange(len(self.sent)))
                if chance.random() < 0.1:
                    credit.drop(chunk)
                else:
                    credit.acknowledged(chunk, now_ms)
            case _:
                credit.move_late(now_ms)

    @property
    def chunks(self) -> list[Chunk]:
        return [*self.reading, *self.ready, *self.sent]


@pytest.mark.parametrize("seed", range(50))
def test_every_byte_counts_once_and_the_sum_is_bounded(seed: int) -> None:
    chance = random.Random(seed)
    stream = Stream(StreamCredit(M))
    now_ms = 0
    for _ in range(3000):
        now_ms += chance.choice([0, 1, 10, 300])
        stream.step(chance, now_ms)
        held = stream.credit.bytes_out
        assert held == sum(chunk.size for chunk in stream.chunks), f"seed {seed}"
        assert held <= ROOMS * M, f"seed {seed}"
        assert WINDOW_BYTES_MIN <= stream.credit.window.size <= M, f"seed {seed}"
    for chunk in stream.reading:
        stream.credit.read(chunk, 0)
        stream.credit.drop(chunk)
    for chunk in [*stream.ready, *stream.sent]:
        stream.credit.drop(chunk)
    assert stream.credit.bytes_out == 0
    assert fill(stream.credit, is_in_sync=True, now_ms=now_ms), f"seed {seed}: no read is left"
