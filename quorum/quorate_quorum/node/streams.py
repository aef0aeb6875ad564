"""Replaces standard streams that the parent process closed (by `>&-`, or as some daemons do).

Python has None for such a stream, and the next opened file or socket gets its descriptor. A library
that then writes to "standard error" would write into a log of records. So each closed stream is
connected to /dev/null before anything else is opened.
"""

from __future__ import annotations

import os
import sys


def open_standard_streams() -> None:
    """Connect each closed standard stream to the null device."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
