"""The coordinators of consumer groups: where they are, and calls to them.

A group's coordinator is the leader of the group's partition of __consumer_offsets. Any broker names
it. A broker that is no coordinator (any more) answers with a hint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quorate.aio.backoff import Backoff
from quorate.aio.clock import Deadline
from quorate.cluster.cluster import METADATA_TIMEOUT_MS, Cluster
from quorate.cluster.leader_stream import BACKOFF_MAX_MS, BACKOFF_MS
from quorate.errors import (
    ClosedError,
    CoordinatorLoadingError,
    CoordinatorNotAvailableError,
    OutcomeUnknownError,
    QuorateError,
    RequestTimedOutError,
    StorageError,
    WrongClusterError,
    WrongLoopError,
    from_wire,
)
from quorate.net.methods import FIND_COORDINATORS
from quorate.net.network import Method, Q, R
from quorate.v1.common_pb2 import Error, ErrorCode, LeaderHint
from quorate.v1.groups_pb2 import FindCoordinatorsRequest

#: After this time without an answer, check whether another broker coordinates the group.
SILENCE_S = 1.0

#: Returns the error of an answer, and its hint at the coordinator.
Outcome = Callable[[R], tuple[Error, LeaderHint | None]]


class Coordinators:
    """The coordinators of a client's groups, as far as the client knows them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._endpoints: dict[str, str] = {}
        self._brokers: dict[str, int] = {}

    async def find(self, group_id: str) -> str:
        """Return the endpoint of a group's coordinator. Ask a broker if it is not known.

        Raises CoordinatorNotAvailableError, or the refusal of the broker.
        """
        return self._endpoints.get(group_id) or await self.look_up(group_id)

    async def look_up(self, group_id: str) -> str:
        """Ask a broker for a group's coordinator, and return the coordinator's endpoint."""
        response = await self._cluster.ask_any(
            FIND_COORDINATORS,
            FindCoordinatorsRequest(group_ids=[group_id]),
            timeout_ms=4 * METADATA_TIMEOUT_MS,
            one_broker_ms=METADATA_TIMEOUT_MS,
        )
        found = next((one for one in response.coordinators if one.group_id == group_id), None)
        if found is not None and found.error.code != ErrorCode.ERROR_CODE_NONE:
            raise from_wire(found.error)
        hint = found.coordinator if found is not None and found.HasField("coordinator") else None
        if not self.learn(group_id, hint):
            raise CoordinatorNotAvailableError(
                f"no coordinator of group {group_id!r} can be reached now"
            )
        return self._endpoints[group_id]

    def learn(self, group_id: str, hint: LeaderHint | None) -> bool:
        """Take over a hint at the coordinator. Return whether it names an endpoint."""
        if hint is None:
            return False
        known = self._cluster.brokers.get(hint.leader, "") if hint.leader >= 0 else ""
        endpoint = hint.listener.endpoint or known
        if endpoint:
            self._endpoints[group_id] = endpoint
            self._brokers[group_id] = hint.leader
        return bool(endpoint)

    def broker_of(self, group_id: str) -> int:
        """Return the id of the broker that a group's coordinator was last; -1: not known."""
        return self._brokers.get(group_id, -1)

    def forget(self, group_id: str, endpoint: str) -> None:
        """Look the coordinator up at the next use, because this broker does not answer as one."""
        if self._endpoints.get(group_id) == endpoint:
            del self._endpoints[group_id]

    def failed(
        self, group_id: str, endpoint: str, error: QuorateError, hint: LeaderHint | None
    ) -> None:
        """React to an error of the broker at this endpoint, from which another try may lead on.

        Raises the error if another try cannot help.
        """
        if isinstance(error, ClosedError | WrongClusterError | WrongLoopError):
            raise error
        if isinstance(error, CoordinatorLoadingError):
            return
        # All calls of groups may be repeated. After an error of its disk the broker is replaced.
        if isinstance(error, OutcomeUnknownError | StorageError):
            self.forget(group_id, endpoint)
            return
        if not error.retriable:
            raise error
        if isinstance(error, CoordinatorNotAvailableError) or error.stale_metadata:
            self.forget(group_id, endpoint)
            if hint is not None and hint.listener.endpoint != endpoint:
                self.learn(group_id, hint)

    async def call(
        self,
        group_id: str,
        method: Method[Q, R],
        request: Callable[[], Q],
        outcome: Outcome[R],
        deadline: Deadline,
    ) -> R:
        """Ask a group's coordinator until it answers. `request` is made anew for each try.

        Use it only for calls that may be repeated. Raises the refusal of the coordinator, or
        RequestTimedOutError, which names the last error.
        """
        backoff = Backoff(BACKOFF_MS, BACKOFF_MAX_MS, self._cluster.chance)
        last: QuorateError | None = None
        hint: LeaderHint | None
        while not deadline.has_passed:
            endpoint, hint = "", None
            try:
                endpoint = await self.find(group_id)
                response = await self._ask(group_id, endpoint, method, request(), deadline)
                error, hint = outcome(response)
                if error.code == ErrorCode.ERROR_CODE_NONE:
                    return response
                last = from_wire(error)
            except QuorateError as raised:
                last = raised
            self.failed(group_id, endpoint, last, hint)
            self._cluster.owner.check_alive()
            await backoff.wait()
        raise RequestTimedOutError(
            f"the coordinator of group {group_id!r} did not answer {method.path} within "
            f"{deadline.timeout_ms:.0f} ms (last: {last or 'no time to ask'})"
        )

    async def _ask(
        self, group_id: str, endpoint: str, method: Method[Q, R], request: Q, deadline: Deadline
    ) -> R:
        """Wait for the answer of one broker while it coordinates the group."""
        connection = self._cluster.connection(endpoint, "control")
        call = asyncio.ensure_future(
            connection.unary(method, request, timeout_ms=max(1, deadline.left_ms))
        )
        try:
            while True:
                await asyncio.wait([call], timeout=SILENCE_S)
                if call.done():
                    return call.result()
                if await self.has_moved(group_id, endpoint) and not call.done():
                    raise CoordinatorNotAvailableError(
                        f"{endpoint} did not answer, and another broker coordinates the group now"
                    )
        finally:
            call.cancel()

    async def has_moved(self, group_id: str, endpoint: str) -> bool:
        """Ask whether another broker than this silent one coordinates the group by now."""
        self._cluster.avoid(endpoint)
        try:
            return await self.look_up(group_id) != endpoint
        except QuorateError:
            return False
