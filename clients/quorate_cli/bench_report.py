"""The runs of a benchmark, and the figures over all of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from quorate_cli.output import print_json, print_table, tell
from quorate_cli.progress import progress

#: The figures of one run, by their names.
Run = dict[str, Any]


def figures(runs: list[Run], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the median, minimum, maximum and all values of each figure over the runs.

    >>> figures([{"gap_ms": 3.0}, {"gap_ms": 1.0}], ("gap_ms",))["gap_ms"]["median"]
    2.0
    """
    found = {}
    for name in names:
        values = [run[name] for run in runs if run.get(name) is not None]
        if values:
            found[name] = {
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "all": values,
            }
    return found


def report(title: str, runs: list[Run], names: tuple[str, ...], *, as_json: bool) -> None:
    """Print the figures, as one JSON document or as a table."""
    found = figures(runs, names)
    if as_json:
        print_json({"bench": title, "runs": runs, **found})
        return
    sys.stdout.write(f"{title}: {len(runs)} runs\n")
    print_table(
        ("figure", "median", "min", "max"),
        [
            (name, *(f"{found[name][column]:,.2f}" for column in ("median", "min", "max")))
            for name in names
            if name in found
        ],
    )
    if "cpu_s" in runs[-1]:
        cpu = ", ".join(f"{name} {seconds:.2f}" for name, seconds in runs[-1]["cpu_s"].items())
        sys.stdout.write(f"CPU seconds of each process in the last run: {cpu}\n")


async def repeat(runs: int, one: Callable[[int], Awaitable[Run]]) -> list[Run]:
    """Measure so often, and tell of each run."""
    found = []
    with progress("measuring", runs, "runs") as show:
        for number in range(runs):
            show(number)
            found.append(await one(number))
            tell_run(number, runs, found[-1])
    return found


def tell_run(number: int, runs: int, run: Run, *, digits: int = 2) -> None:
    """Print the figures of one run to standard error."""
    shown = {k: round(v, digits) for k, v in run.items() if isinstance(v, int | float)}
    tell(f"run {number + 1} of {runs}: {shown}", "dim")
