"""`quorate up`: runs a local cluster until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from quorate.errors import QuorateError
from quorate_cli.local import LocalCluster
from quorate_cli.local_nodes import Node
from quorate_cli.local_shape import NO_PORT, Shape
from quorate_cli.output import DONE, NO_ANSWER, SAID_NO, fail, os_reason, tell, usage_error
from quorate_quorum.node.config import ConfigError

#: Where a cluster is not at the default address, the hints set QUORATE_BOOTSTRAP.
COMMAND_ALONE = "(QUORATE_BOOTSTRAP is for the command: programs set bootstrap_servers)"
WATCH_S = 0.2
READY_S = 30.0


def up(
    voters: Annotated[int, typer.Option(help="How many voters of the metadata quorum.")] = 3,
    brokers: Annotated[int, typer.Option(help="How many brokers.")] = 3,
    racks: Annotated[
        str, typer.Option(metavar="R1,R2", help="Spread the brokers over these racks.")
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="Keep the data in this folder; default: a temporary one.")
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="Broker i listens on port + 100 i, and voter i on the port above it;"
            " 0: any free ports."
        ),
    ] = 7092,
    kafka_port: Annotated[
        str,
        typer.Option(
            metavar="PORT|off",
            help="Kafka clients reach broker i on kafka-port + 100 i; 0: any free ports; off: not"
            " at all. Default: 9092 if it is free, else any.",
        ),
    ] = "",
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Run all nodes in this one process.")
    ] = False,
) -> None:
    """Run the command. Its help is in app.py."""
    try:
        shape = Shape(
            voters=voters,
            brokers=brokers,
            racks=tuple(one.strip() for one in racks.split(",") if one.strip()),
            port=port,
            kafka_port=_kafka_port(kafka_port),
        )
        with cluster_folder(data) as folder:
            cluster = LocalCluster(folder, shape)
            cluster.prepare()
            if embedded:
                # import it here, because it imports both servers
                from quorate_cli.embedded import run_embedded

                run_embedded(cluster, lambda: announce(cluster, is_temporary=data is None))
            else:
                _run_processes(cluster, is_temporary=data is None)
    except OSError as error:
        usage_error(os_reason(error))
    except (ValueError, ConfigError) as error:
        usage_error(str(error))


def _kafka_port(text: str) -> int | None:
    """Return the kafka_port of Shape that the option means. Raises ValueError."""
    if text == "off":
        return NO_PORT
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"--kafka-port must be a port, 0 or off, not {text!r}")
    return int(text) if text else None


@contextlib.contextmanager
def cluster_folder(data: Path | None) -> Iterator[Path]:
    """Yield the folder for the data: `data`, or a temporary one that is removed at the end.

    The temporary folder stays if the command ends by `fail` or typer.Exit, because the messages of
    the command name log files in it.
    """
    if data is not None:
        yield data.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="quorate-"))
    try:
        yield folder
    except typer.Exit:
        say_kept(folder)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def say_kept(folder: Path) -> None:
    """Print to standard error that the temporary folder stays."""
    tell(f"the folder of this cluster is kept, with the logs: {folder}")


def announce(cluster: LocalCluster, *, is_temporary: bool = False) -> None:
    """Print the address on the first line, the one of Kafka clients on the second, then the rest.

    Scripts can wait for the first line.
    """
    servers = cluster.bootstrap_servers
    stays = "removed at the end; --data DIR keeps it" if is_temporary else "kept"
    here = "" if cluster.shape.port == Shape().port else f"export QUORATE_BOOTSTRAP={servers}\n  "
    addresses = [node.kafka for node in cluster.brokers if node.kafka]
    kafka, listed = "", ""
    if addresses:
        kafka = f"Kafka clients: {','.join(f'kafka://{one}' for one in addresses)}\n"
        listed = (
            f"  kcat -b {','.join(addresses)} -L    # Kafka clients take them without kafka://\n"
        )
    sys.stdout.write(
        f"{len(cluster.voters)} voters and {len(cluster.brokers)} brokers are ready: {servers}\n"
        f"{kafka}"
        f"data: {cluster.folder} ({stays})\n"
        f"logs: {cluster.folder}/*/output.log, one of each node\n"
        f"try, in another terminal{' ' + COMMAND_ALONE if here else ''}:\n"
        f"  {here}quorate cluster health\n"
        "  quorate topic create events -p 6\n"
        "  seq 1000 | quorate topic produce events\n"
        "  quorate topic consume events --from-beginning --until-end\n"
        f"{listed}"
        "Ctrl-C stops it\n"
    )
    sys.stdout.flush()


def _run_processes(cluster: LocalCluster, *, is_temporary: bool) -> None:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: asked_to_stop.set())
    cluster.start()
    is_ready = False
    try:
        is_ready = asyncio.run(_is_ready(cluster, asked_to_stop))
        if is_ready:
            announce(cluster, is_temporary=is_temporary)
            _watch(cluster, asked_to_stop)
    except (QuorateError, TimeoutError) as error:
        fail(str(error), NO_ANSWER)
    finally:
        unclean = {node: status for node, status in cluster.stop().items() if status != 0}
        for node_id, status in unclean.items():
            _tell_end(cluster.nodes[node_id], status)
    if not is_ready:
        fail("stopped before it was ready", DONE)
    if unclean:
        # this exit keeps the folder, because the messages above name log files in it
        raise typer.Exit(DONE)


async def _is_ready(cluster: LocalCluster, asked_to_stop: asyncio.Event) -> bool:
    """Wait until the cluster is ready. Return False if a signal came first."""
    ready = asyncio.create_task(cluster.wait_ready(timeout=READY_S))
    while not asked_to_stop.is_set():
        await asyncio.wait((ready,), timeout=WATCH_S)
        if ready.done():
            await ready
            return True
    ready.cancel()
    await asyncio.wait((ready,))
    return False


def _watch(cluster: LocalCluster, asked_to_stop: asyncio.Event) -> None:
    """Print each node that ends, until a signal comes. No node is started again."""
    while not asked_to_stop.is_set():
        time.sleep(WATCH_S)
        for node, status in cluster.died():
            _tell_end(node, status)
        if not cluster.processes:
            fail("every node has ended", SAID_NO)


def _tell_end(node: Node, status: int) -> None:
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    tell(
        f"{node.name} ended {how} and is not started again; "
        f"what it printed is in {node.folder / 'output.log'}",
        "red",
    )
