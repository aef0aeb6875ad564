"""The content of a node's files as rows: one row for each event, batch, record or entry.

Files are read in pieces, because a file may claim any size. The memory is bounded by a chunk of a
scan, by one batch, or by the limit of a small file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from typing import Any

from quorate.errors import CorruptRecordError, QuorateError
from quorate.record import batch as record_batch
from quorate.record import compression
from quorate.record.batch import BatchHeader
from quorate_broker.files import inventory
from quorate_broker.files.replica_files import PartitionMetadata
from quorate_broker.replica.producers import producers_in
from quorate_cli.event_fields import fields_of
from quorate_cli.inspect import content
from quorate_cli.inspect.node_files import is_metadata_log, kind_of
from quorate_quorum.disk import Disk, read_whole
from quorate_quorum.log import run_file
from quorate_quorum.log.checksum import SegmentChecksum
from quorate_quorum.log.events import decode_events
from quorate_quorum.log.identity import read_identity
from quorate_quorum.log.index import OFFSET_ENTRY, TIME_ENTRY
from quorate_quorum.log.segment import INDEX, TIME_INDEX, offset_of
from quorate_quorum.node.config import ConfigError
from quorate_quorum.raft.driver.quorum_state import decode_state
from quorate_quorum.snapshots import file as snapshot

Row = dict[str, Any]


def fault(file: str, position: int | None, what: str) -> Row:
    """Return the row of a fault.

    `position` is the byte at which the fault is; None: the whole file is at fault.
    """
    return {"kind": "fault", "file": file, "position": position, "what": what}


def file_row(path: str) -> Row:
    """Return the row that comes before the rows of a file in a directory."""
    return {"kind": "file", "path": path, "type": kind_of(path), "size": os.path.getsize(path)}


def show(row: Row, *, as_json: bool) -> None:
    """Print one row: as a JSON document, or as its kind followed by name=value pairs."""
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    words = [f"{name}={_word(value)}" for name, value in row.items() if name != "kind"]
    sys.stdout.write(" ".join((row["kind"], *words)) + "\n")


def _word(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        return value
    return json.dumps(value, ensure_ascii=False)


@dataclass(slots=True)
class Bounds:
    """The part of a log to show."""

    from_offset: int = 0
    #: How many events or batches may still be shown; None: all.
    count: int | None = None
    with_records: bool = False
    #: Whether to read a segment as one of the metadata log, although its directory does not say so.
    metadata: bool = False

    @property
    def is_spent(self) -> bool:
        """Whether `count` events or batches have been shown."""
        return self.count is not None and self.count <= 0

    def take(self) -> None:
        """Count one event or batch as shown."""
        if self.count is not None:
            self.count -= 1


async def rows_of(disk: Disk, path: str, bounds: Bounds) -> AsyncGenerator[Row, None]:
    """Yield the content of a file as rows. A row of kind `fault` says where it cannot be read."""
    try:
        async for row in _READERS[kind_of(path)](disk, path, bounds):
            yield row
    except (content.DamagedError, QuorateError, ConfigError) as error:
        yield fault(path, None, str(error))


async def _segment_rows(disk: Disk, path: str, bounds: Bounds) -> AsyncGenerator[Row, None]:
    segment = await content.open_segment(disk, path)
    is_metadata = bounds.metadata or is_metadata_log(path)
    position = 0
    try:
        async for position, header, wrong in content.batches(segment):
            if bounds.is_spent:
                return
            if header.end_offset <= bounds.from_offset:
                continue
            if wrong is not None:
                yield fault(path, position, wrong)
            elif is_metadata:
                batch = await segment.file.read_at(position, header.size)
                for row in event_rows(header, batch, bounds):
                    yield row
            else:
                bounds.take()
                yield batch_row(position, header)
                if bounds.with_records:
                    batch = await segment.file.read_at(position, header.size)
                    for record in record_batch.records(batch):
                        yield record_row(record)
            position += header.size
    except CorruptRecordError as error:
        yield fault(path, position, str(error))
    finally:
        await segment.file.close()


def event_rows(header: BatchHeader, batch: bytes, bounds: Bounds) -> list[Row]:
    """Return the rows of the events in one batch of metadata."""
    found = []
    for index, event in enumerate(decode_events(batch, snapshot_ends=True)):
        offset = header.base_offset + index
        if offset < bounds.from_offset or bounds.is_spent:
            continue
        bounds.take()
        kind = event.WhichOneof("event")
        assert kind is not None, "decode_events takes known events only"
        found.append(
            {
                "kind": "event",
                "offset": offset,
                "epoch": header.leader_epoch,
                "type": kind,
                "fields": fields_of(getattr(event, kind)),
            }
        )
    return found


def batch_row(position: int, header: BatchHeader) -> Row:
    """Return the row of a batch. It has the fields of the batch's header."""
    return {
        "kind": "batch",
        "position": position,
        "size": header.size,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "leader_epoch": header.leader_epoch,
        "records": header.count,
        "codec": compression.NAMES[header.codec],
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "timestamp_type": header.timestamp_type,
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "crc": f"{header.crc:08x}",
    }


