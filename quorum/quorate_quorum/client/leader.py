"""The present controller, as far as this node knows, and the search for it.

The node learns of the controller from frames of the watch, from answers to heartbeats, and from
voters that are not the controller and name it. While the node knows no controller, it asks one
voter after the other.
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
from quorate_quorum.v1.controller_pb2 import (
    AllocateProducerIdsResponse,
    CreateInternalTopicResponse,
    RegisterResponse,
)

log = structlog.get_logger(__name__)

Q = TypeVar("Q")
#: The types of answers that name the controller.
A = TypeVar("A", RegisterResponse, AllocateProducerIdsResponse, CreateInternalTopicResponse)

#: The error codes of a voter that is not this node's controller. With these codes the voter has
#: done nothing.
ANOTHERS = (ErrorCode.ERROR_CODE_NOT_CONTROLLER, ErrorCode.ERROR_CODE_WRONG_CLUSTER)


@dataclass(frozen=True, slots=True)
class Leader:
    """The quorum's leader, as far as this node knows. An empty endpoint means not known."""

    id: int = -1
    endpoint: str = ""
    epoch: int = -1


class NotAnsweredError(Exception):
    """The voter that was asked as the controller did not answer as the controller."""

    def __init__(self, endpoint: str, reason: QuorateError) -> None:
        super().__init__(str(reason))
        self.endpoint = endpoint
        self.reason = reason


class LeaderFinder:
    """Knows or finds the quorum's leader. A leader of an older epoch never replaces a newer one."""

    def __init__(self, network: Network, connections: Connections, voters: Voters) -> None:
        self.known = Leader()
        #: Rings once, when a leader of a later epoch becomes known. Then a new bell replaces it.
        self.news = Bell()
        self._network = network
        self._connections = connections
        self._voters = voters
        self._asked = ""
        self._moved: dict[Callable[[str], None], None] = {}

    def when_moved(self, call: Callable[[str], None]) -> Callable[[], None]:
        """Call `call` with each new endpoint of the controller; "" if it is not known any more.

        Returns a function that ends these calls.
        """
        self._moved[call] = None
        return lambda: self._moved.pop(call, None)

    def candidate(self) -> str:
        """Return the controller's endpoint if known; else that of another voter than the last."""
        self._asked = self.known.endpoint or self._voters.other_than(self._asked)
        return self._asked

    async def ask(self, method: Method[Q, A], request: Q, timeout_ms: int) -> A:
        """Ask the candidate once. If it is not the controller, note the one that it names.

        Raises NotAnsweredError if the call failed, or the candidate is not the controller.
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
        ):  # the voter is of this cluster, but of another generation: the watch finds the newest
            self.forget(endpoint)
            raise NotAnsweredError(endpoint, from_wire(response.error))
        return response

    async def _reason(self, endpoint: str, error: NetworkError) -> QuorateError:
        """Return the error to report. If no voter listens there, the error says what does."""
        if not knows_no_such_call(error):
            return error
        found = await what_listens(self._network, endpoint, "voter")
        log.warning("no_voter_at_bootstrap_server", endpoint=endpoint, reason=found, repeats=True)
        return QuorumUnavailableError(found)

    def learn(self, leader: Leader) -> None:
        """Note the leader that a voter names, unless its epoch is older than the known one."""
        if leader.epoch < self.known.epoch or not leader.endpoint:
            return
        has_moved = leader.endpoint != self.known.endpoint
        was_elected = leader.epoch > self.known.epoch
        self.known = leader
        if was_elected:  # not otherwise: two voters that name each other would ring for ever
            news, self.news = self.news, Bell()
            news.ring()
        if has_moved:
            log.info("controller_known", leader_id=leader.id, endpoint=leader.endpoint)
            self._tell(leader.endpoint)

    def follow_hint(self, asked: str, leader_id: int, endpoint: str) -> None:
        """Forget `asked`, which is not the controller, and note the leader that it names.

        If `asked` names itself, it is about to become the controller, so it is not forgotten.
        """
        if endpoint == asked:
            return
        self.forget(asked)
        if endpoint and not self.known.endpoint:
            self.learn(Leader(leader_id, endpoint, self.known.epoch))

    def forget(self, endpoint: str) -> None:
        """Forget this endpoint as the controller's, because it did not answer as the controller."""
        if self.known.endpoint == endpoint:
            self.known = Leader(epoch=self.known.epoch)

    def forget_all(self) -> None:
        """Forget the leader and its epoch, because the new generation has its own epochs."""
        self.known = Leader()
        self._tell("")

    def _tell(self, endpoint: str) -> None:
        for call in list(self._moved):
            call(endpoint)


class Answers:
    """The last answer of each voter that was asked as the controller, for an error's text."""

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
