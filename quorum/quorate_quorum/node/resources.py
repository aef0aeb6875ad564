"""Sets the resources of a node's process: garbage collection, open files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from typing import Final


def collect_garbage_rarely() -> None:
    """Make full passes of the garbage collector rare: reference counts free nearly all objects.

    A full pass stops the event loop for a time that grows with the number of objects: 45 ms with an
    image of 30,000 partitions. With Python's own thresholds, every few thousand new objects cause a
    full pass.
    """
    gc.set_threshold(10_000, 10, 10)


#: The limit of open files to ask for. No node needs more, and some systems refuse "unlimited".
OPEN_FILES_MAX: Final = 1 << 20


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as allowed. Return the new limit.

    The usual soft limit of 1,024 exists for programs that use select(). Nodes do not use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(
            ValueError, OSError
        ):  # try lower values, too: some systems allow less than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def keep_freed_memory() -> bool:
    """Make glibc keep large buffers that are freed. Return whether it does; False without glibc.

    By default, glibc returns such a buffer to the kernel at each free. The page faults of the next
    allocation then cost more than a copy of the buffer: streams were three times slower.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    size = 64 << 20
    # On most machines, glibc allows only half as much for this threshold.
    mapped = mallopt(_M_MMAP_THRESHOLD, size) or mallopt(_M_MMAP_THRESHOLD, size // 2)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, size) and mallopt(_M_ARENA_MAX, 1))
