"""`quorate cluster`: info, health, config, features, unregister."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from quorate import ClusterDescription, FeatureDescription
from quorate.cluster.brokers import default_network
from quorate.errors import NetworkError
from quorate.net.methods import IDENTIFY
from quorate.v1.node_pb2 import IdentifyRequest
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.output import Output, check_output, print_json, print_table, usage_error, warn
from quorate_cli.session import (
    DEFAULT_BOOTSTRAP,
    Bootstrap,
    Configs,
    Timeout,
    admin_at,
    ask,
    parse_configs,
    run,
)

app = typer.Typer(no_args_is_help=True, cls=lazy_group({"health": Later("health:health")}))


async def pids(endpoints: list[str]) -> list[int | None]:
    """Return the process ids of nodes that tell them (local clusters only)."""
    network = default_network()

    async def ask(endpoint: str) -> int | None:
        connection = network.connect(endpoint, purpose="control")
        try:
            answer = await connection.unary(IDENTIFY, IdentifyRequest(), timeout_ms=1000)
        except NetworkError:
            return None
        finally:
            await connection.close()
        return answer.pid or None

    try:
        return list(await asyncio.gather(*map(ask, endpoints)))
    finally:
        await network.close()


@app.command()
def info(
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Show the cluster id, the controller and the registered brokers."""
    as_json = check_output(output)

    async def main() -> tuple[ClusterDescription, list[int | None]]:
        async with admin_at(bootstrap, timeout) as admin:
            described = await admin.describe_cluster()
        return described, await pids([one.endpoint for one in described.brokers])

    described, found = run(main, timeout=timeout)
    if as_json:
        print_json(_info(described, found))
        return
    controller = _controller(described.controller)
    sys.stdout.write(f"cluster {described.cluster_id}, {controller}\n")
    print_table(
        ("broker", "rack", "host", "endpoint", "state", "broker epoch"),
        [
            (
                one.id,
                one.rack,
                one.host,
                one.endpoint,
                "fenced" if one.fenced else "alive",
                one.broker_epoch,
            )
            for one in described.brokers
        ],
    )


def _info(described: ClusterDescription, found: list[int | None]) -> dict[str, Any]:
    return {
        "cluster_id": described.cluster_id,
        "controller": described.controller,
        "brokers": [
            {
                "id": one.id,
                "rack": one.rack,
                "host": one.host,
                "endpoint": one.endpoint,
                "fenced": one.fenced,
                "broker_epoch": one.broker_epoch,
                "pid": pid,
            }
            for one, pid in zip(described.brokers, found, strict=True)
        ],
    }


def _controller(id_: int) -> str:
    return f"controller {id_}" if id_ >= 0 else "no controller (a majority of voters must run)"


@app.command()
def unregister(
    broker: Annotated[int, typer.Argument(metavar="ID", min=0, help="The broker.")],
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Forget a broker that is gone for good; refused while it runs or holds replicas."""
    as_json = check_output(output)

    ask(bootstrap, timeout, lambda admin: admin.unregister_broker(broker))
    if as_json:
        print_json({"unregistered": broker})
    else:
        sys.stdout.write(f"broker {broker} is not registered any more\n")


@app.command()
def config(
    config: Configs = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="NAME", help="Set this one back to its default."),
    ] = None,
    topic: Annotated[str, typer.Option("--topic", help="Show this topic's settings.")] = "",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Show the cluster's defaults of topics; change them with --config and --remove."""
    as_json = check_output(output)
    configs = parse_configs(config)
    if topic and (configs or remove):
        usage_error("a topic's own settings are changed with `quorate topic alter`")

    async def main() -> list[dict[str, str]]:
        async with admin_at(bootstrap, timeout) as admin:
            if configs or remove:
                warn(await admin.alter_configs(set=configs, remove=remove or ()))
            entries = await admin.describe_configs(topic or None)
            return [{"name": one.name, "value": one.value, "source": one.source} for one in entries]

    entries = run(main, timeout=timeout)
    if as_json:
        print_json(entries)
    else:
        print_table(
            ("name", "value", "source"),
            [(one["name"], one["value"], one["source"]) for one in entries],
        )


@app.command()
def features(
    upgrade: Annotated[
        int | None,
        typer.Option(
            "--upgrade",
            metavar="LEVEL",
            help="Raise metadata.version to this level; it never sinks again.",
        ),
    ] = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Show the feature levels in force and those that each node knows; raise metadata.version."""
    as_json = check_output(output)

    async def main() -> list[FeatureDescription]:
        async with admin_at(bootstrap, timeout) as admin:
            if upgrade is not None:
                await admin.update_feature("metadata.version", upgrade)
            return await admin.describe_features()

    found = run(main, timeout=timeout)
    if as_json:
        print_json({"features": [asdict(one) for one in found]})
        return
    for one in found:
        sys.stdout.write(f"{one.name}: level {one.level}\n")
        print_table(
            ("node", "knows"),
            [
                (
                    f"{node.kind} {node.id}",
                    f"{node.lowest} to {node.highest}" if node.highest else "not heard yet",
                )
                for node in one.nodes
            ],
        )
