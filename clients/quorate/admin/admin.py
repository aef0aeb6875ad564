"""The admin as users see it: topics, cluster, quorum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, cast

from quorate.admin import controller_calls, descriptions, log_dirs
from quorate.admin import topics as topic_calls
from quorate.admin.drains import DrainCalls
from quorate.admin.elections import ElectionCalls
from quorate.admin.explanations import ExplanationCalls
from quorate.admin.group_calls import GroupCalls
from quorate.admin.new_topic import (
    COUNT,
    NEW_NAME,
    PARTITIONS,
    REPLICATION_FACTOR,
    Assignments,
    Configs,
    ConfigValue,
    NewTopic,
)
from quorate.admin.new_topic import to_wire as new_topic_to_wire
from quorate.admin.quorum_calls import NODE_ID
from quorate.admin.reassignments import ReassignmentCalls
from quorate.admin.records import Deletion
from quorate.aio.clock import Deadline
from quorate.aio.owner import Owner
from quorate.cluster.cluster import Cluster
from quorate.cluster.coordinators import Coordinators
from quorate.model import (
    ClusterDescription,
    ClusterHealth,
    ConfigDescription,
    FeatureDescription,
    LogDirDescription,
    TopicDescription,
    TopicPartition,
)
from quorate.net import methods
from quorate.settings import (
    CLIENT_ID,
    INT32_MAX,
    INT64_MAX,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    TOPIC,
    ByPartition,
    Flag,
    Names,
    SeveralOf,
    Text,
    Whole,
    checked,
)
from quorate.v1 import admin_pb2 as wire

#: The offset below which records are deleted.
BEFORE_OFFSET = Whole(-1, INT64_MAX, "offset of a record, or -1: the high watermark")


class Admin(GroupCalls, ElectionCalls, ReassignmentCalls, DrainCalls, ExplanationCalls):
    """Administers a cluster.

    delete_topics, alter_configs, unregister_broker, and transfer_leadership without a voter are
    sent once, and raise OutcomeUnknownError if the answer is lost. The client repeats all other
    calls. A second create_topic call of the program raises TopicExistsError if the first one was
    carried out.
    """

    _what: ClassVar[str] = "admin"

    @checked
    def __init__(
        self,
        *,
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        client_id: Annotated[str, CLIENT_ID] = "quorate-python",
        request_timeout_ms: Annotated[int, TIMEOUT_MS] = 30000,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        super().__init__(bootstrap_servers, client_id)
        self._timeout_ms = request_timeout_ms

    async def start(self) -> None:
        """Connect to the cluster.

        Raises QuorumUnavailableError if no broker answers within request_timeout_ms.
        """
        await self._start_once()

    async def _begin(self, cluster: Cluster, owner: Owner) -> None:
        await cluster.start(timeout_ms=self._timeout_ms)
        self._check_not_stopped(owner)
        self._cluster = cluster
        self._coordinators = Coordinators(cluster)

    async def stop(self) -> None:
        """Close the admin. It is safe to call this twice, and while the admin starts.

        The admin can be started again.
        """
        self._owner.check()
        cluster, self._cluster = self._cluster, None
        # The next start may be in another loop. A Lock and an Owner belong to one loop, so make new
        # ones.
        owner, self._owner = self._owner, Owner(self._what)
        self._starting = asyncio.Lock()
        if cluster is not None:
            await cluster.stop()
        await owner.end_all()

    async def _end(self) -> None:
        """Do nothing, because an admin has no background work."""

    # -- topics ----------------------------------------------------------------------------------

    @checked
    async def create_topic(
        self,
        name: Annotated[str, NEW_NAME],
        num_partitions: Annotated[int, PARTITIONS] = -1,
        replication_factor: Annotated[int, REPLICATION_FACTOR] = -1,
        configs: Annotated[Mapping[str, ConfigValue] | None, Configs()] = None,
        assignments: Annotated[Sequence[Sequence[int]], Assignments()] = (),
    ) -> TopicDescription:
        """Create a topic. Return it with the placement that the cluster chose.

        Raises TopicExistsError, InvalidTopicError, InvalidPartitionsError,
        InvalidReplicationFactorError or InvalidConfigError. Raises NotEnoughReplicasError
        (retriable) while fewer brokers are alive than replicas were asked for.
        """
        topic = NewTopic(
            name=name,
            num_partitions=num_partitions,
            replication_factor=replication_factor,
            configs=configs or {},
            assignments=assignments,
        )
        return (await self.create_topics([topic]))[0]

    @checked
    async def create_topics(
        self,
        topics: Annotated[Sequence[NewTopic], SeveralOf(NewTopic)],
        *,
        validate_only: Annotated[bool, Flag("create nothing")] = False,
    ) -> list[TopicDescription]:
        """Create topics, each independently of the others.

        Raise the first error after all were tried. Before it returns, the call waits until every
        broker that answers knows the topics, so that any client finds them. With validate_only the
        call creates nothing and returns an empty list.
        """
        cluster, deadline = self._running(), Deadline(self._timeout_ms)
        request = wire.CreateTopicsRequest(
            topics=[new_topic_to_wire(topic, cluster.chance.randbytes(16)) for topic in topics],
            validate_only=validate_only,
            timeout_ms=self._timeout_ms,
        )
        # The client chooses the topic ids. So if it sends this request again, the cluster returns
        # the first result and creates nothing twice.
        response = await self._ask(methods.CREATE_TOPICS, request, deadline=deadline)
        if validate_only:
            return []
        made = {created.topic_id: 1 for created in response.topics}
        await controller_calls.wait_until_known(cluster, made, deadline)
        names = [topic.name for topic in topics]
        described = await topic_calls.described(cluster, names, deadline)
        return [
            replace(described[name], warnings=tuple(created.warnings))
            for name, created in zip(names, response.topics, strict=True)
        ]

    @checked
    async def create_partitions(
        self,
        topic: Annotated[str, TOPIC],
        count: Annotated[int, COUNT],
        *,
        assignments: Annotated[Sequence[Sequence[int]], Assignments()] = (),
        validate_only: Annotated[bool, Flag("create nothing")] = False,
    ) -> TopicDescription:
        """Give a topic more partitions, `count` in all. Return the topic when all brokers know it.

        `assignments`: the broker ids of each new partition, with the preferred leader first; else
        the cluster chooses. Running producers and consumers use the new partitions within seconds.
        Consumers that have subscribed to the topic read them from their beginning. A record with a
        key may go to another partition than earlier records with this key.

        Raises InvalidPartitionsError if `count` is not above the present number, or too large;
        UnknownTopicError; PolicyViolationError for an internal topic; the errors of create_topic
        for assignments. After an OutcomeUnknownError or NotEnoughReplicasError the topic may have
        some of the new partitions, and the same call adds the others.
        """
        request = wire.CreatePartitionsRequest(
            topic=topic,
            count=count,
            assignments=[wire.ReplicaAssignment(replicas=list(one)) for one in assignments],
            validate_only=validate_only,
            timeout_ms=self._timeout_ms,
        )
        return await topic_calls.grown(self._running(), request, Deadline(self._timeout_ms))

    @checked
    async def delete_topics(self, topics: Annotated[Iterable[str], Names()]) -> None:
        """Delete topics and all their records. Raise UnknownTopicError if one does not exist."""
        request = wire.DeleteTopicsRequest(topics=topics, timeout_ms=self._timeout_ms)
        await self._ask(methods.DELETE_TOPICS, request, safe_to_repeat=False)

    @checked
    async def list_topics(self, *, internal: Annotated[bool, Flag("too")] = False) -> list[str]:
        """Return the names of all topics, sorted.

        The list has internal topics only with `internal`.
        """
        response = await self._ask(methods.DESCRIBE_TOPICS, wire.DescribeTopicsRequest())
        return sorted(
            one.topic.name for one in response.topics if internal or not one.topic.internal
        )

    @checked
    async def describe_topics(
        self, topics: Annotated[Iterable[str] | None, Names()] = None
    ) -> dict[str, TopicDescription]:
        """Return the named topics; None: all topics. UnknownTopicError names a missing topic."""
        names = [] if topics is None else list(topics)
        if topics is not None and not names:
            return {}
        return await topic_calls.described(self._running(), names, Deadline(self._timeout_ms))

    @checked
    async def describe_configs(
        self, topic: Annotated[str | None, TOPIC] = None
    ) -> list[ConfigDescription]:
        """Return the settings in force for a topic; None: the cluster's defaults for topics."""
        response = await self._ask(
            methods.DESCRIBE_CONFIGS, wire.DescribeConfigsRequest(topic=topic or "")
        )
        return [ConfigDescription(one.name, one.value, one.source) for one in response.entries]

    @checked
    async def alter_configs(
        self,
        topic: Annotated[str | None, TOPIC] = None,
        *,
        # shadows a built-in, but `set` is the usual word
        set: Annotated[Mapping[str, ConfigValue] | None, Configs()] = None,
        remove: Annotated[Iterable[str], Names()] = (),
    ) -> tuple[str, ...]:
        """Change settings of a topic; None: the cluster's defaults for topics.

        Returns one sentence for each setting that acts otherwise than it says.
        """
        request = wire.AlterConfigsRequest(
            topic=topic or "", set=cast(Mapping[str, str], set or {}), remove=remove
        )
        response = await self._ask(methods.ALTER_CONFIGS, request, safe_to_repeat=False)
        return tuple(response.warnings)

    @checked
    async def delete_records(
        self, before: Annotated[Mapping[TopicPartition, int], ByPartition(BEFORE_OFFSET)]
    ) -> dict[TopicPartition, int]:
        """Delete all records below an offset of each partition. Return the new start of each log.

        The offset -1 stands for the high watermark. Before it returns, the call waits until every
        replica whose broker is alive has deleted the records. The first error is raised after all
        partitions were tried. The call is safe to repeat, and an offset below the start of a log
        changes nothing. Raises OffsetOutOfRangeError for an offset above the high watermark. Raises
        RequestTimedOutError, which names the brokers that have not deleted the records yet.
        """
        return await Deletion(self._running(), before, Deadline(self._timeout_ms)).carry_out()

    # -- cluster ---------------------------------------------------------------------------------

    async def describe_cluster(self) -> ClusterDescription:
        """Return the registered brokers and the id of the controller (-1: unknown)."""
        response = await self._ask(methods.DESCRIBE_CLUSTER, wire.DescribeClusterRequest())
        return descriptions.cluster(response)

    @checked
    async def describe_log_dirs(
        self, topics: Annotated[Iterable[str] | None, Names()] = None
    ) -> list[LogDirDescription]:
        """Return the log directories of all brokers, with the replicas of these or all topics.

        For a broker that does not answer there is one directory without a path, whose `failure`
        says why.
        """
        return await log_dirs.describe(
            self._running(), list(topics or ()), Deadline(self._timeout_ms)
        )

    async def describe_health(self) -> ClusterHealth:
        """Return the troubles of the cluster, as the controller sees them.

        Of the voters: those that are not heard or are behind. Of the brokers: those that are
        fenced, shutting down or have a failed directory. Of the partitions: those that have no
        leader, are under min ISR or are under-replicated. Raises QuorumUnavailableError if there is
        no controller.
        """
        request = wire.DescribeHealthRequest(timeout_ms=self._timeout_ms)
        return descriptions.health(await self._ask(methods.DESCRIBE_HEALTH, request))

    @checked
    async def unregister_broker(self, broker_id: Annotated[int, NODE_ID]) -> None:
        """Forget a broker that is gone for good. Wait until the change is committed.

        Raises UnknownBrokerError if the broker is not registered. Raises InvalidRequestError while
        the broker's process sends heartbeats, or while partitions have replicas on the broker.
        """
        request = wire.UnregisterBrokerRequest(broker_id=broker_id)
        await self._ask(methods.UNREGISTER_BROKER, request, safe_to_repeat=False)

    async def describe_features(self) -> list[FeatureDescription]:
        """Return each feature: its level in force, and the levels that each node knows."""
        response = await self._ask(methods.DESCRIBE_FEATURES, wire.DescribeFeaturesRequest())
        return descriptions.features(response)

    @checked
    async def update_feature(
        self, name: Annotated[str, Text()], level: Annotated[int, Whole(0, INT32_MAX)]
    ) -> int:
        """Raise a feature's level for the whole cluster, for good. Return the level in force.

        The call is safe to repeat. Raises UnsupportedError, which names the registered brokers and
        voters that do not know the level. Raises InvalidRequestError if the level is lower than the
        one in force.
        """
        request = wire.UpdateFeatureRequest(name=name, level=level)
        return (await self._ask(methods.UPDATE_FEATURE, request)).level
