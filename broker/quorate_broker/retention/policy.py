"""Decides which old segments of a log are deleted, by time and by size.

Names and rules are Kafka's.

* Whole segments are deleted, the oldest first. The active segment stays. Every segment that is not
  completely below the high watermark stays, too.
* By time, a segment is deleted when its newest record is older than retention.ms. The first segment
  that is younger ends the search: the order of the log counts, and not the order of the timestamps.
* By size, a segment is deleted if the segments after it still have retention.bytes.
* The age of a segment without timestamps is the time since the last change of its file. The same
  holds for a segment with a timestamp further in the future than message.timestamp.after.max.ms
  allows: such a record came under other settings or another clock, and would otherwise keep the log
  for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quorate_quorum.configs import TopicConfig
from quorate_quorum.log.segments import SegmentInfo


class NewStart(NamedTuple):
    """The offset at which the log should begin, and the setting that says so."""

    offset: int
    reason: str


def new_start(
    segments: Sequence[SegmentInfo], config: TopicConfig, *, now_ms: int, high_watermark: int
) -> NewStart | None:
    """Return where the log should begin; None: the start does not move.

    `segments` are all segments of the log. The oldest is first.
    """
    if not config.deletes:
        return None
    deletable = _committed(segments, high_watermark)
    by_time = _older(deletable, config, now_ms)
    by_size = _beyond(deletable, sum(one.size for one in segments), config.retention_bytes)
    count = max(by_time, by_size)
    if not count:
        return None
    reason = "retention.bytes" if by_size > by_time else "retention.ms"
    return NewStart(segments[count].base_offset, reason)


def age_ms(segment: SegmentInfo, config: TopicConfig, now_ms: int) -> int:
    """Return the age of a segment's newest record in milliseconds; negative for the near future."""
    latest_ms = now_ms + config.message_timestamp_after_max_ms
    if 0 <= segment.max_timestamp <= latest_ms:
        return now_ms - segment.max_timestamp
    return segment.unchanged_ms


def _committed(segments: Sequence[SegmentInfo], high_watermark: int) -> Sequence[SegmentInfo]:
    """Return the closed segments, from the oldest on, whose records are all committed."""
    closed = segments[:-1]
    count = sum(segment.end_offset <= high_watermark for segment in closed)
    return closed[:count]


def _older(segments: Sequence[SegmentInfo], config: TopicConfig, now_ms: int) -> int:
    """Return how many segments are older than retention.ms."""
    if config.retention_ms < 0:
        return 0
    for count, segment in enumerate(segments):
        if age_ms(segment, config, now_ms) <= config.retention_ms:
            return count
    return len(segments)


def _beyond(segments: Sequence[SegmentInfo], size: int, bytes_kept: int) -> int:
    """Return how many segments can be deleted while at least `bytes_kept` of `size` bytes stay."""
    if bytes_kept < 0:
        return 0
    for count, segment in enumerate(segments):
        if size - segment.size < bytes_kept:
            return count
        size -= segment.size
    return len(segments)
