"""`quorate up`: a local cluster until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from quorate.errors import QuorateError
from quorate_cli.local import LocalCluster, Shape
from quorate_cli.session import NO_ANSWER, fail, stderr, usage_error

WATCH_S = 0.2


def up(
    voters: Annotated[int, typer.Option("--voters", help="Nodes of the metadata quorum.")] = 3,
    brokers: Annotated[int, typer.Option("--brokers", help="Brokers.")] = 3,
    racks: Annotated[
        str, typer.Option("--racks", metavar="R1,R2", help="Deal the brokers to racks in runs.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option("--data", help="Keep the data here; else a temporary folder.")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Broker i listens on port + 100 i.")] = 7092,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="All nodes in this one process.")
    ] = False,
) -> None:
    """Start a local cluster of real processes; Ctrl-C stops it cleanly."""
    try:
        shape = Shape(
            voters=voters,
            brokers=brokers,
            racks=tuple(one.strip() for one in racks.split(",") if one.strip()),
            port=port,
        )
        with cluster_folder(data) as folder:
            cluster = LocalCluster(folder, shape)
            cluster.prepare()
            if embedded:
                from quorate_cli.embedded import run_embedded

                run_embedded(cluster)
            else:
                _run_processes(cluster)
    except (ValueError, OSError) as error:
        usage_error(str(error))


@contextlib.contextmanager
def cluster_folder(data: Path | None) -> Iterator[Path]:
    """Yield the folder to keep data in, or a temporary one that is removed at the end."""
    if data is not None:
        yield data.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="quorate-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def announce(cluster: LocalCluster) -> None:
    """Print the address, on a line of its own that scripts can wait for."""
    sys.stdout.write(
        f"{len(cluster.voters)} voters and {len(cluster.brokers)} brokers are ready: "
        f"{cluster.bootstrap_servers}\n"
    )
    sys.stdout.flush()


def _run_processes(cluster: LocalCluster) -> None:
    asked_to_stop = False

    def ask(_number: int, _frame: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    cluster.start()
    try:
        asyncio.run(cluster.wait_ready())
    except (QuorateError, TimeoutError) as error:
        cluster.stop()
        fail(str(error) or "the cluster was not ready within 30 s", NO_ANSWER)
    announce(cluster)
    while not asked_to_stop:
        time.sleep(WATCH_S)
        for node, status in cluster.died():
            stderr.print(
                f"{node.name} ended with status {status}; the others go on. "
                f"What it printed is in {node.folder / 'output.log'}",
                style="red",
                soft_wrap=True,
            )
        if not cluster.processes:
            fail("every node has ended", 1)
    for node_id, status in cluster.stop().items():
        if status != 0:
            stderr.print(f"{cluster.nodes[node_id].name} ended with status {status}", style="red")
