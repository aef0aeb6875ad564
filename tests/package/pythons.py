"""Which versions of Python the wheel is tried with, and where this machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: The oldest that Quorate supports, and the newest.
VERSIONS = ("3.11", "3.13")
ASK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


def version_of(python: str | Path) -> str | None:
    """Return a Python's version; None if it does not run, or cannot build an environment.

    A name may be there and fail: pyenv has one for versions that are not in use.
    """
    try:
        done = subprocess.run(
            [python, "-c", ASK], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find(version: str) -> str | None:
    """Return a Python of a version: in PATH, or one of pyenv that is not in use."""
    return next((str(one) for one in _places(version) if version_of(one) == version), None)


def others() -> tuple[list[str], list[str]]:
    """Return the Pythons of VERSIONS but the running one, and the versions that are not here."""
    own = "{}.{}".format(*sys.version_info)
    found = {version: find(version) for version in VERSIONS if version != own}
    return [one for one in found.values() if one], [name for name, one in found.items() if not one]


def _places(version: str) -> Iterator[str | Path]:
    in_path = shutil.which(f"python{version}")
    if in_path is not None:
        yield in_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"), reverse=True)
