"""`quorate cluster rebalance`: give brokers equal shares of replicas and preferred leaders."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from quorate import Admin, ClusterDescription, LogDirDescription, TopicDescription, TopicPartition
from quorate.errors import InvalidReplicationFactorError, InvalidRequestError, QuorateError
from quorate_cli import saved_plan
from quorate_cli.cluster_disks import readable
from quorate_cli.output import SAID_NO, counted, fail, print_json, print_table, usage_error
from quorate_cli.rebalance_plan import Broker, Plan, Planner, Share, skew, together
from quorate_cli.saved_plan import SavedPlan
from quorate_cli.session import Session, code_name, in_session
from quorate_cli.throttle import Throttle, limit

K = TypeVar("K")


@in_session
def rebalance(
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan alone. This is the default.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Begin the moves of the plan.")] = False,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="With --apply: the plan that -o json printed earlier."
        ),
    ] = None,
    throttle: Throttle = "",
) -> None:
    """Plan the moves that give all brokers equal shares of replicas and preferred leaders.

    Replicas go to racks and hosts that a partition lacks. Then they move from brokers with many to
    brokers with few, the smallest first; racks and hosts stay as far apart. Drained brokers are
    emptied; those that are not alive get nothing. --apply begins the moves, of a new plan or of the
    one in --plan FILE. If the partitions of the plan or the brokers of their new replicas have
    changed since, it is refused, and nothing is moved. Partitions that are moving to the target of
    the plan already, or are there, are no change: a plan of which a part was begun goes on.

    --throttle limits the copies as that of `quorate partition move` does.
    """
    if dry_run and apply:
        usage_error("--dry-run prints the plan, and --apply carries it out: give one of them")
    if plan is not None and not apply:
        usage_error("--plan FILE is a plan to carry out: give --apply, too")
    if throttle and not apply:
        usage_error("--throttle is for the moves that --apply begins: give both")
    rate = limit(throttle)
    if plan is None:
        _make(session, apply=apply, throttle=rate)
    else:
        _carry_out(session, saved_plan.read(plan), rate)


def _make(session: Session, *, apply: bool, throttle: int) -> None:
    async def question(
        admin: Admin,
    ) -> tuple[
        ClusterDescription,
        dict[str, TopicDescription],
        Plan,
        dict[TopicPartition, QuorateError | None],
    ]:
        under_way = await admin.list_reassignments()
        if under_way:
            fail(
                f"{counted(len(under_way), 'partition')}"
                f" {'is' if len(under_way) == 1 else 'are'} being moved (`quorate partition"
                " list-moves`):"
                " plan again when they have come to their end, or first `quorate partition cancel"
                " --all`",
                SAID_NO,
            )
        cluster = await admin.describe_cluster()
        topics = await admin.describe_topics()
        plan = planner(cluster, topics, await admin.describe_log_dirs()).plan()
        if not (apply and plan.targets):
            return cluster, topics, plan, {}
        results = await admin.reassign_partitions(
            plan.targets, expected=plan.expected, throttle=throttle
        )
        return cluster, topics, plan, results

    cluster, topics, plan, results = session.ask(question)
    if session.as_json:
        print_json(saved_plan.document(cluster, topics, plan, results))
    else:
        _show(cluster, plan)
        if results:
            _tell_begun(results)
        elif plan.targets:
            sys.stdout.write("nothing was moved: --apply begins these moves\n")
    _fail_if_refused(results)


def _carry_out(session: Session, plan: SavedPlan, throttle: int) -> None:
    async def question(admin: Admin) -> dict[TopicPartition, QuorateError | None]:
        cluster, topics = await admin.describe_cluster(), await admin.describe_topics()
        moving = await admin.list_reassignments(plan.targets)
        if not moving and plan.is_carried_out(topics):
            return {}
        changes = list(plan.changes(cluster, topics, moving))
        if changes:
            more = f", and {len(changes) - 5} more" if len(changes) > 5 else ""
            fail(
                f"the cluster has changed since the plan was made (metadata offset"
                f" {plan.image_offset}, now {cluster.image_offset}), and nothing was moved:"
                f" {'; '.join(changes[:5])}{more}. Make a new plan",
                SAID_NO,
            )
        return await admin.reassign_partitions(
            plan.targets, expected=plan.expected, throttle=throttle
        )

    results = session.ask(question)
    if session.as_json:
        print_json(
            [
                {
                    "topic": key.topic,
                    "partition": key.partition,
                    "error": None if error is None else code_name(error),
                }
                for key, error in results.items()
            ]
        )
    else:
        _tell_begun(results)
    _fail_if_refused(results)


def _tell_begun(results: Mapping[TopicPartition, QuorateError | None]) -> None:
    if not results:
        sys.stdout.write("the plan is carried out already\n")
        return
    begun = sum(error is None for error in results.values())
    sys.stdout.write(
        f"{counted(begun, 'move')} begun: `quorate partition list-moves` shows what goes on\n"
    )


def _fail_if_refused(results: Mapping[TopicPartition, QuorateError | None]) -> None:
    refused = {key: error for key, error in results.items() if error is not None}
    if refused:
        key, error = next(iter(refused.items()))
        fail(
            f"{len(refused)} of {counted(len(results), 'move')}"
            f" {'was' if len(refused) == 1 else 'were'} refused; {key.topic}/{key.partition}:"
            f" {error} [{code_name(error)}]",
            SAID_NO,
        )


async def change_factor(
    admin: Admin, topic: str, factor: int, *, validate_only: bool = False
) -> int:
    """Begin to give each partition of a topic so many replicas; or only see that it is possible.

    Return how many partitions get others.

    Raises UnknownTopicError, InvalidReplicationFactorError, InvalidRequestError while partitions of
    the topic are being moved, or the error of the first partition that was refused.
    """
    described = await admin.describe_topics([topic])  # raises if there is no such topic
    keys = [TopicPartition(topic, one.partition) for one in described[topic].partitions]
    moving = sorted(key.partition for key in await admin.list_reassignments(keys))
    if moving:
        raise InvalidRequestError(
            f"partitions {moving} of topic {topic!r} are being moved: wait for their end (`quorate"
            " partition list-moves`), or first `quorate partition cancel` these moves"
        )
    cluster, topics = await admin.describe_cluster(), await admin.describe_topics()
    try:
        plan = planner(cluster, topics, []).with_factor(topic, factor)
    except ValueError as error:
        raise InvalidReplicationFactorError(str(error)) from None
    if validate_only or not plan.targets:
        return len(plan.targets)
    results = await admin.reassign_partitions(plan.targets, expected=plan.expected)
    for refusal in results.values():
        if refusal is not None:
            raise refusal
    return len(plan.targets)


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
    states = {
        TopicPartition(name, one.partition): one
        for name, topic in topics.items()
        for one in topic.partitions
    }
    replicas = {key: one.replicas for key, one in states.items()}
    # Without a leader, the ELR is known to have all records.
    in_sync = {key: one.isr or one.elr for key, one in states.items()}
    offline = {key: one.offline for key, one in states.items()}
    brokers = [Broker(b.id, b.rack, b.host, b.drained, not b.fenced) for b in cluster.brokers]
    return Planner(brokers, replicas, sizes, in_sync, offline)


def _show(cluster: ClusterDescription, plan: Plan) -> None:
    where = {b.id: (b.rack, b.host) for b in cluster.brokers}
    print_table(
        ("broker", "rack", "host", "replicas", "preferred leaders", "bytes"),
        [
            (broker_id, *where.get(broker_id, ("", "not registered")), *_shares(plan, [broker_id]))
            for broker_id in plan.before
        ],
    )
    racks = _groups(plan, {b: rack for b, (rack, _) in where.items()})
    if len(racks) > 1:
        rows = [(rack, len(ids), *_shares(plan, ids)) for rack, ids in racks.items()]
        print_table(("rack", "brokers", "replicas", "preferred leaders", "bytes"), rows)
    hosts = _groups(plan, where)
    if len(hosts) < len(where):
        print_table(
            ("rack", "host", "brokers", "replicas", "preferred leaders", "bytes"),
            [(*host, len(ids), *_shares(plan, ids)) for host, ids in hosts.items()],
        )
    if plan.targets:
        print_table(
            ("partition", "replicas", "target"),
            [
                (f"{key.topic}/{key.partition}", _ids(plan.expected[key]), _ids(target))
                for key, target in plan.targets.items()
            ],
        )
    _show_skew(cluster, plan)
    change = "changes" if len(plan.targets) == 1 else "change"
    sys.stdout.write(
        f"by the metadata of offset {cluster.image_offset}:"
        f" {counted(len(plan.targets), 'partition')} {change}, {_copies(plan)}\n"
    )


def _copies(plan: Plan) -> str:
    """Return what is copied, in words.

    >>> _copies(Plan(moved_replicas=3, moved_bytes=500, moved_of_unknown_size=1))
    '3 replicas are copied: 500 B, and 1 replica of a size that is not known'
    """
    if not plan.moved_replicas:
        return "and nothing is copied"
    are = "is" if plan.moved_replicas == 1 else "are"
    unknown = counted(plan.moved_of_unknown_size, "replica")
    more = f", and {unknown} of a size that is not known" if plan.moved_of_unknown_size else ""
    copied = counted(plan.moved_replicas, "replica")
    return f"{copied} {are} copied: {readable(plan.moved_bytes)}{more}"


def _show_skew(cluster: ClusterDescription, plan: Plan) -> None:
    if not plan.takers:
        sys.stdout.write(
            "all brokers are drained or not alive, so no replica can move: `quorate cluster undrain"
            " ID` lets a broker take replicas again\n"
        )
        return
    skews = ", ".join(
        f"{words} {_change(_skew(plan, plan.before, name), _skew(plan, plan.after, name))}"
        for name, words in (("replicas", "replicas"), ("preferred_leaders", "preferred leaders"))
    )
    sys.stdout.write(f"fewest to most of a broker: {skews}\n")
    for broker in cluster.brokers:
        has = plan.after[broker.id].replicas
        if broker.fenced and has:
            sys.stdout.write(
                f"broker {broker.id} is not alive, and keeps its {counted(has, 'replica')}:"
                " `quorate cluster"
                f" drain {broker.id} --replicas` has others make them anew\n"
            )
        elif broker.drained and has:
            sys.stdout.write(
                f"broker {broker.id} is drained, and keeps {counted(has, 'replica')}: each broker"
                " that is alive and not drained has one of these partitions already\n"
            )


def _shares(plan: Plan, brokers: Iterable[int]) -> tuple[str, str, str]:
    ids = list(brokers)
    before, after = (together(shares[b] for b in ids) for shares in (plan.before, plan.after))
    return (
        _change(before.replicas, after.replicas),
        _change(before.preferred_leaders, after.preferred_leaders),
        _change(_bytes(before.size), _bytes(after.size)),
    )


def _skew(plan: Plan, shares: Mapping[int, Share], name: str) -> str:
    fewest, most = skew(plan.takers, shares, name)
    return f"{fewest} to {most}"


def _groups(plan: Plan, keys: Mapping[int, K]) -> dict[K, list[int]]:
    """Return the brokers with the same key, by key."""
    groups: dict[K, list[int]] = {}
    for broker_id in plan.before:
        if broker_id in keys:
            groups.setdefault(keys[broker_id], []).append(broker_id)
    return dict(sorted(groups.items(), key=lambda item: item[1]))


def _bytes(size: int | None) -> str:
    return "-" if size is None else readable(size)


def _change(before: object, after: object) -> str:
    return str(before) if before == after else f"{before} -> {after}"


def _ids(brokers: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, brokers))
