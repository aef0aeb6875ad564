"""What the benches of replication share: clusters of processes, and the lines that are printed."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.voters import ask
from quorate_cli.local import LocalCluster
from quorate_cli.local_shape import ANY_PORT, NO_PORT, Shape, free_port

PATIENCE_S = 120.0
#: Figure -> its values, of all runs.
Figures = dict[str, list[float]]


@contextmanager
def cluster_of(
    brokers: int, *, racks: Sequence[str] = (), with_kafka: bool = False
) -> Iterator[LocalCluster]:
    """Run a cluster of three voters and some brokers, all unfenced, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="quorate-bench-", ignore_cleanup_errors=True) as folder:
        shape = Shape(
            brokers=brokers,
            racks=tuple(racks),
            port=free_port(max(3, brokers)),
            kafka_port=ANY_PORT if with_kafka else NO_PORT,
        )
        cluster = LocalCluster(Path(folder), shape)
        cluster.prepare()
        cluster.start()
        try:
            ask(cluster.wait_ready(timeout=PATIENCE_S))
            yield cluster
        finally:
            cluster.stop()


def show(figures: Mapping[str, Sequence[float]], targets: Mapping[str, float]) -> None:
    """Print a line for each figure: median, spread, and the targets of its median and its worst.

    `targets` has names like "failover, s: median" and "failover, s: worst".
    """
    for figure, values in figures.items():
        found = {"median": statistics.median(values), "worst": max(values)}
        told = [
            f"{kind} at most {target:g}: {'yes' if value <= target else 'NO'}"
            for kind, value in found.items()
            if (target := targets.get(f"{figure}: {kind}")) is not None
        ]
        spread = f"({min(values):,.3f} to {max(values):,.3f} in {len(values)})"
        line = f"{figure:56} {found['median']:9,.3f}   {spread:28} {'; '.join(told)}"
        print(line.rstrip(), flush=True)


def show_json(figures: Mapping[str, Sequence[float]]) -> None:
    """Print a JSON object for each figure."""
    for figure, values in figures.items():
        row = {"figure": figure, "median": statistics.median(values), "values": list(values)}
        print(json.dumps(row | {"load": os.getloadavg()[0]}), flush=True)