def record_row(record: Any) -> Row:
    """Return the row of a record. Bytes that are not UTF-8 are escaped."""
    return {
        "kind": "record",
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": [[_text_of(name), _text_of(value)] for name, value in record.headers],
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def _text_of(data: str | bytes | None) -> str | None:
    return data if isinstance(data, str) else _text(data)


async def _snapshot_rows(disk: Disk, path: str, bounds: Bounds) -> AsyncGenerator[Row, None]:
    file = await disk.open(path)
    position = 0
    try:
        while position < file.size and not bounds.is_spent:
            head = await file.read_at(position, record_batch.HEADER_BYTES)
            size = record_batch.parse_header(head).size
            if size > min(snapshot.BATCH_BYTES_MAX, file.size - position):
                raise CorruptRecordError(
                    f"a batch says {size} bytes, and {file.size - position} are left"
                )
            batch = await file.read_at(position, size)
            for row in event_rows(record_batch.check(batch), batch, bounds):
                yield row
            position += size
    except CorruptRecordError as error:
        yield fault(path, position, str(error))
    finally:
        await file.close()
    if not bounds.is_spent and kind_of(path) == "snapshot":
        await snapshot.verify(disk, path)


async def _index_rows(disk: Disk, path: str, bounds: Bounds) -> AsyncGenerator[Row, None]:
    kind = kind_of(path)
    is_time = kind == "time-index"
    entry, ending = (TIME_ENTRY, TIME_INDEX) if is_time else (OFFSET_ENTRY, INDEX)
    base = offset_of(path.rpartition("/")[2], ending) or 0
    data = await content.small_file(disk, path)
    whole = len(data) - len(data) % entry.size
    for first, second in entry.iter_unpack(memoryview(data)[:whole]):
        last = base + (second if is_time else first)
        if last >= bounds.from_offset and not bounds.is_spent:
            bounds.take()
            if is_time:
                yield {"kind": kind, "timestamp": first, "last_offset": last}
            else:
                yield {"kind": kind, "last_offset": last, "position": second}
    if whole != len(data):
        raise content.DamagedError(f"{len(data) - whole} bytes at its end are no entry")


async def _epoch_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    for epoch, start in (await content.epochs_of(disk, path)).entries:
        yield {"kind": "epoch", "epoch": epoch, "start_offset": start}


async def _slot_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    value = await content.slots_of(disk, path)
    name = path.rpartition("/")[2]
    offset, epoch = value if value is not None else (None, None)
    yield {"kind": name, "offset": offset, "epoch": epoch}


async def _identity_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    found = await read_identity(disk, path.rpartition("/")[0] or ".")
    yield {
        "kind": "identity",
        "cluster_id": found.cluster_id,
        "node_id": found.node_id,
        "directory_id": found.directory_id.hex(),
        "quorum_generation": found.quorum_generation,
    }


async def _run_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    found = run_file.decode(path, await content.small_file(disk, path))
    if found is None:
        raise content.DamagedError(
            "its checksum does not fit: the next start trusts no unsynced write"
        )
    boot_id, sync_failed = found
    directory = path.rpartition("/")[0] or "."
    stopped = await disk.exists(f"{directory}/{run_file.MARKER_FILE}")
    yield {
        "kind": "run",
        "boot_id": boot_id,
        "sync_failed": sync_failed,
        "stopped_cleanly": stopped,
    }


async def _checksum_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    known = SegmentChecksum.decode(await content.small_file(disk, path))
    if known is None:
        raise content.DamagedError("its own checksum does not fit")
    yield {"kind": "segment-checksum", **asdict(known), "blocks": len(known.blocks)}


async def _quorum_state_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    state = decode_state(await content.small_file(disk, path))
    vote = state.voted_for
    yield {
        "kind": "quorum-state",
        "epoch": state.epoch,
        "voted_for": None if vote is None else vote.id,
        "voted_directory_id": None if vote is None else vote.directory_id.hex(),
        "is_behind": state.is_behind,
        "first_vote_epoch": state.first_vote_epoch,
    }


async def _inventory_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    written, damaged = inventory.decode(await read_whole(disk, path))
    if damaged:
        raise content.DamagedError(
            f"{damaged}: the next start takes every replica without a log for lost"
        )
    for topic_id, partition in written:
        yield {"kind": "inventory", "topic_id": topic_id.hex(), "partition": partition}


async def _partition_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    found = PartitionMetadata.decode(await content.small_file(disk, path))
    if found is None:
        raise content.DamagedError("it is not a whole partition.metadata (version 1)")
    yield {
        "kind": "partition-metadata",
        "topic_id": found.topic_id.hex(),
        "cluster_id": found.cluster_id,
        "quorum_generation": found.quorum_generation,
    }


async def _producer_rows(disk: Disk, path: str, bounds: Bounds) -> AsyncGenerator[Row, None]:
    offset, epoch, state = await content.producer_snapshot(disk, path)
    known = list(producers_in(state))
    yield {"kind": "producer-snapshot", "offset": offset, "epoch": epoch, "producers": len(known)}
    for one in known:
        if not bounds.is_spent:
            bounds.take()
            yield {
                "kind": "producer",
                "producer_id": one.producer_id,
                "producer_epoch": one.state.epoch,
                "silent_ms": one.silent_ms,
                "batches": [batch._asdict() for batch in one.state.batches],
            }


async def _marker_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    yield {"kind": "marker", "name": path.rpartition("/")[2], "size": await disk.size(path)}


async def _unknown_rows(disk: Disk, path: str, _: Bounds) -> AsyncGenerator[Row, None]:
    yield {"kind": "unknown", "size": await disk.size(path)}


_READERS: dict[str, Callable[[Disk, str, Bounds], AsyncGenerator[Row, None]]] = {
    "segment": _segment_rows,
    "offset-index": _index_rows,
    "time-index": _index_rows,
    "epochs": _epoch_rows,
    "slots": _slot_rows,
    "identity": _identity_rows,
    "run": _run_rows,
    "quorum-state": _quorum_state_rows,
    "partition-metadata": _partition_rows,
    "inventory": _inventory_rows,
    "producer-snapshot": _producer_rows,
    "snapshot": _snapshot_rows,
    "snapshot-part": _snapshot_rows,
    "segment-checksum": _checksum_rows,
    "compaction-part": _unknown_rows,
    "marker": _marker_rows,
    "unknown": _unknown_rows,
}
