"""The active controller: it answers the requests of brokers during one reign.

The decisions are pure functions of the pending image, in the package `decisions`. The reign
proposes their events, and returns an answer after its change is committed. Every method here that
decides raises the errors of Reign.run and Reign.run_in_turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from quorate.errors import (
    InvalidRequestError,
    NotControllerError,
    OverloadedError,
    raise_if_error,
)
from quorate.v1 import admin_pb2 as admin
from quorate.v1.common_pb2 import ErrorCode
from quorate_quorum.controller.decisions import (
    brokers,
    changes,
    drain,
    features,
    partitions,
    topics,
    voters,
)
from quorate_quorum.controller.decisions.creation import Creation
from quorate_quorum.controller.decisions.growth import Growth
from quorate_quorum.controller.decisions.health import PartitionHealth, describe_health
from quorate_quorum.controller.decisions.internal_topics import internal_topic
from quorate_quorum.controller.decisions.outcome import Outcome
from quorate_quorum.controller.decisions.reassignment import (
    LISTED_A_TURN,
    LISTED_MAX,
    Reassignments,
    check_throttle,
    under_way,
)
from quorate_quorum.controller.decisions.requested_elections import RequestedElections
from quorate_quorum.controller.driver.creations import Creations
from quorate_quorum.controller.driver.leases import LeaseRaft, Leases
from quorate_quorum.controller.driver.reign import Decided, Proposer, Reign
from quorate_quorum.metadata.delta import MetadataDelta
from quorate_quorum.metadata.image import MetadataImage
from quorate_quorum.node.features import Known
from quorate_quorum.v1.controller_pb2 import (
    AlterPartitionsRequest,
    AlterPartitionsResponse,
    RegisterRequest,
    RegisterResponse,
)

log = structlog.get_logger(__name__)

#: The most topics or partitions that one request may name.
NAMED_MAX = 10_000


class ControllerRaft(Proposer, LeaseRaft, Protocol):
    """The part of RaftNode that the controller needs."""

    @property
    def known_features(self) -> Mapping[tuple[int, bytes], Known]: ...
    async def transfer(self, voter_id: int | None) -> int: ...


@dataclass(eq=False)
class ActiveController:
    """Answers requests from the time at which this voter begins to decide until it stops.

    `describe_quorum` returns the state of the quorum as this voter sees it. `health` follows the
    committed image.
    """

    _node_id: int
    reign: Reign
    leases: Leases
    _raft: ControllerRaft
    _own_features: Known
    _describe_quorum: Callable[[], admin.DescribeQuorumResponse]
    _health: PartitionHealth

    def __post_init__(self) -> None:
        self._creations = Creations(self.reign)

    # -- the reign

    def committed(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Take in a committed image: log its changes, and send the answers that waited for it."""
        for event, fields in changes.lines(delta, image):
            log.info(event, **fields)
        self.reign.committed(image)
        self.leases.committed(delta, image)

    def end(self) -> None:
        """End the reign: fail the requests that wait, and end the heartbeat streams."""
        self.reign.end()
        self.leases.end(NotControllerError(f"voter {self._node_id} is not the controller any more"))

    async def ended(self) -> None:
        """Wait until all background tasks of the reign have ended."""
        await self.leases.ended()
        await self._creations.ended()

    # -- requests

    async def create_topics(
        self, request: admin.CreateTopicsRequest
    ) -> Decided[admin.CreateTopicsResponse]:
        """Create topics."""
        check_named(len(request.topics))
        creation = Creation(request)
        end = await self._creations.create(creation, request.ByteSize())
        return Decided(creation.response, end)

    async def create_internal_topic(self, name: str) -> Decided[bytes]:
        """Make a topic of the cluster's own, unless it is there. Response: the topic's id."""
        if name not in self.reign.pending.topic_ids:
            request = internal_topic(self.reign.pending, name)
            creation = Creation(request, internal=True)
            end = await self._creations.create(creation, request.ByteSize())
            created = creation.response.topics[0]
            if created.error.code != ErrorCode.ERROR_CODE_TOPIC_EXISTS:
                raise_if_error(created.error)
                return Decided(created.topic_id, end)
        # Another broker has asked first. Its topic may not be committed yet, so wait for it.
        return await self.reign.run(lambda image, _: Outcome((), image.topic_ids[name]))

    async def create_partitions(
        self, request: admin.CreatePartitionsRequest
    ) -> Decided[admin.CreatePartitionsResponse]:
        """Give a topic more partitions."""
        check_named(len(request.assignments))
        growth = Growth(request)
        end = await self._creations.create(growth, request.ByteSize())
        return Decided(growth.response, end)

    async def alter_partitions(
        self, request: AlterPartitionsRequest
    ) -> Decided[AlterPartitionsResponse]:
        """Decide a leader's proposals for the ISRs of its partitions."""
        check_named(len(request.partitions))
        parts = partitions.parts_of(request)
        decided = await self.reign.run_parts(partitions.alter_partitions, parts)
        return Decided(partitions.joined(decided.response), decided.apply_offset)

    async def delete_topics(
        self, request: admin.DeleteTopicsRequest, refusal: topics.Refusal
    ) -> Decided[admin.DeleteTopicsResponse]:
        """Delete the topics for which `refusal` returns None."""
        check_named(len(request.topics) + len(request.topic_ids))
        decided = await self.reign.run_parts(
            lambda image, part, _: topics.delete_topics(image, part, refusal),
            topics.parts_of(request),
        )
        response = admin.DeleteTopicsResponse()
        for one in decided.response:
            response.MergeFrom(one)
        return Decided(response, decided.apply_offset)

    async def elect_leaders(
        self, request: admin.ElectLeadersRequest
    ) -> Decided[admin.ElectLeadersResponse]:
        """Elect preferred leaders; or leaders that may have lost records, for want of others."""
        check_named(sum(len(one.partitions) for one in request.topics))
        requested = RequestedElections(request)
        end = await self.reign.run_in_turns(requested.next)
        if requested.lossy:
            await self.leases.elections.elect(requested.lossy, request.timeout_ms)
            await self.reign.confirm()
            requested.lossy_ended(self.reign.image)
            end = self.reign.image.offset
        return Decided(requested.response, end)

    async def reassign_partitions(
        self, request: admin.ReassignPartitionsRequest
    ) -> Decided[admin.ReassignPartitionsResponse]:
        """Begin to move the replicas of partitions, or cancel that."""
        check_named(sum(len(one.partitions) for one in request.topics))
        requested = Reassignments(request)
        end = await self.reign.run_in_turns(requested.next)
        return Decided(requested.response, end)

    async def list_reassignments(
        self, request: admin.ListReassignmentsRequest, may_see: Callable[[str], bool]
    ) -> Decided[admin.ListReassignmentsResponse]:
        """Return the reassignments under way. `may_see` says if the caller may see a topic.

        The controller answers, as in Kafka: the image of a broker that is cut off may be old, and
        then nothing seems to be moved.
        """
        check_named(sum(len(one.partitions) for one in request.topics))
        await self.reign.confirm()
        response = admin.ListReassignmentsResponse()
        for count, (topic, index, state) in enumerate(
            under_way(self.reign.image, request, may_see)
        ):
            if count == LISTED_MAX:
                response.more = True
                break
            if count % LISTED_A_TURN == LISTED_A_TURN - 1:
                await asyncio.sleep(0)
            if not response.topics or response.topics[-1].topic_id != topic.id:
                response.topics.add(topic=topic.name, topic_id=topic.id)
            response.topics[-1].partitions.add(
                partition=index,
                replicas=state.broker_ids,
                adding=state.adding,
                removing=state.removing,
                isr=state.isr,
                leader=state.leader,
                throttle=state.throttle,
            )
        return Decided(response, 0)

    async def drain_broker(
        self, request: admin.DrainBrokerRequest
    ) -> Decided[admin.DrainBrokerResponse]:
        """Mark a broker as drained and move its leaders away, or take the mark away."""
        check_throttle(request.throttle)
        marked = await self.reign.run(
            lambda image, _: drain.cordon(image, request.broker_id, cordoned=not request.undrain)
        )
        if request.undrain:
            self.leases.raiser.look()
        if request.undrain or marked.response.HasField("error"):
            return marked
        # A large request may have chosen the broker before it was marked. The drain passes over
        # what that request still makes, so it comes after it.
        await self._creations.settle()
        draining = drain.Drain(request.broker_id, request.replicas, request.throttle)
        end = await self.reign.run_in_turns(draining.next)
        draining.response.was_drained = marked.response.was_drained
        return Decided(draining.response, end)

    async def register(self, request: RegisterRequest) -> Decided[RegisterResponse]:
        """Register a broker. Its lease begins when the registration is committed."""
        decided = await self.reign.run(
            lambda image, context: brokers.register(
                image,
                request,
                context,
                session_lives=self.leases.is_alive,
            )
        )
        if decided.response.error.code == ErrorCode.ERROR_CODE_NONE:
            self.leases.registered(request.broker_id, request.incarnation)
        return decided

    async def unregister_broker(
        self, request: admin.UnregisterBrokerRequest
    ) -> Decided[admin.UnregisterBrokerResponse]:
        """Unregister a broker that will not come back."""
        return await self.reign.run(
            lambda image, _: brokers.unregister(
                image, request, session_lives=self.leases.is_alive(request.broker_id)
            )
        )

    async def update_feature(
        self, request: admin.UpdateFeatureRequest
    ) -> Decided[admin.UpdateFeatureResponse]:
        """Raise a feature's level, if every node knows the new level."""
        return await self.reign.run(
            lambda image, _: features.update_feature(image, request, self._raft.known_features)
        )

    async def add_voter(self, request: admin.AddVoterRequest) -> Decided[admin.AddVoterResponse]:
        """Add a voter that has caught up."""
        return await self.reign.run(
            lambda image, _: voters.add_voter(image, request, self._raft.known_features)
        )

    async def remove_voter(
        self, request: admin.RemoveVoterRequest
    ) -> Decided[admin.RemoveVoterResponse]:
        """Remove a voter."""
        return await self.reign.run(lambda image, _: voters.remove_voter(image, request))

    async def describe_quorum(
        self, request: admin.DescribeQuorumRequest
    ) -> Decided[admin.DescribeQuorumResponse]:
        """Return the state of the quorum as its leader sees it."""
        await self.reign.confirm()
        return Decided(self._describe_quorum(), 0)

    async def describe_health(
        self, may_see: Callable[[str], bool]
    ) -> Decided[admin.DescribeHealthResponse]:
        """Return the troubles of the cluster. `may_see` says if the caller may see a topic."""
        await self.reign.confirm()
        response = describe_health(
            self.reign.image,
            self._describe_quorum(),
            self._health,
            self.leases.why_fenced,
            may_see,
        )
        return Decided(response, 0)

    async def describe_features(
        self, request: admin.DescribeFeaturesRequest
    ) -> Decided[admin.DescribeFeaturesResponse]:
        """Return the levels in force, and the levels that each node knows."""
        await self.reign.confirm()
        response = features.describe_features(
            self.reign.image, self._raft.known_features, self._own_features
        )
        return Decided(response, 0)

    async def transfer_leadership(
        self, request: admin.TransferLeadershipRequest
    ) -> Decided[admin.TransferLeadershipResponse]:
        """Hand leadership to another voter, and return the new leader.

        All earlier decisions are committed first, so that every caller learns its outcome.
        Raises InvalidRequestError if the named node is not a voter.
        Raises OverloadedError (retriable) if the named voter did not catch up in time, or another
        voter was elected.
        """
        await self.reign.confirm()
        named = request.voter_id if request.HasField("voter_id") else None
        leader = await self._raft.transfer(named)
        if named not in (None, leader):
            raise OverloadedError(f"voter {leader} was elected, not {named}: ask again")
        response = admin.TransferLeadershipResponse(leader=leader, already=named == self._node_id)
        return Decided(response, 0)


def check_named(count: int) -> None:
    """Refuse a request that names too many items, because an error for each would take seconds."""
    if count > NAMED_MAX:
        raise InvalidRequestError(
            f"a request names {count} topics or partitions; {NAMED_MAX} are allowed: send several"
        )
