"""`quorate topic`: create, list, describe, alter, delete, produce, consume."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from quorate import TopicDescription
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.output import Output, check_output, print_json, print_table, usage_error, warn
from quorate_cli.session import (
    DEFAULT_BOOTSTRAP,
    Bootstrap,
    Configs,
    Name,
    Timeout,
    ask,
    parse_configs,
)

app = typer.Typer(
    no_args_is_help=True,
    cls=lazy_group(
        {"produce": Later("topic_produce:produce"), "consume": Later("topic_consume:consume")}
    ),
)


def describe_json(topic: TopicDescription) -> dict[str, Any]:
    """Return a topic as `topic create` and `describe` print it with `-o json`."""
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "partitions": [
            {
                "partition": one.partition,
                "leader": one.leader,
                "leader_epoch": one.leader_epoch,
                "replicas": list(one.replicas),
                "isr": list(one.isr),
                "elr": list(one.elr),
            }
            for one in topic.partitions
        ],
        "configs": dict(topic.configs),
    }


@app.command()
def create(
    name: Name,
    partitions: Annotated[int, typer.Option("--partitions", "-p", help="How many partitions.")] = 1,
    replication_factor: Annotated[
        int,
        typer.Option(
            "--replication-factor",
            "-r",
            help="How many replicas each has; -1: the cluster's default.",
        ),
    ] = -1,
    config: Configs = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Create a topic."""
    as_json = check_output(output)
    configs = parse_configs(config)

    topic = ask(
        bootstrap,
        timeout,
        lambda admin: admin.create_topic(name, partitions, replication_factor, configs),
    )
    warn(topic.warnings)
    if as_json:
        print_json(describe_json(topic))
    else:
        _print_topic(topic)


@app.command("list")
def list_topics(
    internal: Annotated[bool, typer.Option("--internal", help="Include internal topics.")] = False,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """List the topics."""
    as_json = check_output(output)

    names = ask(bootstrap, timeout, lambda admin: admin.list_topics(internal=internal))
    if as_json:
        print_json(names)
    else:
        for name in names:
            sys.stdout.write(name + "\n")


@app.command()
def describe(
    name: Name,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Show a topic's partitions: leader, replicas, ISR."""
    as_json = check_output(output)

    topic = ask(bootstrap, timeout, lambda admin: admin.describe_topics([name]))[name]
    if as_json:
        print_json(describe_json(topic))
    else:
        _print_topic(topic)


@app.command()
def alter(
    name: Name,
    config: Configs = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="NAME", help="Set this one back to its default."),
    ] = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Change a topic's settings."""
    as_json = check_output(output)
    configs = parse_configs(config)
    if not configs and not remove:
        usage_error("alter takes --config NAME=VALUE or --remove NAME, at least one")

    warn(
        ask(
            bootstrap,
            timeout,
            lambda admin: admin.alter_configs(name, set=configs, remove=remove or ()),
        )
    )
    if as_json:
        print_json({"altered": name})


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The topics.")],
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    output: Output = "text",
    timeout: Timeout = 10.0,
) -> None:
    """Delete topics and all their records."""
    as_json = check_output(output)

    ask(bootstrap, timeout, lambda admin: admin.delete_topics(names))
    if as_json:
        print_json({"deleted": names})


def _print_topic(topic: TopicDescription) -> None:
    rows = [
        (
            one.partition,
            one.leader if one.leader >= 0 else "none",
            one.leader_epoch,
            *(",".join(map(str, ids)) for ids in (one.replicas, one.isr, one.elr)),
        )
        for one in topic.partitions
    ]
    print_table(
        ("partition", "leader", "leader epoch", "replicas", "ISR", "ELR"),
        rows,
        title=f"{topic.name}  ({topic.topic_id})",
    )
    for name, value in sorted(topic.configs.items()):
        sys.stdout.write(f"{name} = {value}\n")
