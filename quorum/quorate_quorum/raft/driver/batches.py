"""Converts batches of the metadata log to the machine's Batch values, and events to batches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from google.protobuf.message import DecodeError

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate.record.batch import BatchHeader, parse_header
from quorate_quorum.log.events import EVENTS_BYTES_MAX, decode_events, encode_events
from quorate_quorum.metadata_log import epoch_started_by
from quorate_quorum.node.features import Known
from quorate_quorum.raft.machine.ledger import Batch, Below
from quorate_quorum.raft.machine.voters import Voter, VoterSet
from quorate_quorum.snapshots.file import SnapshotId
from quorate_quorum.v1.events_pb2 import EpochStart, MetadataEvent

Buffer = bytes | bytearray | memoryview

#: The first byte of an encoded MetadataEvent that holds Voters: field 2, length-delimited.
VOTERS_TAG = 0x12
FEATURE_TAG = 0x1A  # the first byte of a MetadataEvent that holds a Feature: field 3


def encode_batch(
    events: Sequence[MetadataEvent], base_offset: int, epoch: int, timestamp_ms: int
) -> Batch:
    """Return the events as one batch of the log."""
    data = encode_events(events, base_offset=base_offset, epoch=epoch, timestamp_ms=timestamp_ms)
    (batch,) = parse_batches(data)
    return batch


def encode_epoch_start(
    leader_id: int,
    wall_clock_ms: Callable[[], int],
    epoch: int,
    for_silence: bool,
    base_offset: int,
) -> Batch:
    """Return the batch with which a leader begins its epoch."""
    start = EpochStart(epoch=epoch, leader_id=leader_id, handed_over_for_silence=for_silence)
    event = MetadataEvent(epoch_start=start)
    return encode_batch([event], base_offset, epoch, wall_clock_ms())


def parse_batches(payload: Buffer, known: Known | None = None) -> tuple[Batch, ...]:
    """Return the whole batches in `payload`. CorruptRecordError if one is damaged.

    With `known`: UnknownLevelError if a batch sets a feature to a level that is not in `known`.
    """
    batches = []
    for header, view in record_batch.split(payload):
        data = bytes(view)
        record_batch.check(data, header)
        voters, started = _news(header, data, known)
        batches.append(
            Batch(header.base_offset, header.end_offset, header.leader_epoch, data, voters, started)
        )
    return tuple(batches)


def _news(
    header: BatchHeader, data: bytes, known: Known | None
) -> tuple[VoterSet | None, int | None]:
    """Return the newest voters in a batch, and the epoch that the batch begins; None if absent."""
    found = started = None
    for record in record_batch.records(data, header, size_max=EVENTS_BYTES_MAX):
        started = epoch_started_by(record.value, header) or started
        if known is not None and record.value and record.value[0] == FEATURE_TAG:
            decode_events(data, known)
        if not record.value or record.value[0] != VOTERS_TAG:
            continue
        try:
            event = MetadataEvent.FromString(record.value)
        except DecodeError as error:
            raise CorruptRecordError(f"a Voters event at {record.offset}: {error}") from None
        found = VoterSet(
            tuple(Voter(v.id, v.directory_id, v.endpoint) for v in event.voters.voters)
        )
        ids = [voter.id for voter in found.voters]
        if len(set(ids)) != len(ids):
            raise CorruptRecordError(f"the Voters event at {record.offset} names an id twice")
    return found, started


async def read_below(
    snapshot: SnapshotId, parts: AsyncGenerator[bytes, None], known: Known | None = None
) -> Below:
    """Read a snapshot's batches. Return what the machine must know of the snapshot.

    CorruptRecordError if no batch holds voters. UnknownLevelError as in parse_batches.
    """
    voters = VoterSet()
    async with aclosing(parts):
        async for part in parts:
            voters = _news(parse_header(part), part, known)[0] or voters
    if not voters.voters:
        raise CorruptRecordError(f"the snapshot at {snapshot.offset} names no voters")
    return Below(snapshot.offset, snapshot.epoch, voters)
