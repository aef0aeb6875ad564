"""The application's listener, with a watch on how long its callbacks take."""

from __future__ import annotations

from collections.abc import Callable, Collection

from quorate.aio.clock import loop_ms
from quorate.consumer.group.listener import Callback, call_listener
from quorate.consumer.group.poll_watch import PollWatch
from quorate.model import TopicPartition


class WatchedListener:
    """Calls the listener that the application has at the time. Its errors go to `told`."""

    def __init__(
        self,
        listener: Callable[[], object | None],
        told: Callable[[Exception], None],
        watch: PollWatch,
    ) -> None:
        self._listener, self._told, self._watch = listener, told, watch

    async def call(self, name: Callback, keys: Collection[TopicPartition]) -> None:
        """Call a callback, and wait for its end."""
        self._watch.callback_begins(loop_ms())
        try:
            await call_listener(self._listener(), name, sorted(keys), self._told)
        finally:
            self._watch.callback_ends()
