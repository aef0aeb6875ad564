"""How the voters are reached: whom to ask, over which connection, how long to wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from quorate.errors import StreamBrokenError
from quorate.net.network import Connection
from quorate_quorum.node.bell import Bell
from quorate_quorum.node.environment import Environment

log = structlog.get_logger(__name__)


class Connections:
    """One control connection an endpoint; the oldest goes when there are too many."""

    def __init__(self, environment: Environment, count_max: int) -> None:
        self._network = environment.network
        self._count_max = count_max
        self._open: dict[str, Connection] = {}
        self._closing: dict[asyncio.Task[None], None] = {}

    def get(self, endpoint: str) -> Connection:
        found = self._open.get(endpoint)
        if found is None:
            if len(self._open) >= self._count_max:
                self.drop(next(iter(self._open)))
            found = self._open[endpoint] = self._network.connect(endpoint, purpose="control")
        return found

    def drop(self, endpoint: str) -> None:
        """Break the connection; the next get makes a new one."""
        connection = self._open.pop(endpoint, None)
        if connection is not None:
            task = asyncio.create_task(connection.close(), name="quorum-connection-close")
            self._closing[task] = None
            task.add_done_callback(self._closed)

    async def close(self) -> None:
        for endpoint in list(self._open):
            self.drop(endpoint)
        while self._closing:
            await asyncio.wait(list(self._closing))

    def _closed(self, task: asyncio.Task[None]) -> None:
        del self._closing[task]
        if not task.cancelled() and task.exception() is not None:
            log.warning("connection_close_failed", exc_info=task.exception())


class Voters:
    """Endpoints of voters: those of the image first, those of the configuration always."""

    def __init__(self, bootstrap: Sequence[str], chance: random.Random) -> None:
        self._bootstrap = tuple(dict.fromkeys(bootstrap))
        self._endpoints = self._bootstrap
        self._chance = chance

    @property
    def known(self) -> tuple[str, ...]:
        """All endpoints, those of the image first."""
        return self._endpoints

    def learn(self, endpoints: Sequence[str]) -> None:
        self._endpoints = tuple(dict.fromkeys((*endpoints, *self._bootstrap)))

    def other_than(self, endpoint: str) -> str:
        """Return one by chance, another than `endpoint` where there is another."""
        others = [known for known in self._endpoints if known != endpoint]
        return self._chance.choice(others) if others else self._endpoints[0]


class Lag:
    """How long the voter that we watch has not known what a heartbeat told us."""

    def __init__(self, lag_max_ms: int) -> None:
        self._lag_max_s = lag_max_ms / 1000
        self._target = 0
        self._told_at = 0.0

    def told(self, high_watermark: int, applied: int, now: float) -> None:
        """Take the controller's high watermark as the next mark, when the last was reached."""
        if self._target <= applied < high_watermark:
            self._target, self._told_at = high_watermark, now

    def check(self, high_watermark: int, opened_at: float, now: float) -> None:
        """Raise StreamBrokenError if the voter, watched since `opened_at`, lags for too long."""
        waited = now - max(self._told_at, opened_at)
        if high_watermark < self._target and waited > self._lag_max_s:
            raise StreamBrokenError(
                f"the voter's high watermark is {high_watermark}, and the controller told of "
                f"{self._target} {waited:.1f} s ago"
            )


class Backoff:
    """Waits that double from try to try, with jitter; reset by success."""

    def __init__(self, least_ms: int, most_ms: int, chance: random.Random) -> None:
        self._least_ms = least_ms
        self._most_ms = most_ms
        self._chance = chance
        self._next_ms = least_ms

    def reset(self) -> None:
        self._next_ms = self._least_ms

    async def wait(self, sooner: Bell | None = None) -> None:
        """Wait for the next time, or until `sooner` rings."""
        delay_ms = self._next_ms * self._chance.uniform(0.5, 1.0)
        self._next_ms = min(self._next_ms * 2, self._most_ms)
        if sooner is None:
            await asyncio.sleep(delay_ms / 1000)
        else:
            await sooner.wait(delay_ms)


class Answers:
    """What each voter said that was asked for the controller: the cause, for the error."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def add(self, endpoint: str, said: object) -> None:
        self._said[endpoint] = str(said)

    def __str__(self) -> str:
        answers = "; ".join(
            said if endpoint in said else f"{endpoint}: {said}"
            for endpoint, said in self._said.items()
        )
        return f"voters that were asked: {answers or 'none'}"


class Deadline:
    """A moment of the loop's clock."""

    def __init__(self, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self._at = asyncio.get_running_loop().time() + timeout_ms / 1000

    @property
    def left_ms(self) -> int:
        """Milliseconds left, 0 or more; fits an uint32."""
        left_s = self._at - asyncio.get_running_loop().time()
        return min(max(0, int(left_s * 1000)), 0xFFFF_FFFF)
