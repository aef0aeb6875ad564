"""Events of the metadata log as record batches, and back.

Each record's value is one MetadataEvent; each batch is one Outcome. The module is in the log room
because two higher rooms import it: Raft, which encodes proposals, and metadata, which decodes
committed batches.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from quorate.errors import CorruptRecordError
from quorate.record import batch as record_batch
from quorate_quorum.node.features import Known, check_level
from quorate_quorum.v1.events_pb2 import MetadataEvent

Buffer = bytes | bytearray | memoryview

#: The most bytes of events in one batch that is read. An Outcome has at most 4 MiB.
EVENTS_BYTES_MAX = 64 * 1024 * 1024


def encode_events(
    events: Sequence[MetadataEvent], *, base_offset: int, epoch: int, timestamp_ms: int
) -> bytes:
    """Return one batch of one or more events. The same events give the same bytes."""
    assert events, "a batch has at least one event"
    builder = record_batch.BatchBuilder()
    for event in events:
        builder.append(timestamp_ms, None, event.SerializeToString(deterministic=True))
    return builder.build(base_offset=base_offset, leader_epoch=epoch)


#: The events at the two ends of a snapshot file (snapshots/file.py). No other file has them.
SNAPSHOT_ENDS = ("snapshot_start", "snapshot_end")


def decode_events(
    batch: Buffer, known: Known | None = None, *, snapshot_ends: bool = False
) -> list[MetadataEvent]:
    """Return the events of one whole batch, after a check of its CRC.

    CorruptRecordError if the bytes are not a batch of events that this program knows.
    CorruptRecordError if they hold one of SNAPSHOT_ENDS and `snapshot_ends` is false.
    UnknownLevelError if they set a feature to a level that is not in `known` (None: not checked).
    """
    header = record_batch.check(batch)
    events: list[MetadataEvent] = []
    for record in record_batch.records(batch, header, size_max=EVENTS_BYTES_MAX):
        try:
            event = MetadataEvent.FromString(record.value or b"")
        except DecodeError as error:
            raise CorruptRecordError(
                f"record {record.offset} of the metadata log: {error}"
            ) from None
        kind = event.WhichOneof("event")
        if kind is None:
            raise CorruptRecordError(
                f"record {record.offset} of the metadata log is of no kind known here"
                " (was it written by a newer version?)"
            )
        if kind in SNAPSHOT_ENDS and not snapshot_ends:
            raise CorruptRecordError(
                f"record {record.offset} of the metadata log is a {kind}: only a snapshot has one"
            )
        # Check the level before later events are decoded: at a new level they may be of a new kind.
        if known is not None and event.HasField("feature"):
            check_level(known, event.feature.name, event.feature.level)
        events.append(event)
    if len(events) != header.end_offset - header.base_offset:
        raise CorruptRecordError(
            f"metadata batch at {header.base_offset} has holes: {len(events)} events"
        )
    return events
