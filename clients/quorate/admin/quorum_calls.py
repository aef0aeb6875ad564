"""The calls of an admin about the metadata quorum, and the way in which all its calls are sent."""

from __future__ import annotations

from typing import Annotated

from quorate.admin import controller_calls, descriptions
from quorate.aio.clock import Deadline
from quorate.argument_names import named
from quorate.cluster.client import Client
from quorate.errors import InvalidRequestError
from quorate.model import LeadershipTransfer, QuorumDescription, VoterChange
from quorate.net import methods
from quorate.net.network import Method, Q, R
from quorate.settings import INT32_MAX, Text, Whole, checked
from quorate.v1 import admin_pb2 as wire

NODE_ID = Whole(0, INT32_MAX, error=InvalidRequestError)
DIRECTORY_ID = Text(
    "of a voter's disk, as `quorate storage format --new-voter` printed it",
    pattern="[0-9a-f]{32}",
    allowed="32 hex digits",
    error=InvalidRequestError,
)


class QuorumCalls(Client):
    """The part of an Admin that is about the quorum."""

    #: Time limit of each call in total.
    _timeout_ms: int

    @named
    async def describe_quorum(self) -> QuorumDescription:
        """Return the metadata quorum, as its leader sees it.

        Raises QuorumUnavailableError if there is no leader.
        """
        response = await self._ask(methods.DESCRIBE_QUORUM, wire.DescribeQuorumRequest())
        return descriptions.quorum(response)

    @checked
    async def transfer_leadership(
        self, voter_id: Annotated[int | None, NODE_ID] = None
    ) -> LeadershipTransfer:
        """Give leadership of the quorum to a voter; None: to the voter with the longest log.

        The call waits until that voter leads. With a voter id the call is safe to repeat: if that
        voter leads already, nothing changes and the answer says so. Raises InvalidRequestError if
        the id is not that of a voter. Raises OverloadedError (retriable) if the voter did not catch
        up in time; then the old leader stays. Raises QuorumUnavailableError if there is no leader.
        """
        request = wire.TransferLeadershipRequest(voter_id=voter_id)
        response = await self._ask(
            methods.TRANSFER_LEADERSHIP, request, safe_to_repeat=voter_id is not None
        )
        return LeadershipTransfer(response.leader, response.already)

    @checked
    async def add_voter(
        self,
        voter_id: Annotated[int, NODE_ID],
        directory_id: Annotated[str, DIRECTORY_ID],
        endpoint: Annotated[str, Text("host:port")],
    ) -> VoterChange:
        """Make an observer that has caught up a voter. Wait until the change is committed.

        `directory_id` is the 32 hex digits that `quorate storage format --new-voter` printed. The
        call is safe to repeat. For an existing voter it changes the endpoint. Raises
        OverloadedError (retriable) until the node has caught up, and while another change is under
        way. Raises InvalidRequestError if a voter with this id has another disk: remove that voter
        first.
        """
        request = wire.AddVoterRequest(
            voter_id=voter_id,
            directory_id=bytes.fromhex(directory_id),
            endpoint=endpoint,
        )
        response = await self._ask(methods.ADD_VOTER, request)
        return VoterChange(voter_id, directory_id, response.already)

    @checked
    async def remove_voter(
        self,
        voter_id: Annotated[int, NODE_ID],
        directory_id: Annotated[str | None, DIRECTORY_ID] = None,
    ) -> VoterChange:
        """Remove a voter from the quorum, even the leader. Wait until the change is committed.

        With `directory_id` the voter is removed only if it has that disk. The call is safe to
        repeat. Raises OverloadedError (retriable) while another change is under way, or while the
        leader does not hear a majority of the remaining voters. Raises InvalidRequestError for the
        only voter.
        """
        named = b"" if directory_id is None else bytes.fromhex(directory_id)
        request = wire.RemoveVoterRequest(voter_id=voter_id, directory_id=named)
        response = await self._ask(methods.REMOVE_VOTER, request)
        gone = response.directory_id or named
        return VoterChange(voter_id, gone.hex(), response.already)

    # -- inside ----------------------------------------------------------------------------------

    async def _ask(
        self,
        method: Method[Q, R],
        request: Q,
        *,
        safe_to_repeat: bool = True,
        deadline: Deadline | None = None,
    ) -> R:
        """Return the answer. Raise the error in it, if it has one.

        The time limit is request_timeout_ms in total.
        """
        cluster = self._running()
        self._owner.check_alive()
        deadline = deadline or Deadline(self._timeout_ms)
        return await controller_calls.ask(
            cluster, method, request, deadline, safe_to_repeat=safe_to_repeat
        )
