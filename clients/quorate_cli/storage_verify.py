"""`quorate storage verify`: checks a node's files, each alone and against each other."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Annotated

import typer

from quorate_cli.inspect.dump import show
from quorate_cli.inspect.node_files import check_ours, directories, is_locked
from quorate_cli.inspect.verify import Findings, check_directory, check_file
from quorate_cli.output import SAID_NO, Output, check_output, leave_on, note
from quorate_quorum.log.real_disk import ReadOnlyDisk


def verify(
    path: Annotated[str, typer.Argument(help="A log directory, a partition's, or one file.")],
    output: Output = "text",
) -> None:
    """Check a node's files: checksums, offsets, indexes, epochs, snapshots, state.

    Nothing is changed. Exit status 0 if no fault is found; 1 with a list of faults (file, position,
    what). If the node is running, a write that is under way is a note, and no fault.
    """
    as_json = check_output(output)
    leave_on(lambda: asyncio.run(_verify(path.rstrip("/") or "/", as_json=as_json)))


async def _verify(path: str, *, as_json: bool) -> None:
    is_directory = check_ours(path)
    found = Findings(as_json, is_locked(path))
    if found.locked:
        note("a running node holds this directory: what it writes now is no fault")
    files = 0
    with closing(ReadOnlyDisk()) as disk:
        for directory, names in directories(path) if is_directory else [("", [path])]:
            files += len(names)
            if is_directory:
                await check_directory(disk, directory, names, found)
            else:
                await check_file(disk, path, found)
    summary = {"kind": "verified", "files": files, "faults": found.faults, "locked": found.locked}
    show(summary, as_json=as_json)
    if found.faults:
        raise typer.Exit(SAID_NO)
