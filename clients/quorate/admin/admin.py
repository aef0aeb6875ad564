"""The admin as users see it: topics, cluster, quorum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, cast

from quorate.admin import controller_calls, descriptions
from quorate.admin.new_topic import (
    NEW_NAME,
    PARTITIONS,
    REPLICATION_FACTOR,
    Assignments,
    Configs,
    ConfigValue,
    NewTopic,
)
from quorate.admin.new_topic import to_wire as new_topic_to_wire
from quorate.aio.clock import Deadline
from quorate.aio.owner import Owner
from quorate.cluster.client import Client
from quorate.cluster.cluster import Cluster
from quorate.errors import InvalidRequestError, raise_if_error
from quorate.model import (
    ClusterDescription,
    ClusterHealth,
    ConfigDescription,
    FeatureDescription,
    LeadershipTransfer,
    QuorumDescription,
    TopicDescription,
    VoterChange,
)
from quorate.net import methods
from quorate.net.network import Method, Q, R
from quorate.settings import (
    CLIENT_ID,
    INT32_MAX,
    SECURITY,
    SERVERS,
    TIMEOUT_MS,
    TOPIC,
    Flag,
    Names,
    SeveralOf,
    Text,
    Whole,
    checked,
)
from quorate.v1 import admin_pb2 as wire

NODE_ID = Whole(0, INT32_MAX, error=InvalidRequestError)
DIRECTORY_ID = Text(
    "of a voter's disk, as `quorate storage format --new-voter` printed it",
    pattern="[0-9a-f]{32}",
    allowed="32 hex digits",
    error=InvalidRequestError,
)


class Admin(Client):
    """Administer a cluster. Calls that change something are sent once: if the answer is lost,
    they raise OutcomeUnknownError, and a repeat of create_topic with the same call is refused
    with TopicExistsError if the first one was carried out.
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
        """Connect; QuorumUnavailableError if no broker answers within request_timeout_ms."""
        await self._start_once()

    async def _begin(self, cluster: Cluster, owner: Owner) -> None:
        await cluster.start(timeout_ms=self._timeout_ms)
        self._check_not_stopped(owner)
        self._cluster = cluster

    async def stop(self) -> None:
        """Close; safe to call twice, and while it starts. It may be started again."""
        self._owner.check()
        cluster, self._cluster = self._cluster, None
        # It may be started again in another loop, so nothing of this life is kept.
        owner, self._owner = self._owner, Owner(self._what)
        self._starting = asyncio.Lock()
        if cluster is not None:
            await cluster.stop()
        await owner.end_all()

    async def _end(self) -> None:
        """Nothing of it works in the background."""

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
        """Create a topic and return it as it was placed.

        Raises TopicExistsError, InvalidTopicError, InvalidPartitionsError,
        InvalidReplicationFactorError, InvalidConfigError; NotEnoughReplicasError (retriable) while
        fewer brokers are alive than replicas are asked for.
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
        """Create topics, each by itself; the first error is raised after all were tried.

        Returns when every broker that answers knows them, so that any client that uses one finds
        it. With validate_only nothing is created, and an empty list is returned.
        """
        cluster, deadline = self._running(), Deadline(self._timeout_ms)
        request = wire.CreateTopicsRequest(
            topics=[new_topic_to_wire(topic, cluster.chance.randbytes(16)) for topic in topics],
            validate_only=validate_only,
            timeout_ms=self._timeout_ms,
        )
        # The topic ids are ours, so a repeat of this very request returns the first result.
        response = await self._ask(methods.CREATE_TOPICS, request, deadline=deadline)
        if validate_only:
            return []
        topic_ids = [created.topic_id for created in response.topics]
        await controller_calls.wait_until_known(cluster, topic_ids, deadline)
        names = [topic.name for topic in topics]
        described = await self._described(names, deadline)
        return [
            replace(described[name], warnings=tuple(created.warnings))
            for name, created in zip(names, response.topics, strict=True)
        ]

    @checked
    async def delete_topics(self, topics: Annotated[Iterable[str], Names()]) -> None:
        """Delete topics and all their records; UnknownTopicError if one is not there."""
        request = wire.DeleteTopicsRequest(topics=topics, timeout_ms=self._timeout_ms)
        await self._ask(methods.DELETE_TOPICS, request, safe_to_repeat=False)

    @checked
    async def list_topics(self, *, internal: Annotated[bool, Flag("too")] = False) -> list[str]:
        """Return the names of all topics, sorted; internal ones only if asked for."""
        response = await self._ask(methods.DESCRIBE_TOPICS, wire.DescribeTopicsRequest())
        return sorted(
            one.topic.name for one in response.topics if internal or not one.topic.internal
        )

    @checked
    async def describe_topics(
        self, topics: Annotated[Iterable[str] | None, Names()] = None
    ) -> dict[str, TopicDescription]:
        """Return topics by name, all of them by default; UnknownTopicError names a missing one."""
        names = [] if topics is None else list(topics)
        if topics is not None and not names:
            return {}
        return await self._described(names, Deadline(self._timeout_ms))

    async def _described(
        self, names: Sequence[str], deadline: Deadline
    ) -> dict[str, TopicDescription]:
        request = wire.DescribeTopicsRequest(topics=names)
        response = await self._ask(methods.DESCRIBE_TOPICS, request, deadline=deadline)
        found = {}
        for described in response.topics:
            raise_if_error(described.topic.error)
            found[described.topic.name] = descriptions.topic(described)
        return found

    @checked
    async def describe_configs(
        self, topic: Annotated[str | None, TOPIC] = None
    ) -> list[ConfigDescription]:
        """Return the settings in force for a topic, or the cluster's topic defaults."""
        response = await self._ask(
            methods.DESCRIBE_CONFIGS, wire.DescribeConfigsRequest(topic=topic or "")
        )
        return [ConfigDescription(one.name, one.value, one.source) for one in response.entries]

    @checked
    async def alter_configs(
        self,
        topic: Annotated[str | None, TOPIC] = None,
        *,
        set: Annotated[Mapping[str, ConfigValue] | None, Configs()] = None,  # users know the word
        remove: Annotated[Iterable[str], Names()] = (),
    ) -> tuple[str, ...]:
        """Change settings of a topic, or of the cluster's topic defaults if none is named.

        Returns a sentence for each that is kept and has no effect in this release.
        """
        request = wire.AlterConfigsRequest(
            topic=topic or "", set=cast(Mapping[str, str], set or {}), remove=remove
        )
        response = await self._ask(methods.ALTER_CONFIGS, request, safe_to_repeat=False)
        return tuple(response.warnings)

    # -- cluster and quorum ----------------------------------------------------------------------

    async def describe_cluster(self) -> ClusterDescription:
        """Return the registered brokers, and the voter that is controller (-1: unknown)."""
        response = await self._ask(methods.DESCRIBE_CLUSTER, wire.DescribeClusterRequest())
        return descriptions.cluster(response)

    async def describe_quorum(self) -> QuorumDescription:
        """Return the metadata quorum as its leader sees it; QuorumUnavailableError without one."""
        response = await self._ask(methods.DESCRIBE_QUORUM, wire.DescribeQuorumRequest())
        return descriptions.quorum(response)

    async def describe_health(self) -> ClusterHealth:
        """Return what is not well, as the controller sees it; QuorumUnavailableError without one.

        Voters that are not heard or behind, brokers that are fenced or shutting down, partitions
        without a leader, under min ISR or under-replicated.
        """
        request = wire.DescribeHealthRequest(timeout_ms=self._timeout_ms)
        return descriptions.health(await self._ask(methods.DESCRIBE_HEALTH, request))

    @checked
    async def unregister_broker(self, broker_id: Annotated[int, NODE_ID]) -> None:
        """Forget a broker that is gone for good; returns when that is committed.

        UnknownBrokerError if it is not registered; InvalidRequestError while its process is heard,
        or while partitions have replicas on it.
        """
        request = wire.UnregisterBrokerRequest(broker_id=broker_id)
        await self._ask(methods.UNREGISTER_BROKER, request, safe_to_repeat=False)

    async def describe_features(self) -> list[FeatureDescription]:
        """Return the features with the level in force, and which levels each node knows."""
        response = await self._ask(methods.DESCRIBE_FEATURES, wire.DescribeFeaturesRequest())
        return descriptions.features(response)

    @checked
    async def update_feature(
        self, name: Annotated[str, Text()], level: Annotated[int, Whole(0, INT32_MAX)]
    ) -> int:
        """Raise a feature of the whole cluster for good; return the level in force, safe to repeat.

        UnsupportedError names the registered brokers and voters that do not know the level;
        InvalidRequestError for a lower one than is in force.
        """
        request = wire.UpdateFeatureRequest(name=name, level=level)
        return (await self._ask(methods.UPDATE_FEATURE, request)).level

    @checked
    async def transfer_leadership(
        self, voter_id: Annotated[int | None, NODE_ID] = None
    ) -> LeadershipTransfer:
        """Give leadership of the quorum to that voter, or to the most caught-up one by default.

        Returns when it leads. To a named voter it is safe to repeat: one that leads already goes
        on, and the answer says so. InvalidRequestError for an id that is no voter's;
        OverloadedError (retriable) if it did not catch up in time, and the old leader goes on;
        QuorumUnavailableError without a leader.
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
        """Make a node that has caught up as an observer a voter; returns when that is committed.

        `directory_id` is the 32 hex digits that `quorate storage format --new-voter` printed. Safe
        to repeat; a voter that is there already moves to another endpoint. OverloadedError
        (retriable) until the node has caught up, and while another change is under way;
        InvalidRequestError if that id is a voter on another disk: remove it first.
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
        """Take a voter out of the quorum, also the one that leads; returns when it is committed.

        With `directory_id` only that disk of it; safe to repeat. OverloadedError (retriable) while
        another change is under way, or if a majority of those that would be left is not heard;
        InvalidRequestError for the only voter.
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
        """Return the answer, within request_timeout_ms in all; raise the error that it names."""
        cluster = self._running()
        self._owner.check_alive()
        deadline = deadline or Deadline(self._timeout_ms)
        return await controller_calls.ask(
            cluster, method, request, deadline, safe_to_repeat=safe_to_repeat
        )
