"""`quorate quorum shell`: look at the metadata on a disk. No quorum is needed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from quorate_cli.inspect.content import DamagedError
from quorate_cli.inspect.image import Found, read_image
from quorate_cli.inspect.image_shell import ImageShell, LeaveShell, ShellError, path_text, words_of
from quorate_cli.inspect.image_tree import tree_of
from quorate_cli.output import SAID_NO, Output, check_output, fail, leave_on, note, say
from quorate_quorum.log.real_disk import ReadOnlyDisk
from quorate_quorum.node.config import ConfigError

LIMIT = 10_000


def shell(
    path: Annotated[str, typer.Argument(help="A snapshot, a metadata log, or a log directory.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(help="ls, cat, find or tree; default: read commands line by line."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most lines that one command prints.")] = LIMIT,
    output: Output = "text",
) -> None:
    """Look at the metadata on a node's disk; the node may be running. Nothing is written.

    Standard error says what may not be committed. Options must come before PATH. Exit status 1 if a
    command failed or was cut at the limit, or if the disk's content is damaged.
    """
    as_json = check_output(output)
    leave_on(lambda: _shell(path, [] if command is None else command, limit, as_json=as_json))


def _shell(path: str, words: list[str], limit: int, *, as_json: bool) -> None:
    try:
        found = asyncio.run(_read(path.rstrip("/") or "/"))
    except (DamagedError, ConfigError) as error:
        fail(str(error), SAID_NO)
    for one in found.notes():
        note(one)
    walk = ImageShell(tree_of(found), as_json=as_json)
    if words[:1] == ["--"]:
        words = words[1:]
    with contextlib.suppress(LeaveShell):
        if not (_carry_out(walk, words, limit) if words else _converse(walk, limit)):
            raise typer.Exit(SAID_NO)


async def _read(path: str) -> Found:
    with contextlib.closing(ReadOnlyDisk()) as disk:
        return await read_image(disk, path)


def _converse(walk: ImageShell, limit: int) -> bool:
    """Run each line as a command. Return whether all succeeded.

    On a terminal this returns True, because the user has seen the errors.
    """
    is_terminal = sys.stdin.isatty()
    failed = 0
    for line in _typed(walk) if is_terminal else sys.stdin:
        try:
            failed += not _carry_out_line(walk, line, limit)
        except LeaveShell:
            break
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            sys.stdout.write("\n")
    return is_terminal or not failed


def _carry_out_line(walk: ImageShell, line: str, limit: int) -> bool:
    try:
        words = words_of(line)
    except ShellError as error:
        return _failed(str(error))
    return not words or _carry_out(walk, words, limit)


def _carry_out(walk: ImageShell, words: list[str], limit: int) -> bool:
    """Print the lines of a command, at most `limit`. Return False if it failed or was cut."""
    try:
        for number, line in enumerate(walk.run(words)):
            if number == limit:
                return _failed(f"cut after {limit} lines: --limit allows more")
            sys.stdout.write(line + "\n")
    except ShellError as error:
        return _failed(str(error))
    finally:
        sys.stdout.flush()
    return True


def _failed(why: str) -> bool:
    say(why)
    return False


def _typed(walk: ImageShell) -> Iterator[str]:
    """Yield the lines that the user types.

    The prompt remembers lines and completes words if Python has readline.
    """
    with contextlib.suppress(ImportError):
        import readline

        def completed(word: str, state: int) -> str | None:
            found = walk.complete(readline.get_line_buffer()[: readline.get_endidx()], word)
            return found[state] if state < len(found) else None

        readline.set_completer(completed)
        readline.set_completer_delims(" \t")
        readline.parse_and_bind("tab: complete")
    while True:
        try:
            yield input(f"quorate:{path_text(walk.folder)}> ")
        except KeyboardInterrupt:
            sys.stdout.write("\n")
        except EOFError:
            sys.stdout.write("\n")
            return
