"""Clusters for tests: EmbeddedCluster runs in this process, with real sockets."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorate_testing.embedded import AsyncEmbeddedCluster, EmbeddedCluster

__all__ = ["AsyncEmbeddedCluster", "EmbeddedCluster"]


def __getattr__(name: str) -> Any:
    """Import the servers when a cluster is wanted: pytest imports this package for every run."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    collects = gc.isenabled()
    # Imports make many objects and no garbage: the passes of the collector would take a tenth of
    # the time.
    gc.disable()
    try:
        from quorate_testing import embedded
    finally:
        if collects:
            gc.enable()

    return getattr(embedded, name)
