"""`quorate partition`: elect, move, list-moves, cancel."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from quorate import Admin, LeaderElection, TopicPartition
from quorate.errors import ElectionNotNeededError
from quorate_cli import moves_under_way, partition_moves
from quorate_cli.completion import partition_names
from quorate_cli.output import SAID_NO, counted, fail, print_json, print_table, usage_error
from quorate_cli.partition_names import every_partition, parsed
from quorate_cli.session import Session, code_name, in_session

app = typer.Typer(no_args_is_help=True)


@app.callback()
def partition() -> None:
    """Elect leaders of partitions; move their replicas."""


app.command("move")(partition_moves.move)
app.command("list-moves")(moves_under_way.list_moves)
app.command("cancel")(partition_moves.cancel)


@app.command()
@in_session
def elect(
    session: Session,
    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TOPIC[/PARTITION]...",
            help="Several may be named.",
            autocompletion=partition_names,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All partitions that need an election.")
    ] = False,
    unclean: Annotated[
        bool,
        typer.Option("--unclean", help="For partitions without a leader: elect one with a loss."),
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="With --unclean: acknowledged records may go.")
    ] = False,
) -> None:
    """Let the preferred replica lead: the first of a partition's replicas.

    It is elected if it is in the ISR and its broker is alive; nothing is lost.

    With --unclean, a partition without a leader gets one even if no replica has surely all records.
    The replica with the furthest log leads, and the others cut their logs to it: ACKNOWLEDGED
    RECORDS MAY BE LOST, for good. Wait for the brokers that have them if they can come back.
    """
    if bool(named) == everything:
        usage_error("name one or more TOPIC or TOPIC/PARTITION, or give --all")
    if unclean != accept_loss:
        usage_error(
            "--unclean may lose acknowledged records for good: give --accept-loss with it"
            if unclean
            else "--accept-loss goes with --unclean"
        )
    for one in named or ():
        parsed(one)

    async def question(admin: Admin) -> dict[TopicPartition, LeaderElection]:
        if everything:
            return await admin.elect_leaders(unclean=unclean)
        return await admin.elect_leaders(await every_partition(admin, named or ()), unclean=unclean)

    found = dict(sorted(session.ask(question).items()))
    if session.as_json:
        print_json([_document(*one) for one in found.items()])
    else:
        rows = [
            (f"{key.topic}/{key.partition}", one.leader if one.leader >= 0 else "none", _said(one))
            for key, one in found.items()
        ]
        if rows:
            print_table(("partition", "leader", "result"), rows)
        else:
            sys.stdout.write("no partition needs an election\n")
    failed = sum(not _is_fine(one) for one in found.values())
    if failed:
        fail(f"{failed} of {counted(len(found), 'partition')} had no election", SAID_NO)


def _is_fine(one: LeaderElection) -> bool:
    return one.error is None or isinstance(one.error, ElectionNotNeededError)


def _said(one: LeaderElection) -> str:
    if one.error is not None:
        return f"{one.error} [{code_name(one.error)}]"
    return "elected; acknowledged records may be lost" if one.may_have_lost else "elected"


def _document(key: TopicPartition, one: LeaderElection) -> dict[str, object]:
    return {
        "topic": key.topic,
        "partition": key.partition,
        "leader": one.leader,
        "elected": one.error is None,
        "may_have_lost": one.may_have_lost,
        "error": None if one.error is None else code_name(one.error),
        "message": "" if one.error is None else str(one.error),
    }
