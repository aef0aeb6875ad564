"""Calls that name more partitions than a request may are sent as several, and joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from quorate import Admin, TopicPartition
from quorate.admin.reassignments import NAMED_MAX
from quorate.errors import InvalidReplicaAssignmentError, to_wire
from quorate.net.methods import LIST_REASSIGNMENTS, REASSIGN_PARTITIONS
from quorate.net.network import Handler, Method, Peer
from quorate.v1 import admin_pb2
from tests.harness.fake_leaders import FakeBroker, FakeCluster, with_cluster

#: More than the 10,000 that a controller takes in one request.
COUNT = 10_001
KEYS = [TopicPartition(f"t{number % 7}", number // 7) for number in range(COUNT)]


class Moving(FakeBroker):
    """A broker that counts what each request names; it moves all to broker 3, but for t0/0."""

    def __init__(self, cluster: FakeCluster, broker_id: int) -> None:
        super().__init__(cluster, broker_id)
        self.named: list[int] = []
        self.asked: dict[TopicPartition, list[int]] = {}

    def handlers(self) -> Mapping[Method[Any, Any], Handler]:
        return {
            **super().handlers(),
            REASSIGN_PARTITIONS: self.reassign,
            LIST_REASSIGNMENTS: self.told,
        }

    async def reassign(
        self, request: admin_pb2.ReassignPartitionsRequest, peer: Peer
    ) -> admin_pb2.ReassignPartitionsResponse:
        response = admin_pb2.ReassignPartitionsResponse()
        self.named.append(sum(len(one.partitions) for one in request.topics))
        assert (request.throttle, request.keep_replication_factor) == (9, True)
        for one in request.topics:
            results = response.topics.add(topic=one.topic).partitions
            for asked in one.partitions:
                key = TopicPartition(one.topic, asked.partition)
                self.asked[key] = [*asked.replicas, *asked.expected]
                result = results.add(partition=asked.partition)
                if key == ("t0", 0):
                    result.error.CopyFrom(to_wire(InvalidReplicaAssignmentError("no")))
        return response

    async def told(
        self, request: admin_pb2.ListReassignmentsRequest, peer: Peer
    ) -> admin_pb2.ListReassignmentsResponse:
        response = admin_pb2.ListReassignmentsResponse()
        self.named.append(sum(len(one.partitions) for one in request.topics))
        for one in request.topics:
            found = response.topics.add(topic=one.topic).partitions
            for index in one.partitions:
                found.add(partition=index, replicas=[3], adding=[3])
        return response


async def moving(cluster: FakeCluster) -> Moving:
    for broker in cluster.brokers:
        await broker.kill()
    broker = Moving(cluster, 0)
    cluster.brokers = [broker]
    await cluster.start()
    return broker


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({KEYS[0]: [1]}, "it has no replicas of t1/0"),
        ({KEYS[0]: [1], KEYS[1]: []}, "it has no replicas of t1/0"),
        ({KEYS[0]: [1], KEYS[1]: [1], KEYS[9]: [1]}, "it names, and targets does not, t2/1"),
        ({}, "it has no replicas of t0/0, t1/0"),
    ],
)
async def test_a_plan_says_of_each_target_what_it_was_made_from(
    expected: dict[TopicPartition, list[int]], told: str
) -> None:
    """A part of a plan that is not compared could undo what changed since."""
    admin = Admin(bootstrap_servers="nowhere:1")
    targets = {KEYS[0]: [3], KEYS[1]: [3], KEYS[2]: None}
    with pytest.raises(ValueError, match="expected must have the replicas of each") as raised:
        await admin.reassign_partitions(targets, expected=expected)
    assert told in str(raised.value)


def test_more_moves_than_a_request_may_name_go_in_several() -> None:
    async def program(cluster: FakeCluster) -> None:
        broker = await moving(cluster)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            results = await admin.reassign_partitions(
                {key: [3] for key in KEYS},
                expected={key: [4] for key in KEYS},
                keep_replication_factor=True,
                throttle=9,
            )
        assert sum(broker.named) == COUNT
        assert max(broker.named) <= NAMED_MAX
        assert broker.asked == {key: [3, 4] for key in KEYS}
        assert set(results) == set(KEYS)
        assert [key for key, error in results.items() if error is not None] == [("t0", 0)]

    with_cluster(program)


def test_more_moves_than_a_request_may_name_are_listed_by_several() -> None:
    async def program(cluster: FakeCluster) -> None:
        broker = await moving(cluster)
        async with Admin(bootstrap_servers=cluster.bootstrap) as admin:
            found = await admin.list_reassignments(KEYS)
            assert await admin.list_reassignments([]) == {}
        assert sum(broker.named) == COUNT
        assert max(broker.named) <= NAMED_MAX
        assert set(found) == set(KEYS)
        assert {one.target for one in found.values()} == {(3,)}

    with_cluster(program)
