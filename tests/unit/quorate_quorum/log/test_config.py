"""How a topic's configs become those of its logs."""

from __future__ import annotations

import pytest

from quorate.errors import InvalidConfigError
from quorate_quorum.configs import DEFAULT_TOPIC_CONFIG, TopicConfig
from quorate_quorum.log.log import LogConfig
from quorate_quorum.log.segment import RELATIVE_MAX


def test_a_log_is_kept_by_the_defaults_of_a_topic() -> None:
    week_ms = DEFAULT_TOPIC_CONFIG.segment_ms  # other logs do not roll by age
    assert LogConfig.of(DEFAULT_TOPIC_CONFIG) == LogConfig(segment_ms=week_ms)


def test_every_segment_size_that_a_topic_may_have_is_one_that_a_log_can_keep() -> None:
    largest = TopicConfig.of({"segment.bytes": str(RELATIVE_MAX)}, {})
    assert LogConfig.of(largest).segment_bytes == RELATIVE_MAX
    with pytest.raises(InvalidConfigError):
        TopicConfig.of({"segment.bytes": str(RELATIVE_MAX + 1)}, {})
    with pytest.raises(ValueError, match="segment_bytes must be 1 to"):
        LogConfig(segment_bytes=RELATIVE_MAX + 1)
