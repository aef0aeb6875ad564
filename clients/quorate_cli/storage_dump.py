"""`quorate storage dump`: shows what is in a node's files."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Annotated

import typer

from quorate_cli.inspect.dump import Bounds, file_row, rows_of, show
from quorate_cli.inspect.node_files import check_ours, directories, is_locked, kind_of
from quorate_cli.output import SAID_NO, Output, check_output, leave_on, note
from quorate_quorum.log.real_disk import ReadOnlyDisk


def dump(
    path: Annotated[str, typer.Argument(help="A log directory, a partition's, or one file.")],
    from_offset: Annotated[int, typer.Option(min=0, help="Skip offsets below this one.")] = 0,
    count: Annotated[
        int | None, typer.Option(min=0, help="Show at most so many events or batches of each log.")
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Show keys and values of the records, too.")
    ] = False,
    metadata: Annotated[
        bool,
        typer.Option(
            "--metadata", help="Read a segment that was copied as one of the metadata log."
        ),
    ] = False,
    output: Output = "text",
) -> None:
    """Show what is in a node's files; the node may be running. Nothing is written.

    With --output json each line is one row. Indexes in a directory are only listed: dump each by
    its own path. Exit status 1 if a file is damaged: then the readable part is shown, and a row of
    kind fault says where it ends.
    """
    as_json = check_output(output)
    asked = Bounds(from_offset, count, records, metadata)
    leave_on(lambda: asyncio.run(_dump(path.rstrip("/") or "/", asked, as_json=as_json)))


async def _dump(path: str, asked: Bounds, *, as_json: bool) -> None:
    is_directory = check_ours(path)
    damaged = False
    with closing(ReadOnlyDisk()) as disk:
        if is_locked(path):
            note("a running node holds this directory: what is shown may be changing")
        parent, _, name = path.rpartition("/")
        found = directories(path) if is_directory else [(parent or ".", [name])]
        for directory, names in found:
            bounds = replace(asked)
            for one in names:
                file = f"{directory}/{one}"
                kind = kind_of(file)
                if is_directory:
                    show(file_row(file), as_json=as_json)
                    if kind in ("offset-index", "time-index"):
                        continue
                # --count applies to all segments together, and to each other file alone
                its = bounds if kind == "segment" else replace(asked)
                async with aclosing(rows_of(disk, file, its)) as rows:
                    async for row in rows:
                        damaged |= row["kind"] == "fault"
                        show(row, as_json=as_json)
    if damaged:
        raise typer.Exit(SAID_NO)
