"""Requests about the cluster as a whole: its brokers, its quorum, its disks, its elections.

What Quorate has none of (ACLs, quotas, SCRAM users, transactions, moves of replicas) is answered as
Kafka answers where there is none. Tools that show all of a cluster fail otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from quorate.errors import QuorateError, raise_if_error
from quorate.net import methods
from quorate.v1 import admin_pb2 as admin
from quorate_broker.listeners.kafka import authorized, versions
from quorate_broker.listeners.kafka.call import Call, Handler
from quorate_broker.listeners.kafka.errors import (
    INVALID_REQUEST,
    KAFKA_STORAGE_ERROR,
    LOG_DIR_NOT_FOUND,
    MISMATCHED_ENDPOINT_TYPE,
    NONE,
    REPLICA_NOT_AVAILABLE,
    RESOURCE_NOT_FOUND,
    SECURITY_DISABLED,
    UNKNOWN_TOPIC_OR_PARTITION,
    code_of,
)
from quorate_broker.listeners.kafka.messages import alter_replica_log_dirs as al
from quorate_broker.listeners.kafka.messages import describe_acls as da
from quorate_broker.listeners.kafka.messages import describe_client_quotas as dq
from quorate_broker.listeners.kafka.messages import describe_cluster as dc
from quorate_broker.listeners.kafka.messages import describe_log_dirs as dl
from quorate_broker.listeners.kafka.messages import describe_quorum as quorum
from quorate_broker.listeners.kafka.messages import describe_user_scram_credentials as scram
from quorate_broker.listeners.kafka.messages import list_transactions as lt
from quorate_broker.operations.log_dirs import LogDir, ReplicaSize
from quorate_broker.operations.metadata import check_count
from quorate_broker.operations.operations import Operations
from quorate_broker.operations.partitions import PARTITIONS_A_TURN
from quorate_quorum.log.identity import METADATA_LOG
from quorate_quorum.node.listeners import parse

#: Kafka's name of the metadata log, which has one partition.
OF_BROKERS: Final = 1
#: The name by which voters' addresses are told.
CONTROLLER: Final = "CONTROLLER"
NO_LEADER: Final = -1
UNKNOWN_BYTES: Final = -1
#: The states that a transaction may have in Kafka.
TRANSACTION_STATES: Final = frozenset(
    (
        "Empty",
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
        "Dead",
        "PrepareEpochFence",
    )
)


class ClusterRequests:
    """Describes the cluster: see the module."""

    def __init__(
        self,
        operations: Operations,
        cluster_id: str,
        broker_id: int,
        wall_clock_ms: Callable[[], int],
    ) -> None:
        self._metadata = operations.metadata
        self._admin = operations.admin
        self._log_dirs = operations.log_dirs
        self._rights = operations.rights
        self._cluster_id = cluster_id
        self._broker_id = broker_id
        self._wall_clock_ms = wall_clock_ms

    def handlers(self) -> Mapping[int, Handler]:
        return {
            versions.DESCRIBE_CLUSTER: self.describe_cluster,
            versions.DESCRIBE_QUORUM: self.describe_quorum,
            versions.DESCRIBE_LOG_DIRS: self.describe_log_dirs,
            versions.ALTER_REPLICA_LOG_DIRS: self.alter_replica_log_dirs,
            versions.DESCRIBE_ACLS: self.describe_acls,
            versions.DESCRIBE_CLIENT_QUOTAS: self.describe_client_quotas,
            versions.DESCRIBE_USER_SCRAM_CREDENTIALS: self.describe_user_scram_credentials,
            versions.LIST_TRANSACTIONS: self.list_transactions,
        }

    async def describe_cluster(
        self, call: Call[dc.DescribeClusterRequest]
    ) -> dc.DescribeClusterResponse:
        request = call.request
        if request.endpoint_type != OF_BROKERS:
            return dc.DescribeClusterResponse(
                error_code=MISMATCHED_ENDPOINT_TYPE,
                error_message="brokers tell the addresses of brokers only",
                endpoint_type=OF_BROKERS,
            )
        image = await self._metadata.image(0)
        return dc.DescribeClusterResponse(
            cluster_id=self._cluster_id,
            # As in Metadata: this broker passes on to the controller.
            controller_id=self._broker_id,
            brokers=[
                dc.DescribeClusterBroker(
                    broker.id, address.host, address.port, broker.rack or None, broker.fenced
                )
                for broker in image.sorted_brokers()
                if (address := broker.listener(call.client.listener)) is not None
                and (request.include_fenced_brokers or not broker.fenced)
            ],
            cluster_authorized_operations=(
                authorized.told_of_cluster(self._rights.on_cluster(call.client.principal))
                if request.include_cluster_authorized_operations
                else authorized.NOT_ASKED
            ),
        )

    async def describe_quorum(
        self, call: Call[quorum.DescribeQuorumRequest]
    ) -> quorum.DescribeQuorumResponse:
        check_count(sum(len(topic.partitions) for topic in call.request.topics))
        try:
            answer = await self._admin.forward(
                methods.DESCRIBE_QUORUM,
                admin.DescribeQuorumRequest(),
                call.client.principal,
                timeout_ms=0,
                caller_timeout_ms=0,
            )
            raise_if_error(answer.error)
        except QuorateError as error:
            return quorum.DescribeQuorumResponse(code_of(error), str(error))
        now_ms = self._wall_clock_ms()
        return quorum.DescribeQuorumResponse(
            NONE,
            None,
            [
                quorum.DescribeQuorumResponseTopicData(
                    topic.topic_name,
                    [
                        _metadata_log(answer, now_ms)
                        if (topic.topic_name, one.partition_index) == (METADATA_LOG, 0)
                        else _no_such_log(one.partition_index)
                        for one in topic.partitions
                    ],
                )
                for topic in call.request.topics
            ],
            [_voter(one) for one in answer.voters],
        )

    async def describe_log_dirs(
        self, call: Call[dl.DescribeLogDirsRequest]
    ) -> dl.DescribeLogDirsResponse:
        asked = call.request.topics
        check_count(len(asked or ()))
        wanted = None if asked is None else {one.topic: frozenset(one.partitions) for one in asked}
        try:
            found = await self._log_dirs.describe(call.client.principal, wanted)
        except QuorateError as error:
            return dl.DescribeLogDirsResponse(error_code=code_of(error))
        results = []
        for one in found:
            results.append(_log_dir(one, wanted))
            await asyncio.sleep(0)
        return dl.DescribeLogDirsResponse(results=results)

    async def alter_replica_log_dirs(
        self, call: Call[al.AlterReplicaLogDirsRequest]
    ) -> al.AlterReplicaLogDirsResponse:
        """Answer whether replicas are in the directories that are asked for. None is moved.

        kafka-reassign-partitions prints the directories of the replicas before a move. To go back,
        it asks for them, again and again until the replicas are there.
        """
        named = [
            (topic.name, index, one.path)
            for one in call.request.dirs
            for topic in one.topics
            for index in topic.partitions
        ]
        check_count(len(named))
        refusal, paths = NONE, frozenset[str]()
        try:
            paths = self._log_dirs.paths(call.client.principal)
        except QuorateError as error:
            refusal = code_of(error)
        results: dict[str, list[al.AlterReplicaLogDirPartitionResult]] = {}
        for number, (topic, index, path) in enumerate(named, 1):
            code = refusal or self._code_of_directory(topic, index, path, paths)
            results.setdefault(topic, []).append(al.AlterReplicaLogDirPartitionResult(index, code))
            if number % PARTITIONS_A_TURN == 0:
                await asyncio.sleep(0)
        return al.AlterReplicaLogDirsResponse(
            results=[al.AlterReplicaLogDirTopicResult(*one) for one in results.items()]
        )

    def _code_of_directory(
        self, topic: str, partition: int, path: str, paths: frozenset[str]
    ) -> int:
        if path not in paths:
            return LOG_DIR_NOT_FOUND
        is_in = self._log_dirs.path_of(topic, partition)
        if is_in is None:
            return REPLICA_NOT_AVAILABLE
        return NONE if is_in == path else INVALID_REQUEST

    async def describe_acls(self, call: Call[da.DescribeAclsRequest]) -> da.DescribeAclsResponse:
        del call
        return da.DescribeAclsResponse(
            error_code=SECURITY_DISABLED, error_message="this cluster keeps no ACLs"
        )

    async def describe_client_quotas(
        self, call: Call[dq.DescribeClientQuotasRequest]
    ) -> dq.DescribeClientQuotasResponse:
        del call
        return dq.DescribeClientQuotasResponse(error_message=None)

    async def describe_user_scram_credentials(
        self, call: Call[scram.DescribeUserScramCredentialsRequest]
    ) -> scram.DescribeUserScramCredentialsResponse:
        users = call.request.users or ()
        check_count(len(users))
        return scram.DescribeUserScramCredentialsResponse(
            error_message=None,
            results=[
                scram.DescribeUserScramCredentialsResult(
                    user.name, RESOURCE_NOT_FOUND, f"no user {user.name[:249]!r} is known"
                )
                for user in users
            ],
        )

    async def list_transactions(
        self, call: Call[lt.ListTransactionsRequest]
    ) -> lt.ListTransactionsResponse:
        unknown = [one for one in call.request.state_filters if one not in TRANSACTION_STATES]
        return lt.ListTransactionsResponse(unknown_state_filters=unknown)


def _metadata_log(
    answer: admin.DescribeQuorumResponse, now_ms: int
) -> quorum.DescribeQuorumResponsePartitionData:
    return quorum.DescribeQuorumResponsePartitionData(
        0,
        NONE,
        None,
        answer.leader,
        answer.epoch,
        answer.high_watermark,
        [_replica(one, answer.leader, now_ms) for one in answer.voters],
        [_replica(one, answer.leader, now_ms) for one in answer.observers],
    )


def _replica(one: admin.QuorumReplica, leader: int, now_ms: int) -> quorum.ReplicaState:
    """Describe a replica of the metadata log. The leader is always caught up."""
    ago_ms = 0 if one.id == leader else one.last_caught_up_ms
    caught_up_ms = now_ms - ago_ms if ago_ms >= 0 else -1
    return quorum.ReplicaState(
        one.id, one.directory_id or bytes(16), one.log_end_offset, caught_up_ms, caught_up_ms
    )


def _no_such_log(partition: int) -> quorum.DescribeQuorumResponsePartitionData:
    return quorum.DescribeQuorumResponsePartitionData(
        partition,
        UNKNOWN_TOPIC_OR_PARTITION,
        f"only partition 0 of {METADATA_LOG} is a log of the quorum",
        NO_LEADER,
        NO_LEADER,
    )


def _voter(one: admin.QuorumReplica) -> quorum.Node:
    address = parse(one.endpoint)
    return quorum.Node(one.id, [quorum.Listener(CONTROLLER, address.host, address.port)])


def _log_dir(one: LogDir, wanted: Mapping[str, frozenset[int]] | None) -> dl.DescribeLogDirsResult:
    return dl.DescribeLogDirsResult(
        KAFKA_STORAGE_ERROR if one.failure else NONE,
        one.path,
        [
            dl.DescribeLogDirsTopic(
                topic,
                [
                    dl.DescribeLogDirsPartition(replica.partition, replica.size)
                    for replica in replicas
                ],
            )
            for topic, replicas in _by_topic(one.replicas, wanted)
        ],
        usable_bytes=one.free_bytes,
    )


def _by_topic(
    replicas: Sequence[ReplicaSize], wanted: Mapping[str, frozenset[int]] | None
) -> Iterator[tuple[str, list[ReplicaSize]]]:
    """Yield the replicas that are asked for, by topic. `replicas` are in order."""
    for topic, held in groupby(replicas, key=lambda one: one.topic):
        found = [one for one in held if wanted is None or one.partition in wanted[topic]]
        if found:
            yield topic, found
