"""What a node logs on a terminal must not hold up its event loop."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import structlog

from quorate_quorum.node.process import set_up_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_exception_is_logged_on_a_terminal_without_the_values_of_its_frames() -> None:
    before: dict[str, Any] = structlog.get_config()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = Terminal()
    try:
        set_up_logs("info", stream)
        with pytest.raises(ValueError, match="a bug"):
            _fail_and_log("a value of some frame")
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "ValueError: a bug" in stream.getvalue()
    assert "a value of some frame" not in stream.getvalue()


def _fail_and_log(secret: str) -> None:
    try:
        assert secret
        raise ValueError("a bug")
    except ValueError:
        structlog.get_logger("review").exception("broken")
        raise
