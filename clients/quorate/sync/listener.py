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


class ListenerThread(threading.Thread):
    """The thread of one callback of `owner`'s listener."""

    def __init__(self, owner: object, work: Callable[[], None]) -> None:
        super().__init__(target=work, name="quorate-listener", daemon=True)
        self.owner = owner


def is_in_callback(owner: object) -> bool:
    """Return whether the calling thread runs a callback of this consumer's listener."""
    thread = threading.current_thread()
    return isinstance(thread, ListenerThread) and thread.owner is owner


def in_threads(listener: object, owner: object) -> object:
    """Return a listener that runs each callback of `listener` in a thread of its own.

    The loop waits for the callback without standing still, so the callback may call commit() and
    wait for it. A callback that is a coroutine function, or returns something to await, is awaited
    in the loop. `owner`: the consumer.
    """
    calls = {name: getattr(listener, name, None) for name in CALLBACKS}
    return SimpleNamespace(
        **{name: _in_thread(call, owner) for name, call in calls.items() if callable(call)}
    )


def _in_thread(call: Call, owner: object) -> Call:
    if inspect.iscoroutinefunction(call):
        return call

    async def run(partitions: Sequence[TopicPartition]) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[object] = loop.create_future()

        def end(result: object, error: Exception | None) -> None:
            if ended.cancelled():
                return
            if error is None:
                ended.set_result(result)
            else:
                ended.set_exception(error)

        def work() -> None:
            result: object = None
            found: Exception | None = None
            try:
                result = call(partitions)
            except BaseException as error:
                # SystemExit and KeyboardInterrupt would end the loop of all blocking clients
                found = RuntimeError(f"the listener raised {error!r}")
                if isinstance(error, Exception) and not isinstance(error, StopIteration):
                    found = error
            loop.call_soon_threadsafe(end, result, found)

        try:
            ListenerThread(owner, work).start()
        except RuntimeError:
            # the interpreter exits, and starts no thread any more
            result = call(partitions)
        else:
            result = await ended
        if inspect.isawaitable(result):
            await result

    return run
