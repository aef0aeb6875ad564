"""Many seeds in several processes. A file remembers results: a stopped run can be continued."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

#: The result of a seed: its number under "seed"; under "failure" the failure, or nothing.
Result = dict[str, Any]


def results(
    seeds: Sequence[int],
    run: Callable[[int], Result],
    *,
    workers: int,
    state: Path | None,
    scenario: str,
) -> Iterator[tuple[Result, bool]]:
    """Yield each seed's result, and whether an earlier run had it. Those of earlier runs first."""
    done = _read(state, scenario)
    for seed in seeds:
        if seed in done:
            yield done[seed], True
    for result in _run([seed for seed in seeds if seed not in done], run, workers):
        if state is not None:
            _remember(state, result | {"scenario": scenario})
        yield result, False


def _read(state: Path | None, scenario: str) -> dict[int, Result]:
    """Return the seeds that passed. Failed seeds and a line that was cut off run again."""
    done: dict[int, Result] = {}
    if state is None or not state.exists():
        return done
    for line in state.read_text().splitlines():
        try:
            result = json.loads(line)
        except ValueError:
            continue
        if not result["failure"] and result["scenario"] == scenario:
            done[result["seed"]] = result
    return done


def _remember(state: Path, result: Result) -> None:
    with state.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # killed in the middle of a line
                file.write(b"\n")
        file.write(json.dumps(result).encode() + b"\n")


def _run(seeds: list[int], run: Callable[[int], Result], workers: int) -> Iterator[Result]:
    if workers == 1:
        yield from map(run, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_us) as pool:
        futures = [pool.submit(run, seed) for seed in seeds]
        for future in as_completed(futures):
            yield future.result()


def _die_with_us() -> None:
    """End this worker when its parent process ends, killed or not."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
