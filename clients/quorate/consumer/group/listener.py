"""The application's listener: its callbacks are awaited, and its errors are kept for the reader."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args

from quorate.model import TopicPartition

log = logging.getLogger(__name__)

Callback = Literal["on_partitions_revoked", "on_partitions_assigned", "on_partitions_lost"]


CALLBACKS: Final = get_args(Callback)


def check_listener(listener: object | None) -> None:
    """Raise TypeError for an object that has no callback, or a misspelt one."""
    if listener is None:
        return
    known = [name for name in CALLBACKS if callable(getattr(listener, name, None))]
    wrong = [name for name in dir(listener) if name.startswith("on_") and name not in CALLBACKS]
    misspelt = [name for name in wrong if get_close_matches(name, CALLBACKS, 1, 0.8)]
    if not known or misspelt:
        has = f"has {misspelt[0]}" if misspelt else "has none of them"
        raise TypeError(
            f"Consumer.subscribe: listener must have one or more of the methods "
            f"{', '.join(CALLBACKS)}; this {type(listener).__name__} {has}"
        )


def tellable(call: str, error: BaseException) -> Exception:
    """Return an error that a read may raise.

    A StopIteration would silently end the user's loop, and a CancelledError would look like a
    cancellation of the reader, so a RuntimeError replaces them.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    told = RuntimeError(f"the listener's {call} raised {error!r}")
    told.__cause__ = error
    return told


async def call_listener(
    listener: object | None,
    name: Callback,
    keys: Sequence[TopicPartition],
    told: Callable[[Exception], None],
) -> None:
    """Call a callback of the application, and wait for its end if it is asynchronous.

    A listener without on_partitions_lost gets on_partitions_revoked in its place. An error of the
    callback goes to `told`: the group goes on.
    """
    call: Any = getattr(listener, name, None)
    if call is None and name == "on_partitions_lost":
        call = getattr(listener, "on_partitions_revoked", None)
    if call is None or not keys:
        return
    try:
        result = call(sorted(keys))
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # this task itself is cancelled, not something that the callback waited for
        log.exception("the listener's %s raised", name)
        told(tellable(name, error))
    except Exception as error:
        log.exception("the listener's %s raised", name)
        told(tellable(name, error))
