"""The brokers that a client knows, and its connections to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import NoReturn

from quorate import errors
from quorate.aio.clock import Deadline
from quorate.aio.owner import Owner
from quorate.net.network import (
    Connection,
    Method,
    Network,
    Purpose,
    Q,
    R,
    current_chance,
    current_network,
)
from quorate.settings import SERVERS


def default_network() -> Network:
    """Return the network of the context. If the context has none, return a new gRPC network."""
    network = current_network.get()
    if network is not None:
        return network
    from quorate.net.grpc_network import GrpcNetwork

    return GrpcNetwork()


class Brokers:
    """The brokers of one cluster, as one client reaches them."""

    def __init__(
        self, bootstrap_servers: str | Sequence[str], *, client_id: str, owner: Owner | None = None
    ) -> None:
        #: The Owner of the client that uses these brokers. It also owns the tasks that start here.
        self.owner = owner or Owner("client")
        self.bootstrap = SERVERS.check("Cluster", "bootstrap_servers", bootstrap_servers)
        self.client_id = client_id
        self.network = default_network()
        self.owns_network = current_network.get() is None
        self.chance = current_chance.get() or random.Random()
        #: Empty until the first answer. From then on the client refuses answers of other clusters.
        self.cluster_id = ""
        #: Broker ids -> endpoints.
        self.brokers: dict[int, str] = {}
        self._connections: dict[tuple[str, Purpose], Connection] = {}
        self._last_answer = ""
        self._avoided: dict[str, None] = {}
        #: Endpoint -> error of the last call. An entry stays until its broker answers again.
        self._said: dict[str, errors.NetworkError] = {}
        self._closed = False

    def connection(self, endpoint: str, purpose: Purpose = "data") -> Connection:
        """Return the connection to an endpoint for a purpose. There is one for each such pair."""
        self._check_open()
        found = self._connections.get((endpoint, purpose))
        if found is None:
            found = self.network.connect(
                endpoint, purpose=purpose, cluster_id=lambda: self.cluster_id
            )
            self._connections[endpoint, purpose] = found
        return found

    @property
    def has_no_address(self) -> bool:
        """Whether the last call to each known broker failed because its host has no address."""
        unresolved = errors.UnresolvedHostError
        return all(isinstance(self._said.get(one), unresolved) for one in self._candidates())

    def avoid(self, endpoint: str) -> None:
        """Ask this broker after all others until it answers again, because it was silent."""
        self._avoided[endpoint] = None

    async def ask_any(
        self,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_ms: int,
        one_broker_ms: int | None = None,
        safe_to_repeat: bool = True,
    ) -> R:
        """Call one known broker after another until one answers, within `timeout_ms` in total.

        If a broker does not answer within `one_broker_ms`, the next one is asked: one silent broker
        must not use up the whole time. A call that is not safe to repeat goes to the next broker
        only if no process listened at the last one, so that the call was surely not carried out. If
        no broker answers, the error names the failure of each.
        """
        deadline = Deadline(timeout_ms)
        last: errors.NetworkError | None = None
        others: dict[str, errors.WrongClusterError] = {}
        for endpoint in self._candidates():
            left_ms = deadline.left_ms
            if left_ms == 0:
                break
            try:
                response = await self.connection(endpoint, "control").unary(
                    method, request, timeout_ms=min(left_ms, one_broker_ms or left_ms)
                )
            except errors.WrongClusterError as error:
                self.avoid(endpoint)
                others[endpoint] = error
            except errors.NetworkError as error:
                self.avoid(endpoint)
                if not safe_to_repeat and not isinstance(error, errors.PeerRefusedError):
                    raise
                last = self._said[endpoint] = error
            else:
                self._avoided.pop(endpoint, None)
                self._said.pop(endpoint, None)
                self._last_answer = endpoint
                return response
        if others:
            self._found_another_cluster(", ".join(others), str(next(iter(others.values()))))
        if isinstance(last, errors.PeerError):
            raise last
        listed = self._candidates()
        self._said = {one: self._said[one] for one in listed if one in self._said}
        if len(self._said) == 1 and last is not None:
            raise last
        answers = "; ".join(
            str(error) if endpoint in str(error) else f"{endpoint}: {error}"
            for endpoint, error in self._said.items()
        )
        raise errors.QuorumUnavailableError(
            f"no broker answered {method.path}: {answers or 'there was no time to ask one'}"
        )

    def _found_another_cluster(self, where: str, found: str) -> NoReturn:
        """Fail the client: no broker of its cluster answers, but another cluster does.

        Producer ids, positions, epochs and topic ids mean something else in the other cluster. If
        both clusters have given out the same producer id, a broker takes new records for
        duplicates. It then acknowledges records that it never wrote.
        """
        error = errors.WrongClusterError(
            f"this {self.owner.what} works with cluster {self.cluster_id}, and another cluster "
            f"answers at {where} ({found}): it may have been formatted anew, or the address is "
            f"wrong; to work with the other cluster make a new {self.owner.what}"
        )
        self.owner.fail(error)
        raise error

    def _candidates(self) -> list[str]:
        """Return the endpoints in the order to ask.

        First the broker that answered last, then the other brokers in random order, then the
        bootstrap servers. Avoided brokers come after all of them.
        """
        known = list(dict.fromkeys(self.brokers.values()))
        self.chance.shuffle(known)
        first = [self._last_answer] if self._last_answer else []
        listed = dict.fromkeys((*first, *known, *self.bootstrap))
        self._avoided = {one: None for one in self._avoided if one in listed}
        return sorted(listed, key=self._avoided.__contains__)

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClosedError(f"this {self.owner.what} was stopped; make a new one")
        self.owner.check_alive()

    async def close_connections(self) -> None:
        """Close all connections. Open calls on them break."""
        connections, self._connections = list(self._connections.values()), {}
        if self.owns_network:
            # this closes all connections of the network
            await self.network.close()
        else:
            await asyncio.gather(*(one.close() for one in connections))
