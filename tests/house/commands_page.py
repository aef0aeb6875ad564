"""Writes docs/commands.md from the commands themselves: `make docs`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from quorate_cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
INTRODUCTION = """\
# Commands

This page is made from the commands (`make docs`). `-h` after any command prints its part. The
README has examples; `quorate completion` lets a shell complete commands, options and names.

Answers go to standard output: a table on a terminal, plain text in a pipe, with `-o json` one JSON
document, or one a line for streams of records. Diagnostics go to standard error.

| exit status | means |
|---|---|
| 0 | done |
| 1 | the cluster refused: the reason and its code are printed |
| 2 | wrong usage |
| 3 | no answer within `--timeout` |
| 130 | ended by Ctrl-C |

"""
OF_A_CLUSTER = "Commands about a cluster have these options too:"
#: The options of every command that asks a cluster. The page lists them once.
SHARED = ("bootstrap", "output", "timeout")


def page() -> str:
    """Return the whole page."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("quorate", [], resilient_parsing=True)
    shared = [one for one in _command(context, root, "top").params if one.name in SHARED]
    parts = [f"{INTRODUCTION}{OF_A_CLUSTER}\n\n{_table(shared, context)}"]
    for name in root.list_commands(context):
        parts += _sections(context, root, name, 2)
    return "\n".join(parts)


def commands() -> list[list[str]]:
    """Return the words of every command and of every group of commands."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("quorate", [], resilient_parsing=True)
    return [[], *_words(context, root, [])]


def _words(context: Any, group: Any, before: list[str]) -> Iterator[list[str]]:
    for name in group.list_commands(context):
        command, words = _command(context, group, name), [*before, name]
        yield words
        if hasattr(command, "list_commands"):
            yield from _words(_inside(context, command, name), command, words)


def _sections(context: Any, group: Any, name: str, level: int) -> Iterator[str]:
    command = _command(context, group, name)
    inner = _inside(context, command, name)
    yield f"{'#' * level} {inner.command_path}\n"
    if hasattr(command, "list_commands"):
        yield f"{_help(command)}\n"
        for one in command.list_commands(inner):
            yield from _sections(inner, command, one, level + 1)
        return
    usage = " ".join(command.collect_usage_pieces(inner))
    yield f"```\n{inner.command_path} {usage}\n```\n\n{_help(command)}\n"
    own = [one for one in command.params if not _is_shared(one, command) and not one.hidden]
    if own:
        yield _table(own, inner)


def _command(context: Any, group: Any, name: str) -> Any:
    """Return a command as it runs: imported, if it is imported later."""
    return group.resolve_command(context, [name])[1]


def _inside(context: Any, command: Any, name: str) -> Any:
    return command.make_context(name, [], parent=context, resilient_parsing=True)


def _is_shared(param: Any, command: Any) -> bool:
    """Whether the option is one of a session; others have the same name in some commands."""
    return param.name in SHARED and set(SHARED) <= {one.name for one in command.params}


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "").strip()


def _table(params: list[Any], context: Any) -> str:
    lines = ["| argument or option | meaning |", "|---|---|"]
    for one in params:
        words, meaning = one.get_help_record(context)
        lines.append(f"| `{_escaped(words)}` | {_escaped(meaning)} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(page())
