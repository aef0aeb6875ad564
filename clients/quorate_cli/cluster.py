"""`quorate cluster`: info, health, disks, config, features, drain, undrain, rebalance."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from quorate import Admin, BrokerDescription, ClusterDescription, FeatureDescription
from quorate.cluster.brokers import default_network
from quorate.errors import NetworkError
from quorate.net.methods import identify
from quorate_cli.completion import topic_names
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.output import print_json, print_table, usage_error, warn
from quorate_cli.session import Configs, Remove, Session, in_session, parse_configs

app = typer.Typer(
    no_args_is_help=True,
    cls=lazy_group(
        {
            "health": Later("health:health"),
            "disks": Later("cluster_disks:disks"),
            "drain": Later("cluster_drain:drain"),
            "undrain": Later("cluster_drain:undrain"),
            "rebalance": Later("cluster_rebalance:rebalance"),
        }
    ),
)


async def pids(endpoints: Iterable[str]) -> dict[str, int | None]:
    """Return the process id of each node, by endpoint; None if the node does not answer with one.

    Only the nodes of a local cluster answer with their process id.
    """
    network = default_network()

    async def pid_of(endpoint: str) -> int | None:
        try:
            return (await identify(network, endpoint, timeout_ms=1000)).pid or None
        except NetworkError:
            return None

    listed = list(dict.fromkeys(endpoints))
    try:
        return dict(zip(listed, await asyncio.gather(*map(pid_of, listed)), strict=True))
    finally:
        await network.close()


@app.command()
@in_session
def info(session: Session) -> None:
    """Show the cluster id, the controller and the registered brokers."""

    async def question(admin: Admin) -> tuple[ClusterDescription, dict[str, int | None]]:
        described = await admin.describe_cluster()
        return described, await pids(one.endpoint for one in described.brokers)

    described, found = session.ask(question)
    if session.as_json:
        brokers = [{**asdict(one), "pid": found[one.endpoint]} for one in described.brokers]
        print_json(
            {
                "cluster_id": described.cluster_id,
                "controller": described.controller,
                "brokers": brokers,
            }
        )
        return
    sys.stdout.write(f"cluster {described.cluster_id}, {_controller(described.controller)}\n")
    print_table(
        ("broker", "rack", "host", "endpoint", "state", "broker epoch"),
        [(b.id, b.rack, b.host, b.endpoint, _state(b), b.broker_epoch) for b in described.brokers],
    )


def _state(broker: BrokerDescription) -> str:
    state = "fenced" if broker.fenced else "alive"
    if broker.drained:
        state += ", drained"
    if not broker.failed_log_dirs:
        return state
    return f"{state}, {broker.failed_log_dirs} of {broker.log_dirs} log directories failed"


def _controller(id_: int) -> str:
    return f"controller {id_}" if id_ >= 0 else "no controller (a majority of voters must run)"


@app.command()
@in_session
def unregister(
    session: Session,
    broker: Annotated[int, typer.Argument(metavar="ID", min=0, help="The broker.")],
) -> None:
    """Forget a broker that is gone for good. Refused while the broker runs or has replicas."""
    session.ask(lambda admin: admin.unregister_broker(broker))
    session.answer({"unregistered": broker}, f"broker {broker} is not registered any more\n")


@app.command()
@in_session
def config(
    session: Session,
    config: Configs = None,
    remove: Remove = None,
    topic: Annotated[
        str,
        typer.Option(help="Show this topic's settings.", autocompletion=topic_names),
    ] = "",
) -> None:
    """Show the cluster's defaults for topics. Change them with --config and --remove.

    Source: topic, set on the topic; cluster, set here or written when the cluster was formatted;
    default, of this release. docs/configuration.md says what each setting means.
    """
    configs = parse_configs(config)
    if topic and (configs or remove):
        usage_error("a topic's own settings are changed with `quorate topic alter`")

    async def question(admin: Admin) -> list[dict[str, str]]:
        if configs or remove:
            warn(await admin.alter_configs(set=configs, remove=remove or ()))
        return [asdict(one) for one in await admin.describe_configs(topic or None)]

    entries = session.ask(question)
    if session.as_json:
        print_json(entries)
    else:
        print_table(("name", "value", "source"), [list(one.values()) for one in entries])


@app.command()
@in_session
def features(
    session: Session,
    upgrade: Annotated[
        int | None,
        typer.Option(
            metavar="LEVEL", help="Raise metadata.version to this level; it never sinks again."
        ),
    ] = None,
) -> None:
    """Show the feature levels in force and those that nodes know, or raise metadata.version."""

    async def question(admin: Admin) -> list[FeatureDescription]:
        if upgrade is not None:
            await admin.update_feature("metadata.version", upgrade)
        return await admin.describe_features()

    found = session.ask(question)
    if session.as_json:
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
