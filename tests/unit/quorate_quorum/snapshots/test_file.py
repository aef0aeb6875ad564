"""A snapshot of the metadata as a file: written whole, believed only whole, fetched in chunks."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from crc32c import crc32c

from quorate.errors import CorruptRecordError, QuorateError, UnsupportedError
from quorate.record import batch as record_batch
from quorate.record import compression
from quorate_quorum.log.events import decode_events, encode_events
from quorate_quorum.metadata.image import EMPTY, MetadataImage
from quorate_quorum.metadata.loader import Loader
from quorate_quorum.snapshots import file as snapshots
from quorate_quorum.snapshots.download import Download
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1 import events_pb2 as ev
from quorate_testing.simulated.disk import SimulatedDisk

DIRECTORY = "/data/__cluster_metadata-0"
ID = SnapshotId(120, 3)
PATH = f"{DIRECTORY}/00000000000000000120-0000000003.snapshot"
PART = PATH + ".part"


def start_of(snapshot: SnapshotId = ID, *, version: int = 1) -> ev.SnapshotStart:
    return ev.SnapshotStart(
        version=version,
        offset=snapshot.offset,
        epoch=snapshot.epoch,
        cluster_id="c1",
        quorum_generation=1,
        bootstrap_hash=b"h" * 32,
    )


def events_of(count: int) -> list[ev.MetadataEvent]:
    voters = ev.Voters(voters=[ev.Voter(id=1, directory_id=b"d" * 16, endpoint="v1:1")])
    topics = (ev.Topic(topic_id=n.to_bytes(16, "big"), name=f"t{n}") for n in range(1, count))
    return [ev.MetadataEvent(voters=voters), *(ev.MetadataEvent(topic=topic) for topic in topics)]


async def a_disk(seed: int = 1) -> SimulatedDisk:
    disk = SimulatedDisk(random.Random(seed))
    await disk.make_directory(DIRECTORY)
    return disk


async def written(events: list[ev.MetadataEvent], snapshot: SnapshotId = ID) -> bytes:
    disk = await a_disk()
    size = await snapshots.write_snapshot(disk, DIRECTORY, start_of(snapshot), events)
    content = disk.content(snapshots.path_of(DIRECTORY, snapshot))
    assert size == len(content)
    return content


async def put(disk: SimulatedDisk, content: bytes, path: str = PATH) -> None:
    await disk.open(path, create=True)
    disk.put(path, content)
    await disk.sync_directory(DIRECTORY)


async def parts_of(disk: SimulatedDisk, path: str = PATH) -> list[bytes]:
    async with aclosing(snapshots.parts(disk, path)) as parts:
        return [part async for part in parts]


async def test_what_is_written_is_read() -> None:
    disk = await a_disk()
    events = events_of(2000)

    await snapshots.write_snapshot(disk, DIRECTORY, start_of(), events)

    assert await snapshots.list_snapshots(disk, DIRECTORY) == [ID]
    assert await snapshots.read_start(disk, PATH) == start_of()
    assert await snapshots.verify(disk, PATH, decode=True) == start_of()
    parts = await parts_of(disk)
    assert [event for part in parts for event in decode_events(part)] == events
    assert len(parts) > 2, "large work comes in slices"
    assert max(len(part) for part in parts) < 2 * snapshots.BATCH_BYTES


async def test_parts_are_what_the_loader_takes() -> None:
    disk = await a_disk()
    await snapshots.write_snapshot(disk, DIRECTORY, start_of(), events_of(300))

    loader = Loader()
    for part in await parts_of(disk):
        loader.load_snapshot_part(part)
    ((_, image),) = loader.finish_snapshot(*ID)

    assert (image.offset, image.epoch, len(image.topics)) == (120, 3, 299)
    assert [voter.id for voter in image.voters] == [1]


async def test_an_empty_image_is_a_snapshot_too() -> None:
    disk = await a_disk()
    await snapshots.write_snapshot(disk, DIRECTORY, start_of(), EMPTY.to_events())
    assert await snapshots.verify(disk, PATH) == start_of()
    assert not [e for part in await parts_of(disk) for e in decode_events(part)]


async def test_the_same_image_gives_the_same_bytes_whoever_writes_it() -> None:
    """A download that began at one leader goes on at the next."""
    image: MetadataImage = EMPTY
    loader = Loader()
    loader.load(encode_events(events_of(900), base_offset=0, epoch=3, timestamp_ms=99))
    image = loader.image
    assert await written(list(image.to_events())) == await written(list(image.to_events()))


async def test_the_bytes_are_record_batches_from_offset_0_without_times() -> None:
    content = await written(events_of(1500))
    expected = 0
    for header, _ in record_batch.split(content):
        assert (header.base_offset, header.leader_epoch) == (expected, 3)
        assert (header.base_timestamp, header.max_timestamp) == (0, 0)
        expected = header.end_offset


async def test_snapshots_are_listed_oldest_first_and_nothing_else_is_one() -> None:
    disk = await a_disk()
    ids = [SnapshotId(7, 1), SnapshotId(120, 2), SnapshotId(120, 3), SnapshotId(1000, 3)]
    for one in reversed(ids):
        await snapshots.write_snapshot(disk, DIRECTORY, start_of(one), events_of(2))
    others = ["00000000000000000120.snapshot", "0-0.snapshot", "x.snapshot", "x.snapshot.part"]
    for name in [*others, f"{'٣' * 20}-{'0' * 10}.snapshot", "00000000000000000120.log"]:
        await disk.open(f"{DIRECTORY}/{name}", create=True)

    assert await snapshots.list_snapshots(disk, DIRECTORY) == ids
    assert await snapshots.newest(disk, DIRECTORY) == SnapshotId(1000, 3)

    await snapshots.remove_parts(disk, DIRECTORY)
    assert not await disk.exists(f"{DIRECTORY}/x.snapshot.part")
    await snapshots.remove_older(disk, DIRECTORY, SnapshotId(120, 3))
    assert await snapshots.list_snapshots(disk, DIRECTORY) == ids[2:]
    await snapshots.remove_older(disk, DIRECTORY, SnapshotId(9999, 9))
    assert await snapshots.list_snapshots(disk, DIRECTORY) == ids[3:], "never the newest"


async def test_a_directory_that_is_not_there_has_no_snapshots() -> None:
    disk = SimulatedDisk(random.Random(1))
    assert await snapshots.newest(disk, DIRECTORY) is None
    await snapshots.remove_parts(disk, DIRECTORY)


@pytest.mark.parametrize("read", ["verify", "finish"])
async def test_no_bit_of_it_may_flip(read: str) -> None:
    """A checksum over the whole; also what a batch's own CRC leaves out (offset, epoch)."""
    content = await written(events_of(3))
    for position in range(len(content)):
        bad = bytearray(content)
        bad[position] ^= 1 << position % 8
        await refused(bytes(bad), read)


