"""The call of an admin that lets the controller elect the leaders of partitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

from quorate.admin.quorum_calls import QuorumCalls
from quorate.errors import QuorateError, from_wire
from quorate.model import TopicPartition
from quorate.net import methods
from quorate.settings import Flag, Partitions, checked
from quorate.v1 import admin_pb2 as wire


class LeaderElection(NamedTuple):
    """The result of an election of one partition.

    `leader`: the broker that leads now; -1: none. `error`: why there was no election; None: this
    leader was elected. `may_have_lost`: the election was unclean, and no replica had surely all
    records: ACKNOWLEDGED RECORDS MAY BE LOST.
    """

    leader: int
    error: QuorateError | None
    may_have_lost: bool = False


class ElectionCalls(QuorumCalls):
    """The part of an Admin that is about elections of partition leaders."""

    @checked
    async def elect_leaders(
        self,
        partitions: Annotated[Iterable[TopicPartition] | None, Partitions()] = None,
        *,
        unclean: Annotated[bool, Flag("although acknowledged records may be lost")] = False,
    ) -> dict[TopicPartition, LeaderElection]:
        """Let the preferred replica of each partition lead. Return the result of each.

        The preferred replica is the first of the partition's replicas. It is elected if it is in
        the ISR and its broker is alive. Nothing is lost, and producers and consumers find the new
        leader themselves. With None, all partitions that need an election have one, and the results
        are those of at most 10,000 of them.

        `unclean` elects for partitions without a leader instead. If no replica has surely all
        records, the one with the furthest log leads, and ACKNOWLEDGED RECORDS MAY BE LOST: the
        others cut their logs to this one. Use it when the brokers with the lacking records will not
        come back.

        An error is in the result of its partition: ElectionNotNeededError (also if a lost answer
        made the client repeat the call), PreferredLeaderNotAvailableError,
        EligibleLeadersNotAvailableError or UnknownTopicError.
        """
        request = wire.ElectLeadersRequest(
            all_topics=partitions is None, unclean=unclean, timeout_ms=self._timeout_ms
        )
        by_topic: dict[str, list[int]] = {}
        for topic, number in partitions or ():
            by_topic.setdefault(topic, []).append(number)
        for topic, numbers in by_topic.items():
            request.topics.add(topic=topic, partitions=numbers)
        response = await self._ask(methods.ELECT_LEADERS, request)
        return {
            TopicPartition(one.topic, result.partition): LeaderElection(
                result.leader,
                from_wire(result.error) if result.error.code else None,
                result.may_have_lost,
            )
            for one in response.topics
            for result in one.partitions
        }
