"""The listener of a blocking consumer: its callbacks may make blocking calls of the consumer."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from quorate.consumer.group.listener import CALLBACKS
from quorate.model import TopicPartition

Call = Callable[[Sequence[TopicPartition]], object]


def in_threads(listener: object) -> object:
    """Return a listener that runs each callback of `listener` in a thread of its own.

    The loop waits for the callback without standing still, so the callback may call commit() and
    wait for it. A callback that is a coroutine function runs in the loop.
    """
    calls = {name: getattr(listener, name, None) for name in CALLBACKS}
    return SimpleNamespace(
        **{name: _in_thread(call) for name, call in calls.items() if callable(call)}
    )


def _in_thread(call: Call) -> Call:
    if inspect.iscoroutinefunction(call):
        return call

    async def run(partitions: Sequence[TopicPartition]) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end(error: BaseException | None) -> None:
            if ended.cancelled():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        def work() -> None:
            found: BaseException | None = None
            try:
                call(partitions)
            except StopIteration as error:  # no future takes one
                found = RuntimeError(f"the listener raised {error!r}")
            except BaseException as error:
                found = error
            loop.call_soon_threadsafe(end, found)

        try:
            threading.Thread(target=work, name="quorate-listener", daemon=True).start()
        except RuntimeError:
            call(partitions)  # the interpreter exits, and starts no thread any more
            return
        await ended

    return run