@pytest.mark.parametrize("read", ["verify", "finish"])
async def test_no_byte_of_it_may_be_missing_or_follow(read: str) -> None:
    content = await written(events_of(3))
    for size in range(1, len(content)):
        await refused(content[:size], read)
    await refused(content + b"\0", read)
    await refused(content + content, read)


async def refused(content: bytes, read: str) -> None:
    disk = await a_disk()
    if read == "verify":
        await put(disk, content)
    with pytest.raises((CorruptRecordError, UnsupportedError), match="00120-"):
        await (snapshots.verify(disk, PATH) if read == "verify" else downloaded(disk, content))
    if read == "finish":
        assert await disk.list(DIRECTORY) == [], "nothing is left of it"


async def downloaded(disk: SimulatedDisk, content: bytes) -> ev.SnapshotStart:
    download = Download(disk, DIRECTORY, ID)
    await download.add(0, content, size=len(content))
    return await download.finish(cluster_id="c1", quorum_generation=1)


def forged(*batches: list[ev.MetadataEvent], end: bool = True, epoch: int = 3) -> bytes:
    """A snapshot whose checksums hold, whatever it says."""
    content = b""
    offset = 0
    for batch in batches:
        content += encode_events(batch, base_offset=offset, epoch=epoch, timestamp_ms=0)
        offset += len(batch)
    if not end:
        return content
    last = ev.MetadataEvent(snapshot_end=ev.SnapshotEnd(size=len(content), crc32c=crc32c(content)))
    return content + encode_events([last], base_offset=offset, epoch=epoch, timestamp_ms=0)


def begin(snapshot: SnapshotId = ID, version: int = 1) -> list[ev.MetadataEvent]:
    return [ev.MetadataEvent(snapshot_start=start_of(snapshot, version=version))]


def finish(size: int, crc: int) -> list[ev.MetadataEvent]:
    return [ev.MetadataEvent(snapshot_end=ev.SnapshotEnd(size=size, crc32c=crc))]


