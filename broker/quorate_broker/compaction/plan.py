"""Decides which range of one log may be compacted, and whether that is worth its cost.

A machine. The rules are Kafka's:

* Only closed segments below the high watermark are compacted. A record above the high watermark may
  be cut later. If compaction had removed the older record of the same key, both would be gone.
* A segment with a record younger than `min.compaction.lag.ms` waits, and so do all segments after
  it. A record further in the future than `message.timestamp.after.max.ms` allows came under other
  settings or another clock, and would keep the log waiting for ever. The age of its segment is the
  time since the last change of its file, as in retention; after a pass the segment waits no more.
* The log is compacted when the bytes that no pass has read are at least `min.cleanable.dirty.ratio`
  of all bytes that may be compacted, or when a record in them is older than
  `max.compaction.lag.ms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quorate_quorum.log.segment import RELATIVE_MAX
from quorate_quorum.log.segments import SegmentInfo


@dataclass(frozen=True, slots=True)
class Lags:
    """The settings of a topic that say when its logs are compacted."""

    min_dirty_ratio: float
    min_lag_ms: int
    max_lag_ms: int
    #: How far in the future a record's timestamp may lie.
    future_max_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A range to compact: all segments that end at or below `end`."""

    #: The bytes that a pass reads, and the share of them that no pass has read before.
    size: int
    dirty_ratio: float
    #: All records below this offset were compacted before.
    first_dirty: int
    end: int
    #: Whether a record waits longer than `max.compaction.lag.ms`.
    is_overdue: bool = False


def plan_for(
    segments: Sequence[SegmentInfo],
    *,
    first_dirty: int,
    high_watermark: int,
    oldest_dirty_ms: int | None,
    now_ms: int,
    lags: Lags,
) -> Plan | None:
    """Return what to compact of a log now; None: nothing.

    `segments` are those of the log; the active one is last. `oldest_dirty_ms` is the timestamp of
    the first record that no pass has read; None: not known.
    """
    cleanable = []
    for segment in segments[:-1]:
        is_young = _is_young(segment, lags, first_dirty=first_dirty, now_ms=now_ms)
        if segment.end_offset > high_watermark or is_young:
            break
        cleanable.append(segment)
    dirty = [segment for segment in cleanable if segment.end_offset > first_dirty]
    if not dirty:
        return None
    size = sum(segment.size for segment in cleanable)
    ratio = sum(segment.size for segment in dirty) / max(size, 1)
    is_overdue = oldest_dirty_ms is not None and is_older(oldest_dirty_ms, lags.max_lag_ms, now_ms)
    if ratio < lags.min_dirty_ratio and not is_overdue:
        return None
    return Plan(
        size, ratio, max(first_dirty, dirty[0].base_offset), cleanable[-1].end_offset, is_overdue
    )


def _is_young(segment: SegmentInfo, lags: Lags, *, first_dirty: int, now_ms: int) -> bool:
    """Return whether a segment has to wait for `min.compaction.lag.ms`."""
    if lags.min_lag_ms <= 0:
        return False
    if segment.max_timestamp > now_ms + lags.future_max_ms:
        return segment.end_offset > first_dirty and segment.unchanged_ms < lags.min_lag_ms
    return segment.max_timestamp > now_ms - lags.min_lag_ms


def is_older(timestamp_ms: int, lag_ms: int, now_ms: int) -> bool:
    """Return whether a record waits longer than `lag_ms`; False for a record without a timestamp.

    >>> is_older(1000, 50, 1051), is_older(1000, 50, 1050), is_older(-1, 50, 1051)
    (True, False, False)
    """
    return timestamp_ms >= 0 and now_ms - timestamp_ms > lag_ms


def groups(
    segments: Sequence[SegmentInfo], *, bytes_max: int, span_max: int = RELATIVE_MAX
) -> list[list[SegmentInfo]]:
    """Group neighbours that certainly fit into one segment after the pass, by bytes and by offsets.

    >>> infos = [SegmentInfo(n, n + 10, 40, -1, 0) for n in (0, 10, 20)]
    >>> [[one.base_offset for one in group] for group in groups(infos, bytes_max=100)]
    [[0, 10], [20]]
    """
    found: list[list[SegmentInfo]] = []
    size = 0
    for segment in segments:
        fits = (
            bool(found)
            and size + segment.size <= bytes_max
            and segment.end_offset - 1 - found[-1][0].base_offset <= span_max
        )
        if fits:
            found[-1].append(segment)
            size += segment.size
        else:
            found.append([segment])
            size = segment.size
    return found
