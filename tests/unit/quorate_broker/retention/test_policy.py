"""Which segments go, by time and by size, on segments of a few lines."""

from __future__ import annotations

import pytest

from quorate_broker.retention.policy import NewStart, new_start
from quorate_quorum.configs import TopicConfig
from quorate_quorum.log.segments import SegmentInfo

NOW_MS = 1_000_000
HOUR_MS = 3_600_000
#: Above the end of every log here.
ALL = 1_000


def segments(*newest: int, size: int = 100, unchanged_ms: int = 0) -> list[SegmentInfo]:
    """Return segments of ten records each, with these greatest timestamps; the last is active."""
    return [
        SegmentInfo(10 * number, 10 * number + 10, size, timestamp, unchanged_ms)
        for number, timestamp in enumerate(newest)
    ]


def start(
    held: list[SegmentInfo], high_watermark: int = ALL, **settings: str | int
) -> NewStart | None:
    texts = {name.replace("_", "."): str(value) for name, value in settings.items()}
    return new_start(held, TopicConfig.of(texts, {}), now_ms=NOW_MS, high_watermark=high_watermark)


def test_segments_go_when_their_newest_record_is_older_than_retention_ms() -> None:
    held = segments(NOW_MS - 300, NOW_MS - 200, NOW_MS - 100, NOW_MS)
    assert start(held, retention_ms=199) == NewStart(20, "retention.ms")
    assert start(held, retention_ms=200) == NewStart(10, "retention.ms")
    assert start(held, retention_ms=300) is None


def test_the_first_segment_that_is_young_keeps_those_behind_it() -> None:
    held = segments(NOW_MS - 300, NOW_MS, NOW_MS - 300, NOW_MS)
    assert start(held, retention_ms=100) == NewStart(10, "retention.ms")


def test_segments_go_while_the_others_have_retention_bytes() -> None:
    held = segments(NOW_MS, NOW_MS, NOW_MS, NOW_MS)
    assert start(held, retention_bytes=200) == NewStart(20, "retention.bytes")
    assert start(held, retention_bytes=201) == NewStart(10, "retention.bytes")
    assert start(held, retention_bytes=301) is None


@pytest.mark.parametrize("settings", [{"retention_bytes": 0}, {"retention_ms": 0}])
def test_the_active_segment_stays(settings: dict[str, int]) -> None:
    held = segments(1, 1, 1)
    found = start(held, **settings)
    assert found is not None
    assert found.offset == 20
    assert start(held[:1], **settings) is None
    assert start([], **settings) is None


@pytest.mark.parametrize("settings", [{"retention_bytes": 0}, {"retention_ms": 0}])
def test_a_segment_with_a_record_above_the_high_watermark_stays(settings: dict[str, int]) -> None:
    """Rule retention-below-high-watermark: a record that is not committed is not deleted."""
    held = segments(1, 1, 1)
    found = start(held, high_watermark=19, **settings)
    assert found is not None
    assert found.offset == 10
    assert start(held, high_watermark=9, **settings) is None


def test_minus_one_keeps_everything() -> None:
    assert start(segments(1, 1, 1), retention_ms=-1, retention_bytes=-1) is None
    assert start(segments(1, 1, 1), retention_ms=-1) is None


@pytest.mark.parametrize(
    ("policy", "is_deleted"),
    [("delete", True), ("compact", False), ("compact,delete", True), ("", False)],
)
def test_only_a_policy_that_deletes_deletes(policy: str, is_deleted: bool) -> None:
    found = start(segments(1, 1, 1), cleanup_policy=policy, retention_ms=1)
    assert (found is not None) is is_deleted


def test_a_segment_without_timestamps_counts_from_the_last_change_of_its_file() -> None:
    assert start(segments(-1, -1, unchanged_ms=101), retention_ms=100) is not None
    assert start(segments(-1, -1, unchanged_ms=100), retention_ms=100) is None


def test_a_record_of_the_far_future_does_not_keep_the_log_for_ever() -> None:
    near, far = NOW_MS + HOUR_MS, NOW_MS + HOUR_MS + 1
    assert start(segments(near, 1, unchanged_ms=101), retention_ms=100) is None
    assert start(segments(far, 1, unchanged_ms=101), retention_ms=100) is not None
    assert start(segments(far, 1, unchanged_ms=100), retention_ms=100) is None
    found = start(
        segments(far, 1, unchanged_ms=101),
        retention_ms=100,
        message_timestamp_after_max_ms=HOUR_MS + 1,
    )
    assert found is None, "the topic allows such timestamps"
