"""Which voter is the controller now, and how to find it.

News of it comes from frames of the watch, from heartbeats, and from voters that were asked in
error and hint at another. While nothing is known, voters are asked one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from quorate.aio.bell import Bell
from quorate.errors import (
    DeadlineExceededError,
    NetworkError,
    QuorateError,
    QuorumUnavailableError,
    from_wire,
)
from quorate.net.network import Method, Network
from quorate.net.unexpected_peer import knows_no_such_call, what_listens
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.client.voters import Connections, Voters
from quorate_quorum.v1.controller_pb2 import AllocateProducerIdsResponse, RegisterResponse

log = structlog.get_logger(__name__)

Q = TypeVar("Q")
#: Answers that carry a hint at the controller.
A = TypeVar("A", RegisterResponse, AllocateProducerIdsResponse)

#: Answers of a voter that is not the controller of our history: nothing was done.
ANOTHERS = (ErrorCode.ERROR_CODE_NOT_CONTROLLER, ErrorCode.ERROR_CODE_WRONG_CLUSTER)


@dataclass(frozen=True, slots=True)
class Leader:
    """What is known of the quorum's leader; an empty endpoint: nothing."""

    id: int = -1
    endpoint: str = ""
    epoch: int = -1


class NotAnsweredError(Exception):
    """The voter that was taken for the controller did not answer as one."""

    def __init__(self, endpoint: str, reason: QuorateError) -> None:
        super().__init__(str(reason))
        self.endpoint = endpoint
        self.reason = reason


class LeaderFinder:
    """What is known of the leader. An older epoch never replaces a newer one."""

    def __init__(self, network: Network, connections: Connections, voters: Voters) -> None:
        self.known = Leader()
        #: Rung once, when a leader of a later epoch is known; then another bell takes its place.
        self.news = Bell()
        self._network = network
        self._connections = connections
        self._voters = voters
        self._asked = ""
        self._moved: dict[Callable[[str], None], None] = {}

    def when_moved(self, call: Callable[[str], None]) -> Callable[[], None]:
        """Call with each new endpoint of the controller, empty if it is not known any more.

        Returns how to end that.
        """
        self._moved[call] = None
        return lambda: self._moved.pop(call, None)

    def candidate(self) -> str:
        """Return the controller's endpoint if known, else another voter's than asked last."""
        self._asked = self.known.endpoint or self._voters.other_than(self._asked)
        return self._asked

    async def ask(self, method: Method[Q, A], request: Q, timeout_ms: int) -> A:
        """Ask the candidate, once; learn from what comes back.

        Raises NotAnsweredError if the call failed or that voter is not the controller.
        """
        endpoint = self.candidate()
        connection = self._connections.get(endpoint)
        try:
            response = await connection.unary(method, request, timeout_ms=timeout_ms)
        except NetworkError as error:
            self.forget(endpoint)
            if isinstance(error, DeadlineExceededError):
                self._connections.drop(endpoint)
            raise NotAnsweredError(endpoint, await self._reason(endpoint, error)) from error
        if response.error.code == ErrorCode.ERROR_CODE_NOT_CONTROLLER:
            self.follow_hint(endpoint, response.leader_id, response.leader_endpoint)
            raise NotAnsweredError(endpoint, from_wire(response.error))
        if response.error.code == ErrorCode.ERROR_CODE_WRONG_CLUSTER and not (
            isinstance(response, RegisterResponse) and response.quorum_generation == 0
        ):  # of our cluster and another history: the watch finds the newest
            self.forget(endpoint)
            raise NotAnsweredError(endpoint, from_wire(response.error))
        return response

    async def _reason(self, endpoint: str, error: NetworkError) -> QuorateError:
        """Say what listens at an endpoint that knows none of a voter's calls."""
        if not knows_no_such_call(error):
            return error
        found = await what_listens(self._network, endpoint, "voter")
        log.warning("no_voter_at_bootstrap_server", endpoint=endpoint, reason=found, repeats=True)
        return QuorumUnavailableError(found)

    def learn(self, leader: Leader) -> None:
        """Take what a voter says of the leader, unless it is older than what is known."""
        if leader.epoch < self.known.epoch or not leader.endpoint:
            return
        has_moved = leader.endpoint != self.known.endpoint
        was_elected = leader.epoch > self.known.epoch
        self.known = leader
        if was_elected:  # not at every hint: two voters that hint at each other would ring for ever
            news, self.news = self.news, Bell()
            news.ring()
        if has_moved:
            log.info("controller_known", leader_id=leader.id, endpoint=leader.endpoint)
            self._tell(leader.endpoint)

    def follow_hint(self, asked: str, leader_id: int, endpoint: str) -> None:
        """The voter asked is not the controller; it may know which is, or be about to become it."""
        if endpoint == asked:
            return
        self.forget(asked)
        if endpoint and not self.known.endpoint:
            self.learn(Leader(leader_id, endpoint, self.known.epoch))

    def forget(self, endpoint: str) -> None:
        """That endpoint did not answer as the controller: ask the others too."""
        if self.known.endpoint == endpoint:
            self.known = Leader(epoch=self.known.epoch)

    def forget_all(self) -> None:
        """Another history is followed: its epochs begin anew."""
        self.known = Leader()
        self._tell("")

    def _tell(self, endpoint: str) -> None:
        for call in list(self._moved):
            call(endpoint)


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
