"""`quorate storage verify`: check a node's files against themselves and each other."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated

import typer

from quorate_cli.inspect.dump import show
from quorate_cli.inspect.node_files import check_ours, directories, is_locked
from quorate_cli.inspect.verify import check_directory, check_file
from quorate_cli.output import SAID_NO, Output, check_output, leave_on, note
from quorate_quorum.log.real_disk import ReadOnlyDisk


def verify(
    path: Annotated[str, typer.Argument(help="A log directory, a partition's, or one file.")],
    output: Output = "text",
) -> None:
    """Check a node's files: checksums, offsets, indexes, epochs, snapshots, state; change nothing.

    Exit status 0 if all is as it was written, 1 with a list of faults (file, position, what).
    What a running node is just writing is a note and no fault.
    """
    as_json = check_output(output)
    leave_on(lambda: asyncio.run(_verify(path.rstrip("/") or "/", as_json=as_json)))


async def _verify(path: str, *, as_json: bool) -> None:
    is_directory = check_ours(path)
    locked = is_locked(path)
    if locked:
        note("a running node holds this directory: what it writes now is no fault")
    disk = ReadOnlyDisk()
    faults = files = 0
    try:
        for directory, names in directories(path) if is_directory else [("", [path])]:
            files += len(names)
            found = (
                check_directory(disk, directory, names, locked=locked)
                if is_directory
                else check_file(disk, path, locked=locked)
            )
            async with aclosing(found) as rows:
                async for row in rows:
                    faults += row["kind"] == "fault"
                    show(row, as_json=as_json)
    finally:
        disk.close()
    show({"kind": "verified", "files": files, "faults": faults, "locked": locked}, as_json=as_json)
    if faults:
        raise typer.Exit(SAID_NO)
