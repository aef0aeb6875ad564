"""`quorate partition list-moves`: the moves under way, how far and how fast they are."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import typer

from quorate import Admin, TopicPartition
from quorate_cli.cluster_disks import readable
from quorate_cli.move_progress import Look, Looks, Pace, progress_of
from quorate_cli.output import aligned, print_json, print_table
from quorate_cli.progress import live_text
from quorate_cli.session import Session, in_session, run

INTERVAL_MAX_S: Final = 3600.0
HEADER: Final = (
    *("partition", "target", "adding", "removing", "in sync", "copied"),
    *("throttle", "speed", "time left"),
)
NOTHING: Final = "nothing is being moved\n"


@in_session
def list_moves(
    session: Session,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again and again, until nothing is moved.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", "-i", min=0.1, max=INTERVAL_MAX_S, help="Seconds between two looks."
        ),
    ] = 2.0,
) -> None:
    """List the partitions whose replicas are being moved: how far they are, how fast, what is left.

    The command looks twice, and the speed is that between the looks. The time left is an estimate
    from it, or why there is none: "all copied" (it waits until the replicas are in sync), "falls
    behind" (the partition is written to faster than it is copied), "nothing copied", after half a
    minute "stands still", "no leader: nothing is copied", or the brokers that are not alive. Only
    the leader tells how much there is to copy: without its answer, the bytes are not known (null
    with -o json). A throttled copy comes in bursts: for the first half minute of --watch, its speed
    and time are those of the throttle.

    --watch shows the same again and again: on a terminal as one table, in a pipe as plain text, or
    with -o json as a document on each line.
    """
    looks = Looks()

    async def main() -> None:
        async with session.admin() as admin:
            look = await look_at_moves(admin, looks)
            if look.moves and not watch:
                await asyncio.sleep(interval)
                look = await look_at_moves(admin, looks)
            # Ctrl-C is the usual end
            with contextlib.suppress(asyncio.CancelledError):
                with live_text(is_wanted=watch and not session.as_json) as show:
                    while look.moves and watch:
                        await asyncio.sleep(interval)
                        look = await look_at_moves(admin, looks)
                        if look.moves and session.as_json:
                            print_json(_documents(look, looks))
                        elif look.moves:
                            show(aligned(_rows(look, looks)))
                _show_moves(session, look, looks)

    run(main, timeout=session.timeout, bounded=False)


async def look_at_moves(admin: Admin, looks: Looks) -> Look:
    """Look at the moves under way, and at the sizes of the replicas of their topics."""
    moves = await admin.list_reassignments()
    topics = sorted({key.topic for key in moves})
    sizes = await admin.describe_log_dirs(topics) if topics else []
    brokers = (await admin.describe_cluster()).brokers if moves else ()
    far = {key: progress_of(key, one, sizes) for key, one in sorted(moves.items())}
    dead = frozenset(one.id for one in brokers if one.fenced)
    look = Look(time.monotonic(), moves, far, dead)
    looks.add(look)
    return look


def _show_moves(session: Session, look: Look, looks: Looks) -> None:
    if session.as_json:
        print_json(_documents(look, looks))
    elif not look.moves:
        sys.stdout.write(NOTHING)
    else:
        header, *rows = _rows(look, looks)
        print_table(header, rows)


def _rows(look: Look, looks: Looks) -> list[Sequence[str]]:
    return [HEADER, *(_row(key, look, looks.pace_of(key)) for key in look.progress)]


def _documents(look: Look, looks: Looks) -> list[dict[str, object]]:
    return [_document(key, look, looks.pace_of(key)) for key in look.progress]


def _row(key: TopicPartition, look: Look, pace: Pace) -> Sequence[str]:
    move, far = look.moves[key], look.progress[key]
    return (
        f"{key.topic}/{key.partition}",
        *map(_ids, (move.target, move.adding, move.removing, move.isr)),
        str(far),
        f"{readable(move.throttle)}/s" if move.throttle else "-",
        pace.speed,
        look.hindrance(key) or pace.left(far),
    )


def _ids(brokers: Iterable[int]) -> str:
    return ",".join(map(str, brokers)) or "-"


def _document(key: TopicPartition, look: Look, pace: Pace) -> dict[str, object]:
    move, far, why = look.moves[key], look.progress[key], look.hindrance(key)
    return {
        "topic": key.topic,
        "partition": key.partition,
        "target": move.target,
        "adding": move.adding,
        "removing": move.removing,
        "isr": move.isr,
        "leader": move.leader,
        "copied_bytes": None if far.unknown else far.done,
        "total_bytes": None if far.unknown else far.total,
        "throttle": move.throttle or None,
        "bytes_per_second": pace.bytes_per_s,
        "seconds_left": None if why else pace.seconds_left,
        "hindrance": why or None,
    }
