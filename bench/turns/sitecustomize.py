"""Times the turns of a node's event loop. bench.partitions puts this folder on PYTHONPATH.

A turn is what the loop runs between two waits for its sockets. Every turn that is longer than
LONG_S is written to a file in the folder EVENT_LOOP_TURNS, as one JSON object a line. uvloop can't
be watched, so the node runs on asyncio's own loop, which is slower: the turns are an upper bound.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from asyncio import base_events, events
from typing import Any

LONG_S = 0.005
FOLDER = os.environ.get("EVENT_LOOP_TURNS", "")


class Turns:
    """The turn under way, and the slowest callback in it."""

    def __init__(self) -> None:
        self.file = open(f"{FOLDER}/{os.getpid()}", "w", buffering=1)  # noqa: SIM115  (kept)
        self.began = self.began_cpu = 0.0
        self.slowest_s, self.slowest = 0.0, ""
        self.count = 0
        self.collecting = self.collected_s = 0.0  # the CPU time of the garbage collector

    def begin(self) -> None:
        """Begin a turn: the wait for the sockets is over."""
        self.began, self.began_cpu = time.perf_counter(), time.thread_time()
        self.slowest_s, self.slowest, self.count, self.collected_s = 0.0, "", 0, 0.0

    def ran(self, handle: Any, seconds: float) -> None:
        self.count += 1
        if seconds > self.slowest_s:
            self.slowest_s = seconds
            if seconds > LONG_S / 4:
                callback: Any = handle._callback
                owner = getattr(callback, "__self__", None)
                self.slowest = repr(owner if hasattr(owner, "get_coro") else callback)[:200]

    def end(self) -> None:
        seconds = time.perf_counter() - self.began
        if not self.began or seconds < LONG_S:
            return
        found = {
            "at": time.time(),
            "ms": round(seconds * 1000, 1),
            "cpu_ms": round((time.thread_time() - self.began_cpu) * 1000, 1),
            "gc_cpu_ms": round(self.collected_s * 1000, 1),
            "callbacks": self.count,
            "slowest_ms": round(self.slowest_s * 1000, 1),
            "slowest": self.slowest,
        }
        self.file.write(json.dumps(found) + "\n")

    def collects(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self.collecting = time.thread_time()
        else:
            self.collected_s += time.thread_time() - self.collecting


def watch() -> None:
    """Time every turn of every event loop of this process."""
    sys.modules["uvloop"] = None  # type: ignore[assignment]
    turns = Turns()
    loop_class: Any = base_events.BaseEventLoop
    handle_class: Any = events.Handle
    run_once, run = loop_class._run_once, handle_class._run

    def watched_once(loop: Any) -> None:
        if not hasattr(loop, "_turns_watched"):
            loop._turns_watched = True
            select = loop._selector.select

            def watched_select(timeout: float | None = None) -> Any:
                found = select(timeout)
                turns.begin()
                return found

            loop._selector.select = watched_select
        run_once(loop)
        turns.end()

    def watched_run(handle: events.Handle) -> None:
        began = time.perf_counter()
        run(handle)
        turns.ran(handle, time.perf_counter() - began)

    loop_class._run_once = watched_once
    handle_class._run = watched_run
    gc.callbacks.append(turns.collects)


if FOLDER:
    watch()
