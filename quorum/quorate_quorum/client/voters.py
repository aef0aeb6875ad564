"""The addresses of voters, and one connection to each of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import structlog

from quorate.aio.tasks import Tasks
from quorate.errors import ClosedError
from quorate.net.network import Connection, Network

log = structlog.get_logger(__name__)

#: The most connections. Above the bound, the oldest is closed. The bound is higher than the number
#: of voters, because the connection to a removed voter stays open until it is the oldest.
CONNECTIONS_MAX = 32


class Voters:
    """The endpoints of voters: those in the image first, then those in the configuration."""

    def __init__(self, bootstrap: Sequence[str], chance: random.Random) -> None:
        self._bootstrap = tuple(dict.fromkeys(bootstrap))
        self._chance = chance
        #: All endpoints, those in the image first.
        self.known = self._bootstrap

    def learn(self, endpoints: Sequence[str]) -> None:
        """Take the endpoints of a new image. They replace those of the image before it."""
        self.known = tuple(dict.fromkeys((*endpoints, *self._bootstrap)))

    def other_than(self, endpoint: str) -> str:
        """Return a random endpoint other than `endpoint`, unless that is the only one."""
        others = [known for known in self.known if known != endpoint]
        return self._chance.choice(others) if others else self.known[0]


class Connections:
    """One control connection for each endpoint. If there are too many, the oldest is closed.

    Bulk data goes over other connections, so that it never delays a heartbeat.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._open: dict[str, Connection] = {}
        self._closing = Tasks(self._close_failed)
        self._is_closed = False

    def get(self, endpoint: str) -> Connection:
        """Return the connection to an endpoint. ClosedError after refuse()."""
        if self._is_closed:
            raise ClosedError("this node's door to the quorum is closed: the node is stopping")
        found = self._open.get(endpoint)
        if found is None:
            if len(self._open) >= CONNECTIONS_MAX:
                self.drop(next(iter(self._open)))
            found = self._open[endpoint] = self._network.connect(endpoint, purpose="control")
        return found

    def drop(self, endpoint: str) -> None:
        """Close the connection to an endpoint. The next get() makes a new one."""
        connection = self._open.pop(endpoint, None)
        if connection is not None:
            self._closing.spawn(connection.close(), "quorum-connection-close")

    def refuse(self) -> None:
        """Make every later get() raise ClosedError."""
        self._is_closed = True

    async def close(self) -> None:
        """Close all connections, and wait until they are closed."""
        for endpoint in list(self._open):
            self.drop(endpoint)
        await self._closing.ended()

    def _close_failed(self, name: str, error: BaseException) -> None:
        log.warning("connection_close_failed", exc_info=error)