WHOLE = forged(begin(), events_of(2))
START = forged(begin(), end=False)
LIARS = {
    "no_end": forged(begin(), events_of(2), end=False),
    "no_start": forged(events_of(2)),
    "end_alone": forged(),
    "start_twice": forged(begin(), begin(), events_of(2)),
    "start_not_alone": forged(begin() + events_of(2)),
    "start_last": forged(events_of(2), begin()),
    "end_amid": forged(begin(), finish(len(START), crc32c(START)), events_of(2)),
    "end_not_alone": forged(begin(), events_of(2) + finish(0, 0)),
    "end_lies_of_size": forged(begin(), events_of(2), finish(5, 0), end=False),
    "end_says_huge": forged(begin(), events_of(2), finish(1 << 62, 0), end=False),
    "end_says_negative": forged(begin(), events_of(2), finish(-1, 0), end=False),
    "end_lies_of_crc": forged(begin(), finish(len(START), 7), end=False),
    "other_offset": forged(begin(SnapshotId(121, 3)), events_of(2)),
    "other_epoch": forged(begin(SnapshotId(120, 4)), events_of(2), epoch=4),
    "epoch_of_batches": forged(begin(), events_of(2), epoch=4),
    "newer_version": forged(begin(version=2), events_of(2)),
    "unknown_event": forged(begin(), [*events_of(2), ev.MetadataEvent()]),
    "of_no_batch": b"\0" * 100,
    "length_huge": WHOLE[:8] + (0x7FFFFFFF).to_bytes(4, "big") + WHOLE[12:],
    "length_negative": WHOLE[:8] + (0xFFFFFFFF).to_bytes(4, "big") + WHOLE[12:],
    "short": b"x",
}


@pytest.mark.parametrize("content", LIARS.values(), ids=LIARS.keys())
async def test_a_snapshot_that_lies_is_refused_and_leaves_nothing(content: bytes) -> None:
    disk = await a_disk()
    with pytest.raises((CorruptRecordError, UnsupportedError)):
        await downloaded(disk, content)
    assert await disk.list(DIRECTORY) == []


async def test_batches_out_of_order_are_refused() -> None:
    content = await written(events_of(1500))
    whole = [bytes(batch) for _, batch in record_batch.split(content)]
    assert len(whole) > 4
    whole[1], whole[2] = whole[2], whole[1]
    await refused(b"".join(whole), "verify")


async def test_a_compressed_batch_is_refused_before_it_is_made_large() -> None:
    builder = record_batch.BatchBuilder(codec=compression.ZSTD)
    builder.append(0, None, bytes(1 << 20))
    bomb = builder.build(base_offset=1, leader_epoch=3)
    assert len(bomb) < 1000
    await refused(START + bomb, "verify")


async def test_a_file_of_another_name_is_not_it() -> None:
    disk = await a_disk()
    other = snapshots.path_of(DIRECTORY, SnapshotId(121, 3))
    await put(disk, WHOLE, other)
    with pytest.raises(CorruptRecordError, match="its name another"):
        await snapshots.read_start(disk, other)


@pytest.mark.parametrize(("cluster_id", "generation"), [("c2", 1), ("c1", 2), ("c1", 0)])
async def test_a_download_of_another_history_is_refused(cluster_id: str, generation: int) -> None:
    disk = await a_disk()
    download = Download(disk, DIRECTORY, ID)
    await download.add(0, WHOLE, size=len(WHOLE))
    with pytest.raises(CorruptRecordError, match="this node is of"):
        await download.finish(cluster_id=cluster_id, quorum_generation=generation)
    assert await disk.list(DIRECTORY) == []


async def test_a_download_of_a_history_that_began_otherwise_is_refused() -> None:
    """Two clusters may have one id. A node that does not know its own history takes either."""
    disk = await a_disk()
    content = await written(events_of(9))
    download = Download(disk, DIRECTORY, ID)
    await download.add(0, content, size=len(content))
    with pytest.raises(CorruptRecordError, match="bootstrap"):
        await download.finish(cluster_id="c1", quorum_generation=1, bootstrap_hash=b"o" * 32)
    for known in (b"", b"h" * 32):
        download = Download(disk, DIRECTORY, ID)
        await download.add(0, content, size=len(content))
        await download.finish(cluster_id="c1", quorum_generation=1, bootstrap_hash=known)
        await disk.remove(PATH)


async def test_a_snapshot_may_be_written_while_the_same_one_is_fetched() -> None:
    """A voter that has downloaded half of a snapshot may take the same one itself."""
    disk = await a_disk()
    content = await written(events_of(9))
    download = Download(disk, DIRECTORY, ID)
    await download.add(0, content[:50], size=len(content))

    writing = asyncio.ensure_future(
        snapshots.write_snapshot(disk, DIRECTORY, start_of(), events_of(900))
    )
    await asyncio.sleep(0)  # the first batch is written
    assert not writing.done()
    await download.discard()
    await writing
    await snapshots.verify(disk, PATH)


async def test_chunks_come_in_order_and_another_leader_sends_the_rest() -> None:
    disk = await a_disk()
    content = await written(events_of(500))
    download = Download(disk, DIRECTORY, ID)
    for position in range(0, len(content), 700):
        assert download.position == position
        assert not download.is_complete
        chunk = content[position : position + 700]
        await download.add(position, chunk, size=len(content))
    assert download.is_complete

    assert await download.finish(cluster_id="c1", quorum_generation=1) == start_of()
    assert disk.content(PATH) == content
    assert await disk.list(DIRECTORY) == [PATH.rpartition("/")[2]]


