"""Sets the resources of a node's process: garbage collection, open files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import time
from collections.abc import Callable
from typing import Final

#: New objects until a pass, and the passes after which the next one looks at their survivors, too:
#: a full pass comes after about 8,000 new objects, at which it looks for some 10 ms. With 45,000 it
#: took 46 ms. The time of all passes together is the same, because none looks at frozen objects.
GARBAGE_THRESHOLDS: Final = (2_000, 1, 1)
#: The least time between two passes over all objects. Such a pass stops the event loop for 300 ms
#: if a broker has 10,000 partitions.
LOOK_AT_ALL_S: Final = 3600.0
#: A pass over all objects comes only if the frozen objects have grown by this factor since the last
#: one: if they have not, there is little garbage among them.
FROZEN_GROWTH: Final = 1.25


class GarbagePasses:
    """Keeps full passes of the garbage collector short. It is called around each pass.

    A full pass looks at all objects, and stops the event loop for that time. So what has survived
    one is set aside (frozen), and the next one looks only at newer objects. Reference counts free
    frozen objects, too. Frozen cycles that became garbage are found by a pass over all objects, at
    most once in LOOK_AT_ALL_S, and only if the frozen objects have grown by FROZEN_GROWTH.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock()
        self._is_looking_at_all = False
        #: The frozen objects after the last pass over all objects.
        self._left = 0

    def __call__(self, phase: str, about: dict[str, int]) -> None:
        if about["generation"] < 2:
            return
        if phase == "stop":
            gc.freeze()
            if self._is_looking_at_all:
                self._left = gc.get_freeze_count()
        else:
            self._is_looking_at_all = self._is_due()
            if self._is_looking_at_all:
                gc.unfreeze()

    def _is_due(self) -> bool:
        now = self._clock()
        if now - self._looked_at < LOOK_AT_ALL_S:
            return False
        self._looked_at = now
        return gc.get_freeze_count() > FROZEN_GROWTH * self._left


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
