"""Clusters for tests: EmbeddedCluster has real sockets, SimulatedCluster has virtual time."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorate_testing.embedded import AsyncEmbeddedCluster, EmbeddedCluster
    from quorate_testing.simulated.not_simulated import SimulationError
    from quorate_testing.simulation.clock import ClusterClock
    from quorate_testing.simulation.cluster import SimulatedCluster, run_simulated
    from quorate_testing.simulation.faults import ClusterFaults
    from quorate_testing.simulation.network import ClusterNetwork

__all__ = [
    "AsyncEmbeddedCluster",
    "ClusterClock",
    "ClusterFaults",
    "ClusterNetwork",
    "EmbeddedCluster",
    "SimulatedCluster",
    "SimulationError",
    "run_simulated",
]

_HOMES = {
    "AsyncEmbeddedCluster": "embedded",
    "ClusterClock": "simulation.clock",
    "ClusterFaults": "simulation.faults",
    "ClusterNetwork": "simulation.network",
    "EmbeddedCluster": "embedded",
    "SimulatedCluster": "simulation.cluster",
    "SimulationError": "simulated.not_simulated",
    "run_simulated": "simulation.cluster",
}


def __getattr__(name: str) -> Any:
    """Import the servers when a cluster is wanted: pytest imports this package for every run."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    collects = gc.isenabled()
    # Imports make many objects and no garbage: the passes of the collector would take a tenth of
    # the time.
    gc.disable()
    try:
        home = import_module(f"quorate_testing.{_HOMES[name]}")
    finally:
        if collects:
            gc.enable()
    return getattr(home, name)