@pytest.mark.parametrize(
    ("position", "data", "size"),
    [
        (0, b"x", 100),
        (11, b"x", 100),
        (-1, b"x", 100),
        (1 << 62, b"x", 100),
        (10, b"x", 99),
        (10, b"x", 101),
        (10, b"x", 0),
        (10, b"x", -1),
        (10, b"x", 1 << 62),
        (10, b"", 100),
        (10, b"x" * 91, 100),
    ],
)
async def test_a_chunk_that_does_not_fit_changes_nothing(
    position: int, data: bytes, size: int
) -> None:
    disk = await a_disk()
    download = Download(disk, DIRECTORY, ID)
    await download.add(0, b"y" * 10, size=100)

    with pytest.raises(CorruptRecordError, match="chunk"):
        await download.add(position, data, size=size)

    assert (download.position, download.size) == (10, 100)
    assert disk.content(PATH + ".fetched.part") == b"y" * 10


async def test_a_first_chunk_may_not_say_a_size_that_is_none() -> None:
    download = Download(await a_disk(), DIRECTORY, ID)
    for size in (0, -1, snapshots.SNAPSHOT_BYTES_MAX + 1):
        with pytest.raises(CorruptRecordError, match="possible"):
            await download.add(0, b"x", size=size)
    assert download.size is None


async def test_a_full_disk_leaves_no_part_behind() -> None:
    disk = await a_disk()
    disk.fill(3000)
    with pytest.raises(OSError, match="no space"):
        await snapshots.write_snapshot(disk, DIRECTORY, start_of(), events_of(2000))
    assert await disk.list(DIRECTORY) == []


async def test_a_sync_that_fails_gives_no_name() -> None:
    """After a failed sync the bytes are worth nothing."""
    disk = await a_disk()
    disk.fail_next_sync()
    with pytest.raises(OSError):  # noqa: PT011
        await snapshots.write_snapshot(disk, DIRECTORY, start_of(), events_of(20))
    assert await snapshots.newest(disk, DIRECTORY) is None


class Crash(OSError):
    """The process or the machine ends in the middle of an operation."""


Doing = Callable[[SimulatedDisk], Awaitable[object]]


async def write_it(disk: SimulatedDisk) -> None:
    await snapshots.write_snapshot(disk, DIRECTORY, start_of(), events_of(900))
    await snapshots.remove_older(disk, DIRECTORY, ID)


async def download_it(disk: SimulatedDisk) -> None:
    content = await written(events_of(900))
    download = Download(disk, DIRECTORY, ID)
    half = len(content) // 2
    await download.add(0, content[:half], size=len(content))
    await download.add(half, content[half:], size=len(content))
    await download.finish(cluster_id="c1", quorum_generation=1)
    await snapshots.remove_older(disk, DIRECTORY, ID)


@pytest.mark.parametrize("by_power", [False, True], ids=["process", "power"])
@pytest.mark.parametrize("doing", [write_it, download_it])
async def test_a_crash_at_any_point_leaves_the_old_snapshot_or_the_new_one_whole(
    doing: Doing, by_power: bool
) -> None:
    """Temporary file, sync, rename, sync of the directory; what has the name is whole."""
    points = 0
    for crash_at in itertools.count(1):
        for seed in range(6 if by_power else 2):
            disk = await a_disk(seed)
            old = SnapshotId(40, 2)
            await snapshots.write_snapshot(disk, DIRECTORY, start_of(old), events_of(5))
            crashed = await crash_in(doing, disk, crash_at, by_power=by_power)
            found = await snapshots.list_snapshots(disk, DIRECTORY)
            assert found, "there is always one"
            for one in found:
                await snapshots.verify(disk, snapshots.path_of(DIRECTORY, one), decode=True)
            if not crashed:
                assert found == [ID]
                disk.lose_power()
                await snapshots.verify(disk, PATH)
        if not crashed:
            break
        points += 1
    assert points >= 6, points


async def crash_in(doing: Doing, disk: SimulatedDisk, crash_at: int, *, by_power: bool) -> bool:
    operations = 0

    def hook(name: str, path: str) -> None:
        nonlocal operations
        operations += 1
        if operations == crash_at:
            if by_power:
                disk.lose_power()
            else:
                disk.crash_process()
            raise Crash

    disk.hook = hook
    try:
        await doing(disk)
    except OSError:
        crashed = operations >= crash_at
        assert crashed
    else:
        crashed = False
    disk.hook = None
    return crashed


async def test_the_log_refuses_what_only_a_snapshot_has() -> None:
    for event in (*begin(), *finish(1, 1)):
        with pytest.raises(CorruptRecordError, match="only a snapshot"):
            decode_events(encode_events([event], base_offset=0, epoch=0, timestamp_ms=0))
    assert issubclass(CorruptRecordError, QuorateError)
