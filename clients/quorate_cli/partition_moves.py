"""`quorate partition move` and `cancel`: replicas move to other brokers."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from quorate import Admin, TopicPartition
from quorate.errors import NoReassignmentInProgressError, QuorateError, UnknownTopicError
from quorate_cli.completion import partition_names
from quorate_cli.move_plan import MovePlan, read_plan
from quorate_cli.move_progress import Looks
from quorate_cli.moves_under_way import NOTHING, look_at_moves
from quorate_cli.output import (
    SAID_NO,
    counted,
    fail,
    note,
    print_json,
    print_table,
    usage_error,
    warn,
)
from quorate_cli.partition_names import every_partition
from quorate_cli.progress import progress
from quorate_cli.session import Session, code_name, in_session, run
from quorate_cli.throttle import Throttle, limit

#: The pause between two looks at the moves, while the command waits for their end.
LOOK_S: Final = 0.5
#: The longest time that `--wait` may be given.
WAIT_MAX_S: Final = 7 * 24 * 3600

Named = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TOPIC[/PARTITION]...",
        help="Several may be named.",
        autocompletion=partition_names,
    ),
]


@in_session
def move(
    session: Session,
    named: Named = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="ID,ID,...", help="The brokers of the replicas, preferred leader first."
        ),
    ] = "",
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan in JSON, as kafka-reassign-partitions reads it, instead of --to.",
        ),
    ] = None,
    keep_factor: Annotated[
        bool,
        typer.Option(
            "--keep-replication-factor", help="Refuse a target with more or fewer replicas."
        ),
    ] = False,
    throttle: Throttle = "",
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            min=0,
            max=WAIT_MAX_S,
            help="Wait for the end of the moves, and show their progress.",
        ),
    ] = 0,
) -> None:
    """Move the replicas of partitions to other brokers.

    New replicas are added and catch up. When all that were asked for are in sync, the others are
    removed. Producers and consumers go on meanwhile, and nothing is lost. A second move of the same
    partition replaces the first; `quorate partition cancel` goes back.

    --throttle limits what each broker sends, and what each takes, for replicas that are added and
    not in sync yet. All moves with the same limit share it. It ends with the move; the same command
    with another --throttle, or without one, changes it.
    """
    _check_words(named, to, plan)
    brokers = _brokers(to) if plan is None else []
    given = MovePlan() if plan is None else read_plan(plan)
    targets = given.targets
    rate = limit(throttle)

    async def question(
        admin: Admin,
    ) -> tuple[dict[TopicPartition, QuorateError | None], _Before]:
        if not targets:
            targets.update(dict.fromkeys(await every_partition(admin, named or ()), brokers))
        if given.directories:
            topics = sorted({key.topic for key, _ in given.directories})
            given.check_directories(await admin.describe_log_dirs(topics))
        before = await _compared(admin, targets)
        found = await admin.reassign_partitions(
            targets,
            expected=given.expected or None,
            keep_replication_factor=keep_factor,
            throttle=rate,
        )
        return found, before

    results, before = session.ask(question)
    found = dict(sorted(results.items()))
    _show_results(session, found, {key: before.done(key) for key in found})
    begun = [key for key, error in found.items() if error is None and key not in before.there]
    if begun:
        warn(before.warnings)
    if wait and begun:
        _await_end(session, {key: targets[key] for key in begun}, wait)
    elif begun and not session.as_json:
        note("it goes on in the background: `quorate partition list-moves` shows how far it is")
    _end(found, "was not moved")


@in_session
def cancel(
    session: Session,
    named: Named = None,
    everything: Annotated[bool, typer.Option("--all", help="Every move under way.")] = False,
) -> None:
    """Cancel moves: the partitions keep the replicas that they had before."""
    if bool(named) == everything:
        usage_error("name one or more TOPIC or TOPIC/PARTITION, or give --all")

    async def question(admin: Admin) -> dict[TopicPartition, QuorateError | None]:
        moving = await admin.list_reassignments()
        chosen = list(moving) if everything else await every_partition(admin, named or ())
        whole = {one for one in named or () if "/" not in one}
        # of a topic that is named as a whole, the partitions that are not being moved are no error
        chosen = [one for one in chosen if one in moving or one.topic not in whole]
        return await admin.reassign_partitions(dict.fromkeys(chosen)) if chosen else {}

    found = dict(sorted(session.ask(question).items()))
    if found or session.as_json:
        _show_results(session, found, dict.fromkeys(found, "cancelled"))
    else:
        sys.stdout.write(NOTHING)
    _end(found, "was not cancelled")


def _await_end(
    session: Session, begun: Mapping[TopicPartition, Sequence[int]], wait_s: float
) -> None:
    """Wait for the end of these moves. Show the bytes that were copied, and an estimate."""

    async def main() -> tuple[list[TopicPartition], list[TopicPartition]]:
        deadline = time.monotonic() + wait_s
        looks = Looks()
        with progress("moving", 1.0, "") as show:
            async with session.admin() as admin:
                while True:
                    look = await look_at_moves(admin, looks)
                    left = [key for key in begun if key in look.moves]
                    if not left or time.monotonic() >= deadline:
                        return left, await _elsewhere(admin, begun, left)
                    shares = [look.progress[key].share for key in left]
                    total, pace = looks.pace_of_all(left)
                    show(
                        (len(begun) - len(left) + sum(shares)) / len(begun),
                        f"{total}, {pace.speed}, time left: {pace.left(total)}",
                    )
                    await asyncio.sleep(min(LOOK_S, max(0.0, deadline - time.monotonic())))

    left, elsewhere = run(main, timeout=wait_s + session.timeout)
    if elsewhere:
        first = elsewhere[0]
        fail(
            f"{len(elsewhere)} of {counted(len(begun), 'move')}"
            f" {'was' if len(elsewhere) == 1 else 'were'} cancelled or replaced meanwhile:"
            f" {first.topic}/{first.partition} has other replicas (`quorate topic describe`)",
            SAID_NO,
        )
    if left:
        fail(
            f"{len(left)} of {counted(len(begun), 'move')}"
            f" {'goes' if len(left) == 1 else 'go'} on after {wait_s:g} s:"
            " `quorate partition list-moves` shows what is left",
            SAID_NO,
        )
    if not session.as_json:
        sys.stdout.write(f"{len(begun)} moved\n")


async def _elsewhere(
    admin: Admin, begun: Mapping[TopicPartition, Sequence[int]], left: Sequence[TopicPartition]
) -> list[TopicPartition]:
    """Return the partitions that are moved no more, and have other replicas than their target."""
    ended = [key for key in begun if key not in left]
    described = await admin.describe_topics({key.topic for key in ended}) if ended else {}
    return [
        key
        for key in ended
        if tuple(described[key.topic].partitions[key.partition].replicas) != tuple(begun[key])
    ]


def _check_words(named: Sequence[str] | None, to: str, plan: Path | None) -> None:
    if plan is not None and (to or named):
        both = "--to" if to else f"the partition {(named or [''])[0]!r}"
        usage_error(f"a plan names partitions and their brokers: give --plan or {both}, not both")
    if plan is None and not named:
        usage_error("name one or more TOPIC or TOPIC/PARTITION, or give --plan FILE")
    if plan is None and not to:
        usage_error("give the brokers of the replicas, as --to 3,4,5, or give --plan FILE")


@dataclass(slots=True)
class _Before:
    """What the targets of moves change, by the replicas before."""

    #: The partitions that have their targets already.
    there: set[TopicPartition] = field(default_factory=set)
    #: The partitions that get more or fewer replicas.
    counts: dict[TopicPartition, str] = field(default_factory=dict)
    #: By topic: that it has too few replicas afterwards.
    too_few: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        return [one for one in self.too_few.values() if one]

    def done(self, key: TopicPartition) -> str:
        """Return what was done by a move that was not refused."""
        if key in self.there:
            return "has these replicas already"
        return ", ".join(filter(None, ("begun", self.counts.get(key))))


async def _compared(admin: Admin, targets: Mapping[TopicPartition, Sequence[int]]) -> _Before:
    """Compare the target of each move with the replicas that the partition has."""
    found = _Before()
    try:
        topics = await admin.describe_topics(sorted({key.topic for key in targets}))
    except UnknownTopicError:
        return found  # the move itself tells it, by partition
    for key, target in targets.items():
        partitions = topics[key.topic].partitions
        if key.partition >= len(partitions):
            continue
        now = partitions[key.partition]
        if tuple(now.replicas) == tuple(target) and not now.adding:
            found.there.add(key)
            continue
        # those that a move under way adds are not there from before
        before = len(now.replicas) - len(now.adding)
        if before != len(target):
            found.counts[key] = f"{before} → {len(target)} replicas"
            if len(target) < before and key.topic not in found.too_few:
                found.too_few[key.topic] = await _too_few(admin, key.topic, len(target))
    return found


async def _too_few(admin: Admin, topic: str, replicas: int) -> str:
    """Return a warning if a topic's min.insync.replicas is above the number; else nothing."""
    name = "min.insync.replicas"
    values = [one.value for one in await admin.describe_configs(topic) if one.name == name]
    if not values or int(values[0]) <= replicas:
        return ""
    return f"{topic}: {name}={values[0]} is above the number of replicas, and counts as {replicas}"


