"""`quorate cluster rebalance`: give the brokers equal shares of replicas and leaders."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from quorate import Admin, ClusterDescription, LogDirDescription, TopicDescription, TopicPartition
from quorate.errors import InvalidReplicationFactorError, QuorateError
from quorate_cli.cluster_disks import readable
from quorate_cli.output import SAID_NO, fail, print_json, print_table, usage_error
from quorate_cli.rebalance_plan import Broker, Plan, Planner
from quorate_cli.session import Session, code_name, in_session


@in_session
def rebalance(
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan alone. This is the default.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Begin the moves of the plan.")] = False,
) -> None:
    """Plan the moves that give all brokers equal shares of replicas and leaders.

    Replicas move from brokers with many to brokers with few, the smallest first, and never to a
    rack or host that the partition has already if they leave another. Drained brokers are emptied;
    those that are not alive get nothing. --apply begins the moves, and is refused for partitions
    that have other replicas by then.
    """
    if dry_run and apply:
        usage_error("--dry-run prints the plan, and --apply carries it out: give one of them")

    async def question(
        admin: Admin,
    ) -> tuple[ClusterDescription, Plan, dict[TopicPartition, QuorateError | None]]:
        under_way = await admin.list_reassignments()
        if under_way:
            fail(
                f"{len(under_way)} partitions are being moved (`quorate partition list-moves`):"
                " plan again when they have come to their end",
                SAID_NO,
            )
        cluster = await admin.describe_cluster()
        topics = await admin.describe_topics()
        plan = planner(cluster, topics, await admin.describe_log_dirs()).plan()
        if not (apply and plan.targets):
            return cluster, plan, {}
        return (
            cluster,
            plan,
            await admin.reassign_partitions(plan.targets, expected=plan.expected),
        )

    cluster, plan, results = session.ask(question)
    refused = {key: error for key, error in results.items() if error is not None}
    if session.as_json:
        print_json(_document(cluster, plan, results))
    else:
        _show(cluster, plan)
        if results:
            begun = len(results) - len(refused)
            sys.stdout.write(f"{begun} moves begun: `quorate partition list-moves` shows them\n")
        elif plan.targets:
            sys.stdout.write("nothing was moved: --apply begins these moves\n")
    if refused:
        key, error = next(iter(refused.items()))
        fail(
            f"{len(refused)} of {len(results)} moves were refused; {key.topic}/{key.partition}:"
            f" {error} [{code_name(error)}]",
            SAID_NO,
        )


async def change_factor(admin: Admin, topic: str, factor: int) -> None:
    """Begin to give each partition of a topic so many replicas.

    Raises UnknownTopicError, InvalidReplicationFactorError, or the error of the first partition
    that was refused.
    """
    await admin.describe_topics([topic])  # raises if there is no such topic
    cluster, topics = await admin.describe_cluster(), await admin.describe_topics()
    try:
        plan = planner(cluster, topics, []).with_factor(topic, factor)
    except ValueError as error:
        raise InvalidReplicationFactorError(str(error)) from None
    results = await admin.reassign_partitions(plan.targets, expected=plan.expected)
    for refusal in results.values():
        if refusal is not None:
            raise refusal


def planner(
    cluster: ClusterDescription,
    topics: dict[str, TopicDescription],
    directories: list[LogDirDescription],
) -> Planner:
    """Return a planner for a cluster."""
    sizes: dict[TopicPartition, int] = {}
    for directory in directories:
        for one in directory.replicas:
            key = TopicPartition(one.topic, one.partition)
            sizes[key] = max(sizes.get(key, 0), one.size)
    replicas = {
        TopicPartition(name, one.partition): one.replicas
        for name, topic in topics.items()
        for one in topic.partitions
    }
    brokers = [Broker(b.id, b.rack, b.host, b.drained, not b.fenced) for b in cluster.brokers]
    return Planner(brokers, replicas, sizes)


def _show(cluster: ClusterDescription, plan: Plan) -> None:
    where = {b.id: (b.rack, b.host) for b in cluster.brokers}
    print_table(
        ("broker", "rack", "host", "replicas", "leaders", "bytes"),
        [
            (
                broker_id,
                *where.get(broker_id, ("", "not registered")),
                _change(before.replicas, plan.after[broker_id].replicas),
                _change(before.leaders, plan.after[broker_id].leaders),
                _change(readable(before.size), readable(plan.after[broker_id].size)),
            )
            for broker_id, before in plan.before.items()
        ],
    )
    if plan.targets:
        print_table(
            ("partition", "replicas", "target"),
            [
                (f"{key.topic}/{key.partition}", _ids(plan.expected[key]), _ids(target))
                for key, target in plan.targets.items()
            ],
        )
    sys.stdout.write(
        f"by the metadata of offset {cluster.image_offset}: {len(plan.targets)} partitions change,"
        f" {plan.moved_replicas} replicas of {readable(plan.moved_bytes)} are copied\n"
    )


def _change(before: object, after: object) -> str:
    return str(before) if before == after else f"{before} -> {after}"


def _ids(brokers: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, brokers))


def _document(
    cluster: ClusterDescription, plan: Plan, results: dict[TopicPartition, QuorateError | None]
) -> dict[str, object]:
    return {
        "image_offset": cluster.image_offset,
        "brokers": [
            {"id": b, "before": asdict(plan.before[b]), "after": asdict(plan.after[b])}
            for b in plan.before
        ],
        "partitions": [
            {
                "topic": key.topic,
                "partition": key.partition,
                "replicas": target,
                "expected": plan.expected[key],
                "begun": key in results and results[key] is None,
                "error": None if (error := results.get(key)) is None else code_name(error),
            }
            for key, target in plan.targets.items()
        ],
        "moved_replicas": plan.moved_replicas,
        "moved_bytes": plan.moved_bytes,
    }
