"""`quorate topic`: create, list, describe, alter, delete, produce, consume, tail, copy, trim."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from quorate import Admin, LogDirDescription, ReplicaSize, TopicDescription
from quorate.errors import AuthorizationError
from quorate_cli.cluster_rebalance import change_factor
from quorate_cli.completion import topic_names
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.move_progress import hindrance
from quorate_cli.output import counted, print_json, print_table, usage_error, warn
from quorate_cli.partition_states import out_of_sync_lines
from quorate_cli.session import Configs, Name, Remove, Session, in_session, parse_configs

app = typer.Typer(
    no_args_is_help=True,
    cls=lazy_group(
        {
            "produce": Later("topic_produce:produce"),
            "consume": Later("topic_consume:consume"),
            "tail": Later("topic_tail:tail"),
            "copy": Later("topic_copy:copy"),
            "trim": Later("topic_trim:trim"),
        }
    ),
)


@app.command()
@in_session
def create(
    session: Session,
    name: Name,
    partitions: Annotated[
        int,
        typer.Option(
            "--partitions", "-p", help="How many partitions; -1: the cluster's num.partitions."
        ),
    ] = -1,
    replication_factor: Annotated[
        int,
        typer.Option(
            "--replication-factor",
            "-r",
            help="How many replicas each has; -1: the cluster's default.replication.factor.",
        ),
    ] = -1,
    config: Configs = None,
) -> None:
    """Create a topic."""
    configs = parse_configs(config)
    topic = session.ask(
        lambda admin: admin.create_topic(name, partitions, replication_factor, configs)
    )
    warn(topic.warnings)
    _print_topic(session, topic)


@app.command("list")
@in_session
def list_topics(
    session: Session,
    internal: Annotated[bool, typer.Option("--internal", help="Include internal topics.")] = False,
) -> None:
    """List the topics."""
    names = session.ask(lambda admin: admin.list_topics(internal=internal))
    session.answer(names, "".join(f"{name}\n" for name in names))


@app.command()
@in_session
def describe(session: Session, name: Name) -> None:
    """Show a topic's partitions: leader, replicas, ISR; and their logs: start, end, bytes.

    Each replica that is not in the ISR has a line: since when, and why. Warns of logs of which
    nothing is known, of replicas that are damaged or offline, and of those whose compaction fails.
    """
    failures: list[str] = []

    async def question(admin: Admin) -> tuple[TopicDescription, dict[int, ReplicaSize]]:
        topic = (await admin.describe_topics([name]))[name]
        failures.extend(await _hindered_moves(admin, topic))
        try:
            log_dirs = await admin.describe_log_dirs([name])
        except AuthorizationError as error:
            # the caller may describe the topic, but not the disks of the cluster
            failures.append(f"start, end and bytes are not known: {error}")
            return topic, {}
        failures.extend(unknown_logs(topic, log_dirs))
        failures.extend(troubles(log_dirs))
        failures.extend(compaction_failures(log_dirs))
        led = (one for found in log_dirs for one in found.replicas if one.is_leader)
        return topic, {one.partition: one for one in led}

    topic, logs = session.ask(question)
    _print_topic(session, topic, logs)
    warn(failures)


@app.command()
@in_session
def alter(
    session: Session,
    name: Name,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            "-p",
            help="How many partitions it shall have, more than now. Records with a key may go to "
            "other partitions than before.",
        ),
    ] = None,
    replication_factor: Annotated[
        int | None,
        typer.Option(
            "--replication-factor",
            "-r",
            min=1,
            help="How many replicas each partition shall have. They are added or removed in the "
            "background: `quorate partition list-moves`.",
        ),
    ] = None,
    config: Configs = None,
    remove: Remove = None,
) -> None:
    """Change a topic's settings, give it more partitions, or more or fewer replicas."""
    configs = parse_configs(config)
    if partitions is None and replication_factor is None and not configs and not remove:
        usage_error(
            "alter takes --partitions N, --replication-factor N, --config NAME=VALUE or"
            " --remove NAME, at least one"
        )

    async def change(admin: Admin) -> tuple[tuple[str, ...], int]:
        warnings: tuple[str, ...] = ()
        moves = 0
        if partitions is not None:
            # Check the numbers before anything is changed: one error, and nothing is changed.
            await admin.create_partitions(name, partitions, validate_only=True)
        if replication_factor is not None:
            await change_factor(admin, name, replication_factor, validate_only=True)
        if configs or remove:
            warnings = await admin.alter_configs(name, set=configs, remove=remove or ())
        if partitions is not None:
            await admin.create_partitions(name, partitions)
        if replication_factor is not None:
            moves = await change_factor(admin, name, replication_factor)
        return warnings, moves

    warnings, moves = session.ask(change)
    warn(warnings)
    done = {} if partitions is None else {"partitions": partitions}
    lines = [f"set {key} = {value}" for key, value in configs.items()]
    lines += [f"{key} has its default again" for key in remove or ()]
    if partitions is not None:
        lines.append(f"it has {counted(partitions, 'partition')} now")
    if replication_factor is not None:
        done |= {"replication_factor": replication_factor, "moves_begun": moves}
        lines.append(_factor_line(replication_factor, moves))
    session.answer({"altered": name, **done}, "".join(f"{name}: {line}\n" for line in lines))


