"""What the tasks of a simulation wait for, in words: for the errors of a run that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

#: Packages whose lines say nothing to the user of a program: the name of the call does.
OF_QUORATE: Final = (
    "quorate",
    "quorate_broker",
    "quorate_cli",
    "quorate_quorum",
    "quorate_testing",
)
OF_PYTHON: Final = ("asyncio", "contextlib")
#: The most tasks that an error lists.
LISTED_MAX: Final = 20


def waiting(tasks: Iterable[tuple[asyncio.Task[Any], str]]) -> str:
    """Return the names of a program's tasks, and a line for each: where it waits, in which call.

    `tasks` are pairs of a task and the name of its process. The tasks of Quorate itself are only
    counted.
    """
    names, lines, own = [], [], 0
    for task, process in tasks:
        place = _place(task)
        if place is None:
            own += 1
        else:
            names.append(task.get_name())
            on = f" ({process})" if process not in ("", task.get_name()) else ""
            lines.append(f"\n  {task.get_name()}{on}: {place}")
    told = ", ".join(names[:LISTED_MAX]) or "no task of a program"
    told += "".join(lines[:LISTED_MAX])
    if len(lines) > LISTED_MAX:
        told += f"\n  and {len(lines) - LISTED_MAX} more"
    return told + (f"\n  besides tasks of Quorate: {own}" if own else "")


def _place(task: asyncio.Task[Any]) -> str | None:
    """Return where a task waits, and in which call; None if it is a task of Quorate itself.

    So is a task without a name and without a line of a program, such as that of an Event.
    """
    frames = list(_frames(task.get_coro()))
    if not frames:
        return "not started"
    ours = [frame for frame in frames if _package(frame) not in (*OF_QUORATE, *OF_PYTHON)]
    call = frames[-1].f_code.co_qualname
    if not ours:
        is_own = _package(frames[0]) in OF_QUORATE or task.get_name().startswith("Task-")
        return None if is_own else call
    code = ours[-1].f_code
    place = f"{PurePath(code.co_filename).name}:{ours[-1].f_lineno} in {code.co_qualname}"
    return place if ours[-1] is frames[-1] else f"{place}, in {call}"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of those that it awaits, from the outside in."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                coroutine = getattr(coroutine, f"{kind}_await", None) or getattr(
                    coroutine, "gi_yieldfrom", None
                )
                break
        else:
            return
