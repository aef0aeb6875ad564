"""`quorate topic trim`: delete the oldest records of a topic."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from quorate import Consumer, TopicPartition
from quorate.errors import InvalidPartitionsError
from quorate_cli import record_text
from quorate_cli.output import print_json, usage_error
from quorate_cli.session import Name, Session, in_session, run

#: The word for the high watermark, and the offset that means it.
END, HIGH_WATERMARK = "end", -1


@in_session
def trim(
    session: Session,
    name: Name,
    before: Annotated[
        str,
        typer.Option(
            "--before",
            metavar="OFFSET|TIME|end",
            help="Delete the records below this offset; or those before the first record of this "
            "time, as 2026-01-31T12:00:00 (UTC, unless it names a zone); or all.",
        ),
    ],
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this partition; may be repeated.")
    ] = None,
) -> None:
    """Delete the oldest records of a topic, on all replicas."""
    is_offset = re.fullmatch(r"[0-9]{1,18}", before) is not None
    since_ms = None if is_offset or before == END else _time(before)

    async def main() -> dict[TopicPartition, int]:
        topic = await session.must_exist(name)
        count = len(topic.partitions)
        for number in partition or ():
            if number >= count:
                raise InvalidPartitionsError(
                    f"topic {name!r} has partitions 0 to {count - 1}, and no {number}"
                )
        if is_offset and count > 1 and not partition:
            usage_error(f"an offset is of one partition: name it (--partition 0 to {count - 1})")
        chosen = [TopicPartition(name, one) for one in sorted(set(partition or range(count)))]
        if since_ms is None:
            wanted = dict.fromkeys(chosen, int(before) if is_offset else HIGH_WATERMARK)
        else:
            wanted = await _first_at(session, chosen, since_ms)
        async with session.admin() as admin:
            return await admin.delete_records(wanted)

    starts = dict(sorted(run(main, timeout=session.timeout).items()))
    if session.as_json:
        print_json({"topic": name, "starts": {one.partition: at for one, at in starts.items()}})
        return
    for one, at in starts.items():
        sys.stdout.write(f"{name}/{one.partition} begins at offset {at}\n")


async def _first_at(
    session: Session, chosen: list[TopicPartition], since_ms: int
) -> dict[TopicPartition, int]:
    """Return for each partition the first offset at or after a time; -1 if there is none."""
    async with Consumer(bootstrap_servers=session.bootstrap) as consumer:
        found = await consumer.offsets_for_times(dict.fromkeys(chosen, since_ms))
    return {one: HIGH_WATERMARK if at is None else at.offset for one, at in found.items()}


def _time(text: str) -> int:
    now_ms = time.time_ns() // 1_000_000
    try:
        since_ms = record_text.milliseconds_of(text, "--before")
    except ValueError:
        usage_error(
            f"--before takes an offset, a time since 1970 as 2026-01-31T12:00:00, or {END!r},"
            f" not {text!r}"
        )
    if since_ms > now_ms:
        usage_error(
            f"--before takes a time that has passed, not {text!r}: it is {_utc(now_ms)} here;"
            f" {END!r} deletes all records"
        )
    return since_ms


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
