"""What a node's process takes of its machine: garbage collection, open files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from typing import Final


def collect_garbage_rarely() -> None:
    """Let the garbage collector pass over everything rarely: reference counts free nearly all.

    A full pass stops the loop for as long as there are objects: 45 ms with an image of 30,000
    partitions, and with Python's thresholds there is one each time some thousands were added.
    """
    gc.set_threshold(10_000, 10, 10)


#: No node has more files and connections open; some systems refuse a limit without end.
OPEN_FILES_MAX: Final = 1 << 20


def raise_open_files() -> int:
    """Let this process open as many files as it may; return how many that is.

    The usual soft limit of 1,024 is there for programs that use select(), as nodes do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def keep_freed_memory() -> bool:
    """Tell glibc to keep large buffers it is given back; return whether it does.

    By default they go to the kernel at each free, and the page faults that follow cost more than
    the copy: streams were three times slower. No effect where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    size = 64 << 20
    # Half as much is all that glibc allows on most machines for what it maps.
    mapped = mallopt(_M_MMAP_THRESHOLD, size) or mallopt(_M_MMAP_THRESHOLD, size // 2)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, size) and mallopt(_M_ARENA_MAX, 1))
