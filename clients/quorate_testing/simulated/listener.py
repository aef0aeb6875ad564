"""An endpoint that a simulated process serves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from quorate.net.network import Head, Service
from quorate_testing.call import End
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.switchboard import Switchboard


class SimulatedListener:
    """A served endpoint of one process."""

    def __init__(
        self,
        loop: SimulatedLoop,
        process: Process,
        endpoint: str,
        services: Sequence[Service],
        listeners: dict[str, SimulatedListener],
        stopped: Callable[[SimulatedListener], None],
        message_bytes_max: int,
        cluster_id: str,
        name: str,
    ) -> None:
        self._stopped = stopped
        self.process = process
        self._endpoint = endpoint
        self._listeners = listeners

        def spawn(coroutine: Coroutine[Any, Any, None]) -> Any:
            return loop.create_task(coroutine, context=process.context())

        self._switchboard = Switchboard(
            services,
            spawn,
            cluster_id=cluster_id,
            listener=name,
            message_bytes_max=message_bytes_max,
        )

    @property
    def endpoint(self) -> str:
        """The bound address, as host:port."""
        return self._endpoint

    def take(self, head: Head, end: End, address: str) -> None:
        """Begin to answer a call in the listening process."""
        self._switchboard.take(head, end, address)

    def is_unary(self, path: str) -> bool:
        """Return whether a call of that method has one request and one response."""
        return self._switchboard.is_unary(path)

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        self.unregister()
        await self._switchboard.stop(grace_ms)
        self._stopped(self)

    def unregister(self) -> None:
        """Stop listening."""
        if self._listeners.get(self._endpoint) is self:
            del self._listeners[self._endpoint]
