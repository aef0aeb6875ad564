"""One pass over one log, as a value: what the broker asks of a worker, and the worker's reports.

Jobs and reports are lines of JSON, because the worker is another process.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from quorate_quorum.log.checksum import SegmentChecksum


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A pass over the segments of one log. The oldest segment is first."""

    directory: str
    #: (base offset, end offset, size in bytes) of each segment that may be compacted.
    segments: tuple[tuple[int, int, int], ...]
    #: All records below this offset were compacted by an earlier pass.
    first_dirty: int
    now_ms: int
    delete_retention_ms: int
    may_drop_tombstones: bool
    segment_bytes: int
    index_interval_bytes: int
    #: The leader_epochs of the log, each with the offset at which it begins.
    epochs: tuple[tuple[int, int], ...]
    #: (producer_id, base offset of its oldest remembered batch).
    producers: tuple[tuple[int, int], ...]
    map_bytes: int
    #: -1: no limit.
    bytes_per_second: int
    #: 16 random bytes, in hexadecimal digits.
    salt: str
    #: Whether a record waits longer than `max.compaction.lag.ms`.
    is_overdue: bool = False

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Job:
        values = json.loads(line)
        for name in ("segments", "epochs", "producers"):
            values[name] = tuple(tuple(row) for row in values[name])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A new segment is complete and synced, in a file with the ending `.cleaned`.

    The broker then replaces the old segments by it.
    """

    new: SegmentChecksum
    old_bytes: int


@dataclass(frozen=True, slots=True)
class Done:
    """The pass is over. All records below `end` are compacted."""

    end: int
    records: int
    dropped: int
    without_key: int
    not_decoded: int
    #: The bytes that were read and written.
    bytes_moved: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The pass ended with an error."""

    reason: str
    #: Whether the reason is a damaged batch.
    is_corrupt: bool = False


Report = Cleaned | Done | Failed


def encode(report: Report) -> bytes:
    """Return a report as a line."""
    return json.dumps({"kind": type(report).__name__, **asdict(report)}).encode() + b"\n"


def decode(line: bytes) -> Report:
    """Return the report in a line."""
    values = json.loads(line)
    kind = values.pop("kind")
    if kind == "Cleaned":
        new = values["new"]
        blocks = tuple((stop, crc) for stop, crc in new.pop("blocks"))
        return Cleaned(SegmentChecksum(**new, blocks=blocks), values["old_bytes"])
    return Done(**values) if kind == "Done" else Failed(**values)
