"""What may be compacted, and when it is worth its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quorate_broker.compaction.plan import Lags, Plan, groups, plan_for
from quorate_quorum.log.segments import SegmentInfo

FOREVER = 1 << 62
NOW_MS = 1_000_000
#: Segments of 100 bytes from 0, 10, 20 and 30 on; the last one is active.
FOUR = [SegmentInfo(base, base + 10, 100, base, 0) for base in (0, 10, 20, 30)]


def plan(
    segments: Sequence[SegmentInfo] = FOUR,
    *,
    first_dirty: int = 0,
    high_watermark: int = 40,
    oldest_dirty_ms: int | None = None,
    **lags: Any,
) -> Plan | None:
    values = {
        "min_dirty_ratio": 0.5,
        "min_lag_ms": 0,
        "max_lag_ms": FOREVER,
        "future_max_ms": 100,
    } | lags
    return plan_for(
        segments,
        first_dirty=first_dirty,
        high_watermark=high_watermark,
        oldest_dirty_ms=oldest_dirty_ms,
        now_ms=NOW_MS,
        lags=Lags(**values),
    )


def test_the_active_segment_is_never_compacted() -> None:
    assert plan() == Plan(300, 1.0, 0, 30)
    assert plan(FOUR[:1]) is None


def test_nothing_above_the_high_watermark_is_compacted() -> None:
    assert plan(high_watermark=29) == Plan(200, 1.0, 0, 20)
    assert plan(high_watermark=30) == Plan(300, 1.0, 0, 30)
    assert plan(high_watermark=9) is None


def test_a_log_waits_until_enough_of_it_is_dirty() -> None:
    assert plan(first_dirty=20, min_dirty_ratio=0.34) is None
    assert plan(first_dirty=20, min_dirty_ratio=0.33) == Plan(300, 1 / 3, 20, 30)
    assert plan(first_dirty=30, min_dirty_ratio=0.0) is None, "nothing is dirty"


def test_a_young_segment_waits_and_so_do_all_after_it() -> None:
    young = SegmentInfo(10, 20, 100, NOW_MS - 50, 0)
    segments = [FOUR[0], young, *FOUR[2:]]
    assert plan(segments, min_lag_ms=51) == Plan(100, 1.0, 0, 10)
    assert plan(segments, min_lag_ms=50) == Plan(300, 1.0, 0, 30)


def test_a_record_of_the_far_future_does_not_keep_the_log_from_compaction_for_ever() -> None:
    def planned(timestamp_ms: int, unchanged_ms: int, first_dirty: int = 0) -> Plan | None:
        segments = [SegmentInfo(0, 10, 100, timestamp_ms, unchanged_ms), *FOUR[1:]]
        return plan(segments, min_lag_ms=50, first_dirty=first_dirty)

    near, far = NOW_MS + 100, NOW_MS + 101
    assert planned(near, 1000) is None, "the topic allows such timestamps"
    assert planned(far, 49) is None
    assert planned(far, 50) == Plan(300, 1.0, 0, 30)
    assert planned(far, 0, first_dirty=10) == Plan(300, 2 / 3, 10, 30), (
        "a pass has renewed the file"
    )


def test_a_record_that_waits_too_long_is_compacted_whatever_the_share() -> None:
    assert plan(first_dirty=20, oldest_dirty_ms=NOW_MS - 100, max_lag_ms=100) is None
    overdue = plan(first_dirty=20, oldest_dirty_ms=NOW_MS - 101, max_lag_ms=100)
    assert overdue == Plan(300, 1 / 3, 20, 30, is_overdue=True)


def test_small_neighbours_become_one_segment() -> None:
    def bases(**bounds: int) -> list[list[int]]:
        return [[one.base_offset for one in group] for group in groups(FOUR, **bounds)]

    assert bases(bytes_max=1000) == [[0, 10, 20, 30]]
    assert bases(bytes_max=200) == [[0, 10], [20, 30]]
    assert bases(bytes_max=99) == [[0], [10], [20], [30]]
    assert bases(bytes_max=1000, span_max=19) == [[0, 10], [20, 30]]
    assert bases(bytes_max=1000, span_max=18) == [[0], [10], [20], [30]]
