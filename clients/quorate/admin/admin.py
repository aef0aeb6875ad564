"""The administrator's door: topics, cluster, quorum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Annotated, Any, Self, cast

from quorate.admin import descriptions
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
from quorate.aio.owner import Owner
from quorate.cluster.cluster import METADATA_TIMEOUT_MS, Cluster
from quorate.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidRequestError,
    NetworkError,
    OutcomeUnknownError,
    QuorumUnavailableError,
    StreamBrokenError,
    WrongClusterError,
    raise_if_error,
)
from quorate.model import (
    BrokerDescription,
    ClusterDescription,
    ClusterHealth,
    ConfigDescription,
    FeatureDescription,
    LeadershipTransfer,
    NodeLevels,
    NodeTrouble,
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
from quorate.v1.admin_pb2 import MetadataRequest
from quorate.v1.common_pb2 import ErrorCode

#: A silent broker does not use up the time of the others.
ONE_BROKER_TIMEOUT_MS = 5000
#: How long a new topic is waited for at brokers that lag behind, and how often they are asked.
KNOWN_BY_ALL_S, KNOWN_AGAIN_S = 5.0, 0.02
#: After a broker found no controller; brokers themselves wait for one as long as they may.
TRY_AGAIN_S = 0.25

#: A call that ended so may have been carried out.
UNKNOWN_OUTCOMES = StreamBrokenError | DeadlineExceededError

NODE_ID = Whole(0, INT32_MAX, error=InvalidRequestError)
DIRECTORY_ID = Text(
    "of a voter's disk, as `quorate storage format --new-voter` printed it",
    pattern="[0-9a-f]{32}",
    allowed="32 hex digits",
    error=InvalidRequestError,
)


class Admin:
    """Administer a cluster. Calls that change something are sent once: if the answer is lost,
    they raise OutcomeUnknownError, and a repeat of create_topic with the same call is refused
    with TopicExistsError if the first one was carried out.
    """

    @checked
    def __init__(
        self,
        *,
        bootstrap_servers: Annotated[str | Sequence[str], SERVERS] = "localhost:7092",
        client_id: Annotated[str, CLIENT_ID] = "quorate-python",
        request_timeout_ms: Annotated[int, TIMEOUT_MS] = 30000,
        security: Annotated[object | None, SECURITY] = None,
    ) -> None:
        self._bootstrap = bootstrap_servers
        self._client_id = client_id
        self._timeout_ms = request_timeout_ms
        #: One from each stop to the next: it may be started again, in another loop too.
        self._owner = Owner("admin")
        self._starting = asyncio.Lock()
        self._cluster: Cluster | None = None

    async def start(self) -> None:
        """Connect; QuorumUnavailableError if nobody answers within request_timeout_ms."""
        owner = self._owner
        owner.bind()
        async with self._starting:
            self._check_not_stopped(owner)
            if self._cluster is not None:
                return
            cluster = Cluster(self._bootstrap, client_id=self._client_id, owner=owner)
            try:
                await cluster.start(timeout_ms=self._timeout_ms)
                self._check_not_stopped(owner)
            except BaseException:
                await cluster.stop()
                raise
            self._cluster = cluster

    def _check_not_stopped(self, owner: Owner) -> None:
        if self._owner is not owner:
            raise ClosedError("this admin was stopped while it started")

    async def stop(self) -> None:
        """Close; safe to call twice, and while it starts. It may be started again."""
        self._owner.check()
        cluster, self._cluster = self._cluster, None
        owner, self._owner = self._owner, Owner("admin")
        self._starting = asyncio.Lock()
        if cluster is not None:
            await cluster.stop()
        await owner.end_all()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

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

        Returns when every broker that answers knows them, so that whoever is told of a topic finds
        it. With validate_only nothing is created, and an empty list is returned.
        """
        cluster = self._running()
        deadline = self._deadline()
        request = wire.CreateTopicsRequest(
            topics=[new_topic_to_wire(topic, cluster.chance.randbytes(16)) for topic in topics],
            validate_only=validate_only,
            timeout_ms=self._timeout_ms,
        )
        # The topic ids are ours, so a repeat of this very request returns the first result.
        response = await self._call(methods.CREATE_TOPICS, request, deadline=deadline)
        for created in response.topics:
            raise_if_error(created.error)
        if validate_only:
            return []
        await self._known_by_all([created.topic_id for created in response.topics], deadline)
        names = [topic.name for topic in topics]
        described = await self._described(names, deadline)
        return [
            replace(described[name], warnings=tuple(created.warnings))
            for name, created in zip(names, response.topics, strict=True)
        ]

    async def _known_by_all(self, topic_ids: Sequence[bytes], deadline: float) -> None:
        """Wait until each broker knows these topics; one that does not answer is passed over."""
        cluster = self._running()
        loop = asyncio.get_running_loop()
        request = MetadataRequest(topic_ids=topic_ids)
        deadline = min(deadline, loop.time() + KNOWN_BY_ALL_S)

        async def known_by(endpoint: str) -> None:
            connection = cluster.connection(endpoint, "control")
            while (left_ms := int((deadline - loop.time()) * 1000)) > 0:
                try:
                    told = await connection.unary(
                        methods.METADATA, request, timeout_ms=min(left_ms, METADATA_TIMEOUT_MS)
                    )
                except (NetworkError, WrongClusterError):
                    return
                if not any(one.error.code for one in told.topics):
                    return
                await asyncio.sleep(KNOWN_AGAIN_S)

        await asyncio.gather(*map(known_by, dict.fromkeys(cluster.brokers.values())))

    @checked
    async def delete_topics(self, topics: Annotated[Iterable[str], Names()]) -> None:
        """Delete topics and all their records; UnknownTopicError if one is not there."""
        request = wire.DeleteTopicsRequest(topics=topics, timeout_ms=self._timeout_ms)
        response = await self._call(methods.DELETE_TOPICS, request, safe_to_repeat=False)
        for deleted in response.topics:
            raise_if_error(deleted.error)

    @checked
    async def list_topics(self, *, internal: Annotated[bool, Flag("too")] = False) -> list[str]:
        """Return the names of all topics, sorted; internal ones only if asked for."""
        response = await self._call(methods.DESCRIBE_TOPICS, wire.DescribeTopicsRequest())
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
        return await self._described(names, self._deadline())

    async def _described(
        self, names: Sequence[str], deadline: float
    ) -> dict[str, TopicDescription]:
        request = wire.DescribeTopicsRequest(topics=names)
        response = await self._call(methods.DESCRIBE_TOPICS, request, deadline=deadline)
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
        response = await self._call(
            methods.DESCRIBE_CONFIGS, wire.DescribeConfigsRequest(topic=topic or "")
        )
        raise_if_error(response.error)
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
        response = await self._call(methods.ALTER_CONFIGS, request, safe_to_repeat=False)
        raise_if_error(response.error)
        return tuple(response.warnings)

    # -- cluster and quorum ----------------------------------------------------------------------

    async def describe_cluster(self) -> ClusterDescription:
        """Return who is registered, and which voter is controller (-1: unknown)."""
        response = await self._call(methods.DESCRIBE_CLUSTER, wire.DescribeClusterRequest())
        raise_if_error(response.error)
        return ClusterDescription(
            response.cluster_id,
            response.controller,
            tuple(
                BrokerDescription(
                    one.broker_id,
                    one.rack,
                    one.host,
                    one.listener.endpoint,
                    one.fenced,
                    one.broker_epoch,
                )
                for one in response.brokers
            ),
        )

    async def describe_quorum(self) -> QuorumDescription:
        """Return the metadata quorum as its leader sees it; QuorumUnavailableError without one."""
        response = await self._call(methods.DESCRIBE_QUORUM, wire.DescribeQuorumRequest())
        raise_if_error(response.error)
        return QuorumDescription(
            response.leader,
            response.epoch,
            response.quorum_generation,
            response.high_watermark,
            tuple(map(descriptions.quorum_replica, response.voters)),
            tuple(map(descriptions.quorum_replica, response.observers)),
        )

    async def describe_health(self) -> ClusterHealth:
        """Return what is not well, as the controller sees it; QuorumUnavailableError without one.

        Voters that are not heard or behind, brokers that are fenced or shutting down, partitions
        without a leader, under min ISR or under-replicated.
        """
        request = wire.DescribeHealthRequest(timeout_ms=self._timeout_ms)
        response = await self._call(methods.DESCRIBE_HEALTH, request)
        raise_if_error(response.error)
        return ClusterHealth(
            response.controller,
            tuple(
                NodeTrouble(
                    "voter" if one.voter else "broker", one.id, one.endpoint, one.state, one.reason
                )
                for one in response.nodes
            ),
            descriptions.partition_trouble(response.offline),
            descriptions.partition_trouble(response.under_min_isr),
            descriptions.partition_trouble(response.under_replicated),
        )

    @checked
    async def unregister_broker(self, broker_id: Annotated[int, NODE_ID]) -> None:
        """Forget a broker that is gone for good; returns when that is committed.

        UnknownBrokerError if it is not registered; InvalidRequestError while its process is heard,
        or while partitions have replicas on it.
        """
        request = wire.UnregisterBrokerRequest(broker_id=broker_id)
        response = await self._call(methods.UNREGISTER_BROKER, request, safe_to_repeat=False)
        raise_if_error(response.error)

    async def describe_features(self) -> list[FeatureDescription]:
        """Return the features with the level in force, and which levels each node knows."""
        response = await self._call(methods.DESCRIBE_FEATURES, wire.DescribeFeaturesRequest())
        raise_if_error(response.error)
        return [
            FeatureDescription(
                one.name,
                one.level,
                tuple(
                    NodeLevels("voter" if n.voter else "broker", n.id, n.lowest, n.highest)
                    for n in one.nodes
                ),
            )
            for one in response.features
        ]

    @checked
    async def update_feature(
        self, name: Annotated[str, Text()], level: Annotated[int, Whole(0, INT32_MAX)]
    ) -> int:
        """Raise a feature of the whole cluster for good; return the level in force, safe to repeat.

        UnsupportedError names the registered brokers and voters that do not know the level;
        InvalidRequestError for a lower one than is in force.
        """
        request = wire.UpdateFeatureRequest(name=name, level=level)
        response = await self._call(methods.UPDATE_FEATURE, request)
        raise_if_error(response.error)
        return response.level

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
        response = await self._call(
            methods.TRANSFER_LEADERSHIP, request, safe_to_repeat=voter_id is not None
        )
        raise_if_error(response.error)
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
        response = await self._call(methods.ADD_VOTER, request)
        raise_if_error(response.error)
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
        response = await self._call(methods.REMOVE_VOTER, request)
        raise_if_error(response.error)
        gone = response.directory_id or named
        return VoterChange(voter_id, gone.hex(), response.already)

    # -- inside ----------------------------------------------------------------------------------

    def _running(self) -> Cluster:
        if self._cluster is None:
            raise ClosedError("this admin is not running; call start() or use `async with`")
        self._owner.check_alive()
        return self._cluster

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_ms / 1000

    async def _call(
        self,
        method: Method[Q, R],
        request: Q,
        *,
        safe_to_repeat: bool = True,
        deadline: float | None = None,
    ) -> R:
        """Ask until a broker answers that has found a controller, for request_timeout_ms in all."""
        cluster = self._running()
        loop = asyncio.get_running_loop()
        deadline = self._deadline() if deadline is None else deadline
        refused: R | None = None
        while True:
            left_ms = max(1, int((deadline - loop.time()) * 1000))
            try:
                response = await cluster.ask_any(
                    method,
                    request,
                    timeout_ms=left_ms,
                    one_broker_ms=ONE_BROKER_TIMEOUT_MS if safe_to_repeat else None,
                    safe_to_repeat=safe_to_repeat,
                )
            except (NetworkError, QuorumUnavailableError) as error:
                if refused is not None and (
                    safe_to_repeat or isinstance(error, QuorumUnavailableError)
                ):
                    return refused  # which says why
                if safe_to_repeat or not isinstance(error, UNKNOWN_OUTCOMES):
                    raise
                raise OutcomeUnknownError(
                    f"{method.path} was sent, and no answer came ({error}); "
                    "look whether it was carried out before you repeat it"
                ) from error
            if not _found_no_controller(response) or loop.time() + TRY_AGAIN_S >= deadline:
                return response
            refused = response
            await asyncio.sleep(TRY_AGAIN_S)


def _found_no_controller(response: Any) -> bool:
    """Whether the broker says that it could not reach a controller: then nothing was done."""
    errors = [one.error for one in getattr(response, "topics", ()) if hasattr(one, "error")]
    errors += [response.error] if hasattr(response, "error") else []
    return any(error.code == ErrorCode.ERROR_CODE_QUORUM_UNAVAILABLE for error in errors)
