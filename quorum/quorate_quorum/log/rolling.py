"""Decides when the active segment is closed and a new one begins."""

from __future__ import annotations

from dataclasses import dataclass

from quorate_quorum.log.config import LogConfig
from quorate_quorum.log.segment import RELATIVE_MAX


@dataclass(slots=True, kw_only=True)
class Active:
    """The active segment, as `why_roll` needs it.

    Each append makes one. A frozen one takes twice as long to make (0.7 instead of 0.3 us).
    """

    base_offset: int
    end_offset: int
    size: int
    #: Milliseconds since its first record was appended, by this node's clock. The timestamps of
    #: records do not count: an old timestamp would close each segment at once.
    age_ms: int
    #: Whether one of the segment's indexes is as large as an index may be.
    is_index_full: bool


def why_roll(
    active: Active,
    config: LogConfig,
    *,
    log_start: int = 0,
    adding_bytes: int = 0,
    adding_end: int = 0,
) -> str:
    """Return why the active segment must be closed; "" if it need not be.

    `adding_bytes` is the size of the append that is to come; 0 if there is none.

    >>> active = Active(base_offset=5, end_offset=9, size=90, age_ms=50, is_index_full=False)
    >>> config = LogConfig(segment_bytes=100, segment_ms=50)
    >>> why_roll(active, LogConfig(segment_bytes=100), adding_bytes=11, adding_end=10)
    'size'
    >>> why_roll(active, config), why_roll(active, LogConfig(segment_bytes=100), log_start=9)
    ('age', 'start')
    >>> why_roll(active, LogConfig(), adding_bytes=1, adding_end=(1 << 31) + 6)
    'offsets'
    """
    if not active.size:
        return ""
    if adding_bytes and active.size + adding_bytes > config.segment_bytes:
        return "size"
    if active.age_ms >= config.segment_ms:
        return "age"
    if adding_bytes and adding_end - 1 - active.base_offset > RELATIVE_MAX:
        return "offsets"
    if active.is_index_full:
        return "index"
    if not adding_bytes and log_start >= active.end_offset:
        return "start"  # all its records are below the start: close it, so that it can be removed
    return ""
