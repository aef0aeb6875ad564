"""Small file systems in memory, for tests of disks that are full, read-only or gone.

A test is skipped where this process may not mount.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(path: Path, size: str = "64m") -> Iterator[Path]:
    """Mount a file system of this size on `path`, and unmount it at the end."""
    path.mkdir(parents=True)
    done = _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    if done.returncode:
        pytest.skip(f"this process may not mount a file system: {done.stderr.strip()}")
    try:
        yield path
    finally:
        # lazily, because a process that the test has started may still have files open
        _run("umount", "--lazy", str(path))


def unmount(path: Path) -> None:
    """Take a mounted file system away from under the processes that use it."""
    done = _run("umount", "--lazy", str(path))
    assert not done.returncode, done.stderr


def remount(path: Path, options: str) -> None:
    """Change the options of a mounted file system, as "size=20m" or "ro"."""
    done = _run("mount", "-o", f"remount,{options}", str(path))
    assert not done.returncode, done.stderr


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
