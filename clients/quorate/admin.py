"""The administrator's door: topics, cluster, quorum."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from quorate.cluster import Cluster, no_security
from quorate.errors import (
    ClosedError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    NetworkError,
    OutcomeUnknownError,
    PeerError,
    PeerRefusedError,
    raise_if_error,
)
from quorate.methods import (
    ADD_VOTER,
    ALTER_CONFIGS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_FEATURES,
    DESCRIBE_QUORUM,
    DESCRIBE_TOPICS,
    REMOVE_VOTER,
    TRANSFER_LEADERSHIP,
    UPDATE_FEATURE,
)
from quorate.model import (
    BrokerDescription,
    ClusterDescription,
    FeatureDescription,
    LeadershipTransfer,
    NodeLevels,
    PartitionDescription,
    QuorumDescription,
    QuorumReplicaDescription,
    TopicDescription,
    VoterChange,
)
from quorate.network import Method, Q, R
from quorate.owner import Owner
from quorate.v1 import admin_pb2 as wire

INT32_MAX = (1 << 31) - 1  # what the wire can say; the controller knows the real bounds

ONE_BROKER_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """A topic to create; -1 means the cluster's default."""

    name: str
    num_partitions: int = -1
    replication_factor: int = -1
    configs: Mapping[str, str] = field(default_factory=dict)
    #: Explicit placement instead: the broker ids of each partition, the preferred leader first.
    assignments: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, slots=True)
class ConfigDescription:
    """A setting and where its value comes from: "topic", "cluster" or "default"."""

    name: str
    value: str
    source: str


