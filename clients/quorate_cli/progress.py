"""A bar on standard error while long work goes on. Only a terminal has it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from quorate_cli.output import console

#: Told of more often than that, the bar would cost more than the work.
SHOW_S: Final = 0.1

Show = Callable[[float], None]


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
        TextColumn(f"{{task.completed:,.0f}} {unit}", markup=False),
        TimeElapsedColumn(),
        console=terminal,
        # the bar is gone at the end; lines on standard output stay where they belong
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(what, total=total)
        shown_at = 0.0

        def show(done: float) -> None:
            nonlocal shown_at
            now = time.monotonic()
            if now - shown_at >= SHOW_S:
                shown_at = now
                bar.update(task, completed=done)

        yield show


def _show_nothing(_done: float) -> None:
    """Show nothing: standard error is a pipe or a file."""
