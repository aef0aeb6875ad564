"""The output of commands, and their exit statuses.

Exit status: 0 done; 1 the cluster refused; 2 wrong usage; 3 no answer within the timeout. Answers
go to standard output, as text or as one JSON document. Diagnostics go to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from quorate.errors import QuorateError

if TYPE_CHECKING:
    from rich.console import Console

DONE, SAID_NO, WRONG_USAGE, NO_ANSWER = 0, 1, 2, 3

Output = Annotated[
    str, typer.Option("--output", "-o", metavar="text|json", help="The form of the output.")
]


def check_output(output: str) -> bool:
    """Return whether to print JSON. Wrong usage if the word is neither text nor json."""
    return check_word("--output", output, ("text", "json")) == "json"


def check_word(option: str, given: str, allowed: Sequence[str]) -> str:
    """Return the word that an option gives. Wrong usage if it is none of those allowed."""
    if given not in allowed:
        *others, last = allowed
        usage_error(f"{option} must be {', '.join(others)} or {last}, not {given!r}")
    return given


def console(*, stderr: bool = False) -> Console:
    """Return a Console. It prints with colours on a terminal, and plainly to a pipe."""
    # import it here, because many commands do not need it
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
) -> None:
    """Print a rich table to a terminal, or plain columns to a pipe."""
    terminal = console()
    if not terminal.is_terminal:
        sys.stdout.write(aligned([columns, *rows]))
        return
    from rich.table import Table

    table = Table(*columns, title=title, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    terminal.print(table)


def aligned(rows: Sequence[Sequence[object]]) -> str:
    """Return the rows as aligned columns. An empty cell becomes a dash.

    >>> print(aligned([("id", "rack"), (100, ""), (1, "A")]), end="")
    id   rack
    100  -
    1    A
    """
    cells = [[str(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in cells
    )


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which gets an "s" unless the number is 1.

    >>> counted(1, "move"), counted(0, "record"), counted(2, "move of replicas")
    ('1 move', '0 records', '2 moves of replicas')
    """
    if count == 1:
        return f"1 {noun}"
    first, space, rest = noun.partition(" ")
    return f"{count} {first}s{space}{rest}"


def tell(message: str, style: str = "") -> None:
    """Print a line to standard error. `style` is a style of rich."""
    console(stderr=True).print(message, style=style, markup=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a fault to standard error."""
    tell(f"quorate: {message}", "red")


def note(text: str) -> None:
    """Print a piece of information, which is no fault, to standard error."""
    sys.stderr.write(f"note: {text}\n")


def warn(messages: Iterable[str]) -> None:
    """Print warnings to standard error: the command's change may not have the expected effect."""
    for message in messages:
        tell(f"quorate: warning: {message}", "yellow")


def fail(message: str, status: int) -> NoReturn:
    """Print the reason to standard error, and end the command with a status."""
    say(message)
    raise typer.Exit(status)


def usage_error(message: str) -> NoReturn:
    """Print what is wrong with the command line, and end the command with status 2."""
    fail(message, WRONG_USAGE)


def os_reason(error: OSError) -> str:
    """Return the file and the system's reason.

    >>> os_reason(FileNotFoundError(2, "No such file or directory", "/no/such"))
    '/no/such: No such file or directory'
    """
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def leave_on(main: Callable[[], object]) -> None:
    """Run a command that asks no cluster. Errors become a message and an exit status."""
    try:
        main()
    except BrokenPipeError:
        no_more_output()
    except OSError as error:
        fail(os_reason(error), SAID_NO)
    except QuorateError as error:
        fail(str(error), SAID_NO)
    except ValueError as error:
        usage_error(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def no_more_output() -> NoReturn:
    """End with status 0, because the reader of the output has closed the pipe (as `head` does)."""
    # send the rest to /dev/null: Python flushes standard output at exit, and would fail on the
    # closed pipe
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(0)
