"""The calls of an admin that take the work away from a broker, and give it back."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from quorate.admin.quorum_calls import NODE_ID, QuorumCalls
from quorate.model import TopicPartition
from quorate.net import methods
from quorate.settings import INT64_MAX, Flag, Whole, checked
from quorate.v1 import admin_pb2 as wire


class BrokerDrain(NamedTuple):
    """What a drain of a broker has done.

    `leaders_moved`: leaderships that other brokers have now. `replicas_moved`: reassignments that
    were begun. `left_count`: how often the drain could not move a leadership or a replica. `left`
    gives the reason, for at most 1,000 partitions. A partition is in both counts if its move has
    begun, but nothing is copied because it has no leader.
    """

    was_drained: bool
    leaders_moved: int
    replicas_moved: int
    left_count: int
    left: dict[TopicPartition, str]


class DrainCalls(QuorumCalls):
    """The part of an Admin that drains brokers."""

    @checked
    async def drain_broker(
        self,
        broker_id: Annotated[int, NODE_ID],
        *,
        replicas: Annotated[bool, Flag("also give its replicas to other brokers")] = False,
        throttle: Annotated[int, Whole(0, INT64_MAX, "bytes a second; 0: no limit")] = 0,
    ) -> BrokerDrain:
        """Take the leaderships away from a broker, for maintenance. Nothing is lost.

        From then on the broker gets no new replicas, and leads a partition only if no other replica
        can. Its replicas follow and stay in sync. With `replicas`, each partition with a replica on
        it is reassigned: another broker takes its place, on a rack of its own if there is one. The
        call returns when these reassignments have begun: list_reassignments() shows them. A
        registration does not undo a drain; undrain_broker() does. The call is safe to repeat.

        `throttle`: the bytes a second of the reassignments that it begins, as in
        reassign_partitions(). Without it, a reassignment whose target it changes keeps the throttle
        that it has.

        Raises UnknownBrokerError if the broker is not registered.
        """
        request = wire.DrainBrokerRequest(
            broker_id=broker_id,
            replicas=replicas,
            timeout_ms=self._timeout_ms,
            throttle=throttle,
        )
        found = await self._ask(methods.DRAIN_BROKER, request)
        return BrokerDrain(
            found.was_drained,
            found.leaders_moved,
            found.replicas_moved,
            found.left_count,
            {TopicPartition(one.topic, one.partition): one.reason for one in found.left},
        )

    @checked
    async def undrain_broker(self, broker_id: Annotated[int, NODE_ID]) -> bool:
        """Let a drained broker have replicas and leaderships again. Return whether it was drained.

        Nothing is moved back: elect_leaders() lets preferred replicas lead. Raises
        UnknownBrokerError if the broker is not registered.
        """
        request = wire.DrainBrokerRequest(
            broker_id=broker_id, undrain=True, timeout_ms=self._timeout_ms
        )
        found = await self._ask(methods.DRAIN_BROKER, request)
        return bool(found.was_drained)