class Admin:
    """Administer a cluster. Calls that change something are sent once: if the answer is lost,
    they raise OutcomeUnknownError, and a repeat of create_topic with the same call is refused
    with TopicExistsError if the first one was carried out.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str] = "localhost:7092",
        client_id: str = "quorate-python",
        request_timeout_ms: int = 30000,
        security: object | None = None,
    ) -> None:
        no_security(security)
        if request_timeout_ms <= 0:
            raise ValueError(f"request_timeout_ms must be above 0, not {request_timeout_ms}")
        self._bootstrap = bootstrap_servers
        self._client_id = client_id
        self._timeout_ms = request_timeout_ms
        self._owner = Owner("admin")
        self._cluster: Cluster | None = None

    async def start(self) -> None:
        """Connect; QuorumUnavailableError if nobody answers within request_timeout_ms."""
        if self._cluster is not None:
            return
        self._owner.bind()
        cluster = Cluster(self._bootstrap, client_id=self._client_id, owner=self._owner)
        try:
            await cluster.start(timeout_ms=self._timeout_ms)
        except BaseException:
            await cluster.stop()
            raise
        self._cluster = cluster

    async def stop(self) -> None:
        """Close."""
        self._owner.check()
        if self._cluster is not None:
            await self._cluster.stop()
            self._cluster = None
            self._owner = Owner("admin")  # it may be started again, in another loop too

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

    async def create_topic(
        self,
        name: str,
        num_partitions: int = -1,
        replication_factor: int = -1,
        configs: Mapping[str, str] | None = None,
        assignments: Sequence[Sequence[int]] = (),
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

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[TopicDescription]:
        """Create topics, each by itself; the first error is raised after all were tried.

        With validate_only nothing is created, and an empty list is returned.
        """
        cluster = self._running()
        request = wire.CreateTopicsRequest(
            topics=[_new_topic(topic, cluster.chance.randbytes(16)) for topic in topics],
            validate_only=validate_only,
            timeout_ms=self._timeout_ms,
        )
        # The topic ids are ours, so a repeat of this very request returns the first result.
        response = await self._call(CREATE_TOPICS, request, safe_to_repeat=True)
        for created in response.topics:
            raise_if_error(created.error)
        if validate_only:
            return []
        described = await self.describe_topics([topic.name for topic in topics])
        return [described[topic.name] for topic in topics]

    async def delete_topics(self, topics: Iterable[str]) -> None:
        """Delete topics and all their records; UnknownTopicError if one is not there."""
        request = wire.DeleteTopicsRequest(topics=_names(topics), timeout_ms=self._timeout_ms)
        response = await self._call(DELETE_TOPICS, request, safe_to_repeat=False)
        for deleted in response.topics:
            raise_if_error(deleted.error)

    async def list_topics(self, *, internal: bool = False) -> list[str]:
        """Return the names of all topics, sorted; internal ones only if asked for."""
        response = await self._call(DESCRIBE_TOPICS, wire.DescribeTopicsRequest())
        return sorted(
            one.topic.name for one in response.topics if internal or not one.topic.internal
        )

    async def describe_topics(
        self, topics: Iterable[str] | None = None
    ) -> dict[str, TopicDescription]:
        """Return topics by name, all of them by default; UnknownTopicError names a missing one."""
        names = [] if topics is None else _names(topics)
        if topics is not None and not names:
            return {}
        response = await self._call(DESCRIBE_TOPICS, wire.DescribeTopicsRequest(topics=names))
        found = {}
        for described in response.topics:
            raise_if_error(described.topic.error)
            found[described.topic.name] = _topic(described)
        return found

    async def describe_configs(self, topic: str | None = None) -> list[ConfigDescription]:
        """Return the settings in force for a topic, or the cluster's topic defaults."""
        response = await self._call(
            DESCRIBE_CONFIGS, wire.DescribeConfigsRequest(topic=topic or "")
        )
        raise_if_error(response.error)
        return [ConfigDescription(one.name, one.value, one.source) for one in response.entries]

    async def alter_configs(
        self,
        topic: str | None = None,
        *,
        set: Mapping[str, str] | None = None,  # the word that users know
        remove: Iterable[str] = (),
    ) -> None:
        """Change settings of a topic, or of the cluster's topic defaults if none is named."""
        request = wire.AlterConfigsRequest(topic=topic or "", set=set or {}, remove=list(remove))
        response = await self._call(ALTER_CONFIGS, request, safe_to_repeat=False)
        raise_if_error(response.error)

    # -- cluster and quorum ----------------------------------------------------------------------

    async def describe_cluster(self) -> ClusterDescription:
        """Return who is registered, and which voter is controller (-1: unknown)."""
        response = await self._call(DESCRIBE_CLUSTER, wire.DescribeClusterRequest())
        return ClusterDescription(
            response.cluster_id,
            response.controller,
            tuple(
                BrokerDescription(
                    one.broker_id, one.rack, one.host, one.endpoint, one.fenced, one.broker_epoch
                )
                for one in response.brokers
            ),
        )

    async def describe_quorum(self) -> QuorumDescription:
        """Return the metadata quorum as its leader sees it; QuorumUnavailableError without one."""
        response = await self._call(DESCRIBE_QUORUM, wire.DescribeQuorumRequest())
        raise_if_error(response.error)
        return QuorumDescription(
            response.leader,
            response.epoch,
            response.quorum_generation,
            response.high_watermark,
            tuple(map(_quorum_replica, response.voters)),
            tuple(map(_quorum_replica, response.observers)),
        )

    async def describe_features(self) -> list[FeatureDescription]:
        """Return the features with the level in force, and which levels each node knows."""
        response = await self._call(DESCRIBE_FEATURES, wire.DescribeFeaturesRequest())
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

    async def update_feature(self, name: str, level: int) -> int:
        """Raise a feature of the whole cluster for good; return the level in force, safe to repeat.

        UnsupportedError names the registered brokers and voters that do not know the level;
        InvalidRequestError for a lower one than is in force.
        """
        if not 0 <= level <= INT32_MAX:
            raise ValueError(f"a level is 0 to {INT32_MAX}, not {level}")
        request = wire.UpdateFeatureRequest(name=name, level=level)
        response = await self._call(UPDATE_FEATURE, request)
        raise_if_error(response.error)
        return response.level

    async def transfer_leadership(self, voter_id: int | None = None) -> LeadershipTransfer:
        """Give leadership of the quorum to that voter, or to the most caught-up one by default.

        Returns when it leads. To a named voter it is safe to repeat: one that leads already goes
        on, and the answer says so. InvalidRequestError for an id that is no voter's;
        OverloadedError (retriable) if it did not catch up in time, and the old leader goes on;
        QuorumUnavailableError without a leader.
        """
        named = None if voter_id is None else _voter_id(voter_id)
        request = wire.TransferLeadershipRequest(voter_id=named)
        response = await self._call(
            TRANSFER_LEADERSHIP, request, safe_to_repeat=voter_id is not None
        )
        raise_if_error(response.error)
        return LeadershipTransfer(response.leader, response.already)

    async def add_voter(self, voter_id: int, directory_id: str, endpoint: str) -> VoterChange:
        """Make a node that has caught up as an observer a voter; returns when that is committed.

        `directory_id` is the 32 hex digits that `quorate storage format --new-voter` printed. Safe
        to repeat; a voter that is there already moves to another endpoint. OverloadedError
        (retriable) until the node has caught up, and while another change is under way;
        InvalidRequestError if that id is a voter on another disk: remove it first.
        """
        request = wire.AddVoterRequest(
            voter_id=_voter_id(voter_id),
            directory_id=_directory_id(directory_id),
            endpoint=endpoint,
        )
        response = await self._call(ADD_VOTER, request)
        raise_if_error(response.error)
        return VoterChange(voter_id, directory_id, response.already)

    async def remove_voter(self, voter_id: int, directory_id: str | None = None) -> VoterChange:
        """Take a voter out of the quorum, also the one that leads; returns when it is committed.

        With `directory_id` only that disk of it; safe to repeat. OverloadedError (retriable) while
        another change is under way, or if a majority of those that would be left is not heard;
        InvalidRequestError for the only voter.
        """
        named = b"" if directory_id is None else _directory_id(directory_id)
        request = wire.RemoveVoterRequest(voter_id=_voter_id(voter_id), directory_id=named)
        response = await self._call(REMOVE_VOTER, request)
        raise_if_error(response.error)
        gone = response.directory_id or named
        return VoterChange(voter_id, gone.hex(), response.already)

    # -- inside ----------------------------------------------------------------------------------

    def _running(self) -> Cluster:
        if self._cluster is None:
            raise ClosedError("this admin is not running; call start() or use `async with`")
        self._owner.check_alive()
        return self._cluster

    async def _call(self, method: Method[Q, R], request: Q, *, safe_to_repeat: bool = True) -> R:
        cluster = self._running()
        timeout_ms = self._timeout_ms
        if safe_to_repeat:  # a broker that is silent does not use up the time of the others
            timeout_ms = min(timeout_ms, ONE_BROKER_TIMEOUT_MS)
        try:
            return await cluster.ask_any(
                method, request, timeout_ms=timeout_ms, safe_to_repeat=safe_to_repeat
            )
        except (PeerRefusedError, PeerError):
            raise
        except NetworkError as error:
            if safe_to_repeat:
                raise
            raise OutcomeUnknownError(
                f"{method.path} was sent, and no answer came ({error}); "
                "look whether it was carried out before you repeat it"
            ) from error


