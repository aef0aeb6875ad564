"""Directories of nodes as the offline tools find them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from quorate.record.batch import BatchBuilder, parse_header
from quorate.record.compression import NONE
from quorate_broker.files.replica_files import PartitionMetadata
from quorate_broker.replica.producers import Producers
from quorate_cli.app import app
from quorate_cli.node_disks import format_voters
from quorate_quorum.log import run_file
from quorate_quorum.log.checksum import Checksummer
from quorate_quorum.log.log import Log, LogConfig
from quorate_quorum.log.real_disk import RealDisk
from quorate_quorum.log.replacement import CLEANED
from quorate_quorum.log.segment import LOG, file_name
from quorate_quorum.raft.driver.quorum_state import encode_state
from quorate_quorum.raft.machine.hard_state import HardState
from quorate_quorum.raft.machine.voters import ReplicaKey
from quorate_quorum.snapshots import file as snapshot
from quorate_quorum.v1 import events_pb2 as ev

#: A file of every kind, to be damaged.
DAMAGED = (
    "t-0/00000000000000000000.log",
    "t-0/leader-epoch-checkpoint",
    "t-0/partition.metadata",
    "t-0/synced",
    "t-0/*.snapshot",
    "t-0/*.index",
    "t-0/*.timeindex",
    "meta.properties",
    "run",
    "__cluster_metadata-0/quorum-state",
    "__cluster_metadata-0/*.snapshot",
    "__cluster_metadata-0/00000000000000000000.log",
)


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def dumped(*words: object) -> list[dict[str, Any]]:
    lines = run("storage", "dump", "-o", "json", *map(str, words)).stdout.splitlines()
    return [json.loads(line) for line in lines]


def batch(
    offset: int, count: int, epoch: int, *, producer_id: int = -1, codec: int = NONE
) -> bytes:
    builder = BatchBuilder(
        codec=codec,
        producer_id=producer_id,
        producer_epoch=0 if producer_id >= 0 else -1,
        base_sequence=offset if producer_id >= 0 else -1,
    )
    for index in range(count):
        builder.append(1000 + offset + index, b"k%d" % (offset + index), b"v" * 100)
    return builder.build(base_offset=offset, leader_epoch=epoch)


async def make_partition(directory: Path, batches: int = 60) -> None:
    """A partition of three segments and two epochs, stopped cleanly."""
    disk = RealDisk()
    log = await Log.open(
        disk,
        str(directory),
        LogConfig(segment_bytes=8000, index_interval_bytes=500),
        observer=Producers(),
    )
    for number in range(batches):
        data = batch(number * 3, 3, 1 if number < batches // 2 else 4, producer_id=7)
        await log.append([(parse_header(data), (data,))])
    await log.sync()
    await log.checkpoint_high_watermark(log.log_end_offset, 4)
    await log.close(clean=True)
    disk.close()
    (directory / "partition.metadata").write_bytes(PartitionMetadata(b"t" * 16, "c1", 1).encode())


async def make_voter(directory: Path) -> None:
    """A formatted voter with a vote, a run and a snapshot."""
    await format_voters("c1", [(1, "v1:9", str(directory))])
    disk = RealDisk()
    await run_file.begin_run(disk, str(directory))
    metadata = directory / "__cluster_metadata-0"
    (metadata / "quorum-state").write_bytes(
        encode_state(HardState(5, ReplicaKey(1, b"d" * 16), False, 2))
    )
    start = ev.SnapshotStart(version=1, offset=2, epoch=0, cluster_id="c1", quorum_generation=1)
    topic = ev.MetadataEvent(topic=ev.Topic(topic_id=b"t" * 16, name="orders"))
    await snapshot.write_snapshot(disk, str(metadata), start, [topic])
    disk.close()


def snapshot_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


async def compact_partition(directory: Path) -> None:
    """Let compaction remove three of four batches of the first two segments."""
    disk = RealDisk()
    log = await Log.open(disk, str(directory), LogConfig(segment_bytes=8000))
    first, second = (await log.segments())[:2]
    made = Checksummer(first.base_offset)
    path = f"{directory}/{file_name(first.base_offset, LOG)}{CLEANED}"
    file = await disk.open(path, create=True)
    offset = first.base_offset
    while offset < second.end_offset:
        data = await log.read(offset, end=second.end_offset, bytes_max=1)
        header = parse_header(data)
        offset = header.end_offset
        if header.base_offset in (0, 90) or offset == second.end_offset or offset % 4 == 0:
            made.add(header)
            await file.append((data,))
    await file.sync()
    await file.close()
    assert await log.compaction.replace_segments(made.result(), log.truncations)
    await log.compaction.note_cleaned(second.end_offset)
    await log.close(clean=True)
    disk.close()


async def trim_partition(directory: Path, offset: int) -> None:
    """Let the log begin at an offset, as a deletion of records does."""
    disk = RealDisk()
    log = await Log.open(disk, str(directory), LogConfig(segment_bytes=8000))
    await log.move_start(offset)
    await log.remove_below_start()
    await log.close(clean=True)
    disk.close()
