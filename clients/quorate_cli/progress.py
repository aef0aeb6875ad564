"""What a terminal shows while long work goes on: a bar on standard error, or a changing table."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from quorate_cli.output import console

#: Told of more often than that, the bar would cost more than the work.
SHOW_S: Final = 0.1


class Show(Protocol):
    """Shows how much is done, and `said` about it. If `said` is empty, the count is shown."""

    def __call__(self, done: float, said: str = "") -> None: ...


@contextlib.contextmanager
def progress(
    what: str, total: float | None, unit: str, *, is_wanted: bool = True
) -> Iterator[Show]:
    """Show a bar. The function that is yielded takes how much is done; `total` None: no end."""
    terminal = console(stderr=True)
    if not is_wanted or not terminal.is_terminal or terminal.is_dumb_terminal:
        yield _show_nothing
        return
    # import it here, because a command in a pipe does not need it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        TimeElapsedColumn(),
        console=terminal,
        # the bar is gone at the end; lines on standard output stay where they belong
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=total, said="")
        shown_at = 0.0

        def show(done: float, said: str = "") -> None:
            nonlocal shown_at
            now = time.monotonic()
            if now - shown_at >= SHOW_S:
                shown_at = now
                bar.update(task, completed=done, said=said or f"{done:,.0f} {unit}")

        yield show


def _show_nothing(done: float, said: str = "") -> None:
    """Show nothing: standard error is a pipe or a file."""


@contextlib.contextmanager
def live_text(*, is_wanted: bool = True) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text: on a terminal each in the place of the last one.

    In a pipe, each text is printed below the last one.
    """
    terminal = console()
    if not is_wanted or not terminal.is_terminal or terminal.is_dumb_terminal:
        yield _print
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=terminal, auto_refresh=False, transient=True) as live:
        yield lambda text: live.update(Text(text, no_wrap=True), refresh=True)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
