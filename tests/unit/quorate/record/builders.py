"""What the tests of codecs and of hostile batches share."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

#: Compressible, and longer than the blocks of every codec but zstd's.
TEXT = b"".join(b'{"user":%d,"city":"Dortmund","amount":%d}' % (i, i * i) for i in range(3000))


def peak_bytes(action: Callable[[], object]) -> int:
    """Return the most bytes that Python's allocator holds for an action at a time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
