"""`quorate topic trim` refuses what cannot be meant before it asks the cluster."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from quorate_cli.app import app


@pytest.mark.parametrize("before", ["2999-01-01T00:00:00", "2999-01-01T00:00:00+02:00"])
def test_a_time_in_the_future_is_refused(before: str) -> None:
    """Such a time would delete every record of the topic."""
    said = CliRunner().invoke(
        app, ["topic", "trim", "t", "--before", before, "--bootstrap", "127.0.0.1:1"]
    )
    assert said.exit_code == 2
    assert f"--before takes a time that has passed, not {before!r}" in said.stderr
    assert "'end' deletes all records" in said.stderr
