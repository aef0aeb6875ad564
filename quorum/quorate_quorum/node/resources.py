"""Sets the resources of a node's process: garbage collection, open files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import time
from collections.abc import Callable
from typing import Final

#: New objects until a pass, such passes until one that looks at their survivors, and such passes
#: until a full one: about 45,000 new objects, at which a full pass looks for some 10 ms.
GARBAGE_THRESHOLDS: Final = (5_000, 2, 2)
#: The least time between two passes over all objects. Such a pass stops the event loop for 200 ms
#: if a broker has 10,000 partitions.
LOOK_AT_ALL_S: Final = 3600.0


class GarbagePasses:
    """Keeps full passes of the garbage collector short. It is called around each pass.

    A full pass looks at all objects, and stops the event loop for that time. So what has survived
    one is set aside (frozen), and the next one looks only at newer objects. Reference counts free
    frozen objects, too. Frozen cycles that became garbage are found by a pass over all objects,
    once in LOOK_AT_ALL_S, and only if there are enough new objects for a full pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock()

    def __call__(self, phase: str, about: dict[str, int]) -> None:
        if about["generation"] < 2:
            return
        if phase == "stop":
            gc.freeze()
        elif self._clock() - self._looked_at >= LOOK_AT_ALL_S:
            self._looked_at = self._clock()
            gc.unfreeze()


def collect_garbage_in_parts() -> Callable[[], None]:
    """Let the garbage collector look at new objects only, from now on: see GarbagePasses.

    Return a function that ends this. With Python's own settings, every few thousand new objects
    cause a pass over all objects.
    """
    before = gc.get_threshold()
    passes = GarbagePasses()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    gc.callbacks.append(passes)

    def end() -> None:
        gc.callbacks.remove(passes)
        gc.set_threshold(*before)
        gc.unfreeze()

    return end


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