def _brokers(text: str) -> list[int]:
    """Return the ids of brokers in a list with commas.

    >>> _brokers("3, 4")
    [3, 4]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        usage_error(f"--to is the ids of brokers, as 3,4,5; not {text!r}")
    return [int(part) for part in parts]


def _show_results(
    session: Session,
    found: Mapping[TopicPartition, QuorateError | None],
    done: Mapping[TopicPartition, str],
) -> None:
    """Print what became of each partition. `done`: what was done unless there is an error."""
    if session.as_json:
        print_json(
            [
                {
                    "topic": key.topic,
                    "partition": key.partition,
                    "done": done[key] if error is None else "",
                    "error": None if error is None else code_name(error),
                    "message": "" if error is None else str(error),
                }
                for key, error in found.items()
            ]
        )
        return
    print_table(
        ("partition", "result"),
        [
            (
                f"{key.topic}/{key.partition}",
                done[key] if error is None else f"{error} [{code_name(error)}]",
            )
            for key, error in found.items()
        ],
    )


def _end(found: Mapping[TopicPartition, QuorateError | None], what: str) -> None:
    failed = [error for error in found.values() if error is not None]
    if all(isinstance(error, NoReassignmentInProgressError) for error in failed):
        failed = []  # there is nothing to cancel
    if failed:
        fail(f"{len(failed)} of {len(found)}: the partition {what}", SAID_NO)
