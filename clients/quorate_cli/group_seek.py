"""`quorate group seek`: set a group's committed offsets, to read records again or to pass them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from quorate import Admin, CommittedOffset, Consumer, TopicPartition
from quorate.errors import (
    GroupNotFoundError,
    InvalidPartitionsError,
    InvalidRequestError,
    NonEmptyGroupError,
    OffsetOutOfRangeError,
)
from quorate_cli import record_text
from quorate_cli.completion import partition_names
from quorate_cli.output import print_json, print_table, usage_error
from quorate_cli.session import Group, Session, in_session


@dataclass(frozen=True, slots=True)
class Aim:
    """Where to: exactly one of the fields is set."""

    time_ms: int | None = None
    offset: int | None = None
    shift: int | None = None
    earliest: bool = False
    latest: bool = False


@in_session
def seek(
    session: Session,
    group: Group,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="NAME[/PARTITION]",
            help="Only this topic or partition; may be repeated. Default: all that the group has "
            "committed.",
            autocompletion=partition_names,
        ),
    ] = None,
    to_time: Annotated[
        str | None,
        typer.Option(
            "--to-time",
            metavar="TIME",
            help="To the first record of that time: 2026-01-31T12:00:00 (UTC, unless it names a "
            "zone), or milliseconds since 1970.",
        ),
    ] = None,
    to_offset: Annotated[
        int | None, typer.Option("--to-offset", min=0, help="To this offset; needs --topic.")
    ] = None,
    to_earliest: Annotated[
        bool, typer.Option("--to-earliest", help="To the first record held.")
    ] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="To the end.")] = False,
    shift_by: Annotated[
        int | None,
        typer.Option(
            "--shift-by",
            help="So many records forward, or back if it is negative; never beyond what is held.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
) -> None:
    """Set the committed offsets of a group that has no members.

    The group reads on from there when its members start again.
    """
    given = (to_time is not None, to_offset is not None, to_earliest, to_latest)
    if sum((*given, shift_by is not None)) != 1:
        usage_error(
            "seek takes one of --to-time, --to-offset, --to-earliest, --to-latest and --shift-by"
        )
    if to_offset is not None and not topic:
        usage_error("--to-offset needs --topic: each partition has offsets of its own")
    aim = Aim(
        None if to_time is None else _time(to_time), to_offset, shift_by, to_earliest, to_latest
    )
    named = [_topic(one) for one in topic or ()]

    async def change(
        admin: Admin,
    ) -> tuple[Mapping[TopicPartition, CommittedOffset], dict[TopicPartition, int]]:
        await _check_empty(admin, group)
        committed = await admin.list_group_offsets(group)
        chosen = await _chosen(admin, group, named, committed)
        wanted = await _offsets(session, chosen, committed, aim)
        if not dry_run:
            await admin.alter_group_offsets(group, wanted)
        return committed, wanted

    committed, wanted = session.ask(change)
    rows = [
        (key.topic, key.partition, committed[key].offset if key in committed else None, offset)
        for key, offset in sorted(wanted.items())
    ]
    if session.as_json:
        names = ("topic", "partition", "from", "to")
        print_json(
            {
                "group": group,
                "dry_run": dry_run,
                "offsets": [dict(zip(names, row, strict=True)) for row in rows],
            }
        )
        return
    print_table(
        ("topic", "partition", "from", "to"),
        [(name, number, "" if old is None else old, new) for name, number, old, new in rows],
    )


def _time(text: str) -> int:
    try:
        return record_text.milliseconds_of(text, "--to-time")
    except ValueError as error:
        usage_error(str(error))


def _topic(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"([^/]+)(?:/([0-9]{1,9}))?", text)
    if match is None:
        usage_error(f"--topic takes NAME or NAME/PARTITION, not {text!r}")
    name, number = match.groups()
    return name, None if number is None else int(number)


async def _check_empty(admin: Admin, group: str) -> None:
    """Raise NonEmptyGroupError if the group has members, also before a dry run."""
    try:
        found = (await admin.describe_groups([group]))[group]
    except GroupNotFoundError:
        return  # the commit makes it
    if found.members:
        raise NonEmptyGroupError(
            f"group {group!r} has {len(found.members)} members; stop them before you seek"
        )


async def _chosen(
    admin: Admin,
    group: str,
    named: list[tuple[str, int | None]],
    committed: Mapping[TopicPartition, CommittedOffset],
) -> list[TopicPartition]:
    if not named:
        if not committed:
            raise InvalidRequestError(
                f"group {group!r} has committed nothing: name the topics (--topic)"
            )
        return sorted(committed)
    topics = await admin.describe_topics({name for name, _ in named})
    chosen: set[TopicPartition] = set()
    for name, number in named:
        count = len(topics[name].partitions)
        if number is not None and number >= count:
            raise InvalidPartitionsError(
                f"topic {name!r} has partitions 0 to {count - 1}, and no {number}"
            )
        chosen.update(
            TopicPartition(name, one) for one in (range(count) if number is None else (number,))
        )
    return sorted(chosen)


async def _offsets(
    session: Session,
    chosen: list[TopicPartition],
    committed: Mapping[TopicPartition, CommittedOffset],
    aim: Aim,
) -> dict[TopicPartition, int]:
    async with Consumer(bootstrap_servers=session.bootstrap) as consumer:
        begins = await consumer.beginning_offsets(chosen)
        ends = await consumer.end_offsets(chosen)
        if aim.earliest:
            return begins
        if aim.latest:
            return ends
        if aim.time_ms is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(chosen, aim.time_ms))
            return {key: ends[key] if at is None else at.offset for key, at in found.items()}
    if aim.offset is not None:
        for key in chosen:
            if not begins[key] <= aim.offset <= ends[key]:
                raise OffsetOutOfRangeError(
                    f"{key.topic}/{key.partition} begins at offset {begins[key]} and ends before "
                    f"{ends[key]}; --to-offset {aim.offset} is outside"
                )
        return dict.fromkeys(chosen, aim.offset)
    assert aim.shift is not None
    return _shifted(chosen, committed, aim.shift, begins, ends)


def _shifted(
    chosen: list[TopicPartition],
    committed: Mapping[TopicPartition, CommittedOffset],
    shift: int,
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Return the committed offsets, moved, but not beyond what the logs hold."""
    missing = [key for key in chosen if key not in committed]
    if missing:
        raise InvalidRequestError(
            f"--shift-by moves committed offsets, and {missing[0].topic}/{missing[0].partition} "
            "has none: use another --to"
        )
    return {key: min(max(committed[key].offset + shift, begins[key]), ends[key]) for key in chosen}
