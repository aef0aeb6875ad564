"""Builders for the tests of damage: logs of several segments, plain and compacted."""

from __future__ import annotations

from collections.abc import Sequence

from quorate.record.batch import BatchBuilder, BatchHeader, parse_header, split
from quorate_quorum.log.checksum import Checksummer
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.segment import LOG, file_name
from quorate_testing.simulated.disk import SimulatedDisk
from tests.unit.quorate_quorum.log.builders import PATH, Seen, new_disk

#: A batch has three records, so a wrong base_offset may still lie inside the right batch.
COUNT = 3
BATCHES = 48
#: Several index entries a segment, several segments a log.
CONFIG = LogConfig(segment_bytes=1500, index_interval_bytes=250)


def batch_at(offset: int, epoch: int, value: bytes = b"value") -> tuple[BatchHeader, list[bytes]]:
    builder = BatchBuilder()
    for number in range(COUNT):
        builder.append(offset + number, b"key %d" % (offset + number), value)
    data = builder.build(base_offset=offset, leader_epoch=epoch)
    return parse_header(data), [data]


async def written(disk: SimulatedDisk) -> Log:
    """Return a log whose epoch grows now and then."""
    log = await Log.open(disk, PATH, CONFIG, observer=Seen())
    for number in range(BATCHES):
        await log.append([batch_at(number * COUNT, epoch=1 + number // 20)])
    return log


async def compact(disk: SimulatedDisk, log: Log) -> None:
    """Take batches out of every closed segment; its first and its last one stay."""
    for info in (await log.segments())[:-1]:
        path = f"{PATH}/{file_name(info.base_offset, LOG)}"
        batches = list(split(disk.content(path)))
        kept = [batches[0], *batches[2:-1:2], batches[-1]]
        made = Checksummer(info.base_offset)
        file = await disk.open(f"{path}.cleaned", create=True)
        for header, data in kept:
            made.add(header)
            await file.append((data,))
        await file.sync()
        await file.close()
        assert await log.compaction.replace_segments(made.result(), log.truncations)


async def closed_log(kind: str) -> tuple[SimulatedDisk, dict[int, bytes]]:
    """Return the disk of a log that was closed, and base offset -> batch of all that it has."""
    disk = await new_disk()
    log = await written(disk)
    if kind == "compacted":
        await compact(disk, log)
    await log.close(clean=True)
    found: dict[int, bytes] = {}
    for path in log_files(disk):
        found.update(
            (header.base_offset, bytes(data)) for header, data in split(disk.content(path))
        )
    return disk, found


def log_files(disk: SimulatedDisk) -> list[str]:
    return [path for path, size in disk.files() if path.endswith(LOG) and size]


def starts(content: bytes) -> Sequence[int]:
    found = [0]
    for header, _ in split(content):
        found.append(found[-1] + header.size)
    return found[:-1]
