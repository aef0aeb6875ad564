"""`quorate group`: list, describe, seek, delete."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from quorate import Admin, GroupDescription
from quorate_cli.completion import group_names
from quorate_cli.group_lag import PartitionLag, lags
from quorate_cli.lazy_group import Later, lazy_group
from quorate_cli.output import print_json, print_table
from quorate_cli.session import Group, Session, in_session

app = typer.Typer(no_args_is_help=True, cls=lazy_group({"seek": Later("group_seek:seek")}))


@app.command("list")
@in_session
def list_groups(session: Session) -> None:
    """List the consumer groups."""
    found = session.ask(lambda admin: admin.list_groups())
    if session.as_json:
        print_json([asdict(one) for one in found])
        return
    print_table(
        ("group", "state", "protocol", "members", "coordinator"),
        [(one.group_id, one.state, one.protocol, one.members, one.coordinator) for one in found],
    )


@app.command()
@in_session
def describe(session: Session, group: Group) -> None:
    """Show a group's members, its committed offsets, and how far it is behind.

    The lag is the number of records that are not committed, and the age of the first of them.
    """

    async def question(admin: Admin) -> tuple[GroupDescription, list[PartitionLag]]:
        found = (await admin.describe_groups([group]))[group]
        return found, await lags(session, admin, found)

    found, partitions = session.ask(question)
    if session.as_json:
        print_json(_document(found, partitions))
        return
    print_table(
        ("group", "state", "protocol", "assignor", "epoch", "members", "coordinator"),
        [
            (
                found.group_id,
                found.state,
                found.protocol,
                found.assignor,
                found.group_epoch,
                len(found.members),
                found.coordinator,
            )
        ],
    )
    if found.members:
        print_table(
            ("member", "instance", "client", "host", "epoch", "partitions"),
            [
                (
                    one.member_id,
                    one.instance_id,
                    one.client_id,
                    one.client_host,
                    one.member_epoch,
                    len(one.assignment),
                )
                for one in found.members
            ],
        )
    if partitions:
        print_table(
            ("partition", "committed", "end", "lag", "behind", "member"),
            [
                (
                    f"{one.topic}/{one.partition}",
                    _known(one.committed),
                    _known(one.end),
                    _known(one.lag),
                    "" if one.lag_ms is None else f"{one.lag_ms / 1000:.1f} s",
                    one.member_id,
                )
                for one in partitions
            ],
        )


@app.command()
@in_session
def delete(
    session: Session,
    groups: Annotated[
        list[str],
        typer.Argument(metavar="GROUP...", help="The groups.", autocompletion=group_names),
    ],
) -> None:
    """Delete groups without members, and their committed offsets."""
    session.ask(lambda admin: admin.delete_groups(groups))
    session.answer({"deleted": groups}, "")


def _known(number: int | None) -> object:
    return "" if number is None else number


def _document(found: GroupDescription, partitions: list[PartitionLag]) -> dict[str, Any]:
    document = asdict(found)
    for member, one in zip(document["members"], found.members, strict=True):
        for name, keys in (("assignment", one.assignment), ("target", one.target)):
            member[name] = [{"topic": key.topic, "partition": key.partition} for key in keys]
    document["partitions"] = [asdict(one) for one in partitions]
    return document