def _factor_line(factor: int, moves: int) -> str:
    if not moves:
        return f"each partition has {counted(factor, 'replica')} already"
    return (
        f"{counted(moves, 'move')} begun, after which each partition has"
        f" {counted(factor, 'replica')}: `quorate partition list-moves` shows what goes on"
    )


@app.command()
@in_session
def delete(
    session: Session,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="The topics.", autocompletion=topic_names),
    ],
) -> None:
    """Delete topics and all their records."""
    session.ask(lambda admin: admin.delete_topics(names))
    session.answer({"deleted": names}, "")


async def _hindered_moves(admin: Admin, topic: TopicDescription) -> list[str]:
    """Return a sentence for each partition that is moved to a broker that is not alive."""
    if not any(set(one.adding) & set(one.offline) for one in topic.partitions):
        return []
    dead = {one.id for one in (await admin.describe_cluster()).brokers if one.fenced}
    told = ((one.partition, hindrance(one.adding, one.isr, dead)) for one in topic.partitions)
    return [f"{topic.name}/{number}: {why}" for number, why in told if why]


def unknown_logs(topic: TopicDescription, log_dirs: Iterable[LogDirDescription]) -> list[str]:
    """Return why the start, end and bytes of partitions are not known: a sentence for each reason.

    The broker that leads a partition tells them.
    """
    told: set[int] = set()
    silent: set[int] = set()
    for found in log_dirs:
        told.update(one.partition for one in found.replicas if one.is_leader)
        if not found.path:
            silent.add(found.broker_id)
    reasons: dict[str, list[int]] = {}
    for one in topic.partitions:
        if one.partition in told:
            continue
        reason = f"broker {one.leader} has not opened its log"
        if one.leader < 0:
            reason = "no broker leads"
        elif one.leader in silent or one.leader in one.offline:
            reason = f"broker {one.leader} does not answer"
        reasons.setdefault(reason, []).append(one.partition)
    return [
        f"start, end and bytes of partition{'' if len(numbers) == 1 else 's'}"
        f" {', '.join(map(str, numbers))} are not known: {reason}"
        for reason, numbers in reasons.items()
    ]


def troubles(log_dirs: Iterable[LogDirDescription]) -> list[str]:
    """Return a sentence for each replica that is damaged or offline, or lost records."""
    return [
        f"{one.topic}/{one.partition} on broker {found.broker_id}: {one.trouble}"
        for found in log_dirs
        for one in found.replicas
        if one.trouble
    ]


def compaction_failures(log_dirs: Iterable[LogDirDescription]) -> list[str]:
    """Return a sentence for each replica whose last pass of compaction failed."""
    return [
        f"compaction of {one.topic}/{one.partition} fails on broker {found.broker_id}:"
        f" {one.compaction_failure}"
        for found in log_dirs
        for one in found.replicas
        if one.compaction_failure
    ]


def _print_topic(
    session: Session, topic: TopicDescription, logs: Mapping[int, ReplicaSize] | None = None
) -> None:
    """Print a topic. `logs` are the logs of its leaders, as far as they are known."""
    known = {
        number: (one.log_start_offset, one.log_end_offset, one.size)
        for number, one in (logs or {}).items()
    }
    if session.as_json:
        document = asdict(topic)
        for one in document["partitions"] if logs is not None else ():
            found = known.get(one["partition"], (None, None, None))
            one.update(zip(("log_start_offset", "log_end_offset", "size"), found, strict=True))
        del document["internal"], document["warnings"]
        print_json(document)
        return
    rows = [
        (
            one.partition,
            one.leader if one.leader >= 0 else "none",
            one.leader_epoch,
            *(",".join(map(str, ids)) for ids in (one.replicas, one.isr, one.elr, one.offline)),
            *(() if logs is None else known.get(one.partition, ("", "", ""))),
        )
        for one in topic.partitions
    ]
    print_table(
        (
            *("partition", "leader", "leader epoch", "replicas", "ISR", "ELR", "offline"),
            *(() if logs is None else ("start", "end", "bytes")),
        ),
        rows,
        title=f"{topic.name}  ({topic.topic_id})",
    )
    for one in topic.partitions:
        for line in out_of_sync_lines(one):
            sys.stdout.write(f"{topic.name}/{one.partition}: {line}\n")
    for name, value in sorted(topic.configs.items()):
        sys.stdout.write(f"{name} = {value}\n")
