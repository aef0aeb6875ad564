"""An endpoint that a simulated process serves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from quorate.net.network import Service
from quorate_testing.simulated.loop import Process, SimulatedLoop
from quorate_testing.switchboard import Switchboard


class SimulatedListener(Switchboard):
    """One endpoint that a process serves. `settings` are further arguments of Switchboard."""

    def __init__(
        self,
        loop: SimulatedLoop,
        process: Process,
        stopped: Callable[[SimulatedListener], None],
        endpoint: str,
        services: Sequence[Service],
        listeners: dict[str, SimulatedListener],
        **settings: Any,
    ) -> None:
        def spawn(coroutine: Coroutine[Any, Any, None]) -> Any:
            return loop.create_task(coroutine, context=process.context())

        super().__init__(endpoint, services, spawn, listeners, **settings)
        self.process = process
        self._stopped = stopped

    async def stop(self, grace_ms: int) -> None:
        """Take no new calls, wait up to grace_ms for open ones, then cancel them."""
        await super().stop(grace_ms)
        self._stopped(self)
