"""A voter that writes down when each step of a commit was taken, for `bench.stages`.

`python -m bench.traced_voter --config FILE`: the program of `quorate_quorum`, with a clock at the
doors between its rooms. Nothing else differs, and the times are written at a clean stop, so what
is measured is what users run. The clock is CLOCK_MONOTONIC, one for all processes of a machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quorate_quorum.__main__ import start
from quorate_quorum.controller.driver.controller import Controller
from quorate_quorum.controller.driver.service import ControllerService
from quorate_quorum.log.log import Log
from quorate_quorum.node import process
from quorate_quorum.node.config import QuorumConfig
from quorate_quorum.raft.driver.loop import RaftLoop
from quorate_quorum.raft.driver.node import RaftNode
from quorate_quorum.raft.machine.events import FetchAnswered, FetchReceived, Saved, Written

TRACE = "trace.json"
#: Marks that are kept. Later ones are dropped: the first ones are enough.
MARKS_MAX = 1_000_000

#: (seconds, what). Offsets are not needed: one caller makes one call at a time.
marks: list[tuple[float, str]] = []


def mark(what: str) -> None:
    """Record that something happens now."""
    if len(marks) < MARKS_MAX:
        marks.append((time.monotonic(), what))


def _before(owner: type, name: str, what: Callable[..., str | None]) -> None:
    """Mark each call of a method. `what` names the mark from the arguments; None: no mark."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def marked(self: Any, *arguments: Any, **named: Any) -> Any:
        if (told := what(*arguments)) is not None:
            mark(told)
        return method(self, *arguments, **named)

    setattr(owner, name, marked)


def _event(event: object) -> str | None:
    match event:
        case FetchAnswered(response=response) if response.batches:
            return "replicated"
        case FetchReceived():
            return "fetch"
        case Written():
            return "written"
        case Saved():
            return "synced"
    return None


def trace() -> None:
    """Record the times at which messages enter and leave this process's rooms."""
    _before(ControllerService, "_forward", lambda peer, request: "arrived")
    _before(RaftNode, "propose", lambda epoch, events: "decided")
    _before(RaftLoop, "step", _event)
    _before(Log, "sync", lambda: "syncing")
    _before(Controller, "committed", lambda batches, high_watermark: "committed")


def main() -> None:
    """Run the voter, and write what was marked beside its configuration."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    folder = parser.parse_args().config.parent
    trace()
    status = process.main(QuorumConfig, start)
    (folder / TRACE).write_text(json.dumps(marks))
    process.leave(status)


if __name__ == "__main__":
    main()