def _names(topics: Iterable[str]) -> list[str]:
    """Return names of topics; TypeError for one string, whose letters would be taken for names."""
    if isinstance(topics, str):
        raise TypeError(f"topics must be a list of names, not the string {topics!r}")
    return list(topics)


def _voter_id(voter_id: int) -> int:
    if not 0 <= voter_id <= INT32_MAX:
        raise InvalidRequestError(f"a voter's id is 0 to {INT32_MAX}, not {voter_id}")
    return voter_id


def _directory_id(text: str) -> bytes:
    if re.fullmatch("[0-9a-f]{32}", text) is None:
        raise InvalidRequestError(f"a directory id is 32 hex digits, not {text!r}")
    return bytes.fromhex(text)


def _new_topic(topic: NewTopic, topic_id: bytes) -> wire.NewTopic:
    if not -INT32_MAX <= topic.num_partitions <= INT32_MAX:
        raise InvalidPartitionsError(
            f"num_partitions must be 1 or more (-1: the cluster's default), "
            f"not {topic.num_partitions}, which is more than any cluster can hold"
        )
    if not -INT32_MAX <= topic.replication_factor <= INT32_MAX:
        raise InvalidReplicationFactorError(
            "replication_factor must be 1 to the number of brokers (-1: the cluster's default), "
            f"not {topic.replication_factor}"
        )
    return wire.NewTopic(
        name=topic.name,
        topic_id=topic_id,
        num_partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        configs=dict(topic.configs),
        assignments=[wire.ReplicaAssignment(replicas=list(one)) for one in topic.assignments],
    )


def _topic(described: wire.DescribedTopic) -> TopicDescription:
    topic = described.topic
    return TopicDescription(
        topic.name,
        topic.topic_id.hex(),
        tuple(
            PartitionDescription(
                one.partition,
                one.leader,
                one.leader_epoch,
                tuple(one.replicas),
                tuple(one.isr),
                tuple(one.elr),
            )
            for one in topic.partitions
        ),
        dict(described.configs),
        topic.internal,
    )


def _quorum_replica(one: wire.QuorumReplica) -> QuorumReplicaDescription:
    return QuorumReplicaDescription(
        one.id,
        one.directory_id.hex(),
        one.endpoint,
        one.log_end_offset,
        one.lag,
        one.last_caught_up_ms,
    )
