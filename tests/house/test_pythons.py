"""`make package-test` finds the versions of Python that it tries the wheel with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.package import pythons


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is PATH, with a folder of pyenv in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def put(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_of_pyenv_that_is_not_in_use_is_found(places: Path) -> None:
    put(places / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    assert pythons.find("3.13") is None
    found = put(places / "pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", "echo 3.13")
    assert pythons.find("3.13") == found


def test_the_first_of_path_that_runs_is_taken(places: Path) -> None:
    put(places / "pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", "echo 3.13")
    found = put(places / "python3.13", "echo 3.13")
    assert pythons.find("3.13") == found


def test_versions_that_are_not_here_are_named(places: Path) -> None:
    own = "{}.{}".format(*sys.version_info)
    assert pythons.others() == ([], [one for one in pythons.VERSIONS if one != own])
