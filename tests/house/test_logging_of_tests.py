"""A test leaves structlog as it found it, whatever it ran."""

from __future__ import annotations

import logging

import pytest
import structlog


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_that_goes_quiet_hides_no_line_of_the_next(turn: int) -> None:
    with structlog.testing.capture_logs() as lines:
        structlog.get_logger().info("told", turn=turn)
    assert [one["event"] for one in lines] == ["told"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_that_disables_all_loggers_hides_no_line_of_the_next(
    turn: int, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("some.library").warning("told in turn %d", turn)
    assert caplog.messages == [f"told in turn {turn}"]
    logging.disable()
