"""What every command shares: where the cluster is, how to print, which exit status to leave.

Exit status: 0 done; 1 the cluster said no; 2 wrong usage; 3 no answer within the timeout.
JSON goes to standard output, one document; diagnostics go to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from quorate import Admin, TopicDescription
from quorate.errors import (
    DeadlineExceededError,
    NetworkError,
    PeerError,
    QuorateError,
    QuorumUnavailableError,
    RequestTimedOutError,
)
from quorate.v1.common_pb2 import ErrorCode

T = TypeVar("T")

DONE, SAID_NO, WRONG_USAGE, NO_ANSWER = 0, 1, 2, 3

Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap",
        envvar="QUORATE_BOOTSTRAP",
        metavar="HOST:PORT[,...]",
        help="Brokers to ask first.",
    ),
]
Output = Annotated[str, typer.Option("--output", "-o", metavar="text|json", help="How to print.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.")]

Name = Annotated[str, typer.Argument(metavar="NAME", help="The topic.")]

DEFAULT_BOOTSTRAP = "localhost:7092"
#: The client itself ends within --timeout and says what was wrong; this is the time for that.
TIMEOUT_SLACK_S = 0.5
TIMEOUT_MAX_S = 24 * 3600

console = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def check_output(output: str) -> bool:
    """Return whether to print JSON; wrong usage if the word is neither text nor json."""
    if output not in ("text", "json"):
        usage_error(f"--output must be text or json, not {output!r}")
    return output == "json"


def usage_error(message: str) -> NoReturn:
    """Say what is wrong with the command line, and leave with status 2."""
    fail(message, WRONG_USAGE)


def admin_at(bootstrap: str, timeout: float) -> Admin:
    """Return an Admin that asks there and waits for so many seconds; not started."""
    return Admin(bootstrap_servers=bootstrap, request_timeout_ms=milliseconds(timeout))


async def must_exist(name: str, bootstrap: str, timeout: float) -> TopicDescription:
    """Return a topic; UnknownTopicError at once, where clients wait a while for it to be made."""
    async with (
        asyncio.timeout(timeout + TIMEOUT_SLACK_S),
        admin_at(bootstrap, timeout) as admin,
    ):
        return (await admin.describe_topics([name]))[name]


def milliseconds(timeout: float) -> int:
    """Return --timeout in milliseconds; ValueError if it is no time to wait.

    >>> milliseconds(2.5)
    2500
    """
    if not 0.001 <= timeout <= TIMEOUT_MAX_S:
        raise ValueError(f"--timeout must be 0.001 to {TIMEOUT_MAX_S} s, not {timeout:g}")
    return int(timeout * 1000)


def run(main: Callable[[], Coroutine[Any, Any, T]], *, timeout: float, bounded: bool = True) -> T:
    """Run a command's coroutine; turn what it raises into a message and an exit status.

    Where it is not `bounded` it may last, and raises TimeoutError itself where it waits too long.
    """
    try:
        return asyncio.run(_bounded(main, milliseconds(timeout), bounded=bounded))
    except (TimeoutError, DeadlineExceededError) as error:
        fail(
            f"no answer within {timeout:g} s (--timeout); perhaps the quorum has no leader: "
            "`quorate cluster info`, which needs none, tells"
            + (f" ({error})" if str(error) else ""),
            NO_ANSWER,
        )
    except (QuorumUnavailableError, RequestTimedOutError) as error:
        fail(str(error), NO_ANSWER)
    except PeerError as error:
        fail(str(error), SAID_NO)
    except NetworkError as error:
        fail(str(error), NO_ANSWER)
    except QuorateError as error:
        fail(f"{error} [{code_name(error)}]", SAID_NO)
    except BrokenPipeError:
        _no_more_output()
    except OSError as error:
        usage_error(os_reason(error))
    except ValueError as error:
        usage_error(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def os_reason(error: OSError) -> str:
    """Return what the system refused, of which file.

    >>> os_reason(FileNotFoundError(2, "No such file or directory", "/no/such"))
    '/no/such: No such file or directory'
    """
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def leave_on(main: Callable[[], object]) -> None:
    """Run a command that asks no cluster; turn what it raises into a message and an exit status."""
    try:
        main()
    except BrokenPipeError:
        _no_more_output()
    except OSError as error:
        fail(os_reason(error), SAID_NO)
    except QuorateError as error:
        fail(str(error), SAID_NO)
    except ValueError as error:
        usage_error(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _no_more_output() -> NoReturn:
    """Who read our output has enough, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
    raise typer.Exit(0)


def warn(messages: Iterable[str]) -> None:
    """Say on standard error what was done, and will not do what one might think."""
    for message in messages:
        stderr.print(f"quorate: warning: {message}", style="yellow", markup=False, soft_wrap=True)


def fail(message: str, status: int) -> NoReturn:
    """Say why on standard error, and leave."""
    say(message)
    raise typer.Exit(status)


def say(message: str) -> None:
    """Say on standard error what went wrong."""
    stderr.print(f"quorate: {message}", style="red", markup=False, soft_wrap=True)


def code_name(error: QuorateError) -> str:
    """Return the error's code as the protocol names it.

    >>> from quorate.errors import TopicExistsError
    >>> code_name(TopicExistsError("there"))
    'TOPIC_EXISTS'
    """
    return ErrorCode.Name(error.code).removeprefix("ERROR_CODE_")


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
) -> None:
    """Print a rich table in a terminal, plain columns where the output is piped."""
    if not console.is_terminal:
        sys.stdout.write(aligned([columns, *rows]))
        return
    table = Table(*columns, title=title, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def aligned(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as columns of one width each; an empty cell is a dash.

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


async def _bounded(
    main: Callable[[], Coroutine[Any, Any, T]], timeout_ms: int, *, bounded: bool
) -> T:
    if not bounded:
        return await main()
    async with asyncio.timeout(timeout_ms / 1000 + TIMEOUT_SLACK_S):
        return await main()
