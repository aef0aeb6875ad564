"""`make` finds a Python by itself, on machines where some names are there and do not work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

FAILS = "echo 'pyenv: not installed' >&2; exit 127"
TOO_OLD = "exit 1"
RUNS = f'exec {sys.executable} "$@"'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The one directory of PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def put(path: Path, name: str, script: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def make(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make setup` for a virtual environment that is not there yet."""
    assert MAKE is not None
    return subprocess.run(
        [MAKE, "-C", str(ROOT), f"VENV={path.parent / 'venv'}", *arguments, "setup"],
        env={"PATH": str(path), "HOME": os.environ.get("HOME", "")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def chosen(path: Path, *arguments: str) -> str:
    """Return the Python of the commands that make would run."""
    done = make(path, "-n", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("python='")[2].partition("'")[0]


def test_it_takes_the_newest_that_runs(path: Path) -> None:
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        put(path, name, RUNS)
    assert chosen(path) == "python3.13"


def test_it_passes_over_a_name_that_fails_and_one_that_is_too_old(path: Path) -> None:
    put(path, "python3.13", FAILS)
    put(path, "python3.12", TOO_OLD)
    put(path, "python3", RUNS)
    assert chosen(path) == "python3"


def test_a_python_that_is_named_is_taken(path: Path) -> None:
    put(path, "python3.13", RUNS)
    assert chosen(path, "PYTHON=mine") == "mine"


def test_without_any_it_says_what_it_needs(path: Path) -> None:
    put(path, "python3.11", FAILS)
    put(path, "python3", TOO_OLD)
    done = make(path)
    assert done.returncode != 0
    assert "No Python of 3.11 or newer" in done.stderr
    assert "make PYTHON=/path/to/python" in done.stderr
