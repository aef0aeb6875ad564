"""`quorate storage verify`: checks a node's files, each alone and against each other."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import closing
from typing import Annotated

import typer

from quorate_cli.inspect.dump import show
from quorate_cli.inspect.node_files import check_ours, directories, is_locked, is_metadata_log
from quorate_cli.inspect.repair import Loss, NotRepairableError, find_loss, kept_beside, repair
from quorate_cli.inspect.verify import Findings, check_directory, check_file
from quorate_cli.output import (
    SAID_NO,
    Output,
    check_output,
    fail,
    leave_on,
    note,
    usage_error,
)
from quorate_cli.progress import progress
from quorate_quorum.disk import Lock
from quorate_quorum.log.identity import FILE_NAME as IDENTITY_FILE
from quorate_quorum.log.real_disk import ReadOnlyDisk, RealDisk


def verify(
    path: Annotated[str, typer.Argument(help="A log directory, a partition's, or one file.")],
    mend: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Of logs of partitions, say what a cut at the first bad batch would lose.",
        ),
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="With --repair: cut, and lose these records.")
    ] = False,
    output: Output = "text",
) -> None:
    """Check a node's files: checksums, offsets, indexes, epochs, snapshots, state.

    Nothing is changed. Exit status 0 if no fault is found; 1 with a list of faults (file, position,
    what). If the node is running, a write that is under way is a note, and no fault.

    --repair is for a broker that is stopped. It tells which records a cut of each damaged log would
    lose, and changes nothing unless --accept-loss is given, too. The bytes that are cut off are
    kept beside the log. The broker reports the replica as lossy at its next start, and fetches what
    other replicas have. A broker does this without help as soon as other replicas are in sync:
    repair only what has no other copy.
    """
    as_json = check_output(output)
    if accept_loss and not mend:
        usage_error("--accept-loss goes with --repair")
    path = path.rstrip("/") or "/"
    if mend:
        leave_on(lambda: asyncio.run(_repair(path, accept_loss=accept_loss, as_json=as_json)))
    else:
        leave_on(lambda: asyncio.run(_verify(path, as_json=as_json)))


async def _verify(path: str, *, as_json: bool) -> None:
    is_directory = check_ours(path)
    found = Findings(as_json, is_locked(path))
    if found.locked:
        note("a running node holds this directory: what it writes now is no fault")
    files = 0
    with closing(ReadOnlyDisk()) as disk:
        checked = directories(path) if is_directory else [("", [path])]
        total = sum(len(names) for _, names in checked)
        with progress(f"checking {path}", total, "files") as show_done:
            for directory, names in checked:
                if is_directory:
                    await check_directory(disk, directory, names, found)
                else:
                    await check_file(disk, path, found)
                files += len(names)
                show_done(files)
    summary = {"kind": "verified", "files": files, "faults": found.faults, "locked": found.locked}
    show(summary, as_json=as_json)
    if found.faults:
        raise typer.Exit(SAID_NO)


async def _repair(path: str, *, accept_loss: bool, as_json: bool) -> None:
    if not check_ours(path):
        usage_error(f"{path} is one file; --repair takes a log directory, or a partition's")
    with closing(RealDisk()) as disk:
        lock = await _claim(disk, path)
        try:
            losses, refused = await _losses(disk, path, as_json=as_json)
            if accept_loss:
                now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                for loss in losses:
                    kept = kept_beside(loss.directory, now)
                    end = await repair(disk, loss, kept)
                    row = {"directory": loss.directory, "log_end_offset": end}
                    show({"kind": "cut", **row, "kept": kept if loss.cut else ""}, as_json=as_json)
        finally:
            lock.release()
    if refused:
        raise typer.Exit(SAID_NO)
    if losses and not accept_loss:
        fail("nothing was changed; to lose these records, add --accept-loss", SAID_NO)
    if not losses:
        note("no log of a partition has a bad batch: there is nothing to cut")


async def _claim(disk: RealDisk, path: str) -> Lock:
    """Lock the log directory of a path, so that no node starts during the repair."""
    here = os.path.abspath(path)
    for directory in (here, os.path.dirname(here)):
        if os.path.exists(f"{directory}/{IDENTITY_FILE}"):
            try:
                return await disk.lock(directory)
            except BlockingIOError:
                fail(f"a running node holds {directory}: stop it first", SAID_NO)
    fail(f"{path} is in no log directory of a node: there is no {IDENTITY_FILE}", SAID_NO)


async def _losses(disk: RealDisk, path: str, *, as_json: bool) -> tuple[list[Loss], bool]:
    """Print what a cut of each damaged log would lose. Return that, and if a log is refused."""
    losses, refused = [], False
    for directory, _ in directories(path):
        if is_metadata_log(directory):
            note(f"{directory}: the log of a voter is not cut; replace the disk of the voter")
            continue
        try:
            loss = await find_loss(disk, directory)
        except NotRepairableError as error:
            refused = True
            show({"kind": "refused", "directory": directory, "what": str(error)}, as_json=as_json)
            continue
        if loss is not None:
            losses.append(loss)
            show(_row(loss), as_json=as_json)
    return losses, refused


def _row(loss: Loss) -> dict[str, object]:
    return {
        "kind": "loss",
        "file": loss.file,
        "position": loss.position,
        "what": loss.what,
        "lost_from_offset": loss.first,
        "lost_before_offset": loss.end,
        "synced_before_offset": loss.synced_end,
        "cut_bytes": loss.cut_bytes,
    }
